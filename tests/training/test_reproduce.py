"""The paper's figures on small pictures and a service that needs no weights."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import mnasnet0_5

from edge_sdk import backends
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.ladder import FULL, PAPER
from export.network import DQNHead
from model_store.errors import UsageError
from training.__main__ import main
from training.job import Job
from training.learn.dqn import PaperParameters
from training.learn.fit import fit_dqn
from training.progress import Stages
from training.reproduce.attention import attention, overlay
from training.reproduce.cache import cached, name_of
from training.reproduce.cases import Case, Request
from training.reproduce.extractors import compare_extractors, extractor
from training.reproduce.figure7 import _holds
from training.reproduce.gather import gather
from training.reproduce.main import FIGURES, PAGE, reproduce
from training.reproduce.sceneries import DAY, NIGHT, sceneries
from training.reproduce.texture import rank_correlation, texture_of

REQUEST = Request(command="reproduce --figure all", target=0.9, seed=0)


class Service:
    """Names a picture by its brightness, and what is blurred besides; knows no network."""

    capabilities = Capabilities(max_bytes=1 << 20, min_side=4, max_side=4096)
    name = "stand-in://host"

    def __init__(self) -> None:
        self.asked = 0

    def recognize(self, jpeg: bytes) -> Recognition:
        self.asked += 1
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), float)
        edges = np.abs(np.diff(pixels, axis=1)).mean()
        labels = (
            Label(f"edges {int(edges) // 4}", 0.7),
            Label(f"bright {int(pixels.mean()) // 32}", 0.3),
        )
        return Recognition(labels, len(jpeg), model_version="1")

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg) + 100

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("photos")
    for index in range(24):
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
        noise = rng.integers(-2 * index - 1, 2 * index + 2, (64, 96, 3))
        made = np.clip(np.asarray(smooth, int) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(made).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("run")
    return folder


class Small(nn.Module):  # type: ignore[misc]
    """A prefix of one convolution with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.side, self.confidence, self.classifier = 1, 16, False, None
        self.precision = "fp32"
        self.blocks = nn.Sequential(nn.Conv2d(3, 12, 4, stride=4), nn.ReLU())
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 255.0))
        torch.manual_seed(0)
        nn.init.normal_(self.blocks[0].weight, std=0.3)
        self.requires_grad_(requires_grad=False)

    @property
    def dimension(self) -> int:
        return 12

    def feature_map(self, image: Tensor) -> Tensor:  # (N, 16, 16, 3) uint8 -> (N, 12, 4, 4)
        maps: Tensor = self.blocks(image.permute(0, 3, 1, 2) / 255.0)
        return maps

    def forward(self, image: Tensor) -> Tensor:  # (N, 16, 16, 3) uint8 -> (N, 12)
        return self.feature_map(image).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def small() -> Any:
    return Small().eval()


@pytest.fixture(scope="module")
def cases(photos: Path, run: Path, small: Any) -> Iterator[list[Case]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backends._registered, "stand-in", lambda spec: Service())
        short = partial(fit_dqn, parameters=PaperParameters(K=160))
        patch.setattr("training.measure.paper_agent.fit_dqn", short)
        found = sceneries(photos, None, Stages(), most=20, seed=0)
        with Job("stand-in://host", run, Stages()) as job:
            yield [
                gather(job, name, views, (small, small), run, REQUEST, probes=0)
                for name, views in found.items()
            ]


def test_agents_are_measured_on_photos_that_they_never_saw(cases: list[Case]) -> None:
    assert [case.scenery for case in cases] == [DAY, NIGHT]
    for case in cases:
        assert not set(case.test.groups) & set(case.learnt.table.groups)
        assert len(case.test) + len(case.learnt.table) == 20
        assert case.paper().table.ladder == PAPER
        assert case.ours().table.ladder == FULL
        assert len(case.trace.rung) == 160


def test_what_was_labelled_is_kept_and_read_again(cases: list[Case], run: Path) -> None:
    case = cases[0]
    files = sorted((run / "cases").iterdir())
    assert len(files) == 2

    def never() -> Any:
        raise AssertionError("computed again")

    ladder = case.everything.table.ladder
    found = [cached(path, ladder, never) for path in files]
    tables = [one.table for one in found]
    same = next(one for one in tables if (one.bytes == case.everything.table.bytes).all())
    assert same.groups.tolist() == case.everything.table.groups.tolist()
    assert same.agreement.keys() == case.everything.table.agreement.keys()


