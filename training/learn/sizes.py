"""Engines of three sizes: what a decision may cost on a device.

All keep the whole of MobileNetV2 and shrink its input. In trials on 150 photos an engine cut short
(at blocks 4 to 14, any input) chose no better than one fixed rung did: what tells how much
compression a picture bears is how sure the network's own classifier is, and that needs all of it.
At 64 pixels a side the classifier is no longer sure of anything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from PIL import Image

from edge_sdk.engine import open_session
from edge_sdk.preprocess import to_input
from export.fuse import export_prefix
from export.network import Prefix
from model_store.errors import UsageError
from training import assets

__all__ = ["DEFAULT", "SIDES", "decision_ms", "largest_within"]

#: Engine size -> input side in pixels, cheapest first.
SIDES: Mapping[str, int] = {"tiny": 96, "small": 160, "full": 224}

DEFAULT = "full"

#: Decisions timed, after one that is not.
_TIMED = 9


def decision_ms(
    prefix: Prefix, image: Image.Image, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median milliseconds of resize and prefix on one core of this machine.

    Args:
        prefix: the torch module; it is timed as devices run it.
        image: a typical picture, RGB.
        clock: seconds that only grow.
    """
    session = open_session(export_prefix(prefix, assets.cache_dir() / "prefix"))
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
    for name in reversed(tuple(SIDES)):
        took = cost_ms(name)
        if took <= budget_ms:
            return name
    raise UsageError(
        f"The budget is {budget_ms:g} ms a decision, but the smallest engine takes {took:.1f} ms "
        "on this machine; give more, or make the agent's INT8 variant (python -m export --int8)."
    )
