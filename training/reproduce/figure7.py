"""Fig. 7: where the paper's agent looks, and whether smooth pictures get higher qualities.

The paper shows eight maps and concludes that smooth areas make the agent careful. The maps are here
as well, and the conclusion is tested: rank correlations of what is chosen, and of what would have
been right, with the share of smooth blocks and with texture energy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.ladder import PAPER
from export.network import DQNHead, Prefix
from training.learn.compute import one_thread
from training.measure import baselines
from training.measure.intervals import Interval, bootstrap_mean
from training.measure.style import BLACK, GREY, short
from training.photos import View
from training.reproduce.attention import attention, overlay
from training.reproduce.cases import Case, Choice, Request
from training.reproduce.exhibit import LOOKS, Exhibit, Row, drawn
from training.reproduce.texture import SMOOTH, Texture, rank_correlation, texture_of

__all__ = ["figure_7"]

Floats = NDArray[np.float64]

#: Pictures of each kind that are shown.
_SHOWN = 2
#: The level that every difference is taken against: the highest that saves anything.
_REFERENCE = next(place for place, rung in enumerate(PAPER) if rung.quality == 65)


@dataclass(frozen=True)
class _Seen:
    """A case's unseen photos with what Fig. 7 is about.

    Attributes:
        case: of the photos.
        views: in the order of the test's rows.
        textures: of each.
        quality: chosen by the paper's agent, (N,).
        heats: where it looks for that, one map a photo.
    """

    case: Case
    views: list[View]
    textures: list[Texture]
    quality: Floats
    heats: list[Floats]


def figure_7(cases: Sequence[Case], request: Request) -> Exhibit:
    """Draw maps of the most and the least compressed photos, and test the claim on all of them."""
    with one_thread():
        seen = [_look(case, case.prefix) for case in cases]
        panels = [panel for one in seen[:1] for panel in _panels(one, one.case.prefix)]
    rows = [row for one in seen for row in _tests(one, request)]
    svg, png = drawn("figure7", 11.4, lambda figure: _draw(figure, panels, rows))
    verdicts = {one.case.title: _verdict(one.case, rows) for one in seen}
    return Exhibit(
        name="figure7",
        title="Fig. 7: what the agent looks at, and the claim about smooth areas as a number",
        caption=(
            f"Above, {seen[0].case.title}: Grad-CAM of the paper’s DQN at MobileNetV2’s last "
            "convolution for the chosen quality, and for its difference to quality "
            f"{PAPER[_REFERENCE].quality}, on the {_SHOWN} photos compressed most and the "
            f"{_SHOWN} compressed least; bright parts speak for the choice, grey ones do not. "
            "Below: Spearman’s rank correlation over unseen photos with 95 % intervals; smooth: "
            f"share of 8 x 8 blocks whose luma varies by less than {SMOOTH:g} of 255. The paper "
            "expects the first to be above 0 and the second below. " + " ".join(verdicts.values())
        ),
        rows=rows,
        svg=svg,
        png=png,
        facts={"verdicts": verdicts},
    )


def _look(case: Case, prefix: Prefix) -> _Seen:
    head, choice = case.dqn.head, case.paper()
    assert isinstance(head, DQNHead)
    views, textures, heats = case.views(case.test), [], []
    for view, rung in zip(views, choice.rungs.tolist(), strict=True):
        image = view.open()
        textures.append(texture_of(image))
        heats.append(attention(prefix, head, image, rung))
    return _Seen(case, views, textures, _quality(choice), heats)


def _quality(choice: Choice) -> Floats:
    return np.array([choice.table.ladder[rung].quality for rung in choice.rungs], dtype=float)


def _tests(seen: _Seen, request: Request) -> list[Row]:
    """Return one row for each correlation, and one for what the maps point at."""
    case, groups = seen.case, seen.case.test.groups
    own = case.test.on(PAPER)
    chosen = {
        "quality the DQN chose": seen.quality,
        "cheapest agreeing quality (oracle)": _quality(Choice(own, baselines.oracle(own))),
        "rung our agent chose": case.ours().rungs.astype(float),
    }
    measures = {
        "smooth share": np.array([one.smooth for one in seen.textures]),
        "texture energy": np.array([one.energy for one in seen.textures]),
    }
    rows: list[Row] = []
    for name, values in chosen.items():
        for measure, others in measures.items():
            found = rank_correlation(values, others, groups, request.rng())
            rows.append(_row(case, name, measure, found, len(values)))
    for name, mine in _halves(seen).items():
        rows.append(
            _row(
                case,
                name,
                "texture under the map / mean",
                _under(seen, mine, request),
                int(mine.sum()),
            )
        )
    return rows


def _halves(seen: _Seen) -> dict[str, NDArray[np.bool_]]:
    middle = np.median(seen.quality)
    low, high = seen.quality <= middle, seen.quality > middle
    if not high.any():
        low, high = seen.quality < middle, seen.quality >= middle
    found = {"photos compressed more": low, "photos compressed less": high}
    return {name: rows for name, rows in found.items() if rows.any()}


def _under(seen: _Seen, mine: NDArray[np.bool_], request: Request) -> Interval | None:
    """Return texture where the map is bright over the picture's mean; above 1 is rough parts."""
    ratios, groups = [], []
    for row in np.flatnonzero(mine):
        heat, texture = seen.heats[row], seen.textures[row]
        if heat.sum() > 0 and texture.energy > 0:
            fine = np.asarray(
                Image.fromarray(heat.astype(np.float32)).resize(
                    texture.map.shape[::-1], Image.Resampling.BILINEAR
                ),
                dtype=np.float64,
            )
            ratios.append(float((fine * texture.map).sum() / fine.sum() / texture.energy))
            groups.append(str(seen.case.test.groups[row]))
    return bootstrap_mean(ratios, groups, rng=request.rng()) if ratios else None


