"""Fig. 8: upload size over the benchmark's, while the agent learns and once it has.

While it learns, every picture is uploaded twice: its reference, and the encoding that is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.measure.intervals import Interval
from training.measure.style import BLACK
from training.reproduce.cases import Case, Request
from training.reproduce.exhibit import LOOKS, PANEL, Exhibit, drawn

__all__ = ["overhead"]

#: Steps that a point of the curve is the mean of.
_WINDOW = 50
#: Pictures of the inference phase that are drawn.
_AFTER = 400


def overhead(cases: Sequence[Case], request: Request) -> Exhibit:
    """Draw and count both phases for every case."""
    curves = {case.title: _curve(case, request) for case in cases}
    rows = [
        {"case": title, "step": step + 1, "phase": phase, "size_over_benchmark": round(value, 4)}
        for title, (training, inference) in curves.items()
        for phase, values, start in (
            ("training", training, 0),
            ("inference", inference, len(training)),
        )
        for step, value in enumerate(values.tolist(), start)
    ]
    facts = {case.title: _facts(case, request) for case in cases}
    svg, png = drawn("figure8", 0.8 + 1.6 * PANEL, lambda figure: _draw(figure, curves))
    return Exhibit(
        name="figure8",
        title="Fig. 8: size overhead in the training and inference phase",
        caption=_caption(cases, curves, facts),
        rows=rows,
        svg=svg,
        png=png,
        facts=facts,
    )


def _curve(case: Case, request: Request) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bytes over the reference's at every training step, then of unseen pictures."""
    size = case.paper().size
    order = request.rng().integers(len(size), size=_AFTER)
    return 1.0 + np.array(case.trace.size_ratio), size[order]


def _facts(case: Case, request: Request) -> dict[str, Any]:
    training = 1.0 + np.array(case.trace.size_ratio)
    inference = case.draws(request.rng()).figures(case.paper().size[:, None])[0]
    extra, saved = float(np.sum(training - 1.0)), 1.0 - inference.mean
    return {
        "training": float(training.mean()),
        "training_first_100": float(training[:100].mean()),
        "training_last_100": float(training[-100:].mean()),
        "inference": inference.as_dict(),
        "steps": len(training),
        "repaid_after": extra / saved if saved > 0 else None,
    }


def _caption(
    cases: Sequence[Case],
    curves: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    steps = len(next(iter(curves.values()))[0])
    said = []
    for case in cases:
        mine = facts[case.title]
        inference = Interval(**mine["inference"])
        repaid = mine["repaid_after"]
        later = f"repaid after {repaid:.0f} more pictures" if repaid is not None else "never repaid"
        said.append(
            f"{case.title}: {mine['training']:.2f} while learning "
            f"({mine['training_last_100']:.2f} at the end), then {inference.mean:.3f} "
            f"[{inference.lo:.3f}–{inference.hi:.3f}] on {len(case.test)} unseen photos, {later}"
        )
    return (
        "Bytes uploaded over the benchmark’s (JPEG quality 75), the mean of "
        f"{_WINDOW} pictures in a row. Algorithm 1 runs {steps} steps and uploads the reference "
        "besides each try; then only the chosen encoding is sent, of unseen photos in random "
        f"order. {'; '.join(said)}. 95 % intervals over photos."
    )


def _draw(figure: Any, curves: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    for (title, (training, inference)), (colour, _), line in zip(
        curves.items(), LOOKS * 3, ("-", "--", "-.", ":") * 5, strict=False
    ):
        # Nothing between the phases: a mean over both of them would be of neither.
        learnt, sent = _smooth(training), _smooth(inference)
        both = np.concatenate([learnt, [np.nan], sent])
        steps = np.concatenate(
            [
                np.arange(len(learnt)) + _WINDOW,
                [len(training)],
                np.arange(len(sent)) + len(training) + _WINDOW,
            ]
        )
        axes.plot(steps, both, color=colour, linestyle=line, label=title)
    last = len(next(iter(curves.values()))[0])
    axes.axvline(last, color=BLACK, lw=0.8, ls=":")
    axes.axhline(1.0, color=BLACK, lw=1.0, ls="--")
    axes.annotate("benchmark", (8, 1.0), (0, 3), textcoords="offset points", size=8)
    axes.annotate("learning", (last, 0.06), (-6, 0), textcoords="offset points", ha="right")
    axes.annotate("inference", (last, 0.06), (6, 0), textcoords="offset points")
    axes.set_xlabel("picture")
    axes.set_ylabel("bytes uploaded / benchmark’s")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, last + _AFTER)
    axes.legend(loc="upper right")


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.convolve(values, np.full(_WINDOW, 1.0 / _WINDOW), mode="valid")
