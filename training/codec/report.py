"""The report of a feature codec, ``adacompress.codec-report/1``: bytes and agreement, beside JPEG.

page = CodecReport(...).write(Path("run"))      # report.json, report.html, rate.svg
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_store.files import write_atomic, write_json
from training.codec import page
from training.codec.measure import Measured
from training.codec.trial import Trial
from training.measure.markup import Json

__all__ = ["SCHEMA", "CodecReport", "print_rates"]

SCHEMA = "adacompress.codec-report/1"


@dataclass(frozen=True, kw_only=True)
class CodecReport:
    """What there is to say.

    Attributes:
        command: what the user typed.
        seed: of the whole run.
        trial: what was measured.
        timings_s: stage to seconds.
    """

    command: str
    seed: int
    trial: Trial
    timings_s: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the document, plain JSON values only."""
        trial, codec = self.trial, self.trial.document
        macs, device = codec["macs"], trial.device
        return {
            "schema": SCHEMA,
            "command": self.command,
            "seed": self.seed,
            "codec": {name: codec[name] for name in _NAMED},
            "photos": codec["provenance"]["photos"],
            "steps": codec["provenance"]["steps"],
            "reference_bytes": trial.reference_bytes,
            "rates": _settings(trial.curves["features"]),
            "calibration": _settings(trial.calibration),
            "chosen": {
                f"{target:g}": None if one is None else _reached(one)
                for target, one in trial.chosen.items()
            },
            "hindsight": {
                kind: {f"{target:g}": size for target, size in sizes.items()}
                for kind, sizes in trial.hindsight.items()
            },
            "curves": {kind: _settings(one) for kind, one in trial.curves.items()},
            "device": {
                **device,
                "macs": macs["device"],
                "classifier_macs": macs["classifier"],
                "reference_encode_ratio": device["device_ms"] / device["reference_ms"],
            },
            "segmentation": codec.get("segmentation"),
            "history": list(trial.history),
            "shown": list(trial.shown),
            "versions": codec["provenance"]["versions"],
            "timings_s": dict(self.timings_s),
        }

    def write(self, folder: Path) -> Path:
        """Write ``report.json``, ``rate.svg`` and ``report.html``; return the page's path."""
        document, drawn = self.to_json(), folder / "report.html"
        write_json(folder / "report.json", document)
        write_atomic(folder / "rate.svg", page.rate(document, "wide").encode())
        write_atomic(drawn, page.render(document).encode())
        return drawn


_NAMED = ("id", "classifier", "cut", "prefix", "shape", "limit", "rates", "entropy")


def print_rates(document: Json) -> str:
    """Return the terminal's table."""
    lines = ["rate   bytes  agreement"]
    for number, one in enumerate(document["rates"]):
        lines.append(f"{number:>4} {one['bytes']:>7.0f}  {one['agreement']:.3f}")
    count = document["photos"]["test"]["photos"]
    lines.append(f"means over {count} photos that the codec never saw, of whole streams")
    for target, one in document["chosen"].items():
        if one is None:
            lines.append(f"agreement {target}: no rate reaches it on the calibration photos")
            continue
        lines.append(
            f"agreement {target}: {one['bytes']:.0f} bytes (rates {one['low']} and {one['high']}, "
            f"chosen on the calibration photos; here {one['agreement']:.3f})"
        )
    if document["segmentation"]:
        scores = ", ".join(
            "–" if one is None else f"{one:.3f}" for one in document["segmentation"]["mean_iou"]
        )
        lines.append(f"segmentation, mean IoU of every rate: {scores}")
    return "\n".join(lines)


def _settings(one: Measured) -> list[dict[str, Any]]:
    sizes, agreed = one.mean()
    return [
        {"name": name, "bytes": float(size), "agreement": float(share)}
        for name, size, share in zip(one.names, sizes, agreed, strict=True)
    ]


def _reached(one: Any) -> dict[str, Any]:
    return {
        "bytes": one.size,
        "agreement": one.agreement,
        "photos": one.photos,
        **asdict(one.choice),
    }
