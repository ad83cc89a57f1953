"""What a client counts, and whom it tells: counters, metrics, hooks and faults in one place."""

from __future__ import annotations

from functools import partial

from edge_sdk.faults import Faults
from edge_sdk.footprint import give_back
from edge_sdk.hooks import Hooks
from edge_sdk.metrics import Meter, MetricsSink
from edge_sdk.plan import Outcome
from edge_sdk.stats import Counters, Result

__all__ = ["Tally"]


class Tally:
    """Safe to use from several threads; nothing here raises.

    Args:
        hooks: the host's.
        metrics: where figures go, or None.
        strict: see ``Faults``.
    """

    def __init__(self, hooks: Hooks, metrics: MetricsSink | None, *, strict: bool) -> None:
        self.faults = Faults(strict=strict, told=self._failed)
        self.counters = Counters()
        self._hooks = hooks
        self._meter = Meter(metrics, partial(self.faults.note, "metrics"))

    def uploaded(self, outcome: Outcome, calls: int = 0, wire_bytes: int = 0) -> None:
        """Count an outcome's uploads, but for those that were counted before."""
        new, sent = outcome.calls - calls, outcome.uploaded_wire_bytes - wire_bytes
        self.counters.uploaded(new, sent)
        self._meter.incr("adacompress_uploads_total", new)
        self._meter.incr("adacompress_wire_bytes_total", sent)

    def served(self, result: Result, waiting: int, uplink: float | None) -> None:
        """Count one served picture, while so many others wait."""
        self.counters.served(result)
        meter = self._meter
        meter.incr("adacompress_images_total", state=result.state.value)
        meter.incr("adacompress_jpeg_bytes_total", result.bytes)
        if result.fallback:
            meter.incr("adacompress_fallbacks_total", reason=result.fallback)
        if result.skipped:
            meter.incr("adacompress_skips_total", what=result.skipped)
        for part, milliseconds in result.milliseconds.items():
            meter.observe("adacompress_milliseconds", milliseconds, part=part)
        meter.gauge("adacompress_p_est", result.p_est)
        meter.gauge("adacompress_waiting", waiting)
        if uplink is not None:
            meter.gauge("adacompress_uplink_bytes_per_second", uplink)

    def told(self, result: Result) -> None:
        """Tell the host of a result."""
        self._hooks.tell(self.faults, "on_result", result)

    def dropped(self, reason: str, key: str = "") -> None:
        """Count and tell what was given up."""
        self.counters.dropped(reason)
        self._meter.incr("adacompress_drops_total", reason=reason)
        self._hooks.tell(self.faults, "on_drop", reason, key)

    def swapped(self, old: str, new: str, reason: str) -> None:
        """Count and tell a change of the current agent."""
        give_back()  # the old engine's memory, in part
        self._meter.incr("adacompress_swaps_total")
        self._hooks.tell(self.faults, "on_swap", old, new, reason)

    def _failed(self, part: str) -> None:
        if part != "metrics":  # a sink that fails is not asked to note that
            self._meter.incr("adacompress_failures_total", part=part)