def _row(case: Case, what: str, measure: str, found: Interval | None, n: int) -> dict[str, Any]:
    mean, lo, hi = (None, None, None) if found is None else (found.mean, found.lo, found.hi)
    rounded = [None if value is None else round(value, 4) for value in (mean, lo, hi)]
    return {
        "case": case.title,
        "what": what,
        "measure": measure,
        "value": rounded[0],
        "lo": rounded[1],
        "hi": rounded[2],
        "n": n,
    }


def _verdict(case: Case, rows: Sequence[Row]) -> str:
    """Say whether the claim holds for what was chosen, and for what would have been right."""
    mine = {
        (row["what"].split(" (")[0], row["measure"]): row
        for row in rows
        if row["case"] == case.title
    }
    said = []
    for what in ("quality the DQN chose", "cheapest agreeing quality"):
        found = [
            f"{measure} {_holds(mine[what, measure], claimed)}"
            for measure, claimed in (("smooth share", 1), ("texture energy", -1))
        ]
        said.append(f"{what} and {', '.join(found)}")
    return f"{case.title}: {'; '.join(said)}."


def _holds(row: Mapping[str, Any], claimed: int) -> str:
    """Say what a correlation is, and what that makes of the claim about its sign."""
    if row["value"] is None:
        return "cannot correlate, one of them is the same for all photos"
    figure = f"{row['value']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"
    if row["lo"] <= 0 <= row["hi"]:
        return f"{figure}: neither for nor against the claim"
    return f"{figure}: {'as claimed' if claimed * row['value'] > 0 else 'against the claim'}"


@dataclass(frozen=True)
class _Panel:
    """A column of the drawing: the photo and its two maps."""

    title: str
    pictures: tuple[NDArray[np.uint8], ...]


def _panels(seen: _Seen, prefix: Prefix) -> list[_Panel]:
    size = seen.case.paper().size
    order = np.lexsort((size, seen.quality))
    rows = [*order[:_SHOWN].tolist(), *order[-_SHOWN:].tolist()]
    head = seen.case.dqn.head
    assert isinstance(head, DQNHead)
    panels = []
    for row in rows:
        image, quality = seen.views[row].open(), int(seen.quality[row])
        rung = [one.quality for one in PAPER].index(quality)
        against = _REFERENCE if rung != _REFERENCE else 0
        difference = attention(prefix, head, image, rung, against)
        small = image.copy()
        small.thumbnail((360, 360))
        panels.append(
            _Panel(
                f"Q = {quality}, smooth {seen.textures[row].smooth:.0%}",
                (
                    np.asarray(small),
                    overlay(image, seen.heats[row]),
                    overlay(image, difference),
                ),
            )
        )
    return panels


_LINES = (
    "photo",
    "speaks for the\nchosen quality",
    f"chosen quality\nminus {PAPER[_REFERENCE].quality}",
)


def _draw(figure: Any, panels: Sequence[_Panel], rows: Sequence[Row]) -> None:
    above, below = figure.subfigures(2, 1, height_ratios=(6.6, 4.8))
    grid = above.subplots(len(_LINES), len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        for line, picture in enumerate(panel.pictures):
            axes = grid[line][column]
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            if line == 0:
                axes.set_title(panel.title, size=9, weight="bold")
            if column == 0:
                axes.set_ylabel(_LINES[line])
    _correlations(below, [row for row in rows if row["measure"] != "texture under the map / mean"])


def _correlations(figure: Any, rows: Sequence[Row]) -> None:
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    what = list(dict.fromkeys(row["what"] for row in rows))
    grid = figure.subplots(1, len(measures), squeeze=False, sharey=True, sharex=True)[0]
    for axes, measure in zip(grid, measures, strict=True):
        for number, case in enumerate(cases):
            colour, marker = LOOKS[number % len(LOOKS)][0], "osD^vP"[number % 6]
            mine = [row for row in rows if row["measure"] == measure and row["case"] == case]
            for row in mine:
                if row["value"] is None:
                    continue
                place = what.index(row["what"]) + 0.16 * (number - (len(cases) - 1) / 2)
                arms = [
                    [max(0.0, row["value"] - row["lo"])],
                    [max(0.0, row["hi"] - row["value"])],
                ]
                axes.errorbar(
                    [row["value"]],
                    [place],
                    xerr=arms,
                    color=colour,
                    marker=marker,
                    ms=6,
                    capsize=2,
                    ls="",
                )
            axes.plot([], [], color=colour, marker=marker, ls="", label=short(case, 28))
        axes.axvline(0.0, color=BLACK, lw=0.9)
        claimed = "above 0" if measure == "smooth share" else "below 0"
        axes.set_title(f"with {measure} (claimed: {claimed})", loc="left", weight="bold", size=9)
        axes.set_xlabel("rank correlation")
        axes.set_xlim(-1, 1)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(what)), [name.replace(" (", "\n(") for name in what])
    grid[0].invert_yaxis()
    grid[0].spines["left"].set_color(GREY)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
