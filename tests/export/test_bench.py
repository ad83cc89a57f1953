"""The bench's figures, on a clock of our own."""

from __future__ import annotations

from itertools import count

import pytest
from PIL import Image

from edge_sdk.agent import Agent
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER
from edge_sdk.second_look import OnnxProbe
from export.bench import DECISIONS, bench, table
from export.fuse import export_probe, fuse
from export.run import TrainingRun
from model_store.errors import UsageError


@pytest.fixture(scope="module")
def engine(run_of_training: TrainingRun) -> bytes:
    return fuse(run_of_training.prefix, run_of_training.head, PAPER)


def test_a_row_tells_each_variants_size_time_and_ratio(
    engine: bytes, run_of_training: TrainingRun
) -> None:
    agent = Agent("a", OnnxEngine(engine), run_of_training.operating_point)
    ticks = count()
    models = {"fp32": engine, "int8": engine}
    photos = [Image.new("RGB", (64, 48), (index, 90, 9)) for index in range(4)]
    rows = bench(agent, models, photos, clock=lambda: next(ticks) / 1000)
    assert [row.variant for row in rows] == ["fp32", "int8"]
    for row in rows:
        assert row.size == len(engine)
        assert (row.decision_ms, row.encode_ms, row.load_ms) == pytest.approx((1.0, 1.0, 1.0))
        assert row.ratio == pytest.approx(1.0)
        assert row.looks_ms is None
    assert next(ticks) > 2 * 3 * DECISIONS  # two readings for each of three kinds of work
    assert [line.split()[0] for line in table(rows).splitlines()] == ["variant", "fp32", "int8"]


def test_a_probing_agents_looks_are_timed_apart(engine: bytes, probing_run: TrainingRun) -> None:
    assert probing_run.probe is not None
    probe = OnnxProbe(export_probe(probing_run.probe, 8, PAPER))
    agent = Agent("a", OnnxEngine(engine), probing_run.operating_point, probe=probe)
    (row,) = bench(agent, {"fp32": engine}, [Image.new("RGB", (64, 48))])
    assert row.looks_ms is not None
    assert row.as_dict()["looks_ms"] == row.looks_ms


def test_without_photos_nothing_can_be_timed(engine: bytes, run_of_training: TrainingRun) -> None:
    agent = Agent("a", OnnxEngine(engine), run_of_training.operating_point)
    with pytest.raises(UsageError, match="no pictures to time"):
        bench(agent, {"fp32": engine}, [])