def test_a_file_cut_short_is_made_anew(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    everything = cases[0].everything
    found = cached(path, everything.table.ladder, lambda: everything)
    assert found is everything
    again = cached(path, everything.table.ladder, lambda: everything)
    assert (again.table.wire == everything.table.wire).all()


def test_other_pictures_or_rungs_are_other_files(cases: list[Case]) -> None:
    views = list(cases[0].photos.values())
    names = {name_of(views, FULL), name_of(views[1:], FULL), name_of(views, PAPER)}
    assert len(names | {name_of(views, FULL, "another service")}) == 4


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_drawing_its_data_and_its_caption(
    name: str, cases: list[Case], tmp_path: Path
) -> None:
    comparison, exhibit = reproduce([name], cases, tmp_path, REQUEST, Stages())
    assert comparison.name == "headline"
    assert "Seed 0" in exhibit.caption
    assert REQUEST.command in exhibit.caption
    with (tmp_path / f"{exhibit.name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(exhibit.rows) > 0
    assert exhibit.caption in (tmp_path / f"{exhibit.name}.txt").read_text(encoding="utf-8")
    if exhibit.svg:
        assert exhibit.svg.startswith("<svg")
        with Image.open(tmp_path / f"{exhibit.name}.png") as png:
            assert png.width > 600


def test_the_comparison_has_the_three_sides_and_the_page_has_it(
    cases: list[Case], tmp_path: Path
) -> None:
    measured = {"bytes": 0.9, "calls_per_image": 1.2, "agreement": 0.97}
    stream = {"paper": {"measured": measured}}
    comparison, _ = reproduce(["9"], cases, tmp_path, REQUEST, Stages(), stream)
    said = {row["number"]: row for row in comparison.rows}
    size = said["size after the DQN’s choice, over quality 75"]
    assert list(size)[1:4] == ["paper", "authors' recorded data", "here"]
    assert all(case.title in size["here"] for case in cases)
    assert "0.90 of the bytes" in said["night, day, night (Fig. 12): bytes and calls"]["here"]
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "Face++ 0.415" in text
    assert text.count("<svg") == 1
    left = text.replace("http://www.w3.org", "")
    assert "http://" not in left
    assert "https://" not in left


def test_shares_of_a_histogram_add_up(cases: list[Case]) -> None:
    rows = FIGURES["6"](cases, REQUEST).rows
    for part in ("training", "test"):
        mine = [row for row in rows if row["panel"] == DAY and row["pictures"] == part]
        paper = [row for row in mine if row["agent"] == "the paper’s DQN"]
        assert sum(row["share"] for row in paper) == pytest.approx(1.0, abs=1e-3)
        assert sum(row["n"] for row in paper) == (8 if part == "test" else 12)


def test_learning_uploads_more_than_the_benchmark(cases: list[Case]) -> None:
    facts = FIGURES["8"](cases, REQUEST).facts[cases[0].title]
    assert facts["training"] > 1.0
    assert facts["steps"] == 160


def test_the_same_seed_gives_the_same_bytes(cases: list[Case]) -> None:
    once, again = (FIGURES["9"](cases, REQUEST) for _ in range(2))
    assert once.svg == again.svg
    assert once.rows == again.rows


def test_a_map_shows_what_speaks_for_a_rung_and_nothing_where_nothing_does(small: Any) -> None:
    head, pixels = DQNHead(12, 3, hidden=()), np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8] = 255
    with torch.no_grad():
        head.layers[0].weight.zero_()
        head.layers[0].weight[1] = 1.0
        head.layers[0].weight[2] = -1.0
    image = Image.fromarray(pixels)
    heat = attention(small, head, image, 1)
    assert heat.shape == (4, 4)
    assert (heat.min(), heat.max()) == (pytest.approx(heat[3, 3]), 1.0)
    assert heat[0, 0] == pytest.approx(1.0)
    assert not attention(small, head, image, 0).any()  # no slope at all
    assert not attention(small, head, image, 2).any()  # everything speaks against it
    assert (attention(small, head, image, 1, 2) == heat).all()
    assert not attention(small, head, image, 1, 1).any()
    drawn = overlay(image, heat)
    assert drawn[0, 0].sum() > drawn[15, 15].sum()


def test_smoothness_is_measured_in_blocks() -> None:
    flat = texture_of(Image.new("RGB", (64, 64), (90, 90, 90)))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    rough = texture_of(Image.fromarray(noise))
    assert (flat.smooth, flat.energy) == (1.0, 0.0)
    assert rough.smooth == 0.0
    assert rough.energy > 20.0


def test_ranks_correlate_whatever_the_scale_and_constants_do_not() -> None:
    rng, names = np.random.default_rng(0), [f"photo {number}" for number in range(60)]
    values = rng.normal(size=60)
    found = rank_correlation(values, np.exp(values), names, rng)
    assert found is not None
    assert found.mean == pytest.approx(1.0)
    assert rank_correlation(values, np.ones(60), names, rng) is None
    ties = np.floor(values)
    known = scipy.stats.spearmanr(values, ties).statistic
    mixed = rank_correlation(values, ties, names, rng)
    assert mixed is not None
    assert mixed.mean == pytest.approx(known)
    assert mixed.lo <= mixed.mean <= mixed.hi


def _saved(network: nn.Module, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = torch.zeros(shape, dtype=dtype)
        torch.onnx.export(network, (pixels,), path, dynamo=False, input_names=["image"])
    return path


class MeanColour(nn.Module):  # type: ignore[misc]
    def forward(self, image: Tensor) -> Tensor:  # (1, 8, 8, 3) uint8 -> (1, 3)
        return image.to(torch.float32).mean(dim=(1, 2))


def test_an_onnx_backbone_gets_what_its_input_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), (255, 0, 51))
    whole = _saved(MeanColour(), tmp_path / "whole.onnx", (1, 8, 8, 3), torch.uint8)
    assert extractor(str(whole))(image).tolist() == [255.0, 0.0, 51.0]
    planes = _saved(nn.AvgPool2d(4), tmp_path / "planes.onnx", (1, 3, 8, 8), torch.float32)
    expected = [(1.0 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert extractor(str(planes))(image).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_torchvision_backbone_from_a_local_file_loses_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "squeeze.pth"
    torch.save(mnasnet0_5(weights=None).state_dict(), path)
    features = extractor(f"torchvision:mnasnet0_5:{path}")(Image.new("RGB", (64, 48)))
    assert features.shape == (1280,)


@pytest.mark.parametrize(
    "name", ["resnet50", "missing.onnx", "torchvision:no_such_network:x.pth", "README.md"]
)
def test_an_unknown_extractor_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="extractor"):
        extractor(name)


def test_every_cut_and_every_named_backbone_is_compared(cases: list[Case], tmp_path: Path) -> None:
    path = _saved(MeanColour(), tmp_path / "colour.onnx", (1, 8, 8, 3), torch.uint8)
    rows = compare_extractors(cases, replace(REQUEST, extractors=(str(path),))).rows
    assert [row["cut"] for row in rows] == [1, 2, None]
    assert [row["features"] for row in rows] == [12, 12, 3]
    for row in rows:
        assert 0 < row["size_ratio_lo"] <= row["size_ratio"] <= row["size_ratio_hi"]
        assert 0 <= row["agreement_lo"] <= row["agreement"] <= row["agreement_hi"] <= 1


def test_the_verdict_says_what_each_correlation_makes_of_the_claim() -> None:
    row = {"value": 0.5, "lo": 0.2, "hi": 0.7}
    assert _holds(row, 1).endswith("as claimed")
    assert _holds(row, -1).endswith("against the claim")
    assert "neither" in _holds(row | {"lo": -0.1}, 1)
    assert "cannot" in _holds({"value": None, "lo": None, "hi": None}, 1)


def test_too_few_pictures_are_a_usage_error(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / f"{index}.png")
    with pytest.raises(UsageError, match=r"3 day picture\(s\)"):
        sceneries(tmp_path, None, Stages(), most=None, seed=0)


@pytest.mark.parametrize(
    "wrong", [["--uplink", "0"], ["--figure", "2"], ["--backend", " , "], ["--uplink", "nan"]]
)
def test_wrong_options_are_usage_errors(wrong: list[str]) -> None:
    try:
        code = main(["reproduce", "--figure", "9", *wrong])
    except SystemExit as left:
        code = int(str(left.code))
    assert code == 2
