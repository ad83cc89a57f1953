"""The report of a ``fit``, ``adacompress.fit-report/1``: what was learnt and what it promises.

There is no comparison in it: the agent has seen or was certified on every photo at hand, so that
any figure would flatter it. Not here: measuring on other photos (``report``), how it looks
(``fit_page``). The schema of the JSON file is ``fit_report.schema.json`` beside this module.

    FitReport(...).write(Path("run"))      # run/fit.json, then run/fit.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_store import Manifest
from model_store.files import write_atomic, write_json
from training.measure import fit_page
from training.measure.report import PhotoSet

__all__ = ["SCHEMA", "FitReport"]

SCHEMA = "adacompress.fit-report/1"


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a fit has to say.

    Attributes:
        command: what the user typed.
        agent: as it was published.
        photos: ``train``, and ``calibration`` if there was any.
        rungs: rung name to its share of the calibration photos; empty without them.
        cost_usd: what the answers cost that this run bought.
        timings_s: stage to seconds.
    """

    command: str
    agent: Manifest
    photos: Mapping[str, PhotoSet]
    rungs: Mapping[str, float]
    cost_usd: float
    timings_s: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the document, plain JSON values only."""
        agent, learnt = self.agent, self.agent.training
        names = ("size_ratio", "wire_ratio", "agreement")
        seen = {name: agent.metrics[name] for name in names if name in agent.metrics}
        return {
            "schema": SCHEMA,
            "command": self.command,
            "seed": learnt["seed"],
            "agent": agent.id,
            "algorithm": agent.algorithm,
            "scenery": (agent.scenery or {}).get("name"),
            "backend": dict(agent.backend),
            "ladder": list(agent.ladder),
            "operating_points": list(agent.operating_points),
            "contest": learnt.get("contest"),
            "started": bool(learnt.get("started")),
            "photos": {name: asdict(photos) for name, photos in self.photos.items()},
            "on_calibration": seen or None,
            "rungs": dict(self.rungs),
            "labels_bought": learnt["labels_bought"],
            "cost_usd": self.cost_usd,
            "versions": dict(agent.versions),
            "timings_s": dict(self.timings_s),
        }

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``fit.json``, then ``fit.html``; return their paths.

        Their names leave those of an evaluation alone, which may go to the same folder.
        """
        document, page = self.to_json(), folder / "fit.html"
        write_json(folder / "fit.json", document)
        write_atomic(page, fit_page.render(document).encode())
        return folder / "fit.json", page
