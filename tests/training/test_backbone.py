"""Prefixes in whole numbers: one file from the same weights; what is learnt from is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_sdk.engine import OnnxEngine, open_session
from edge_sdk.ladder import FULL
from export.calibrate import calibrate, calibrated
from export.fuse import export_prefix, fuse
from export.network import FactoredHead, Prefix
from model_store.errors import UsageError
from training.learn.backbone import RANGES, backbone, rounded
from training.learn.ranges import measured
from training.learn.sizes import SIZES, load_sized


@pytest.fixture(scope="module")
def tiny(installed: Path) -> Prefix:
    return load_sized("tiny")


def test_the_same_weights_give_the_same_file(tiny: Prefix, tmp_path: Path) -> None:
    first = backbone(tiny, tmp_path)
    assert backbone(tiny, tmp_path) == first == backbone(tiny)
    assert len(list(tmp_path.glob("prefix-int8-*.onnx"))) == 1


def test_an_engine_says_that_its_prefix_is_rounded(tiny: Prefix) -> None:
    engine = fuse(backbone(tiny), FactoredHead(tiny.dimension, FULL), FULL)
    facts = {entry.key: entry.value for entry in onnx.load_from_string(engine).metadata_props}
    assert facts["precision"] == "int8"
    assert OnnxEngine(engine).side == SIZES["tiny"].side


def test_rounding_leaves_the_features_nearly_what_they_were(tiny: Prefix) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    inputs = coarse.repeat(tiny.side // 8, axis=1).repeat(tiny.side // 8, axis=2)
    rows = []
    for data in (export_prefix(tiny), backbone(tiny)):
        session = open_session(data)
        rows.append([session.run(None, {"image": one[None]})[0][0] for one in inputs])
    whole, small = np.array(rows)
    assert np.corrcoef(whole.ravel(), small.ravel())[0, 1] > 0.97


def test_a_full_engine_is_a_third_of_its_fp32_size(installed: Path) -> None:
    whole, small = (backbone(load_sized("full", precision=kind)) for kind in ("fp32", "int8"))
    assert len(small) < 4_000_000
    assert len(small) < len(whole) / 3


def test_the_ranges_are_those_of_the_built_in_photos(installed: Path) -> None:
    known = json.loads(RANGES.read_text())
    assert list(known) == [str(size.side) for size in SIZES.values()]
    found = measured("tiny")
    assert found.keys() == known["64"].keys()
    for name, ends in found.items():
        assert ends == pytest.approx(known["64"][name], rel=0.02, abs=0.02), name


def test_known_ranges_give_what_measuring_them_gave(tiny: Prefix) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    engine = export_prefix(tiny)
    first = calibrate(engine, pictures)
    again = calibrated(engine, first.named_ranges)
    assert again.quantized(tuple(again.blocks)) == first.quantized(tuple(first.blocks))


def test_a_side_without_ranges_is_refused_in_words(tiny: Prefix) -> None:
    with pytest.raises(UsageError, match=r"32 pixels a side has no ranges; there are some for 64"):
        rounded(b"", {"64": {}}, 32)


def test_a_tensor_without_a_range_is_named(tiny: Prefix) -> None:
    with pytest.raises(UsageError, match=r"ranges of .*Conv .* are not among the 1 known ones"):
        calibrated(export_prefix(tiny), {"pixels": (-114.0, 141.0)})


def test_an_unknown_precision_is_refused(installed: Path) -> None:
    with pytest.raises(UsageError, match="'fp8' is unknown"):
        load_sized("tiny", precision="fp8")
