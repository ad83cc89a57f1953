"""The figure of a device's day: accuracy, states and uploads over a stream of images.

Takes plain JSON values and comes in two widths, as ``figures`` does; the states have places of
their own, so that they can be told apart in grey too.

    svg = timeline(document["timeline"], width="narrow")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.measure.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTHS,
    Sheet,
    Width,
    short,
)

__all__ = ["HEIGHT", "STATES", "draw_timeline", "moving_average", "timeline"]

#: Inches.
HEIGHT = 6.4

#: More points than this cannot be told apart on a page.
MOST_POINTS = 1000
#: With more changes than this the sceneries are mixed, and lines would hide the figure.
MOST_CHANGES = 24

STATES = ("inference", "estimation", "querying", "retraining")


def timeline(columns: Mapping[str, Sequence[Any]], *, width: Width = "wide") -> str:
    """Draw the stream as the paper's Fig. 12 does: accuracy and p_est, states, upload size.

    Args:
        columns: the report's timeline: image, scenery, state, p_est, accuracy, wire_bytes and
            reference_wire_bytes, one value per image.
        width: for which screen.
    """
    with Sheet("timeline", width, height=HEIGHT) as sheet:
        draw_timeline(sheet.figure, columns, width=width)
        return sheet.svg()


def draw_timeline(
    figure: Any, columns: Mapping[str, Sequence[Any]], *, width: Width = "wide"
) -> None:
    """Draw on a figure of matplotlib's what :func:`timeline` returns as SVG."""
    images = np.asarray(columns["image"], dtype=np.float64)
    window = max(5, len(images) // 40)
    upper, lanes, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.15, 2.6))
    _share_lines(upper, images, columns, window)
    _state_lanes(lanes, images, columns["state"])
    _upload_lines(lower, images, columns, window)
    lower.set_xlabel(f"image number (accuracy, upload: mean of last {window})")
    lower.set_xlim(images[0] - 0.5, images[-1] + 0.5)
    retrains = np.asarray(columns["state"]) == "retraining"
    for axes in (upper, lower):
        _shade(axes, images, retrains)
    _scenery_marks((upper, lanes, lower), images, columns["scenery"], int(10.6 * WIDTHS[width]))
    figure.align_ylabels([upper, lower])


def moving_average(
    values: Sequence[float] | NDArray[np.float64], window: int
) -> NDArray[np.float64]:
    """Return the mean of the last ``window`` values at each place, of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


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
