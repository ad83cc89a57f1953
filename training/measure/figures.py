"""The report's figures as SVG texts.

Every figure takes plain JSON values and comes in two widths, because a drawing for a desk cannot
be read on a phone by shrinking it. Colours are Okabe and Ito's, and nothing is told by colour
alone. Not here: the style they share (``style``), and what is said about them (``page``).

    svg = rate_agreement(document["curve"], document["policies"], target=0.95, width="narrow")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.measure.baselines import lower_hull
from training.measure.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTHS,
    Sheet,
    Width,
    short,
)

__all__ = ["STATES", "chosen_rungs", "moving_average", "rate_agreement", "timeline"]

#: More points than this cannot be told apart on a page.
MOST_POINTS = 1000
#: With more changes than this the sceneries are mixed, and lines would hide the figure.
MOST_CHANGES = 24

STATES = ("inference", "estimation", "querying", "retraining")

#: Policy: title, colour, marker, marker size.
_POINTS: Mapping[str, tuple[str, str, str, float]] = {
    "reference": ("reference", BLACK, "X", 7),
    "best_fixed": ("best fixed rung", BLUE, "s", 7),
    "dqn": ("paper DQN", PURPLE, "^", 8),
    "agent": ("our agent", VERMILLION, "D", 8),
    "oracle": ("oracle", GREEN, "P", 8),
}

_BARS = ((BLUE, ""), (ORANGE, "///"), (GREEN, "..."), (PURPLE, "xxx"))


def rate_agreement(
    curve: Mapping[str, Sequence[Mapping[str, Any]]],
    policies: Mapping[str, Mapping[str, Any]],
    *,
    metric: str = "any_hit",
    target: float | None = None,
    width: Width = "wide",
) -> str:
    """Draw agreement over size ratio: fixed rungs, the agent's trade-offs, and single policies.

    Args:
        curve: ``fixed_paper``, ``fixed`` and ``agent``, each a list of {size_ratio, agreement}.
        policies: the report's policies; those without a marker of their own are left out.
        metric: which agreement of the policies is drawn.
        target: agreement asked for, drawn as a line.
        width: for which screen.
    """
    with Sheet("rate", width, height=5.0 if width == "wide" else 5.6) as sheet:
        axes = sheet.figure.subplots()
        _fixed_curve(axes, curve["fixed_paper"], "fixed, paper’s qualities", GREY, "o", ":")
        _fixed_curve(axes, curve["fixed"], "fixed, agent’s ladder", BLUE, "s", "--")
        _agent_curve(axes, curve["agent"])
        floor = _policy_points(axes, policies, metric)
        if target is not None:
            axes.axhline(target, color=BLACK, linewidth=0.9, linestyle=(0, (1, 3)), label="target")
        axes.set_ylim(floor, 1 + 0.04 * (1 - floor))
        axes.set_xlabel("bytes uploaded / bytes of the reference")
        start = "" if floor == 0 else f"; axis starts at {floor:g}"
        axes.set_ylabel(f"agreement ({metric}){start}")
        if width == "wide":
            axes.legend(loc="lower right", borderaxespad=1.0, labelspacing=0.6)
        else:
            sheet.figure.legend(loc="outside lower center", ncols=2)
        return sheet.svg()


def chosen_rungs(
    sceneries: Mapping[str, Mapping[str, float]],
    rungs: Sequence[str],
    *,
    width: Width = "wide",
) -> str:
    """Draw which share of each scenery's pictures went out at which rung.

    Args:
        sceneries: scenery to {rung name: share}; names besides ``rungs`` are drawn last.
        rungs: the ladder's names, cheapest first.
        width: for which screen.
    """
    others = [name for shares in sceneries.values() for name in shares if name not in rungs]
    names = [*rungs, *dict.fromkeys(others)]
    columns = min(4 if width == "wide" else 2, len(sceneries)) or 1
    lines = -(-len(sceneries) // columns) or 1
    top = max((share for shares in sceneries.values() for share in shares.values()), default=1.0)
    with Sheet("rungs", width, height=0.7 + lines * (0.5 + 0.24 * len(names))) as sheet:
        grid = sheet.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        room = int(12 * WIDTHS[width] / columns) - 8
        for index, (scenery, shares) in enumerate(sceneries.items()):
            values = [shares.get(name, 0.0) for name in names]
            _bars(panels[index], values, *_BARS[index % len(_BARS)])
            panels[index].set_title(short(scenery, room), loc="left", weight="bold", size=9)
            panels[index].tick_params(axis="x", labelbottom=index + columns >= len(sceneries))
        for panel in panels[len(sceneries) :]:
            panel.set_visible(False)
        panels[0].set_yticks(range(len(names)), [short(name, 18) for name in names])
        panels[0].invert_yaxis()
        ticks = np.arange(0, 1.01, 0.5 if top > 0.6 else 0.2 if top > 0.25 else 0.1)
        panels[0].set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
        panels[0].set_xlim(0, 1.3 * top or 1.0)
        sheet.figure.supxlabel("share of the scenery’s pictures", fontsize=9)
        return sheet.svg()


def timeline(columns: Mapping[str, Sequence[Any]], *, width: Width = "wide") -> str:
    """Draw the stream as the paper's Fig. 12 does: accuracy and p_est, states, upload size.

    Args:
        columns: the report's timeline: image, scenery, state, p_est, accuracy, wire_bytes and
            reference_wire_bytes, one value per image.
        width: for which screen.
    """
    images = np.asarray(columns["image"], dtype=np.float64)
    window = max(5, len(images) // 40)
    with Sheet("timeline", width, height=6.4) as sheet:
        upper, lanes, lower = sheet.figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.15, 2.6))
        _share_lines(upper, images, columns, window)
        _state_lanes(lanes, images, columns["state"])
        _upload_lines(lower, images, columns, window)
        lower.set_xlabel(f"image number (accuracy, upload: mean of last {window})")
        lower.set_xlim(images[0] - 0.5, images[-1] + 0.5)
        retrains = np.asarray(columns["state"]) == "retraining"
        for axes in (upper, lower):
            _shade(axes, images, retrains)
        _scenery_marks((upper, lanes, lower), images, columns["scenery"], int(10.6 * WIDTHS[width]))
        sheet.figure.align_ylabels([upper, lower])
        return sheet.svg()


def moving_average(
    values: Sequence[float] | NDArray[np.float64], window: int
) -> NDArray[np.float64]:
    """Return the mean of the last ``window`` values at each place, of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _fixed_curve(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    title: str,
    colour: str,
    marker: str,
    line: str,
) -> None:
    """Draw the rungs, and as a line what mixing them reaches at best."""
    if not points:
        return
    places = np.array([[point["size_ratio"], point["agreement"]] for point in points])
    hull = lower_hull(np.vstack([places, [1.0, 1.0]]))
    axes.plot(*hull.T, color=colour, linestyle=line, zorder=2)
    axes.plot(*places.T, color=colour, marker=marker, markersize=3.6, linestyle="", zorder=2)
    axes.plot([], [], color=colour, linestyle=line, marker=marker, markersize=3.6, label=title)


