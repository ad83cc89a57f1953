"""The report of one run, ``adacompress.report/1``: what was measured, how, and what it means.

Not here: measuring (``evaluate``) and how it looks (``page``, ``figures``). The schema of the JSON
file is ``report.schema.json`` beside this module.

    paths = Report(...).write(Path("run"))      # run/report.json, then run/report.html
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from edge_sdk.policy import OperatingPoint
from model_store.errors import UsageError
from model_store.files import write_atomic, write_json
from training.learn.provenance import fingerprint
from training.measure import baselines, page
from training.measure.confidence import ConfidenceBin
from training.measure.cost import Cost, Prices
from training.measure.evaluate import PolicyResult
from training.measure.failures import Failures
from training.measure.intervals import Interval
from training.measure.noise import Noise
from training.measure.opponents import Opponent
from training.measure.study import Study
from training.measure.uploads import Uploads
from training.measure.verdict import Verdict

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = [
    "SCHEMA",
    "TIMELINE",
    "CurvePoint",
    "PhotoSet",
    "Report",
    "agent_curve",
    "fixed_curve",
    "opponent_curve",
    "photo_set",
    "print_table",
    "rung_shares",
]

SCHEMA = "adacompress.report/1"

#: Columns of the timeline, one value per image of the stream each.
TIMELINE = (
    "image",
    "scenery",
    "state",
    "p_est",
    "accuracy",
    "wire_bytes",
    "reference_wire_bytes",
    "rung",
    "agent_id",
)


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """One part of the split: how many photos and views, and a fingerprint of their contents."""

    photos: int
    views: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a rate-agreement curve; ``name`` is a rung's, a setting's or the trade-off."""

    name: str
    size_ratio: float
    agreement: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a run has to say; sizes are bytes, times what their names say.

    Attributes:
        command: what the user typed.
        seed: of the whole run.
        photos: ``train``, ``calibration`` and ``test``.
        backend: ``{name, model_version, min_score}``.
        ladder: the agent's rungs, cheapest first.
        operating_point: the trade-off with its certificate.
        policies: from ``evaluate.evaluate_policies``.
        gap_closed: policy to its gap closed, None where there is no gap.
        verdict: from ``verdict.judge``, against the fixed rungs of the agent's own ladder.
        quality_verdict: the same against the paper's ten qualities, or None.
        labels_bought: answers paid for, over the whole run.
        cost_usd: what they cost.
        curve: ``fixed_paper``, ``fixed``, ``agent``, and those of opponents that were asked for.
        sceneries: scenery to {rung name: share of its pictures}.
        timeline: the columns of ``TIMELINE``, or None if no stream was run.
        versions: package or code name to version.
        timings_s: stage to seconds.
        decision_ms: median time to choose a rung, None where no device did.
        encode_ms: median time to encode the reference.
        synthetic: one sentence for everything that was made up, such as a camera model.
        metric: the agreement that target, oracle, curves and verdict are about.
        confidence: the agent by the reference's score, from ``confidence.by_confidence``.
        noise: the service's agreement with itself, or None if nobody asked.
        cost: what the agent saves, or None where no prices were given.
        uploads: what an image puts on the wire, or None.
        prices: those that are known, for the calculator.
        failures: the agent's worst, or None if nobody looked.
        study: many agents learnt alike, or None.
    """

    command: str
    seed: int
    photos: Mapping[str, PhotoSet]
    backend: Mapping[str, Any]
    ladder: Ladder
    operating_point: OperatingPoint
    policies: Mapping[str, PolicyResult]
    gap_closed: Mapping[str, Interval | None]
    verdict: Verdict
    labels_bought: int
    cost_usd: float
    curve: Mapping[str, Sequence[CurvePoint]]
    sceneries: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, str]
    timings_s: Mapping[str, float]
    decision_ms: float | None = None
    encode_ms: float | None = None
    timeline: Mapping[str, Sequence[Any]] | None = None
    synthetic: Sequence[str] = field(default_factory=tuple)
    metric: str = "any_hit"
    quality_verdict: Verdict | None = None
    confidence: Sequence[ConfidenceBin] = ()
    noise: Noise | None = None
    cost: Cost | None = None
    study: Study | None = None
    uploads: Uploads | None = None
    prices: Prices | None = None
    failures: Failures | None = None

    def __post_init__(self) -> None:
        if self.timeline is None:
            return
        lengths = {name: len(self.timeline.get(name, ())) for name in TIMELINE}
        if set(self.timeline) != set(TIMELINE) or len(set(lengths.values())) != 1:
            raise UsageError(
                f"The timeline has columns {sorted(self.timeline)} of lengths {lengths}; allowed "
                f"are exactly {', '.join(TIMELINE)}, all of one length."
            )

    def to_json(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return the document of schema ``adacompress.report/1``, plain JSON values only.

        Args:
            pictures: with those of the failures; a terminal has no use for them.
        """
        document: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "command": self.command,
                "seed": self.seed,
                "metric": self.metric,
                "photos": {name: asdict(photos) for name, photos in self.photos.items()},
                "backend": self.backend,
                "ladder": [rung.as_dict() for rung in self.ladder],
                "operating_point": self.operating_point.as_dict(),
                "policies": {name: result.as_dict() for name, result in self.policies.items()},
                "gap_closed": {
                    name: closed and closed.as_dict() for name, closed in self.gap_closed.items()
                },
                "verdict": self.verdict.as_dict(),
                "quality_verdict": self.quality_verdict and self.quality_verdict.as_dict(),
                "by_confidence": [one.as_dict() for one in self.confidence],
                "noise": self.noise and self.noise.as_dict(),
                "cost": self.cost and self.cost.as_dict(),
                "study": self.study and self.study.as_dict(),
                "uploads": self.uploads and self.uploads.as_dict(),
                "prices": self.prices and asdict(self.prices),
                "failures": self.failures and self.failures.as_dict(pictures=pictures),
                "labels_bought": self.labels_bought,
                "cost_usd": self.cost_usd,
                "decision_ms": self.decision_ms,
                "encode_ms": self.encode_ms,
                "decision_encode_ratio": self._ratio(),
                "curve": {name: [asdict(p) for p in points] for name, points in self.curve.items()},
                "sceneries": self.sceneries,
                "timeline": self.timeline,
                "versions": self.versions,
                "timings_s": self.timings_s,
                "synthetic": self.synthetic,
            }
        )
        return document

    def _ratio(self) -> float | None:
        if self.decision_ms is None or self.encode_ms is None:
            return None
        return self.decision_ms / self.encode_ms

    def to_html(self) -> str:
        """Return one self-contained page.

        Raises:
            EnvironmentMissing: matplotlib is not installed.
        """
        return page.render(self.to_json(), [rung.name for rung in self.ladder])

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``report.json``, then ``report.html``; return their paths.

        The main figures are also left as ``curve.svg``, ``timeline.svg`` and ``learning.svg``.
        """
        document, drawing = folder / "report.json", folder / "report.html"
        write_json(document, self.to_json())
        write_atomic(drawing, self.to_html().encode())
        for name, svg in page.main_figures(self.to_json()).items():
            write_atomic(folder / f"{name}.svg", svg.encode())
        return document, drawing


def fixed_curve(table: AnswerTable, *, metric: str = "any_hit") -> tuple[CurvePoint, ...]:
    """Return size ratio and agreement of every fixed rung."""
    places = baselines.fixed_points(table, metric=metric)[:-1]
    return tuple(
        CurvePoint(name=rung.name, size_ratio=float(size), agreement=float(agreement))
        for rung, (size, agreement) in zip(table.ladder, places, strict=True)
    )


def opponent_curve(opponent: Opponent, *, metric: str = "any_hit") -> tuple[CurvePoint, ...]:
    """Return size ratio and agreement of every setting of an opponent."""
    places = {setting: opponent.place(setting, metric) for setting in opponent.choices}
    return tuple(
        CurvePoint(name=setting, size_ratio=size, agreement=agreement)
        for setting, (size, agreement) in places.items()
    )


def agent_curve(
    table: AnswerTable,
    choices: Mapping[float, NDArray[np.int64]],
    *,
    metric: str = "any_hit",
) -> tuple[CurvePoint, ...]:
    """Return size ratio and agreement of the agent at every trade-off λ of ``choices``."""
    return tuple(
        CurvePoint(
            name=f"λ={trade_off:g}",
            size_ratio=float(baselines.chosen(table.size_ratio, rungs).mean()),
            agreement=float(baselines.chosen(table.agreement[metric], rungs).mean()),
        )
        for trade_off, rungs in sorted(choices.items())
    )


def photo_set(table: AnswerTable) -> PhotoSet:
    """Return what a table's pictures are."""
    photos = len(set(table.groups))
    return PhotoSet(photos=photos, views=len(table.keys), fingerprint=fingerprint([table]))


