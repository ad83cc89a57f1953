"""Figs. 1 and 11: single pictures beside each other, each with what was sent and what was answered.

They are found in the answers, not picked by hand: Fig. 1 by the smallest change of quality that
changes the answer, Fig. 11 by what DeepN-JPEG and the paper's agent did with the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.codec import encode
from edge_sdk.ladder import PAPER, REFERENCE, Rung
from edge_sdk.reading import load
from training.measure.style import BLACK, GREY, short
from training.photos import View
from training.reproduce.cases import Case, Request
from training.reproduce.exhibit import Exhibit, Row, drawn

__all__ = ["against_deepn", "fragile_and_robust"]

_LOWEST = PAPER[0]
#: Qualities below the reference's, from above: the smaller the change, the better the example.
_BELOW = tuple(sorted((rung.quality for rung in PAPER if rung.quality < 75), reverse=True))

#: Inches of a row of pictures.
_HEIGHT = 2.7


@dataclass(frozen=True)
class _Tile:
    """One encoding of a picture, and what the service said to it."""

    view: View
    rung: Rung
    name: str
    answer: str
    size_ratio: float
    agrees: bool

    def row(self, case: Case) -> Row:
        return {
            "case": case.title,
            "photo": self.view.path.name,
            "encoding": self.name,
            "answer": self.answer,
            "size_ratio": round(self.size_ratio, 4),
            "agrees": self.agrees,
        }


def fragile_and_robust(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 1: answers that a small change of quality changes, and answers that survive Q 5."""
    lines: list[tuple[Case, list[_Tile]]] = []
    shares = []
    for case in cases[:1] if len(cases) == 1 else _one_of_each(cases):
        agreement = case.everything.table.on(PAPER).agreement["top1"]
        lines += [(case, tiles) for tiles in _fragile(case, agreement)[:1]]
        lines += [(case, tiles) for tiles in _robust(case, agreement)[:1]]
        shares.append(_shares(case, agreement))
    return _exhibit(
        "figure1",
        "Fig. 1: a small change of quality changes some answers, and a large one spares others",
        lines,
        "Left the reference, right another quality of the same photo, with the service’s first "
        f"label. {' '.join(shares)}",
        {"shares": shares},
    )


