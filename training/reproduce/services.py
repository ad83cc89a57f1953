"""Figs. 9 and 10: mean size and agreement for each service, and DeepN-JPEG beside AdaCompress.

The paper has no constant quality among its opponents. Here it is: the cheapest of the paper's
qualities whose mean reward was best on the photos that the agents learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_sdk.ladder import PAPER, Rung
from training.measure import baselines
from training.measure.intervals import Interval
from training.measure.style import BLACK, GREY
from training.reproduce.cases import TRADE_OFF, Case, Choice, Request
from training.reproduce.exhibit import LOOKS, PANEL, Exhibit, Row, drawn

__all__ = ["against_deepn", "best_constant", "by_service"]

_DQN, _OURS, _CONSTANT = "the paper’s DQN", "our agent", "best constant quality"
_DEEPN, _ORACLE = "DeepN-JPEG", "oracle, paper’s qualities"

#: The four ways of comparing two answers.
_METRICS = ("any_hit", "eq1", "top1", "jaccard")


def best_constant(case: Case) -> Rung:
    """Return the quality of the paper that earned most on the photos that agents learnt from."""
    table = case.learnt.table.on(PAPER)
    reward = table.agreement["any_hit"] - table.size_ratio
    return PAPER[int(reward.mean(axis=0).argmax())]


def by_service(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 9: both agents and the best constant quality for every case."""
    sent = {
        case.title: {
            _DQN: case.paper(),
            _CONSTANT: case.fixed(best_constant(case)),
            _OURS: case.ours(),
        }
        for case in cases
    }
    rows = _rows(cases, sent, request)
    svg, png = drawn("figure9", PANEL * 2.4, lambda figure: _bars(figure, rows))
    constants = ", ".join(f"{case.title} {best_constant(case).quality}" for case in cases)
    return Exhibit(
        name="figure9",
        title="Fig. 9: average size and relative accuracy for different services",
        caption=(
            f"Unseen photos: {_counts(cases)}. Agreement: the reference’s best label is among the "
            "answer’s labels; the data has the other three measures, Eq. (1) among them. Best "
            f"constant quality, chosen on the photos learnt from: {constants}. {_rewards(rows)} "
            "Lines: 95 % intervals over photos."
        ),
        rows=rows,
        svg=svg,
        png=png,
        facts=_facts(cases, sent, request),
    )


