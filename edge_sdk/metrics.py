"""Where a client's figures go while it runs: nowhere, to the log, or to a text for Prometheus.

A sink is anything with :class:`MetricsSink`'s three methods. It is called from several threads and
must return at once; what it raises is counted and otherwise ignored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

__all__ = ["NAMES", "LoggingSink", "Meter", "MetricsSink", "PrometheusSink"]

#: Every figure: its kind, and what it is.
NAMES = {
    "adacompress_images_total": ("counter", "Pictures served, by state."),
    "adacompress_uploads_total": ("counter", "Uploads tried."),
    "adacompress_jpeg_bytes_total": ("counter", "Bytes of the served JPEG files."),
    "adacompress_wire_bytes_total": ("counter", "Bytes of all answered requests."),
    "adacompress_fallbacks_total": ("counter", "Pictures at the reference out of need, by reason."),
    "adacompress_skips_total": ("counter", "Pictures for which something was spared, by what."),
    "adacompress_drops_total": ("counter", "What was given up, by reason."),
    "adacompress_failures_total": ("counter", "What failed without reaching the caller, by part."),
    "adacompress_swaps_total": ("counter", "Changes of the current agent."),
    "adacompress_milliseconds": ("summary", "Milliseconds a picture, by part."),
    "adacompress_p_est": ("gauge", "The probability that the next picture is estimated."),
    "adacompress_waiting": ("gauge", "Submitted pictures that are not answered yet."),
    "adacompress_uplink_bytes_per_second": ("gauge", "The measured uplink."),
}

_log = logging.getLogger("edge_sdk.metrics")


class MetricsSink(Protocol):
    """Takes figures by the names in ``NAMES``; labels say of what."""

    def incr(self, name: str, value: float = 1.0, /, **labels: str) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a value."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one observation to a distribution."""


class LoggingSink:
    """Writes each figure to the logger ``edge_sdk.metrics``, at level DEBUG."""

    def incr(self, name: str, value: float = 1.0, /, **labels: str) -> None:
        """Log an addition."""
        _log.debug("%s +%g %s", name, value, labels)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Log a value."""
        _log.debug("%s =%g %s", name, value, labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Log an observation."""
        _log.debug("%s ~%g %s", name, value, labels)


class PrometheusSink:
    """Keeps figures for a scraper: give :meth:`text` to whatever answers ``/metrics``.

    >>> sink = PrometheusSink()
    >>> sink.incr("adacompress_drops_total", reason="queue")
    >>> print(sink.text(), end="")
    # HELP adacompress_drops_total What was given up, by reason.
    # TYPE adacompress_drops_total counter
    adacompress_drops_total{reason="queue"} 1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, float]] = {}  # name -> line's beginning -> value

    def incr(self, name: str, value: float = 1.0, /, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._add(name, name, labels, value)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a value."""
        with self._lock:
            self._values.setdefault(name, {})[_line(name, labels)] = value

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add to the sum and the count of a distribution."""
        with self._lock:
            self._add(name, f"{name}_sum", labels, value)
            self._add(name, f"{name}_count", labels, 1.0)

    def text(self) -> str:
        """Return everything in the text format, version 0.0.4."""
        with self._lock:
            values = {name: dict(lines) for name, lines in self._values.items()}
        rows = []
        for name, lines in sorted(values.items()):
            kind, meaning = NAMES.get(name, ("untyped", "A figure of the host's own."))
            rows += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            rows += [f"{line} {value:.15g}" for line, value in sorted(lines.items())]
        return "".join(f"{row}\n" for row in rows)

    def _add(self, name: str, called: str, labels: dict[str, str], value: float) -> None:
        lines, line = self._values.setdefault(name, {}), _line(called, labels)
        lines[line] = lines.get(line, 0.0) + value


def _line(name: str, labels: dict[str, str]) -> str:
    said = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{said}}}" if said else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Meter:
    """A sink that never raises.

    Args:
        sink: where figures go, or None for nowhere.
        on_error: told what the sink raised.
    """

    def __init__(self, sink: MetricsSink | None, on_error: Callable[[Exception], None]) -> None:
        self._sink = sink
        self._on_error = on_error

    def incr(self, name: str, value: float = 1.0, /, **labels: str) -> None:
        """Add to a counter."""
        self._tell("incr", name, value, labels)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a value."""
        self._tell("gauge", name, value, labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one observation to a distribution."""
        self._tell("observe", name, value, labels)

    def _tell(self, kind: str, name: str, value: float, labels: dict[str, str]) -> None:
        if self._sink is None:
            return
        try:
            getattr(self._sink, kind)(name, value, **labels)
        except Exception as error:  # a broken sink must not stop the host
            self._on_error(error)