def _agent_curve(axes: Any, points: Sequence[Mapping[str, Any]]) -> None:
    if not points:
        return
    ordered = sorted(points, key=lambda point: (point["size_ratio"], point["agreement"]))
    places = np.array([[point["size_ratio"], point["agreement"]] for point in ordered])
    axes.plot(*places.T, color=VERMILLION, zorder=3, label="our agent, all trade-offs")


def _policy_points(axes: Any, policies: Mapping[str, Mapping[str, Any]], metric: str) -> float:
    """Draw the policies with their intervals; return where the agreement axis should start.

    The axes hold every policy that is drawn, with its interval.
    """
    lowest, largest = 1.0, 1.0
    for name, (title, colour, marker, size) in _POINTS.items():
        if name not in policies:
            continue
        x, y = policies[name]["size_ratio"], policies[name]["agreement"][metric]
        lowest, largest = min(lowest, y["lo"]), max(largest, x["hi"])
        axes.errorbar(
            [x["mean"]],
            [y["mean"]],
            xerr=_arms(x),
            yerr=_arms(y),
            color=colour,
            linestyle="",
            elinewidth=1.2,
            capsize=2.5,
            zorder=4,
        )
        axes.plot(
            [x["mean"]],
            [y["mean"]],
            color=colour,
            marker=marker,
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linestyle="",
            zorder=6 if name == "agent" else 5,
            label=title,
        )
    axes.set_xlim(0, 1.06 * largest)
    return max(0.0, np.floor((lowest - 0.06) * 20) / 20)