def against_deepn(cases: Sequence[Case], request: Request) -> Exhibit:
    """Fig. 10: DeepN-JPEG's tables, at every scale, beside the agents."""
    sent: dict[str, dict[str, Choice]] = {}
    for case in cases:
        scaled = {f"{_DEEPN} ×{_scale(rung):g}": case.fixed(rung) for rung in case.deepn}
        own = case.test.on(PAPER)
        sent[case.title] = {
            _DQN: case.paper(),
            _OURS: case.ours(),
            **scaled,
            **{f"quality {rung.quality}": case.fixed(rung) for rung in PAPER},
            **case.trade_offs(),
            _ORACLE: Choice(own, baselines.oracle(own)),
        }
    rows = _rows(cases, sent, request)
    lines = -(-len(cases) // 2)
    svg, png = drawn("figure10", 0.6 + 3.4 * lines, lambda figure: _places(figure, cases, rows))
    return Exhibit(
        name="figure10",
        title="Fig. 10: DeepN-JPEG and AdaCompress",
        caption=(
            f"Unseen photos: {_counts(cases)}. DeepN-JPEG’s tables are those of its publication, "
            "made from the scenery’s own photos without answers; ×1 is as published, the others "
            "are the same tables coarser or finer. Every file is encoded once, from the "
            "original, with plain Huffman tables, but for our agent’s, whose are optimised. Its "
            f"point is its trade-off for agreement {request.target:g} "
            f"({', '.join(case.promise for case in cases)}). "
            f"{_deepn_said(cases, sent, request)} 95 % intervals over photos."
        ),
        rows=rows,
        svg=svg,
        png=png,
        facts={case.title: _paired(case, sent[case.title], request) for case in cases},
    )


def _scale(rung: Rung) -> float:
    return 50.0 / rung.quality if rung.quality < 50 else 2.0 - rung.quality / 50.0


def _counts(cases: Sequence[Case]) -> str:
    return ", ".join(f"{case.title} {len(case.test)}" for case in cases)


def _rows(
    cases: Sequence[Case], sent: Mapping[str, Mapping[str, Choice]], request: Request
) -> list[Row]:
    rows: list[Row] = []
    for case in cases:
        draws = case.draws(request.rng())
        for policy, choice in sent[case.title].items():
            measures = {"size_ratio": choice.size}
            measures |= {metric: choice.agreement(metric) for metric in _METRICS}
            measures["reward"] = choice.agreement() - choice.size
            found = draws.figures(np.column_stack(list(measures.values())))
            shares = draws.proportions(np.column_stack([measures[one] for one in _METRICS]))
            found[1 : 1 + len(_METRICS)] = shares
            row: dict[str, Any] = {"case": case.title, "policy": policy, "n": len(case.test)}
            for name, figure in zip(measures, found, strict=True):
                row |= {name: round(figure.mean, 4)}
                row |= {f"{name}_lo": round(figure.lo, 4), f"{name}_hi": round(figure.hi, 4)}
            rows.append(row)
    return rows


def _rewards(rows: Sequence[Row]) -> str:
    said = []
    for title in dict.fromkeys(row["case"] for row in rows):
        mine = {row["policy"]: row["reward"] for row in rows if row["case"] == title}
        said.append(f"{title} {mine[_DQN]:.3f}, {mine[_CONSTANT]:.3f}, {mine[_OURS]:.3f}")
    return f"Reward A − Δs of the DQN, the constant, our agent: {'; '.join(said)}."


def _facts(
    cases: Sequence[Case], sent: Mapping[str, Mapping[str, Choice]], request: Request
) -> dict[str, Any]:
    """Return what the comparison with the paper takes up, with the paired difference in reward."""
    facts: dict[str, Any] = {}
    for case in cases:
        mine, draws = sent[case.title], case.draws(request.rng())
        reward = {name: one.agreement() - one.size for name, one in mine.items()}
        dqn, ours = mine[_DQN], mine[_OURS]
        names = ("dqn_size", "ours_size", "dqn_reward", "constant_reward", "dqn_minus_constant")
        figures = draws.figures(
            np.column_stack(
                [
                    dqn.size,
                    ours.size,
                    reward[_DQN],
                    reward[_CONSTANT],
                    reward[_DQN] - reward[_CONSTANT],
                ]
            )
        )
        shares = draws.proportions(
            np.column_stack([dqn.agreement(), ours.agreement(), dqn.agreement("eq1")])
        )
        facts[case.title] = {
            **dict(zip(names, figures, strict=True)),
            **dict(zip(("dqn_any_hit", "ours_any_hit", "dqn_eq1"), shares, strict=True)),
            "constant": best_constant(case).quality,
        }
    return facts


def _paired(case: Case, mine: Mapping[str, Choice], request: Request) -> dict[str, Interval]:
    """Return agreement and size of the DQN less DeepN-JPEG's, on the same pictures."""
    dqn, deepn = mine[_DQN], mine[f"{_DEEPN} ×1"]
    columns = (
        dqn.agreement() - deepn.agreement(),
        dqn.size - deepn.size,
        deepn.agreement(),
        deepn.size,
        dqn.agreement(),
    )
    found = case.draws(request.rng()).figures(np.column_stack(columns))
    names = ("agreement_more", "size_more", "deepn_any_hit", "deepn_size", "dqn_any_hit")
    return dict(zip(names, found, strict=True))


def _deepn_said(
    cases: Sequence[Case], sent: Mapping[str, Mapping[str, Choice]], request: Request
) -> str:
    said = []
    for case in cases:
        found = _paired(case, sent[case.title], request)
        more, size = found["agreement_more"], found["size_more"]
        said.append(
            f"{case.title}: the DQN’s agreement less DeepN-JPEG’s is {more.mean:+.3f} "
            f"[{more.lo:+.3f}, {more.hi:+.3f}], its size {size.mean:+.3f} "
            f"[{size.lo:+.3f}, {size.hi:+.3f}]"
        )
    return "; ".join(said) + "."


def _bars(figure: Any, rows: Sequence[Row]) -> None:
    cases = list(dict.fromkeys(row["case"] for row in rows))
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, name, said in (
        (above, "size_ratio", "size / benchmark’s"),
        (below, "any_hit", "relative accuracy"),
    ):
        for number, policy in enumerate(policies):
            mine = [row for row in rows if row["policy"] == policy]
            at = np.arange(len(cases)) + (number - 1) * 0.27
            values = np.array([row[name] for row in mine])
            ends = np.array([[row[f"{name}_lo"], row[f"{name}_hi"]] for row in mine]).T
            arms = np.maximum(0.0, np.array([values - ends[0], ends[1] - values]))
            colour, hatch = LOOKS[number]
            axes.bar(at, values, 0.27, color=colour, hatch=hatch, edgecolor="white", label=policy)
            axes.errorbar(at, values, yerr=arms, fmt="none", ecolor="black", lw=0.9, capsize=2)
            for place, value in zip(at, values, strict=True):
                axes.annotate(
                    f"{value:.2f}",
                    (place, 0.0),
                    (0, 5),
                    textcoords="offset points",
                    ha="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                )
        axes.axhline(1.0, color=BLACK, lw=0.9, ls="--")
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(said)
        axes.set_ylim(0, 1.15)
    below.set_xticks(range(len(cases)), cases)
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _places(figure: Any, cases: Sequence[Case], rows: Sequence[Row]) -> None:
    lines = -(-len(cases) // 2)
    columns = min(2, len(cases))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, case in zip(grid.flat, cases, strict=False):
        mine = {row["policy"]: row for row in rows if row["case"] == case.title}
        fixed = [row for name, row in mine.items() if name.startswith("quality")]
        deepn = [row for name, row in mine.items() if name.startswith(_DEEPN)]
        ours = [row for name, row in mine.items() if name.startswith(TRADE_OFF)]
        for points, colour, marker, line, said in (
            (fixed, GREY, "o", ":", "constant quality"),
            (deepn, LOOKS[1][0], "v", "-.", "DeepN-JPEG, all scales"),
            (ours, LOOKS[5][0], "", "-", "our agent, all trade-offs"),
        ):
            ordered = sorted((row["size_ratio"], row["any_hit"]) for row in points)
            axes.plot(
                *zip(*ordered, strict=True), color=colour, marker=marker, ms=4, ls=line, label=said
            )
        for name, colour, marker in (
            (f"{_DEEPN} ×1", LOOKS[1][0], "v"),
            (_DQN, LOOKS[3][0], "^"),
            (_OURS, LOOKS[5][0], "D"),
            (_ORACLE, LOOKS[2][0], "P"),
        ):
            row = mine[name]
            axes.errorbar(
                [row["size_ratio"]],
                [row["any_hit"]],
                xerr=_arms(row, "size_ratio"),
                yerr=_arms(row, "any_hit"),
                color=colour,
                marker=marker,
                ms=9,
                mec="black",
                lw=1.1,
                ls="",
                capsize=2,
                zorder=5,
                label="DeepN-JPEG as published" if name.startswith(_DEEPN) else name,
            )
        axes.set_title(case.title, loc="left", weight="bold", size=9)
        axes.set_xlim(0, 1.15)
    for axes in list(grid.flat)[len(cases) :]:
        axes.set_visible(False)
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4)
    figure.supxlabel("size / benchmark’s", fontsize=9)
    figure.supylabel("agreement", fontsize=9)


def _arms(row: Row, name: str) -> list[list[float]]:
    value = row[name]
    return [[max(0.0, value - row[f"{name}_lo"])], [max(0.0, row[f"{name}_hi"] - value)]]
