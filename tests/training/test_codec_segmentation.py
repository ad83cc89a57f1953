"""A segmentation head on a codec's features: masks read as the view has them, and it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from edge_sdk.view import View
from export.feature_network import Bottleneck, Decoder, Shape
from export.feature_onnx import server_onnx
from model_store.errors import UsageError
from training.codec.segmentation import NOBODY, learn_segmenter, masks_of, mean_iou

VIEW = View(side=16, resized=16, squeezed=True)


def _saved(folder: Path, mask: np.ndarray) -> Path:
    photo = folder / "a.jpg"
    Image.new("RGB", (32, 24)).save(photo)
    Image.fromarray(mask).save(folder / "a.png")
    return photo


def test_a_mask_is_seen_as_its_photo_is(tmp_path: Path) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 16:] = 3
    mask[12:, :16] = NOBODY
    photo = _saved(tmp_path, mask)
    seen = masks_of(tmp_path, [photo], VIEW)[photo]
    assert seen.shape == (16, 16)
    assert seen[2, 2] == 0
    assert seen[2, 12] == 3
    assert seen[12, 2] == NOBODY


@pytest.mark.parametrize(
    "mask", [np.zeros((8, 8), np.uint8), np.zeros((24, 32, 3), np.uint8)], ids=["size", "colours"]
)
def test_a_mask_of_another_shape_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    photo = _saved(tmp_path, mask)
    with pytest.raises(UsageError, match="32 x 24"):
        masks_of(tmp_path, [photo], VIEW)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    photo = tmp_path / "b.jpg"
    with pytest.raises(UsageError, match=r"no mask .*b\.png"):
        masks_of(tmp_path, [photo], VIEW)


def test_a_head_learns_what_the_integers_tell() -> None:
    shape = Shape(channels=4, codes=4, rates=2, limit=7, fold=1, hidden=4)
    torch.manual_seed(0)
    bottleneck, decoder = Bottleneck(shape), Decoder(shape)
    generator = np.random.default_rng(0)
    masks = generator.integers(0, 2, (24, 4, 4), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    codes = torch.zeros(24, 4, 4, 4)
    codes[:, 0] = 6.0 * (torch.from_numpy(masks[:, ::4, ::4]).float() - 0.5)
    head = learn_segmenter(bottleneck, decoder, codes, masks, steps=60, seed=0)
    integers = codes.round().to(torch.int8).numpy()
    session = onnxruntime.InferenceSession(
        server_onnx(head, (4, 4, 4), "classes", {}), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"integers": integers, "rate": np.ones(24, np.int64)})
    score = mean_iou(found, masks, 2)
    assert score is not None
    assert score > 0.8


def test_iou_counts_only_what_there_is() -> None:
    wanted = np.array([[[0, 0], [1, NOBODY]]], np.uint8)
    assert mean_iou(np.array([[[0, 1], [1, 1]]], np.uint8), wanted, 3) == pytest.approx(0.5)
    assert mean_iou(wanted, np.full((1, 2, 2), NOBODY, np.uint8), 2) is None
