"""An agent that looks before it sends: what it encodes, what it may cost, what a failure does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import EdgeClient, EdgeConfig, parcel
from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities
from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine, Scores
from edge_sdk.errors import EngineError, ImageError
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import PAPER, REFERENCE, Ladder, Rung
from edge_sdk.parcel import Packer
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.probe import expectation
from edge_sdk.reading import Picture
from edge_sdk.second_look import OnnxProbe
from model_store import CorruptAgent, Draft, Store, StoredAgent
from model_store.errors import StoreError, UsageError

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)
CAPABILITIES = Capabilities(max_bytes=2**22, min_side=1, max_side=4096)
POINT = OperatingPoint(trade_off=2.0, max_probes=3, certified=True)

Publish = Callable[..., StoredAgent]


class Foresight:
    """An engine with fixed predictions, whose features are mean colours."""

    side, provider, ladder = 8, "fake", PAPER

    def __init__(self, agreement: Any, size_ratio: Any) -> None:
        self.agreement = np.asarray(agreement, dtype=np.float32)[None]
        self.size_ratio = np.asarray(size_ratio, dtype=np.float32)[None]

    def run(self, images: NDArray[np.uint8]) -> Scores:
        features = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32)
        q_values = self.agreement - self.size_ratio
        return Scores(features, q_values, self.agreement, self.size_ratio)


class Glass:
    """A probe that tells a fixed table, row by probed rung, and keeps what it was shown."""

    def __init__(self, table: Any) -> None:
        self.table = np.asarray(table, dtype=np.float32)
        self.shown: list[tuple[Any, Any, int, float]] = []
        self.broken: Exception | None = None

    def run(self, original: Any, candidate: Any, rung: int, size_ratio: float) -> Any:
        if self.broken:
            raise self.broken
        self.shown.append((original, candidate, rung, size_ratio))
        return self.table[rung]


def climber(probe: Any = None, point: OperatingPoint = POINT) -> Agent:
    """Return an agent that tries the cheapest rungs first and learns that only q45 is any good."""
    engine = Foresight([0.9] * 7 + [1.0, 0.9, 0.9], np.linspace(0.1, 1.2, 10))
    return Agent("climber", engine, point, probe=probe or Glass(doubts()))


def doubts() -> NDArray[np.float64]:
    """Seen from any rung, those below q45 are hopeless."""
    row = np.array([0.1] * 4 + [0.97, 0.98, 0.98, 1.0, 0.98, 0.98])
    return np.tile(row, (10, 1))


class Encoder:
    """Counts what is encoded."""

    def __init__(self, picture: Image.Image) -> None:
        self.packer = Packer(Picture(picture), CAPABILITIES)
        self.rungs: list[Rung] = []

    def __call__(self, rung: Rung) -> tuple[bytes, float]:
        self.rungs.append(rung)
        return self.packer.candidate(rung)


# --- deciding ---------------------------------------------------------------------------------


def test_a_probe_sees_the_original_the_encoding_its_rung_and_its_size(photo: Image.Image) -> None:
    glass, encoder = Glass(doubts()), Encoder(photo)
    decision = climber(glass).decide(photo, encoder)
    assert decision.probed == (0, 4)
    assert decision.rung == 4
    assert encoder.rungs == [PAPER[0], PAPER[4]]
    for (original, candidate, rung, size_ratio), index in zip(glass.shown, (0, 4), strict=True):
        jpeg = encode(photo, PAPER[index])
        assert (rung, size_ratio) == (index, len(jpeg) / len(encode(photo, REFERENCE)))
        np.testing.assert_array_equal(original, decision.features)
        assert candidate.shape == (3,)
    (_, rough, *_), (_, fine, *_) = glass.shown
    assert np.abs(rough - decision.features).sum() > np.abs(fine - decision.features).sum() > 0


@given(st.data())
@settings(max_examples=50)
def test_only_probed_rungs_are_encoded_each_once_and_few(data: st.DataObject) -> None:
    shares = st.floats(0, 1, width=32) | st.just(1.0)
    row = st.lists(shares, min_size=10, max_size=10)
    most = data.draw(st.integers(0, 4))
    sizes = data.draw(st.lists(st.floats(0.0625, 2, width=32), min_size=10, max_size=10))
    table = [data.draw(row)] * 10
    agent = Agent(
        "any",
        Foresight(data.draw(row), sizes),
        OperatingPoint(trade_off=data.draw(st.floats(0.0, 1e6)), max_probes=most),
        probe=Glass(table),
    )
    encoder = Encoder(Image.new("RGB", (16, 16), (90, 120, 30)))
    decision = agent.decide(Image.new("RGB", (16, 16), (90, 120, 30)), encoder)
    assert len(decision.probed) <= most
    assert encoder.rungs == [PAPER[index] for index in decision.probed]
    assert len(set(encoder.rungs)) == len(encoder.rungs)


@pytest.mark.parametrize(
    ("agent", "given_encode"),
    [
        (climber(), False),
        (replace(climber(), probe=None), True),
        (climber(point=replace(POINT, max_probes=0)), True),
        (climber(point=replace(POINT, trade_off=None)), True),
        (climber(point=replace(POINT, trade_off=None, rung=6)), True),
    ],
)
def test_where_it_may_not_look_it_decides_by_the_picture_alone(
    agent: Agent, given_encode: bool, photo: Image.Image
) -> None:
    encoder = Encoder(photo)
    decision = agent.decide(photo, encoder if given_encode else None)
    assert encoder.rungs == []
    assert decision.probed == ()
    assert decision.rung == choose(decision.scores, agent.operating_point)[0]


def test_only_usable_rungs_are_looked_at(photo: Image.Image) -> None:
    encoder = Encoder(photo)
    decision = climber().decide(photo, encoder, usable=[1, 2, 5, 7])
    assert {decision.rung, *decision.probed} <= {1, 2, 5, 7}
    assert decision.rung == 5


# --- on a device ------------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Rung]:
    """Every encoding that the parcels ask the codec for."""
    rungs: list[Rung] = []

    def counting(image: Image.Image, rung: Rung) -> bytes:
        rungs.append(rung)
        return encode(image, rung)

    monkeypatch.setattr(parcel, "encode", counting)
    return rungs


def test_what_was_looked_at_is_uploaded_and_not_encoded_again(
    device: Any, encoded: list[Rung]
) -> None:
    device.shelf.add(climber(), current=True)
    client = device.client(device.config(loop=NEVER))
    picture = device.picture()
    result = client.process(picture)
    assert (result.rung, result.calls) == (PAPER[4], 1)
    assert sorted(rung.quality for rung in encoded) == [5, 45, 75]  # two looks, the reference
    assert result.bytes == len(encode(picture, PAPER[4]))


def test_an_estimation_encodes_nothing_twice_either(device: Any, encoded: list[Rung]) -> None:
    device.shelf.add(climber(), current=True)
    result = device.client().process(device.picture())
    assert result.calls == 2
    assert sorted(rung.quality for rung in encoded) == [5, 45, 75]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), EngineError("no probe")])
def test_a_probe_that_raises_is_counted_and_the_reference_served(
    error: Exception, device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    glass = Glass(doubts())
    device.shelf.add(climber(glass), current=True)
    client = device.client(device.config(loop=NEVER))
    glass.broken = error
    results = [client.process(device.picture()) for _ in range(3)]
    assert {(one.rung, one.calls, one.fallback) for one in results} == {(REFERENCE, 1, "engine")}
    assert {one.labels[0].name for one in results} == {"cat"}
    assert dict(client.stats().failures) == {"engine": 3}
    assert len([one for one in caplog.records if "part=engine" in one.message]) == 1
    glass.broken = None
    assert client.process(device.picture()).rung == PAPER[4]


def test_a_candidate_that_cannot_be_encoded_is_counted_and_the_reference_served(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(image: Image.Image, rung: Rung) -> bytes:
        if rung != REFERENCE:
            raise ImageError("A picture cannot be encoded.")
        return encode(image, rung)

    monkeypatch.setattr(parcel, "encode", failing)
    device.shelf.add(climber(), current=True)
    client = device.client(device.config(loop=NEVER))
    result = client.process(device.picture())
    assert (result.rung, result.fallback) == (REFERENCE, "engine")


def test_a_probe_that_tells_nothing_finite_still_ends(device: Any) -> None:
    device.shelf.add(climber(Glass(np.full((10, 10), np.nan))), current=True)
    client = device.client(device.config(loop=NEVER))
    assert client.process(device.picture()).labels


# --- from the store ---------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "agents", clock=lambda: 2e9)


@pytest.fixture
def publish(store: Store, make_engine: Callable[..., bytes]) -> Publish:
    """Publish an agent with these operating points and this probe file, as ``current``."""

    def publish(
        points: list[OperatingPoint], probe: bytes | None, ladder: Ladder = PAPER
    ) -> StoredAgent:
        engine = make_engine(ladder)
        draft = Draft(
            algorithm="bandit",
            ladder=[rung.as_dict() for rung in ladder],
            signature={
                "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
                "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, len(ladder)]}],
            },
            preprocessing={"spec": SPEC, "sha256": spec_sha256()},
            reward={"alpha": 1.0, "beta": 0.0},
            operating_points=[point.as_dict() for point in points],
            backend={"name": "fake://", "model_version": None, "min_score": 0.0},
            training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
            probe=expectation(OnnxEngine(engine)),
        )
        files = {"engine.onnx": ("engine", engine)}
        if probe is not None:
            files["probe.onnx"] = ("probe", probe)
        return store.load(store.publish(draft, files, aliases=["current"]).id)

    return publish


FOUR = OperatingPoint(trade_off=2.0, max_probes=4, certified=True, target=0.95)
TWO = replace(FOUR, trade_off=3.0, max_probes=2)
NONE = replace(FOUR, trade_off=9.0, max_probes=0, certified=False)


def test_an_agent_brings_its_probe(
    publish: Publish, make_probe: Callable[..., bytes], photo: Image.Image
) -> None:
    agent = load_agent(publish([FOUR, NONE], make_probe()))
    assert isinstance(agent.probe, OnnxProbe)
    assert agent.operating_point == FOUR
    encoder = Encoder(photo)
    decision = agent.decide(photo, encoder)
    assert decision.probed
    assert [PAPER.index(rung) for rung in encoder.rungs] == list(decision.probed)


@pytest.mark.parametrize(
    ("max_probes", "expected"),
    [(None, FOUR), (9, FOUR), (4, FOUR), (3, TWO), (2, TWO), (1, NONE), (0, NONE)],
)
def test_a_device_takes_the_first_point_that_it_can_afford(
    max_probes: int | None,
    expected: OperatingPoint,
    publish: Publish,
    make_probe: Callable[..., bytes],
) -> None:
    stored = publish([FOUR, TWO, NONE], make_probe())
    agent = load_agent(stored, max_probes=max_probes)
    assert agent.operating_point == expected
    assert (agent.probe is not None) == (expected.max_probes > 0)


def test_fewer_looks_than_any_point_was_certified_for_are_not_certified(
    publish: Publish, make_probe: Callable[..., bytes]
) -> None:
    agent = load_agent(publish([FOUR], make_probe()), max_probes=1)
    assert agent.operating_point == replace(FOUR, max_probes=1, certified=False)


def test_a_device_that_affords_no_look_does_not_even_read_the_probe(
    publish: Publish, make_probe: Callable[..., bytes]
) -> None:
    stored = publish([FOUR, NONE], make_probe())
    (entry,) = stored.manifest.entries("probe")
    stored.blobs.path(entry.sha256).unlink()
    assert load_agent(stored, max_probes=0).operating_point == NONE
    with pytest.raises(CorruptAgent):
        load_agent(stored)


def test_a_point_that_probes_without_a_probe_is_refused_in_one_sentence(publish: Publish) -> None:
    stored = publish([FOUR], None)
    with pytest.raises(EngineError, match=r"needs a probe, but the agent has none") as caught:
        load_agent(stored)
    assert isinstance(caught.value, StoreError)
    assert "\n" not in str(caught.value)
    assert load_agent(stored, max_probes=0).probe is None


def test_a_probe_with_another_ladder_is_refused(
    publish: Publish, make_probe: Callable[..., bytes]
) -> None:
    with pytest.raises(EngineError, match=r"probe of agent .* has another ladder"):
        load_agent(publish([FOUR], make_probe((*PAPER[:9], REFERENCE))))


@pytest.mark.parametrize("max_probes", [None, 0])
def test_the_configuration_says_what_the_device_can_afford(
    max_probes: int | None,
    device: Any,
    store: Store,
    publish: Publish,
    make_probe: Callable[..., bytes],
    encoded: list[Rung],
) -> None:
    stored, picture = publish([FOUR, replace(NONE, trade_off=0.0)], make_probe()), device.picture()
    config = EdgeConfig(
        store=store.root, backend=device.service, loop=NEVER, max_probes=max_probes, strict=True
    )
    with EdgeClient(config) as client:
        result = client.process(picture)
    expected = load_agent(stored, max_probes=max_probes).decide(picture, Encoder(picture))
    assert bool(expected.probed) == (max_probes is None)
    probed = {PAPER[index] for index in expected.probed}
    assert {*encoded, REFERENCE} == {*probed, PAPER[expected.rung], REFERENCE}
    assert result.rung in (PAPER[expected.rung], REFERENCE)


def test_a_negative_number_of_looks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"max_probes is -1; allowed is 0 or more, or None"):
        EdgeConfig(store="agents", backend="fake://", max_probes=-1)
