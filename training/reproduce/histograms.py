"""Figs. 5 and 6: which rungs the agents choose, for each service and for each scenery.

The paper shows its agent's choices; here are the training pictures and the test pictures apart, and
our agent's choices on its own ladder besides. The reviewers' first question, how the qualities are
distributed, is answered by the same figures' data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import FULL, PAPER, Ladder
from training.measure.intervals import Interval, bootstrap_mean, resample
from training.measure.style import short
from training.reproduce.cases import Case, Choice, Request
from training.reproduce.exhibit import LOOKS, PANEL, Exhibit, Row, drawn

__all__ = ["by_scenery", "by_service", "mean_quality"]

_AGENTS = ("the paper’s DQN", "our agent")


def by_service(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 5: the choices for every service, by day."""
    return _histograms(
        "figure5",
        "Fig. 5: chosen compression levels for different services",
        cases,
        {case.backend: case for case in cases},
        request,
    )


def by_scenery(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 6: the choices of one service's agents for every scenery."""
    return _histograms(
        "figure6",
        f"Fig. 6: chosen compression levels for different sceneries ({cases[0].backend})",
        cases,
        {case.scenery: case for case in cases},
        request,
    )


def mean_quality(choice: Choice, rng: np.random.Generator) -> Interval:
    """Return the mean JPEG quality of what was sent."""
    return bootstrap_mean(_qualities(choice), choice.table.groups, rng=rng)


def _qualities(choice: Choice) -> NDArray[np.float64]:
    return np.array([choice.table.ladder[rung].quality for rung in choice.rungs], dtype=float)


def _histograms(
    name: str, title: str, cases: Sequence[Case], panels: Mapping[str, Case], request: Request
) -> Exhibit:
    rows = [
        row
        for panel, case in panels.items()
        for part, pictures in (("training", case.learnt), ("test", case.parts.test))
        for agent, choice in zip(_AGENTS, (case.paper(pictures), case.ours(pictures)), strict=True)
        for row in _counted(panel, part, agent, choice, request)
    ]
    means = {panel: mean_quality(case.paper(), request.rng()) for panel, case in panels.items()}
    svg, png = drawn(
        name, 0.6 + PANEL * len(panels), lambda figure: _draw(figure, list(panels), rows)
    )
    said = "; ".join(
        f"{panel} {mean.mean:.0f} [{mean.lo:.0f}–{mean.hi:.0f}]" for panel, mean in means.items()
    )
    counts = ", ".join(
        f"{panel} {len(case.learnt.table)} and {len(case.test)}" for panel, case in panels.items()
    )
    return Exhibit(
        name=name,
        title=title,
        caption=(
            "Share of the pictures sent at each rung, as agents that have finished learning "
            f"choose; pictures learnt from and unseen ones: {counts}. Left the paper’s DQN on its "
            "ten qualities, right our agent on its own ladder, at the trade-off for agreement "
            f"{request.target:g}: {', '.join(case.promise for case in panels.values())}. Lines on "
            "the bars of unseen pictures: 95 % interval over photos. Mean "
            f"quality of the DQN on unseen pictures: {said}."
        ),
        rows=rows,
        svg=svg,
        png=png,
        facts={"mean_quality": {panel: mean.as_dict() for panel, mean in means.items()}},
    )


def _counted(panel: str, part: str, agent: str, choice: Choice, request: Request) -> list[Row]:
    ladder = choice.table.ladder
    hits = (choice.rungs[:, None] == np.arange(len(ladder))).astype(float)
    draws = resample(choice.table.groups, request.rng())
    return [
        {
            "panel": panel,
            "pictures": part,
            "agent": agent,
            "rung": rung.name,
            "n": int(hits[:, place].sum()),
            "share": round(found.mean, 4),
            "lo": round(found.lo, 4),
            "hi": round(found.hi, 4),
        }
        for place, (rung, found) in enumerate(zip(ladder, draws.proportions(hits), strict=True))
    ]


def _draw(figure: Any, panels: Sequence[str], rows: Sequence[Row]) -> None:
    grid = figure.subplots(
        len(panels), 2, squeeze=False, sharey=True, sharex="col", width_ratios=(10, 18)
    )
    for line, panel in enumerate(panels):
        for column, (agent, ladder) in enumerate(zip(_AGENTS, (PAPER, FULL), strict=True)):
            axes = grid[line][column]
            mine = [row for row in rows if row["panel"] == panel and row["agent"] == agent]
            _bars(axes, mine, ladder)
            axes.set_title(f"{short(panel, 24)}: {agent}", loc="left", weight="bold", size=9)
            if line == len(panels) - 1:
                axes.set_xlabel("JPEG quality" if ladder == PAPER else "rung: quality@scale")
        grid[line][0].set_ylabel("share of pictures")
    grid[0][0].legend(loc="upper right")


def _bars(axes: Any, rows: Sequence[Row], ladder: Ladder) -> None:
    places = np.arange(len(ladder))
    for number, part in enumerate(("training", "test")):
        mine = [row for row in rows if row["pictures"] == part]
        colour, hatch = LOOKS[number]
        heights = np.array([row["share"] for row in mine])
        at = places + 0.4 * (number - 0.5)
        said = "learnt from" if part == "training" else "unseen"
        axes.bar(at, heights, 0.4, color=colour, hatch=hatch, edgecolor="white", label=said)
        if part == "test":
            ends = np.array([[row["lo"], row["hi"]] for row in mine]).T
            arms = np.maximum(0.0, np.array([heights - ends[0], ends[1] - heights]))
            seen = heights > 0
            axes.errorbar(
                at[seen], heights[seen], yerr=arms[:, seen], fmt="none", ecolor="black", lw=0.8
            )
    axes.grid(visible=False, axis="x")
    paper = ladder == PAPER
    names = [
        str(rung.quality) if paper else f"{rung.quality}@{rung.scale:g}".removesuffix("@1")
        for rung in ladder
    ]
    axes.set_xticks(places, names, rotation=0 if paper else 60)
