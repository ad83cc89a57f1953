"""How a local cloud behaves: as a service on its best day, unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from model_store.errors import UsageError
from training.cloud.faults import checked

__all__ = ["Settings", "parse_latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the options of ``python -m training cloud`` say.

    Attributes:
        seed: decides faults, delays and request ids.
        latency_s, jitter_s: mean delay before an answer, and how far it goes to either side.
        qps: uploads a second that each dialect takes; more are throttled. None for no limit.
        faults: fault -> share of the uploads, see ``training.cloud.faults``.
        slow_s: seconds that a slow answer takes.
        swap_after: billed answers after which another model answers; None for never.
        rename_labels: labels get other names, with the swap if there is one.
        silent: the header ``X-Model-Version`` is left out, so that only those documents name the
            model in which the vendor's would.
    """

    seed: int = 0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    qps: float | None = None
    faults: Mapping[str, float] = field(default_factory=dict)
    slow_s: float = 30.0
    swap_after: int | None = None
    rename_labels: bool = False
    silent: bool = False

    def __post_init__(self) -> None:
        checked(self.faults)
        if min(self.latency_s, self.jitter_s, self.slow_s) < 0:
            raise UsageError(
                f"A latency of {self.latency_s} s, a jitter of {self.jitter_s} s and slow answers "
                f"of {self.slow_s} s are given; allowed is 0 or more."
            )
        if self.qps is not None and not self.qps > 0:
            raise UsageError(f"--qps is {self.qps}; allowed is more than 0, or no limit.")
        if self.swap_after is not None and self.swap_after < 0:
            raise UsageError(f"--swap-after is {self.swap_after}; allowed is 0 or more answers.")


def parse_latency(text: str) -> tuple[float, float]:
    """Read ``MEAN`` or ``MEAN,JITTER`` in seconds.

    >>> parse_latency("0.2,0.05")
    (0.2, 0.05)

    Raises:
        UsageError: it is neither.
    """
    try:
        mean, jitter = (float(part) for part in f"{text},0".split(",")[:2])
        if text.count(",") < 2 and 0 <= mean < math.inf and 0 <= jitter < math.inf:
            return mean, jitter
    except ValueError:
        pass
    raise UsageError(
        f"--latency {text} is not understood; write SECONDS, or MEAN,JITTER such as 0.2,0.05."
    )
