"""What an agent is worth in dollars and milliseconds, against sending every reference.

Fewer bytes are saved on every picture; every call of the monitor costs a call and a reference on
the wire besides. Which of the two wins is a matter of prices, so it is computed, not claimed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import UsageError
from training.measure.intervals import Interval, resample
from training.measure.uploads import saved_bytes

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["Cost", "Prices", "cost_of"]

#: What the figures are called where users give them.
_OPTIONS = {
    "usd_per_call": "--price-per-call",
    "usd_per_gb": "--price-per-gb",
    "uplink_mbit_s": "--uplink",
    "images_per_day": "--images-per-day",
}

_GB = 1e9
_MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What bytes and calls cost; None where nobody knows.

    Attributes:
        usd_per_call: of the service.
        usd_per_gb: of the uplink, for 10⁹ bytes.
        uplink_mbit_s: its speed.
        images_per_day: that the device takes.
    """

    usd_per_call: float | None = None
    usd_per_gb: float | None = None
    uplink_mbit_s: float | None = None
    images_per_day: float | None = None

    def __post_init__(self) -> None:
        for name, option in _OPTIONS.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{option} is {value}; allowed is a number of 0 or more.")
        if self.uplink_mbit_s == 0:
            raise UsageError("--uplink is 0; a link that sends nothing has no cost to compare.")
        if self.images_per_day is not None and self.usd_per_gb is None:
            raise UsageError("--images-per-day needs a price; add --price-per-gb USD.")

    @property
    def asked(self) -> bool:
        """Whether there is anything to compute."""
        return self.usd_per_gb is not None or self.uplink_mbit_s is not None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an image saves against sending its reference; below zero it costs more.

    Attributes:
        prices: what it was computed with.
        bytes_saved: request bodies, the monitor's extra ones taken off.
        extra_calls: the monitor's.
        net_usd_per_million: bytes saved minus extra calls, or None without a price per GB.
        net_usd_per_day: likewise, or None where nobody said how many images a day has.
        upload_ms_saved: None without an uplink.
        sentence: the same for people.
    """

    prices: Prices
    bytes_saved: Interval
    extra_calls: Interval
    net_usd_per_million: Interval | None
    net_usd_per_day: Interval | None
    upload_ms_saved: Interval | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def cost_of(
    table: AnswerTable,
    choices: NDArray[np.int64],
    calls: NDArray[np.float64],
    prices: Prices,
    *,
    decision_ms: float,
    rng: np.random.Generator,
) -> Cost:
    """Compute what a policy saves.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (N,).
        calls: each picture's calls, (N,); all but one upload the reference.
        prices: of bytes and calls.
        decision_ms: time to choose a rung, which an upload's time is set against.
        rng: source of the bootstrap.
    """
    extra = calls - 1.0
    saved = saved_bytes(table, choices, calls)
    net = saved / _GB * (prices.usd_per_gb or 0.0) - extra * (prices.usd_per_call or 0.0)
    draws = resample(table.groups, rng)
    bytes_saved, extra_calls, usd = draws.figures(np.column_stack([saved, extra, net]))
    known, link = prices.usd_per_gb is not None, prices.uplink_mbit_s
    per_million = _times(usd, _MILLION) if known else None
    milliseconds = _times(bytes_saved, 8.0 / (link * 1000.0)) if link else None
    daily = prices.images_per_day
    return Cost(
        prices=prices,
        bytes_saved=bytes_saved,
        extra_calls=extra_calls,
        net_usd_per_million=per_million,
        net_usd_per_day=_times(usd, daily) if known and daily is not None else None,
        upload_ms_saved=milliseconds,
        sentence=" ".join(
            [
                *_money(per_million, bytes_saved.mean, extra_calls.mean, prices),
                *_time(milliseconds, decision_ms, prices),
            ]
        ),
    )


def _times(figure: Interval, factor: float) -> Interval:
    return Interval(figure.mean * factor, figure.lo * factor, figure.hi * factor)


def _money(net: Interval | None, saved: float, extra: float, prices: Prices) -> list[str]:
    if net is None:
        return []
    gigabytes, calls = abs(saved) * _MILLION / _GB, extra * _MILLION
    change, verb = ("less", "save") if saved >= 0 else ("more", "cost")
    worth, paid = gigabytes * (prices.usd_per_gb or 0.0), calls * (prices.usd_per_call or 0.0)
    reasons = (
        f"{gigabytes:,.1f} GB {change} on the wire {verb} {_usd(worth)} and {calls:,.0f} extra "
        f"calls of the monitor cost {_usd(paid)}"
    )
    if net.mean < 0:
        told = [
            f"Sending the reference would be cheaper: a million images cost {_usd(-net.mean)} more "
            f"with the agent (95 % interval {-net.hi:,.2f} to {-net.lo:,.2f}), because {reasons}."
        ]
    else:
        between = f"95 % interval {net.lo:,.2f} to {net.hi:,.2f}"
        told = [f"A million images save {_usd(net.mean)} ({between}): {reasons}."]
    if prices.usd_per_call is None:
        told.append("What a call costs is not known and counted as nothing; add --price-per-call.")
    if prices.images_per_day is not None:
        daily = net.mean * prices.images_per_day / _MILLION
        verb = "saves" if daily >= 0 else "loses"
        told.append(f"A day of {prices.images_per_day:,.0f} images {verb} {_usd(abs(daily))}.")
    return told


def _time(saved: Interval | None, decision_ms: float, prices: Prices) -> list[str]:
    if saved is None:
        return []
    change = f"{abs(saved.mean):.1f} ms {'less' if saved.mean >= 0 else 'more'}"
    wins = saved.mean > decision_ms
    return [
        f"At {prices.uplink_mbit_s:g} Mbit/s an image takes {change} to upload, and "
        f"{decision_ms:.1f} ms to choose its rung"
        + ("." if wins else ": on this link the agent saves no time.")
    ]


def _usd(amount: float) -> str:
    return f"{amount:,.2f} USD"
