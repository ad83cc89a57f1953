"""Figures on their way out: every sink, and none that can do harm."""

from __future__ import annotations

import doctest
import logging
import re

import pytest

from edge_sdk import metrics
from edge_sdk.metrics import NAMES, LoggingSink, Meter, PrometheusSink

#: A line of the text format: name, labels, value.
_LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*\})? -?[0-9.e+-]+')


def test_the_docstring_is_right() -> None:
    assert doctest.testmod(metrics).failed == 0


def test_prometheus_gets_valid_lines_with_sums() -> None:
    sink = PrometheusSink()
    sink.incr("adacompress_drops_total", reason='a "quoted"\nreason\\')
    sink.incr("adacompress_drops_total", 2, reason="queue-full")
    sink.incr("adacompress_drops_total", reason="queue-full")
    sink.gauge("adacompress_waiting", 3)
    sink.gauge("adacompress_waiting", 1)
    for value in (1.5, 2.0):
        sink.observe("adacompress_milliseconds", value, part="load")
    sink.incr("own_total", colour="red")
    lines = sink.text().splitlines()
    assert 'adacompress_drops_total{reason="queue-full"} 3' in lines
    assert "adacompress_waiting 1" in lines
    assert 'adacompress_milliseconds_sum{part="load"} 3.5' in lines
    assert 'adacompress_milliseconds_count{part="load"} 2' in lines
    assert "# TYPE adacompress_milliseconds summary" in lines
    assert "# TYPE own_total untyped" in lines
    assert all(_LINE.fullmatch(line) for line in lines if not line.startswith("#"))
    assert lines.index("# TYPE adacompress_drops_total counter") == 1


def test_the_log_gets_every_figure(caplog: pytest.LogCaptureFixture) -> None:
    sink = LoggingSink()
    with caplog.at_level(logging.DEBUG, "edge_sdk.metrics"):
        sink.incr("a", 2, part="x")
        sink.gauge("b", 0.5)
        sink.observe("c", 7)
    assert [one.getMessage() for one in caplog.records] == [
        "a +2 {'part': 'x'}",
        "b =0.5 {}",
        "c ~7 {}",
    ]


def test_a_sink_that_raises_is_told_of_and_stops_nothing() -> None:
    errors: list[Exception] = []
    meter = Meter(object(), errors.append)  # type: ignore[arg-type]
    meter.incr("a")
    meter.gauge("b", 1)
    meter.observe("c", 1)
    assert len(errors) == 3
    Meter(None, errors.append).incr("a")
    assert len(errors) == 3


def test_counters_are_named_as_counters() -> None:
    assert all((kind == "counter") == name.endswith("_total") for name, (kind, _) in NAMES.items())