def _arms(figure: Mapping[str, float]) -> list[list[float]]:
    # An interval of a ratio need not hold its point; an arm cannot be negative.
    return [[max(0.0, figure["mean"] - figure["lo"])], [max(0.0, figure["hi"] - figure["mean"])]]


def _bars(axes: Any, values: Sequence[float], colour: str, hatch: str) -> None:
    axes.barh(range(len(values)), values, color=colour, hatch=hatch, edgecolor="white", height=0.74)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    for place, value in enumerate(values):
        if value > 0:
            text = f"{100 * value:.0f} %" if value >= 0.005 else "< 1 %"
            axes.annotate(
                text, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8
            )


def _share_lines(
    axes: Any, images: NDArray[np.float64], columns: Mapping[str, Sequence[Any]], window: int
) -> None:
    accuracy = moving_average(columns["accuracy"], window)
    axes.plot(*_thin(images, accuracy), color=BLUE, label="accuracy (true, by oracle)")
    p_est = np.asarray(columns["p_est"], dtype=np.float64)
    axes.plot(*_thin(images, p_est), color=VERMILLION, linestyle="--", linewidth=1.3, label="p_est")
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("accuracy, p_est")
    _legend_below(axes)


def _upload_lines(
    axes: Any, images: NDArray[np.float64], columns: Mapping[str, Sequence[Any]], window: int
) -> None:
    reference = moving_average(columns["reference_wire_bytes"], window) / 1024
    ours = moving_average(columns["wire_bytes"], window) / 1024
    axes.plot(
        *_thin(images, reference), color=BLACK, linestyle="--", linewidth=1.3, label="benchmark"
    )
    axes.plot(*_thin(images, ours), color=GREEN, label="AdaCompress")
    axes.set_ylim(bottom=0, top=1.12 * max(reference.max(), ours.max()))
    axes.set_ylabel("upload, KiB per image")
    _legend_below(axes)


def _legend_below(axes: Any) -> None:
    # Beside the lines there is always one place too few; above them there is one line for it.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)


def _state_lanes(axes: Any, images: NDArray[np.float64], states: Sequence[str]) -> None:
    """Draw one lane per state; its place tells the state, in any colour and in grey."""
    names = [*STATES, *sorted(set(states) - set(STATES))]
    colours = dict(zip(STATES, (GREEN, SKY, ORANGE, VERMILLION), strict=True))
    for lane, name in enumerate(names):
        spans = _spans(images, np.asarray(states) == name)
        axes.broken_barh(spans, (lane - 0.38, 0.76), color=colours.get(name, GREY), linewidth=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _shade(axes: Any, images: NDArray[np.float64], marked: NDArray[np.bool_]) -> None:
    for start, length in _spans(images, marked):
        axes.axvspan(start, start + length, color=ORANGE, alpha=0.16, linewidth=0, zorder=0)


def _scenery_marks(
    panels: Sequence[Any], images: NDArray[np.float64], sceneries: Sequence[str], room: int
) -> None:
    """Draw a line through all panels where the scenery changes, and name what is between.

    A stretch with no room for a name gets none; ``room`` is in letters, for all of the width.
    """
    names = np.asarray(sceneries, dtype=object)
    changes = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    if len(changes) > MOST_CHANGES:
        return
    for start, end in pairwise(changes):
        left, right = images[start] - 0.5, images[end - 1] + 0.5
        letters = room * (end - start) // len(names)
        if letters >= min(6, len(names[start])):
            panels[0].annotate(
                short(names[start], letters),
                ((left + right) / 2, 1.0),
                (0, 22),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                weight="bold",
            )
        for axes in panels if start else ():
            axes.axvline(left, color=BLACK, linewidth=1.0, zorder=1)


def _spans(images: NDArray[np.float64], marked: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return (start, length) of each run of marked images, no finer than the page shows."""
    step = -(-len(images) // MOST_POINTS)
    seen = np.logical_or.reduceat(marked, np.arange(0, len(marked), step))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(np.int8), [0]]))) * step
    starts, ends = edges[::2], np.minimum(edges[1::2], len(images))
    return [
        (images[start] - 0.5, images[end - 1] - images[start] + 1.0)
        for start, end in zip(starts, ends, strict=True)
    ]


def _thin(
    images: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    step = -(-len(images) // MOST_POINTS)
    return images[::step], values[::step]