def against_deepn(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 11: photos that both methods sent, the one cheaper here, the other safer there."""
    lines: list[tuple[Case, list[_Tile]]] = []
    shares = []
    for case in _one_of_each(cases):
        published = next(rung for rung in case.deepn if rung.quality == 50)
        deepn, dqn = case.fixed(published), case.paper()
        both = (deepn.agreement() >= 1) & (dqn.agreement() >= 1)
        cheaper = np.where(both, deepn.size - dqn.size, -np.inf)
        only_dqn = (deepn.agreement() < 1) & (dqn.agreement() >= 1)
        only_deepn = (deepn.agreement() >= 1) & (dqn.agreement() < 1)
        kinds = [cheaper]
        kinds += [np.where(only, 1.0, -np.inf) for only in (only_dqn, only_deepn)]
        for kind in kinds:
            if np.isfinite(kind.max()):
                lines.append((case, _three(case, int(kind.argmax()), published, dqn.rungs)))
        shares.append(
            f"{case.title}, {len(both)} unseen photos: both agree {both.mean():.0%} (the DQN’s "
            f"file is the smaller one of {(cheaper > 0).sum()}), only the DQN {only_dqn.mean():.0%}"
            f", only DeepN-JPEG {only_deepn.mean():.0%}."
        )
    return _exhibit(
        "figure11",
        "Fig. 11: the same pictures by DeepN-JPEG and by AdaCompress",
        lines,
        "Each row is one photo: reference, DeepN-JPEG’s published table, the paper’s DQN; every "
        "file encoded once from the original, the service’s first label above it, agreement by "
        "the reference’s best among all labels. The first row of a case is where AdaCompress saves "
        "most and both agree; then one where only it agrees, then one where only DeepN-JPEG does, "
        f"as far as there are such. {' '.join(shares)}",
    )


def _one_of_each(cases: Sequence[Case]) -> list[Case]:
    """Return a case of each service, and the first service's other scenery if there is but one."""
    first = {case.backend: case for case in reversed(cases)}
    found = [first[name] for name in dict.fromkeys(case.backend for case in cases)]
    return found if len(found) > 1 else list(cases)[:2]


def _fragile(case: Case, agreement: NDArray[np.float64]) -> list[list[_Tile]]:
    """Return photos whose answer changes, the smallest change of quality first."""
    found = []
    qualities = [rung.quality for rung in PAPER]
    for quality in _BELOW:
        column = qualities.index(quality)
        found += [(row, column) for row in np.flatnonzero(agreement[:, column] < 1)]
        if found:
            break
    return [_pair(case, int(row), PAPER[column]) for row, column in found[:1]]


def _robust(case: Case, agreement: NDArray[np.float64]) -> list[list[_Tile]]:
    """Return photos that survive every quality, those whose smallest file is smallest first."""
    table = case.everything.table.on(PAPER)
    survives = np.flatnonzero((agreement >= 1).all(axis=1))
    order = survives[np.argsort(table.size_ratio[survives, 0], kind="stable")]
    return [_pair(case, int(row), _LOWEST) for row in order[:1]]


def _shares(case: Case, agreement: NDArray[np.float64]) -> str:
    columns = {rung.quality: place for place, rung in enumerate(PAPER)}
    changed = ", ".join(
        f"{(agreement[:, columns[quality]] < 1).mean():.0%} at {quality}" for quality in (65, 55, 5)
    )
    return f"{case.title}, {len(agreement)} photos: the first label changes for {changed}."


def _pair(case: Case, row: int, rung: Rung) -> list[_Tile]:
    view = case.views(case.everything.table)[row]
    return [
        _tile(case, view, row, REFERENCE, f"Q = {REFERENCE.quality}", "top1"),
        _tile(case, view, row, rung, f"Q = {rung.quality}", "top1"),
    ]


def _three(case: Case, row: int, published: Rung, chosen: NDArray[np.int64]) -> list[_Tile]:
    key, rung = case.test.keys[row], PAPER[chosen[row]]
    whole = int(np.flatnonzero(case.everything.table.keys == key)[0])
    view = case.views(case.test)[row]
    return [
        _tile(case, view, whole, REFERENCE, f"Q = {REFERENCE.quality}"),
        _tile(case, view, whole, published, "DeepN-JPEG"),
        _tile(case, view, whole, rung, f"AdaCompress, Q = {rung.quality}"),
    ]


def _tile(
    case: Case, view: View, row: int, rung: Rung, name: str, metric: str = "any_hit"
) -> _Tile:
    table, labels = case.everything.table, case.labels(view, rung)
    column = table.ladder.index(rung)
    return _Tile(
        view,
        rung,
        name,
        labels[0].name if labels else "nothing",
        float(table.size_ratio[row, column]),
        bool(table.agreement[metric][row, column] >= 1),
    )


def _exhibit(
    name: str,
    title: str,
    lines: Sequence[tuple[Case, Sequence[_Tile]]],
    caption: str,
    facts: Mapping[str, Any] | None = None,
) -> Exhibit:
    rows = [tile.row(case) for case, tiles in lines for tile in tiles]
    svg, png = drawn(
        name,
        0.2 + _HEIGHT * max(1, _deep(lines)) / _wide(lines) ** 0.5,
        lambda figure: _draw(figure, lines),
    )
    said = "In brackets the size over the reference’s; ✗ and a thick frame: the answers disagree. "
    return Exhibit(
        name=name,
        title=title,
        caption=said + caption,
        rows=rows,
        svg=svg,
        png=png,
        facts=facts or {},
    )


def _deep(lines: Sequence[tuple[Case, Sequence[_Tile]]]) -> int:
    return len(lines) if _wide(lines) == 1 else -(-len(lines) // 2)


def _wide(lines: Sequence[tuple[Case, Sequence[_Tile]]]) -> int:
    """Return how many photos stand beside each other: two of pairs, one of threes."""
    return 2 if lines and len(lines[0][1]) == 2 else 1


def _draw(figure: Any, lines: Sequence[tuple[Case, Sequence[_Tile]]]) -> None:
    if not lines:
        figure.text(0.5, 0.5, "There is no such picture.", ha="center")
        return
    each = len(lines[0][1])
    grid = figure.subplots(_deep(lines), each * _wide(lines), squeeze=False)
    for panel in grid.flat:
        panel.axis("off")
    for number, (case, tiles) in enumerate(lines):
        line, begin = divmod(number, _wide(lines))
        for place, tile in enumerate(tiles):
            _panel(grid[line][begin * each + place], case, tile)


def _panel(axes: Any, case: Case, tile: _Tile) -> None:
    image = load(encode(tile.view.open(), tile.rung)).image
    image.thumbnail((480, 480))
    axes.imshow(np.asarray(image))
    axes.set_title(
        f"{tile.name}  ({tile.size_ratio:.2f})\n"
        f"{short(case.backend, 18)}: {short(tile.answer, 22)}{'' if tile.agrees else '  ✗'}",
        size=8,
        loc="left",
        color=BLACK,
        weight="normal" if tile.agrees else "bold",
    )
    axes.axis("on")
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(GREY if tile.agrees else BLACK)
        side.set_linewidth(1.0 if tile.agrees else 2.5)
