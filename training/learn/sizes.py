"""Engines of three sizes: what a decision may cost on a device.

The larger two keep the whole of MobileNetV2. What tells how much compression a picture bears is
how sure the network's own classifier is; an engine cut short (at blocks 4 to 14, any input) has
none, and in trials it learnt little more than which one rung to send. That is what the smallest is
for: it costs less than the encoding, and its agent is re-trained and watched like any other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from edge_sdk.engine import open_session
from edge_sdk.preprocess import to_input
from export.network import WHOLE, Prefix
from model_store.errors import UsageError
from training import assets
from training.learn.backbone import backbone
from training.learn.features import load_prefix

__all__ = ["DEFAULT", "SIZES", "Size", "decision_ms", "largest_within", "load_sized"]


@dataclass(frozen=True, slots=True)
class Size:
    """An engine's prefix.

    Attributes:
        cut: blocks of MobileNetV2 that are kept.
        side: input side in pixels.
    """

    cut: int
    side: int


#: Engine sizes, cheapest first.
SIZES: Mapping[str, Size] = {
    "tiny": Size(7, 64),
    "small": Size(WHOLE, 160),
    "full": Size(WHOLE, 224),
}

DEFAULT = "full"

#: Decisions timed, after one that is not.
_TIMED = 9


def load_sized(name: str, *, precision: str = "int8", confidence: bool = True) -> Prefix:
    """Return the prefix of an engine size.

    Args:
        name: one of ``SIZES``.
        precision: ``int8`` or ``fp32``.
        confidence: append the classifier's confidence where the prefix has a classifier.
    """
    size = SIZES[name]
    sure = confidence and size.cut == WHOLE
    return load_prefix(cut=size.cut, side=size.side, confidence=sure, precision=precision)


def decision_ms(
    prefix: Prefix, image: Image.Image, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median milliseconds of resize and prefix on one core of this machine.

    Args:
        prefix: the torch module; it is timed as devices run it.
        image: a typical picture, RGB.
        clock: seconds that only grow.
    """
    session = open_session(backbone(prefix, assets.cache_dir() / "prefix"))
    seconds = []
    for _ in range(1 + _TIMED):
        begun = clock()
        session.run(None, {"image": to_input(image, prefix.side)})
        seconds.append(clock() - begun)
    return 1000.0 * statistics.median(seconds[1:])


def largest_within(budget_ms: float, cost_ms: Callable[[str], float]) -> str:
    """Return the name of the largest engine whose decisions take no longer than ``budget_ms``.

    Args:
        budget_ms: milliseconds a decision.
        cost_ms: what an engine's decision takes, by the engine's name.

    Raises:
        UsageError: not even the smallest is that fast.
    """
    took = 0.0
    for name in reversed(tuple(SIZES)):
        took = cost_ms(name)
        if took <= budget_ms:
            return name
    raise UsageError(
        f"The budget is {budget_ms:g} ms a decision, but the smallest engine takes {took:.1f} ms "
        "on this machine; give more, or make the agent's INT8 variant (python -m export --int8)."
    )
