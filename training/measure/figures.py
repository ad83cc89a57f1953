"""The report's figures as SVG texts.

Every figure takes plain JSON values and comes in two widths, because a drawing for a desk cannot
be read on a phone by shrinking it. Colours are Okabe and Ito's, and nothing is told by colour
alone. Not here: the device's day (``stream_figure``), the style they share (``style``), and what
is said about them (``page``).

    svg = rate_agreement(document["curve"], document["policies"], target=0.95, width="narrow")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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

__all__ = ["chosen_rungs", "rate_agreement"]

#: Policy: title, colour, marker, marker size.
_POINTS: Mapping[str, tuple[str, str, str, float]] = {
    "reference": ("reference", BLACK, "X", 7),
    "best_fixed_paper": ("best fixed quality", GREY, "o", 7),
    "best_fixed": ("best fixed rung", BLUE, "s", 7),
    "random": ("random rung", BLACK, "*", 8),
    "dqn": ("paper DQN", PURPLE, "^", 8),
    "agent": ("our agent", VERMILLION, "D", 8),
    "oracle": ("oracle", GREEN, "P", 8),
}

#: Opponent's curve: title, colour, marker, line.
_OPPONENTS: Mapping[str, tuple[str, str, str, str]] = {
    "deepn_jpeg": ("DeepN-JPEG", ORANGE, "v", "-."),
    "deepn_jpeg_continuous": ("DeepN-JPEG, continuous", SKY, "^", "-."),
    "perceptual": ("perceptual (SSIM)", PURPLE, "x", ":"),
}

_BARS = ((BLUE, ""), (ORANGE, "///"), (GREEN, "..."), (PURPLE, "xxx"))

#: Kinds of rungs besides whole JPEG frames -> marker.
_KINDS = {
    "WebP": "D",
    "JPEG of the service’s view": "v",
    "WebP of the service’s view": "^",
    "features": "*",
}


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
        curve: ``fixed_paper``, ``fixed``, ``agent`` and opponents, each a list of {size_ratio,
            agreement}.
        policies: the report's policies; those without a marker of their own are left out.
        metric: which agreement of the policies is drawn.
        target: agreement asked for, drawn as a line.
        width: for which screen.
    """
    with Sheet("rate", width, height=5.0 if width == "wide" else 5.6) as sheet:
        axes = sheet.figure.subplots()
        _fixed_curve(axes, curve["fixed_paper"], "fixed, paper’s qualities", GREY, "o", ":")
        _fixed_curve(axes, curve["fixed"], "fixed, agent’s ladder", BLUE, "s", "--")
        for name, looks in _OPPONENTS.items():
            _fixed_curve(axes, curve.get(name, ()), *looks)
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


def _fixed_curve(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    title: str,
    colour: str,
    marker: str,
    line: str,
) -> None:
    """Draw the rungs or settings, and as a line what mixing them reaches at best."""
    if not points:
        return
    places = np.array([[point["size_ratio"], point["agreement"]] for point in points])
    hull = lower_hull(np.vstack([places, [1.0, 1.0]]))
    kinds = [_kind(point.get("name", "")) for point in points]
    axes.plot(*hull.T, color=colour, linestyle=line, zorder=2)
    axes.plot([], [], color=colour, linestyle=line, marker=marker, markersize=3.6, label=title)
    for kind in dict.fromkeys(kinds):
        own = _KINDS.get(kind, marker)
        rows = places[[one == kind for one in kinds]]
        axes.plot(*rows.T, color=colour, marker=own, markersize=3.6, linestyle="", zorder=2)
        if kind in _KINDS:
            axes.plot([], [], color=colour, linestyle="", marker=own, markersize=3.6, label=kind)


def _kind(name: str) -> str:
    """Return what a rung's name says of its kind, see ``edge_sdk.rung``; "" for a JPEG frame."""
    if name[:1] == "f":
        return "features"
    cropped = " of the service’s view" if "^" in name else ""
    if name[:1] == "w":
        return f"WebP{cropped}"
    return f"JPEG{cropped}" if cropped else ""


def _agent_curve(axes: Any, points: Sequence[Mapping[str, Any]]) -> None:
    if not points:
        return
    ordered = sorted(points, key=lambda point: (point["size_ratio"], point["agreement"]))
    places = np.array([[point["size_ratio"], point["agreement"]] for point in ordered])
    axes.plot(*places.T, color=VERMILLION, zorder=3, label="our agent, all trade-offs")


def _policy_points(axes: Any, policies: Mapping[str, Mapping[str, Any]], metric: str) -> float:
    """Draw the policies with their intervals; return where the agreement axis should start.

    The axes hold every policy with its interval, but for the random one: where that is far below,
    it would leave the others no room.
    """
    lowest, largest = 1.0, 1.0
    # An opponent's curve is in the legend already.
    opponents = {name: ("", looks[1], looks[2], 7) for name, looks in _OPPONENTS.items()}
    for name, (title, colour, marker, size) in {**_POINTS, **opponents}.items():
        if name not in policies:
            continue
        x, y = policies[name]["size_ratio"], policies[name]["agreement"][metric]
        lowest = lowest if name == "random" else min(lowest, y["lo"])
        largest = max(largest, x["hi"])
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
            label=title or None,
        )
    axes.set_xlim(0, 1.06 * largest)
    floor = max(0.0, float(np.floor((lowest - 0.06) * 20) / 20))
    _name_what_is_below(axes, policies.get("random"), metric, floor)
    return floor


def _name_what_is_below(
    axes: Any, policy: Mapping[str, Any] | None, metric: str, floor: float
) -> None:
    if policy and policy["agreement"][metric]["mean"] < floor:
        axes.annotate(
            f"random rung {policy['agreement'][metric]['mean']:.2f} ↓",
            (policy["size_ratio"]["mean"], floor),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )


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
