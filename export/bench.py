"""What a decision costs next to the encode it replaces: both in one run, one thread each.

Read the ratios: milliseconds are this machine's, and of its other work at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from edge_sdk.agent import Agent
from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import REFERENCE
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.reading import Picture
from model_store.errors import UsageError

__all__ = ["Row", "bench", "table"]

#: Times that every picture is decided on, at least; the first time of each is not counted.
ROUNDS = 3
#: Decisions that are timed, at least.
DECISIONS = 40

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant's figures.

    Attributes:
        variant: ``fp32``, ``int8`` …
        size: bytes of its file.
        load_ms: from the file's bytes to an engine, median of three.
        decision_ms: median of resize, engine and choice.
        decision_p90_ms: nine of ten were faster.
        ratio: ``decision_ms`` over ``encode_ms``.
        encode_ms: median of one reference encode of the same pictures, in the same run.
        looks_ms: median of a decision with its looks at candidate encodings; None without any.
    """

    variant: str
    size: int
    load_ms: float
    decision_ms: float
    decision_p90_ms: float
    ratio: float
    encode_ms: float
    looks_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def bench(
    agent: Agent,
    models: Mapping[str, bytes],
    images: Sequence[Image.Image],
    clock: Clock = time.perf_counter,
) -> list[Row]:
    """Time every variant of an agent's engine on the same pictures, taking turns.

    Args:
        agent: decides; its own engine is not timed.
        models: variant's name to its ONNX file.
        images: RGB, as a camera gives them.
        clock: seconds that only grow.

    Raises:
        UsageError: there are no pictures.
    """
    if not images:
        raise UsageError("There are no pictures to time decisions on; name a folder with some.")
    loads = {name: _load_ms(model, clock) for name, model in models.items()}
    agents = {name: replace(agent, engine=OnnxEngine(model)) for name, model in models.items()}
    work: dict[tuple[str, str], Callable[[Image.Image], object]] = {
        ("", "encode"): lambda image: encode(image, REFERENCE)
    }
    for name, one in agents.items():
        work[name, "decide"] = one.decide
        if one.probe is not None and one.operating_point.max_probes:
            work[name, "look"] = partial(_look, one)
    times = _times(work, images, clock)
    return [
        _row(name, len(model), loads[name], times, ("", "encode")) for name, model in models.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text."""
    lines = ["variant     file KB  load ms  decision ms (p90)  of a Q75 encode  with looks ms"]
    for row in rows:
        looks = f"{row.looks_ms:.1f}" if row.looks_ms is not None else "-"
        lines.append(
            f"{row.variant:<10} {row.size / 1000:>8.0f} {row.load_ms:>8.1f} "
            f"{row.decision_ms:>11.2f} ({row.decision_p90_ms:.2f}) {row.ratio:>16.2f} {looks:>14}"
        )
    return "\n".join(lines)


def _times(
    work: Mapping[tuple[str, str], Callable[[Image.Image], object]],
    images: Sequence[Image.Image],
    clock: Clock,
) -> dict[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {name: [] for name in work}
    rounds = max(ROUNDS, -(-DECISIONS // len(images)))
    for turn in range(rounds + 1):
        for image in images:
            for name, call in work.items():
                started = clock()
                call(image)
                if turn:  # the first round warms up
                    times[name].append(1e3 * (clock() - started))
    return times


def _row(
    name: str,
    size: int,
    load_ms: float,
    times: Mapping[tuple[str, str], list[float]],
    encoding: tuple[str, str],
) -> Row:
    decision, encode_ms = times[name, "decide"], float(np.median(times[encoding]))
    looks = times.get((name, "look"))
    return Row(
        variant=name,
        size=size,
        load_ms=load_ms,
        decision_ms=float(np.median(decision)),
        decision_p90_ms=float(np.percentile(decision, 90)),
        ratio=float(np.median(decision)) / encode_ms,
        encode_ms=encode_ms,
        looks_ms=float(np.median(looks)) if looks else None,
    )


def _look(agent: Agent, image: Image.Image) -> object:
    return agent.decide(image, Packer(Picture(image), UNLIMITED).candidate)


def _load_ms(model: bytes, clock: Clock) -> float:
    times = []
    for _ in range(3):
        started = clock()
        OnnxEngine(model)
        times.append(1e3 * (clock() - started))
    return float(np.median(times))
