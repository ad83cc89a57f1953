"""Table 2: what choosing takes and what the smaller upload saves, at the paper's link and others.

The paper counts the network and the decision. Encoding is counted here too, because a device pays
for it whatever it sends: the reference's is the benchmark's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.preprocess import to_input
from export.fuse import fuse
from export.network import DQNHead
from training.measure.intervals import Interval, Resampling
from training.reproduce.cases import Case, Request
from training.reproduce.exhibit import Exhibit, Row
from training.reproduce.sceneries import DAY

__all__ = ["PAPER_LINK", "table_2"]

#: Megabits a second: the mean fixed upload of February 2019, which the paper simulates.
PAPER_LINK = 27.64

#: Pictures that are timed.
_TIMED = 40


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One column of the table, in bytes and milliseconds."""

    name: str
    bytes: Interval
    decide_ms: Interval
    encode_ms: Interval

    def milliseconds(self, link: float) -> tuple[Interval, float]:
        """Return transmission, with its interval, and the whole, at a link of megabits a second."""
        sent = _times(self.bytes, 8.0 / (1000.0 * link))
        return sent, sent.mean + self.decide_ms.mean + self.encode_ms.mean


def table_2(cases: Sequence[Case], request: Request) -> Exhibit:
    """Return the table for the first service by day."""
    case = next((one for one in cases if one.scenery == DAY), cases[0])
    ways = _ways(case, request, time.perf_counter)
    links = [PAPER_LINK, *([request.uplink] if request.uplink else [])]
    rows = [_row(way, link) for link in links for way in ways]
    benchmark, dqn = ways[0], ways[1]
    extra_ms = dqn.decide_ms.mean + dqn.encode_ms.mean - benchmark.encode_ms.mean
    saved = benchmark.bytes.mean - dqn.bytes.mean
    even = 8.0 * saved / (1000.0 * extra_ms) if extra_ms > 0 else None
    pays = "at any link" if even is None else f"below {even:.1f} Mbps"
    return Exhibit(
        name="table2",
        title="Table 2: latency between image upload and inference result",
        caption=(
            f"{case.title}, {len(case.test)} unseen photos; times are medians of "
            f"{min(_TIMED, len(case.test))} of them on one core of this computer: the one resize "
            "and the engine for a decision, the JPEG encoder for what is sent. _lo and _hi: 95 % "
            f"intervals over photos. The paper’s agent saves {saved / 1000:.1f} kB a picture and "
            f"takes {extra_ms:.1f} ms more, so it pays {pays}; the paper had a GTX 1080 Ti. "
            + _said(ways, links)
        ),
        rows=rows,
        facts={
            "benchmark_bytes": benchmark.bytes,
            "dqn_bytes": dqn.bytes,
            "decide_ms": dqn.decide_ms.mean,
            "benchmark_ms": benchmark.milliseconds(PAPER_LINK)[1],
            "dqn_ms": dqn.milliseconds(PAPER_LINK)[1],
            "breaks_even_mbps": even,
        },
    )


def _said(ways: Sequence[_Way], links: Sequence[float]) -> str:
    return " ".join(
        f"At {link:g} Mbps: "
        + ", ".join(f"{way.name} {way.milliseconds(link)[1]:.1f} ms" for way in ways)
        + "."
        for link in links
    )


def _row(way: _Way, link: float) -> Row:
    sent, whole = way.milliseconds(link)
    return {
        "link_mbps": link,
        "way": way.name,
        "upload_kb": round(way.bytes.mean / 1000, 2),
        "upload_kb_lo": round(way.bytes.lo / 1000, 2),
        "upload_kb_hi": round(way.bytes.hi / 1000, 2),
        "inference_ms": round(way.decide_ms.mean, 2),
        "inference_ms_lo": round(way.decide_ms.lo, 2),
        "inference_ms_hi": round(way.decide_ms.hi, 2),
        "encoding_ms": round(way.encode_ms.mean, 2),
        "transmission_ms": round(sent.mean, 2),
        "transmission_ms_lo": round(sent.lo, 2),
        "transmission_ms_hi": round(sent.hi, 2),
        "overall_ms": round(whole, 2),
    }


def _ways(case: Case, request: Request, clock: Callable[[], float]) -> list[_Way]:
    draws, dqn, ours = case.draws(request.rng()), case.paper(), case.ours()
    nothing, decide = Interval.exactly(0.0), _decision(case, request, clock)
    sizes = (case.test.reference_bytes.astype(float), dqn.bytes, ours.bytes)
    choices = (None, dqn, ours)
    ways = []
    for name, size, choice in zip(
        ("benchmark", "the paper’s DQN", "our agent"), sizes, choices, strict=True
    ):
        rungs = (
            [REFERENCE] * len(size)
            if choice is None
            else [choice.table.ladder[rung] for rung in choice.rungs]
        )
        views = case.views(case.test)
        took = []
        for view, rung in list(zip(views, rungs, strict=True))[:_TIMED]:
            image = view.open()
            begun = clock()
            encode(image, rung)
            took.append(1000.0 * (clock() - begun))
        ways.append(
            _Way(
                name=name,
                bytes=_mean(draws, size),
                # Both agents run the same prefix; their heads take no time beside it.
                decide_ms=nothing if choice is None else decide,
                encode_ms=_median(took, request.rng()),
            )
        )
    return ways


def _decision(case: Case, request: Request, clock: Callable[[], float]) -> Interval:
    head = case.dqn.head
    assert isinstance(head, DQNHead)
    engine = OnnxEngine(fuse(case.dqn.prefix, head, PAPER))
    took = []
    for view in case.views(case.test)[:_TIMED]:
        image = view.open()
        begun = clock()
        engine.run(to_input(image, engine.side))
        took.append(1000.0 * (clock() - begun))
    return _median(took[1:], request.rng())  # the first run warms up


def _mean(draws: Resampling, values: np.ndarray) -> Interval:
    return draws.figures(values[:, None])[0]


def _median(values: Sequence[float], rng: np.random.Generator) -> Interval:
    every = np.array(values)
    drawn = np.median(rng.choice(every, (2000, len(every))), axis=1)
    lo, hi = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.median(every)), float(lo), float(hi))


def _times(figure: Interval, factor: float) -> Interval:
    return Interval(figure.mean * factor, figure.lo * factor, figure.hi * factor)
