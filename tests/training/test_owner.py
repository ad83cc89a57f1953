"""Ladders for who owns the service: candidates, choice, learning over several kinds, end to end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from edge_sdk import EdgeClient, EdgeConfig
from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities
from edge_sdk.behind import Inline
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.ladder import FULL, REFERENCE, Ladder, Rung, kinds_of
from edge_sdk.reading import load
from edge_sdk.retrain import RetrainRequest
from edge_sdk.view import View
from export.run import TrainingRun
from model_store import Store
from model_store.errors import UsageError
from training import assets
from training.__main__ import main
from training.cloud.coded import open_codec
from training.cloud.server import CloudServer
from training.commands.rungs import Rungs, add_rungs
from training.learn.acquire import doubtful
from training.learn.features import load_prefix
from training.learn.heads import Heads
from training.learn.owner import chosen, owner_candidates, prior_of, with_features
from training.learn.policies import GRID, SAFEST, Fixed
from training.learn.probing import predictions
from training.learn.reward import Reward
from training.learn.seen import Seen
from training.learn.start import built_in
from training.retrain import retrain

VIEW = View(side=224, resized=256)
STREAMS: Ladder = tuple(Rung(format="features", codec="0" * 16, rate=rate) for rate in range(3))
ALL = Capabilities(
    max_bytes=2**22, min_side=1, max_side=4096, formats=("JPEG", "WEBP"), codecs=("0" * 16,)
)
MakeCodec = Callable[..., dict[str, bytes]]


# Candidates and choice.


@pytest.mark.parametrize(
    ("capabilities", "view", "kinds"),
    [
        (ALL, VIEW, {"jpeg", "webp", "jpeg^224of256", "webp^224of256", f"features-{'0' * 16}"}),
        (replace(ALL, codecs=()), None, {"jpeg", "webp"}),
        (replace(ALL, codecs=(), formats=("JPEG",)), VIEW, {"jpeg", "jpeg^224of256"}),
    ],
)
def test_candidates_are_what_the_service_reads(
    capabilities: Capabilities, view: View | None, kinds: set[str]
) -> None:
    assert {rung.kind for rung in owner_candidates(view, STREAMS, capabilities)} == kinds


def sizes_of(candidates: Ladder) -> Any:
    """Crops are small, WebP is smaller than JPEG, features are smallest."""
    worth = {"jpeg": 1.0, "webp": 0.6, "jpeg^224of256": 0.2, "webp^224of256": 0.13}
    return np.array(
        [
            0.01 * (1 + rung.rate)
            if rung.rate is not None
            else worth[rung.kind] * (rung.quality / 75) ** 0.7 * rung.scale**1.5
            for rung in candidates
        ]
    )


def test_the_prior_is_measured_where_it_can_be_and_a_larger_frames_elsewhere() -> None:
    candidates = owner_candidates(VIEW, STREAMS, ALL)
    prior = prior_of(candidates, sizes_of(candidates))
    assert np.all((prior >= 0) & (prior <= 1))
    webp = [place for place, rung in enumerate(candidates) if rung.kind == "webp"]
    order = np.argsort(sizes_of(candidates)[webp])
    assert np.all(np.diff(prior[webp][order]) >= 0)


def test_all_features_and_what_no_smaller_rung_beats_are_kept_cheapest_first() -> None:
    candidates = owner_candidates(VIEW, STREAMS, ALL)
    sizes, rng = sizes_of(candidates), np.random.default_rng(0)
    # The view's rungs do as well as frames eight times as large.
    strength = np.array([np.log(sizes[place]) for place in range(len(candidates))])
    strength += np.array([np.log(8.0) if rung.view else 0.0 for rung in candidates])
    said = (rng.random((60, len(candidates))) < expit(2.0 * strength + 6.0)).astype(float)
    asked = rng.random(said.shape) < 0.15
    kept = chosen(np.where(asked, said, np.nan), np.tile(sizes, (60, 1)), candidates)
    assert set(STREAMS) < set(kept)
    assert kept[-1].pixels == REFERENCE.pixels
    places = [float(sizes[candidates.index(rung)]) for rung in kept]
    assert places == sorted(places)
    views = [rung for rung in kept if rung.view]
    assert len(views) > len(kept) / 2


def test_features_stand_first_once() -> None:
    assert with_features(STREAMS, (STREAMS[1], *FULL)) == (*STREAMS, *FULL)


# Options.


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_rungs(parser)
    return parser.parse_args(given)


def wanted(*given: str, backend: str = "local:mobilenet-v2", algorithm: str = "bandit") -> Rungs:
    known = {"backend": backend, "algorithm": algorithm}
    return Rungs.of(argparse.Namespace(**vars(parsed(*given)), **known))


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("224", View(side=224, resized=224)),
        ("224/256", VIEW),
        ("227/256,squeezed", View(side=227, resized=256, squeezed=True)),
        ("224/256,bicubic", View(side=224, resized=256, filter="bicubic")),
    ],
)
def test_a_view_is_read(text: str, view: View) -> None:
    assert wanted("--ladder", "owner", "--view", text).view == view


@pytest.mark.parametrize("text", ["", "a", "224x224", "224/200", "0", "224/256,blue"])
def test_what_is_no_view_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--view", text)
    assert "view" in capsys.readouterr().err


def test_what_is_not_said_is_taken_from_the_model_or_the_codec(
    make_codec: MakeCodec, tmp_path: Path
) -> None:
    assert (wanted().name, wanted(algorithm="dqn").name) == ("full", "paper")
    assert wanted("--ladder", "owner").view == VIEW
    assert wanted("--ladder", "owner", backend="baidu://host").view is None
    folder = written(make_codec(), tmp_path / "codec")
    rungs = wanted("--codec", str(folder), backend="baidu://host")
    assert rungs.codec is not None
    assert rungs.view == rungs.codec.view
    assert set(rungs.files) == {"codec-json", "codec-encoder", "codec-entropy"}
    assert wanted("--ladder", "owner", backend=f"local:{folder}").view == rungs.view


def test_options_that_make_no_sense_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ladder is full; give --ladder owner"):
        wanted("--view", "224")
    with pytest.raises(UsageError, match="no codec in"):
        wanted("--codec", str(tmp_path))


# Learning over several kinds.

LADDER: Ladder = (
    *STREAMS,
    Rung(format="webp", quality=20, view=VIEW),
    Rung(10, 0.5),
    Rung(format="webp", quality=60, view=VIEW),
    Rung(20),
    Rung(75),
)
SIZES = np.array([0.01, 0.015, 0.02, 0.05, 0.12, 0.13, 0.4, 0.95])
MEANS = np.array([0.6, 0.8, 0.9, 0.85, 0.5, 0.97, 0.9, 1.0])
CENTRES = np.random.default_rng(9).normal(0.0, 1.0, (6, 12))


def seen(seed: int, count: int = 90) -> Seen:
    """Encodings move away from their picture by how hard it is, and are then misread."""
    rng = np.random.default_rng(seed)
    word = rng.integers(len(CENTRES), size=count)
    features = CENTRES[word] + rng.normal(0.0, 0.2, (count, 12))
    hard = rng.random((count, 1))
    agreement = (hard < MEANS).astype(float)
    looks = features[:, None] + (1.2 - agreement)[:, :, None] * rng.normal(0, 0.6, (count, 1, 12))
    looks[:, :3] = np.nan
    asked = rng.random(agreement.shape) < 0.6
    return Seen(
        ladder=LADDER,
        features=features.astype(np.float32),
        groups=np.array([f"photo{index}" for index in range(count)], dtype=object),
        agreement=np.where(asked, agreement, np.nan),
        size_ratio=SIZES * rng.uniform(0.9, 1.1, (count, 1)),
        labels=np.array(list("abcdef"), dtype=object)[word],
        looks=looks.astype(np.float32),
        framed={VIEW: (features + 0.05).astype(np.float32)},
    )


@pytest.fixture(scope="module")
def heads() -> Heads:
    prefix: Any = argparse.Namespace(confidence=False, classifier=None)
    return Heads.of(prefix, seen(0), Reward(), np.random.default_rng(0))


def test_every_way_of_deciding_works_where_some_rungs_cannot_be_looked_at(heads: Heads) -> None:
    pictures = seen(1)
    found = heads.policies(pictures, 4)
    assert set(found) == {"fixed", "static", "probing"}
    for policy in found.values():
        for step in [*policy.steps][:: max(1, len(policy.steps) // 8)]:
            rungs = policy.rungs(step)
            assert rungs.shape == (len(pictures.features),)
            assert np.all((rungs >= 0) & (rungs < len(LADDER)))
    assert set(found["probing"].rungs(SAFEST)) == {len(LADDER) - 1}
    for step in GRID[::20]:
        assert np.isfinite(found["probing"].foreseen(step)).all()
    result = heads.contest(np.random.default_rng(0))
    assert np.isfinite(list(result.log_loss.values())).all()
    assert list(result.log_loss) == ["fixed", "static", "probing"]


def test_a_look_at_features_tells_nothing_and_one_at_a_picture_something(heads: Heads) -> None:
    assert heads.probe is not None
    told = predictions(heads.probe, seen(1).looked())
    assert np.isnan(told[:, :3, :-1]).all()
    assert np.isfinite(told[:, 3:]).all()


def test_looks_at_a_view_are_compared_with_what_the_view_shows() -> None:
    pictures = seen(1)
    assert set(pictures.looked().framed) == {3, 5}
    few = pictures.take(np.array([4, 2])).looked()
    np.testing.assert_allclose(few.framed[3], pictures.features[[4, 2]] + 0.05, atol=1e-5)
    both = pictures.joined(seen(2))
    assert both.framed[VIEW].shape == both.features.shape


def test_the_built_in_probe_moves_to_several_kinds(installed: Path) -> None:
    prefix = load_prefix(confidence=True)
    start = built_in(prefix, (STREAMS[0], *FULL))
    assert start.static is None
    assert start.probe is not None
    assert built_in(prefix, FULL).static is not None
    assert built_in(prefix, FULL[3:]).probe is None


def test_fixed_rungs_that_another_kind_beats_are_not_tested(heads: Heads) -> None:
    fixed = heads.policies(seen(1), 0)["fixed"]
    assert isinstance(fixed, Fixed)
    assert fixed.order[0] == len(LADDER) - 1
    assert 4 not in fixed.order  # half as good as features that take a tenth of its bytes
    assert set(fixed.order) & {0, 1, 2}


def test_answers_are_asked_of_features_too(heads: Heads) -> None:
    prefix: Any = argparse.Namespace(confidence=False, classifier=None)
    rungs = doubtful(prefix, seen(0), 2, np.random.default_rng(0))
    assert rungs is not None
    assert set(np.unique(rungs)) & {0, 1, 2}
    assert len(LADDER) - 1 not in rungs


# End to end.


def written(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def fitted(photos: Path, folder: Path, backend: str, *more: str) -> Store:
    """Fit an agent; every rung is cheap to agree with, so that a dozen photos certify one."""
    store = folder / "store"
    given = ["fit", "--images", str(photos), "--backend", backend, "--store", str(store)]
    more = ("--run", str(folder / "run"), "--target-accuracy", "0.3", *more)
    assert main([*given, *more, "--engine-size", "tiny"]) == 0
    return Store(store)


@pytest.mark.slow
def test_an_owners_agent_is_certified_and_serves_over_http(installed: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in assets.photos("objects")[:15]:
        small = load(path).image
        small.thumbnail((256, 256))
        small.save(photos / path.name, quality=92)
    store = fitted(
        photos,
        tmp_path,
        "local:efficientnet-lite0",
        "--ladder",
        "owner",
        "--max-probes",
        "0",
        "--answers",
        "grid",
    )
    manifest = store.manifest("current")
    assert manifest.operating_points[0]["certified"]
    assert manifest.metrics["size_ratio"]["mean"] < 0.5
    agent = load_agent(store.load("current"))
    assert {rung.format for rung in agent.ladder} == {"jpeg", "webp"}
    assert any(rung.view for rung in agent.ladder)
    from training.cloud.models import open_model

    with CloudServer(open_model("efficientnet-lite0")) as server:
        config = EdgeConfig(store=str(tmp_path / "store"), backend=server.spec_of("torchserve"))
        with EdgeClient(config, behind=Inline()) as client:
            results = [client.process(path) for path in sorted(photos.iterdir())]
        stats = client.stats()
    assert not stats.failures
    assert {one.rung for one in results} <= {*agent.ladder, REFERENCE}
    assert min(one.bytes for one in results) < 8_000


def coloured(folder: Path, count: int = 14) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(count):
        colour = rng.integers(30, 226, 3)
        grain = rng.integers(-20, 21, (120, 160, 3))
        pixels = np.clip(colour + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.slow
def test_an_agent_sends_features_and_so_does_the_one_that_is_retrained_from_it(
    installed: Path, make_codec: MakeCodec, tmp_path: Path
) -> None:
    folder = written(make_codec(), tmp_path / "codec")
    photos = coloured(tmp_path / "photos")
    store = fitted(photos, tmp_path, f"local:{folder}", "--codec", str(folder))
    agent, codec = load_agent(store.load("current")), FeatureCodec.open(folder)
    assert agent.codec is not None
    assert agent.codec.id == codec.id
    assert [rung.name for rung in agent.ladder[:3]] == [
        f"f{rate}-{codec.id[:4]}" for rate in (0, 1, 2)
    ]
    assert set(kinds_of(agent.ladder)) == {0, 1}
    run = TrainingRun.load(tmp_path / "run")
    assert set(run.codec) == {"codec-json", "codec-encoder", "codec-entropy"}
    with CloudServer(open_codec(folder)) as server:
        config = EdgeConfig(store=str(tmp_path / "store"), backend=server.spec_of("torchserve"))
        with EdgeClient(config, behind=Inline()) as client:
            results = [client.process(path) for path in sorted(photos.iterdir())]
            assert not client.stats().failures
    assert any(one.rung.format == "features" for one in results)
    run_folder = tmp_path / "test"
    few = coloured(tmp_path / "few", 4)
    given = ["--images", str(few), "--store", str(store.root), "--run", str(run_folder)]
    assert main(["evaluate", "--agent", "current", "--backend", f"local:{folder}", *given]) == 0
    schema = resources.files("training.measure").joinpath("report.schema.json").read_text()
    jsonschema.validate(json.loads((run_folder / "report.json").read_text()), json.loads(schema))
    # A service without the codec: the same agent does without, after one warning.
    with CloudServer(open_codec(folder)._model) as server:
        config = replace(config, backend=server.spec_of("torchserve"))
        with EdgeClient(config, behind=Inline()) as client:
            assert client.process(sorted(photos.iterdir())[0]).rung.format == "jpeg"
    kept = retrained(store, tmp_path, agent)
    assert kept.codec is not None
    assert kept.codec.id == codec.id


def retrained(store: Store, folder: Path, parent: Any) -> Any:
    """Re-train from a few made-up transitions; return the new agent."""
    from edge_sdk.memory import Memory, Transition

    memory, rng = Memory(folder / "memory.sqlite", 1000), np.random.default_rng(0)
    dimension = parent.engine.run(
        np.zeros((1, parent.engine.side, parent.engine.side, 3), np.uint8)
    )
    width = dimension.features.shape[1]
    memory.append(
        [
            Transition(
                features=rng.normal(size=width).astype(np.float32),
                rung=int(rng.integers(len(parent.ladder))),
                reward=0.5,
                agreement=float(rng.random() < 0.9),
                size_ratio=0.2,
                image=f"picture-{number}",
            )
            for number in range(40)
        ]
    )
    memory.close()
    request = RetrainRequest(
        store=str(store.root),
        parent=parent.id,
        memory=str(folder / "memory.sqlite"),
        scenery="dusk",
        alpha=1.0,
        beta=0.0,
        target_accuracy=0.9,
        seed=1,
    )
    made = retrain(json.loads(json.dumps(request.to_json())))
    return load_agent(store.load(made.id))
