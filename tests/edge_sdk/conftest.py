"""A device that runs in memory: a service with tastes, engines that want one rung, a store."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_sdk.agent import Agent
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.behind import Inline
from edge_sdk.client import EdgeClient
from edge_sdk.codec import encode
from edge_sdk.config import EdgeConfig
from edge_sdk.engine import Scores
from edge_sdk.errors import BackendUnavailable
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import PAPER, REFERENCE, Ladder
from edge_sdk.policy import OperatingPoint
from edge_sdk.preprocess import spec_sha256
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.scenery import Signature
from edge_sdk.second_look import SCHEMA as PROBE
from model_store.errors import AgentNotFound

#: First luma step of the quantisation table -> quality, for the paper's rungs.
_STEPS = {
    Image.open(io.BytesIO(encode(Image.new("RGB", (8, 8)), rung))).quantization[0][0]: rung.quality  # type: ignore[attr-defined]
    for rung in PAPER
}


class Service:
    """Says ``cat`` to the reference and to the qualities it can read, ``blur`` to the others.

    Which ones those are depends on the scenery: bright pictures are day, dark ones night.
    """

    name = "fake://"

    def __init__(self) -> None:
        self.capabilities = Capabilities(max_bytes=2**22, min_side=1, max_side=4096)
        self.readable = {"day": {15, 25, 35, 45, 55, 65, 75}, "night": {25, 35, 45, 55, 65, 75}}
        self.qualities: list[int] = []
        self.failing: set[int] = set()
        self.closed = 0

    def recognize(self, jpeg: bytes) -> Recognition:
        with Image.open(io.BytesIO(jpeg)) as picture:
            quality = _STEPS.get(picture.quantization[0][0], 0)  # type: ignore[attr-defined]
            scenery = "day" if np.asarray(picture.convert("L")).mean() > 128 else "night"
        self.qualities.append(quality)
        if quality in self.failing:
            raise BackendUnavailable("The fake service is down.")
        good = quality in self.readable[scenery]
        labels = (Label("cat" if good else "blur", 0.9),)
        return Recognition(labels, wire_bytes=self.wire_size(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg) + 100

    def close(self) -> None:
        self.closed += 1


class Eye:
    """An engine whose features are mean colours and whose choice is one fixed quality."""

    side, provider = 8, "fake"

    def __init__(self, quality: int, ladder: Ladder = PAPER) -> None:
        self.ladder = ladder
        self.best = [rung.quality for rung in ladder].index(quality)
        self.broken = False

    def run(self, images: NDArray[np.uint8]) -> Scores:
        if self.broken:
            raise RuntimeError("the engine broke")
        features = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32) / 255
        q_values = np.tile(np.eye(len(self.ladder), dtype=np.float32)[self.best], (len(images), 1))
        return Scores(features=features, q_values=q_values)


class Shelf:
    """A store in memory; ``load`` is what a client is given to build agents from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.agents: dict[str, Agent] = {}
        self.current: str | None = None
        self.promoted: list[tuple[str, str]] = []
        self.broken = False

    def add(self, agent: Agent, *, current: bool = False) -> Agent:
        self.agents[agent.id] = agent
        if current:
            self.current = agent.id
        return agent

    def ids(self) -> tuple[str, ...]:
        self._check()
        return tuple(sorted(self.agents))

    def manifest(self, reference: str, /) -> Any:
        signature = self.agents[reference].signature
        scenery = {"signature": signature.to_dict() if signature else None}
        return SimpleNamespace(scenery=scenery)

    def load(self, reference: str, /) -> Any:
        self._check()
        return SimpleNamespace(id=reference)

    def load_healthy(self, alias: str, /) -> tuple[Any, tuple[str, ...]]:
        self._check()
        if self.current is None:
            raise AgentNotFound(alias)
        return SimpleNamespace(id=self.current), ()

    def promote(self, reference: str, /, alias: str, reason: str) -> None:
        self._check()
        self.promoted.append((alias, reference))

    def build(self, stored: Any) -> Agent:
        return self.agents[stored.id]

    def _check(self) -> None:
        if self.broken:
            raise OSError("the disk is gone")