def rung_shares(names: Iterable[str]) -> dict[str, float]:
    """Return the share of each rung among the rungs that were used."""
    counts = Counter(names)
    return {name: count / counts.total() for name, count in sorted(counts.items())}


def print_table(results: Mapping[str, PolicyResult], *, metric: str = "any_hit") -> str:
    """Return the terminal's table, at most 100 columns wide; fixed rungs only at their best."""
    rows = [["policy", "size ratio", "wire ratio", f"agreement ({metric})", "calls"]]
    for name, title in page.TITLES.items():
        if name in results:
            result = results[name]
            figures = (result.size_ratio, result.wire_ratio, result.agreement[metric])
            rung = f" ({result.rung})" if result.rung else ""
            calls = f"{result.calls_per_image.mean:.2f}"  # its interval would be a column too wide
            rows.append([title + rung, *map(_cell, figures), calls])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, "mean [95 % interval over photos], on photos the agent never saw"])


def _cell(figure: Interval) -> str:
    if figure.lo == figure.hi:
        return f"{figure.mean:.3f}"
    lo, hi = (f"{end:.3f}".removeprefix("0") for end in (figure.lo, figure.hi))
    return f"{figure.mean:.3f} [{lo}–{hi}]"


def _plain(value: Any) -> Any:
    """Copy ``value`` as JSON values: arrays become lists, numpy's numbers Python's.

    Raises:
        UsageError: a number is not finite, which JSON cannot carry.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"The report holds the number {value}; allowed are finite numbers.")
    return value
