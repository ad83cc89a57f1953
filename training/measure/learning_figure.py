"""The learning curve: bytes over the number of photos that an agent was learnt from.

svg = learning_curve(document["study"]["points"], target=0.95, width="narrow")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.measure.style import BLUE, GREEN, GREY, PURPLE, VERMILLION, Sheet, Width

__all__ = ["learning_curve"]

#: What reaches the target in hindsight: way, title, colour, marker, line.
_WAYS = (
    ("fixed_paper", "best mixture of the paper’s qualities", GREY, "o", ":"),
    ("fixed", "best mixture of the ladder’s rungs", BLUE, "s", "--"),
    ("static", "one look, exact trade-off", PURPLE, "^", "-."),
    ("probing", "looks at candidates, exact trade-off", VERMILLION, "D", "-"),
    ("oracle", "oracle", GREEN, "P", ":"),
)


def learning_curve(
    points: Sequence[Mapping[str, Any]], *, target: float, width: Width = "wide"
) -> str:
    """Draw size ratios at ``target`` over photos; arms are standard deviations over splits.

    Args:
        points: of ``adacompress.report/1``'s study.
        target: agreement.
        width: for which screen.
    """
    photos = [point["photos"] for point in points]
    with Sheet("learning", width, height=4.4 if width == "wide" else 5.4) as sheet:
        axes = sheet.figure.subplots()
        for way, title, colour, marker, line in _WAYS:
            found = [point["at_target"].get(way) for point in points]
            if all(found):
                _line(axes, photos, found, title, colour, marker, line)
        agents = [point["policies"]["agent"]["size_ratio"] for point in points]
        _line(axes, photos, agents, "our agent as certified", VERMILLION, "X", (0, (4, 2)))
        axes.set_xscale("log")
        axes.set_xticks(photos, [str(count) for count in photos])
        axes.set_xticks([], minor=True)
        axes.set_ylim(0)
        axes.set_xlabel("photos learnt from and certified on")
        axes.set_ylabel(f"size ratio at agreement {target:g}")
        columns = 2 if width == "wide" else 1
        sheet.figure.legend(loc="outside lower center", ncols=columns)
        return sheet.svg()


def _line(
    axes: Any,
    photos: Sequence[int],
    figures: Sequence[Mapping[str, float]],
    title: str,
    colour: str,
    marker: str,
    line: Any,
) -> None:
    axes.errorbar(
        photos,
        [figure["mean"] for figure in figures],
        yerr=[figure["sd"] for figure in figures],
        color=colour,
        marker=marker,
        markersize=6,
        linestyle=line,
        elinewidth=1.0,
        capsize=2.5,
        label=title,
    )