class Trainer:
    """A retrainer that answers what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.requests: list[RetrainRequest] = []
        self.result: RetrainResult | None = None
        self.closed = 0

    def start(self, request: RetrainRequest) -> None:
        self.requests.append(request)

    def poll(self) -> RetrainResult | None:
        result, self.result = self.result, None
        return result

    def close(self) -> None:
        self.closed += 1


@dataclass
class Device:
    """Everything around a client, at hand for a test."""

    folder: Path
    service: Service = field(default_factory=Service)
    trainer: Trainer = field(default_factory=Trainer)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    clients: list[EdgeClient] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shelf = Shelf(self.folder / "store")

    def picture(self, scenery: str = "day", size: tuple[int, int] = (96, 64)) -> Image.Image:
        """Return a noisy picture of its own."""
        centre = 200 if scenery == "day" else 40
        noise = self.rng.integers(-30, 31, (size[1], size[0], 3))
        return Image.fromarray((centre + noise).astype(np.uint8))

    def reference(self, picture: Image.Image) -> bytes:
        """Return a picture's reference upload."""
        return encode(picture, REFERENCE)

    def agent(self, name: str, quality: int, scenery: str = "") -> Agent:
        """Return an agent that always wants ``quality``; with a scenery, it has a signature."""
        engine, signature = Eye(quality), None
        if scenery:
            seen = [self.picture(scenery).resize((8, 8)) for _ in range(60)]
            features = engine.run(np.stack([np.asarray(image) for image in seen])).features
            signature = Signature.from_features(features, np.random.default_rng(0))
        return Agent(name, engine, OperatingPoint(trade_off=None), scenery, signature)

    def config(self, **choices: Any) -> EdgeConfig:
        """Return a configuration that estimates every picture and is alarmed by answers alone."""
        always = LoopParameters(p_0=1.0, p_min=1.0)
        defaults = EdgeConfig(
            store=self.shelf,
            backend=self.service,
            loop=always,
            monitor="paper",
            retrain_after=16,
            folder=self.folder,
        )
        return replace(defaults, **choices)

    def client(self, config: EdgeConfig | None = None, **choices: Any) -> EdgeClient:
        """Return a client that is closed after the test, and does everything at once."""
        own = {"retrainer": self.trainer, "load": self.shelf.build, "behind": Inline()}
        choices = {**own, **choices}
        self.clients.append(EdgeClient(config or self.config(), **choices))
        return self.clients[-1]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device whose current agent is good by day."""
    made = Device(tmp_path)
    made.shelf.add(made.agent("day", quality=15, scenery="day"), current=True)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture(scope="session")
def make_probe() -> Callable[..., bytes]:
    """Make the ONNX file of a probe; see ``_probe``."""
    return _probe


def _probe(
    ladder: Ladder = PAPER,
    *,
    dimension: int = 3,
    metadata: Mapping[str, str] | None = None,
    rename: Mapping[str, str] | None = None,
    width: int | None = None,
) -> bytes:
    """Make a probe: sigmoid of the moved colours times 20, the rung's row of a table, the size.

    Args:
        ladder: the rungs in the metadata.
        dimension: D.
        metadata: entries that replace the right ones.
        rename: other names of inputs and outputs.
        width: columns of the output; default as many as rungs.
    """
    called = {"original": "original", "candidate": "candidate", "agreement": "agreement"}
    called |= rename or {}
    columns = width or len(ladder)
    weights = {
        "steepness": np.full((dimension, columns), 20.0, dtype=np.float32),
        "rows": np.linspace(-2.0, 2.0, len(ladder) * columns, dtype=np.float32),
        "shape": np.array([len(ladder), columns]),
    }
    nodes = [
        helper.make_node("Sub", [called["candidate"], called["original"]], ["moved"]),
        helper.make_node("MatMul", ["moved", "steepness"], ["seen"]),
        helper.make_node("Reshape", ["rows", "shape"], ["table"]),
        helper.make_node("Gather", ["table", "rung"], ["row"]),
        helper.make_node("Add", ["seen", "row"], ["placed"]),
        helper.make_node("Add", ["placed", "size_ratio"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], [called["agreement"]]),
    ]
    value, number = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "probe",
        [
            value(called["original"], number, (1, dimension)),
            value(called["candidate"], number, (1, dimension)),
            value("rung", TensorProto.INT64, (1,)),
            value("size_ratio", number, (1,)),
        ],
        [value(called["agreement"], number, (1, columns))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {
        "schema": PROBE,
        "ladder": json.dumps([rung.as_dict() for rung in ladder]),
        "preprocess_sha256": spec_sha256(),
    }
    helper.set_model_props(model, {**facts, **(metadata or {})})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
