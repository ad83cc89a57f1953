"""What the device path costs next to one plain JPEG encode of the same picture; ``make bench``.

What did not help, in trials on 500 photos: one sample a pixel instead of four (candidates looked at
so tell a fifth less), inputs of 96 and 128 pixels and prefixes cut at blocks 7 and 14 (certified
agents need 0.227, 0.225 and 0.228 of the bytes, of 96 pixels, 128 and the smallest engine, where
the best fixed rung needs 0.223; the smallest is kept for its price), a classifier of low rank (of
rank 128 it names another best class for three pictures in eight), rounding an agent that was learnt
in fp32 (one decision in fourteen changes), a bicubic filter for scaled rungs (three quarters of
Lanczos's time for what Hamming's filter does in half), simplejpeg 1.9 instead of Pillow for rungs
of plain coding (below quality 96 it has the fast DCT alone: other pixels under a rung's name, by up
to 62 levels, in each of eight photos; and as it takes a copy of the picture, 1.1 times Pillow's
time at 500x375, 1.3 at 1080p, 2.9 at 4000x3000; 0.84 to 0.97 from pixels that lie in an array
already, with the accurate DCT of quality 96 as well), decoding candidates at a fraction of their
size (an eighth of a look's time at most; and as it smooths them and not the original, the features
move by 5 to 20 % more than the encoding moved them, of photos at 1080p and 4000x3000), scaling in
bands that fit a cache (the same time at 1080p), or luma and chroma apart (1.25 times).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from edge_sdk import EdgeClient, EdgeConfig
from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.behind import Inline
from edge_sdk.bound import outweighs
from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import FULL, REFERENCE, Rung
from edge_sdk.parcel import Packer
from edge_sdk.policy import OperatingPoint
from edge_sdk.preprocess import SPEC, spec_sha256, to_input
from edge_sdk.probe import expectation
from edge_sdk.reading import Picture, load
from export.fuse import export_probe, fuse
from export.network import FactoredHead, Prefix
from model_store import Draft, Store
from training import assets
from training.learn.backbone import backbone
from training.learn.sizes import DEFAULT, SIZES, load_sized
from training.learn.start import built_in

PictureWork = Callable[[Image.Image], object]
OverPictures = Callable[[dict[str, PictureWork], PictureWork], dict[str, float]]

CAPABILITIES = Capabilities(max_bytes=2**24, min_side=1, max_side=65500)

#: λ at which the built-in heads look about as often as a certified agent does.
TRADE_OFF = 8.0

#: A rung that agents often choose.
SCALED = next(rung for rung in FULL if rung.name == "q28@0.5")


class Silent:
    """A service in this process that answers at once."""

    name = "silent://"
    capabilities = CAPABILITIES

    def recognize(self, jpeg: bytes) -> Recognition:
        return Recognition((Label("cat", 0.9),), wire_bytes=len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def engines(mobilenet: Path) -> dict[str, OnnxEngine]:
    kinds = [(name, "int8") for name in SIZES] + [(DEFAULT, "fp32")]
    return {f"{name} {kind}": _engine(load_sized(name, precision=kind)) for name, kind in kinds}


def _engine(prefix: Prefix) -> OnnxEngine:
    head = FactoredHead(prefix.dimension, FULL)
    return OnnxEngine(fuse(backbone(prefix, assets.cache_dir() / "prefix"), head, FULL))


@pytest.fixture(scope="module")
def store(mobilenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the agent that learning starts from: whole prefix, probe and all."""
    prefix = load_sized(DEFAULT)
    start = built_in(prefix, FULL)
    assert start.static is not None
    assert start.probe is not None
    engine = fuse(backbone(prefix, assets.cache_dir() / "prefix"), start.static, FULL)
    draft = Draft(
        algorithm="bandit",
        ladder=[rung.as_dict() for rung in FULL],
        signature={
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 224, 224, 3]}],
            "outputs": [{"name": "features", "dtype": "float32", "shape": [1, 1287]}],
        },
        preprocessing={"spec": SPEC, "sha256": spec_sha256()},
        reward={"alpha": 1.0, "beta": 0.0},
        operating_points=[OperatingPoint(trade_off=TRADE_OFF, max_probes=4).as_dict()],
        backend={"name": "silent://", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=expectation(OnnxEngine(engine)),
    )
    store = Store(tmp_path_factory.mktemp("store"))
    look = export_probe(start.probe, prefix.dimension, FULL)
    files = {"engine.onnx": ("engine", engine), "probe.onnx": ("probe", look)}
    store.publish(draft, files, aliases=["current"])
    return store


@pytest.fixture(scope="module")
def agent(store: Store) -> Agent:
    return load_agent(store.load("current"))


@pytest.fixture
def opened(store: Store) -> Iterator[Callable[[int], EdgeClient]]:
    """Open clients whose agent may look a number of times, and that upload nothing besides."""
    clients: list[EdgeClient] = []

    def open_client(max_probes: int) -> EdgeClient:
        config = EdgeConfig(
            store=store.root,
            backend=Silent(),
            max_probes=max_probes,
            max_extra_calls=0,
            canaries=0,
            strict=True,
        )
        clients.append(EdgeClient(config, behind=Inline()))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


def test_device_path(
    over_pictures: OverPictures,
    pictures: list[Image.Image],
    engines: dict[str, OnnxEngine],
    agent: Agent,
    opened: Callable[[int], EdgeClient],
) -> None:
    """Pieces and whole, from pixels (a camera's frame) and from a JPEG file."""
    files = {id(picture): _file(picture) for picture in pictures}
    plain = opened(0)

    def decision(engine: OnnxEngine) -> PictureWork:
        own = Agent(id="", engine=engine, operating_point=OperatingPoint(trade_off=TRADE_OFF))
        return own.decide

    def looking(looks: int) -> PictureWork:
        point = replace(agent.operating_point, max_probes=looks)
        own = replace(agent, operating_point=point)
        return lambda one: own.decide(one, Packer(Picture(one), CAPABILITIES).candidate)

    work: dict[str, PictureWork] = {
        "resize to 224": lambda one: to_input(one, 224),
        "resize to 64": lambda one: to_input(one, 64),
        **{f"decision, {name} engine": decision(engine) for name, engine in engines.items()},
        "decision, one look": looking(1),
        "decision, up to 4 looks": looking(4),
        "process, no looks": plain.process,
        "process, one look": opened(1).process,
        "process, up to 4 looks": opened(4).process,
        "load of a JPEG file": lambda one: load(files[id(one)]),
        "process of a JPEG file, no looks": lambda one: plain.process(files[id(one)]),
    }
    ratios = over_pictures(work, lambda one: encode(one, REFERENCE))
    assert all(ratio > 0.0 for ratio in ratios.values())


def test_rungs(over_pictures: OverPictures, pictures: list[Image.Image]) -> None:
    sizes = {id(one): len(encode(one, SCALED)) for one in pictures}
    work = {f"encode {rung.name}": _encode(rung) for rung in FULL}
    work[f"prove the reference larger than {SCALED.name}"] = lambda one: outweighs(
        one, sizes[id(one)]
    )
    assert over_pictures(work, lambda one: encode(one, REFERENCE))


def _encode(rung: Rung) -> PictureWork:
    return lambda one: encode(one, rung)


def _file(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
