from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Capabilities, Label
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE, Rung
from edge_sdk.reading import load
from training.labels.ledger import picture_key
from training.labels.table import AnswerTable
from training.measure.exhibits import exhibits
from training.measure.failures import Failures, worst_failures
from training.photos import View

LADDER = (Rung(10, scale=0.5), Rung(50))
TAKES = Capabilities(max_bytes=1 << 22, min_side=8, max_side=8192)
TRUTH, ANSWER = (Label("cat", 0.9), Label("dust", 0.01)), (Label("dog", 0.8),)


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    """Four photos, the last one of noise; of the second one there are two views."""
    rng = np.random.default_rng(0)
    made = []
    for number, side in enumerate((64, 64, 64, 900)):
        pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        made.append(View(path))
    return [*made[:2], View(made[1].path, (0.0, 0.0, 0.5, 0.5)), *made[2:]]


def table(views: list[View], agreement: list[float], scores: list[float]) -> AnswerTable:
    n = len(views)
    ones = np.ones((n, 2), np.int64)
    return AnswerTable(
        ladder=LADDER,
        keys=np.array([picture_key(view.open()) for view in views], dtype=object),
        groups=np.array([view.photo for view in views], dtype=object),
        reference_bytes=ones[:, 0],
        reference_wire=ones[:, 0],
        bytes=ones,
        wire=ones,
        agreement=dict.fromkeys(METRICS, np.array([[one, 1.0] for one in agreement])),
        reference_score=np.array(scores),
        reference_label=np.array(["cat"] * n, dtype=object),
    )


def found(
    views: list[View], agreement: list[float], scores: list[float], absent: int | None = None
) -> Failures:
    answers = table(views, agreement, scores)

    def known(key: str, rung: Rung) -> tuple[Label, ...] | None:
        if absent is not None and key == answers.keys[absent]:
            return None
        return TRUTH if rung == REFERENCE else ANSWER

    chosen = np.zeros(len(views), dtype=np.int64)
    return worst_failures(views, answers, chosen, known, TAKES, min_score=0.1, most=3)


def test_worst_come_first_then_the_surest_each_photo_once(views: list[View]) -> None:
    seen = found(views, [0.5, 0.0, 0.0, 0.0, 1.0], [0.9, 0.3, 0.4, 0.8, 0.9])
    assert (seen.pictures, seen.failed) == (5, 4)
    assert [one.photo for one in seen.worst] == ["2.png", "1.png", "0.png"]
    assert [one.agreement for one in seen.worst] == [0.0, 0.0, 0.5]


def test_what_was_sent_is_shown_as_it_is_with_the_labels_that_count(views: list[View]) -> None:
    (one,) = found(views[:1], [0.0], [0.9]).worst
    image = views[0].open()
    assert one.sent.picture == encode(image, LADDER[0])
    assert (one.sent.width, one.sent.height, one.sent.exact) == (32, 32, True)
    assert one.reference.size == len(encode(image, REFERENCE))
    assert (one.reference.labels, one.sent.labels) == ([TRUTH[0]], [ANSWER[0]])


def test_a_large_file_is_shown_as_a_small_copy(views: list[View]) -> None:
    (one,) = found(views[-1:], [0.0], [0.9]).worst
    assert one.reference.size > 32_000 >= len(one.reference.picture)
    assert not one.reference.exact
    assert (one.reference.width, one.reference.height) == (900, 900)
    head, data = one.as_dict()["reference"]["picture"].split(",")
    assert head == "data:image/jpeg;base64"
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 360
    assert load(one.reference.picture).image.size[0] > 60


def test_what_the_ledger_does_not_hold_is_not_shown_and_not_bought(views: list[View]) -> None:
    seen = found(views, [0.0, 1.0, 1.0, 0.0, 1.0], [0.9] * 5, absent=0)
    assert (seen.failed, [one.photo for one in seen.worst]) == (2, ["2.png"])


def test_no_failure_is_told_as_none(views: list[View]) -> None:
    seen = found(views, [1.0] * 5, [0.9] * 5)
    assert seen.as_dict() == {"pictures": 5, "failed": 0, "worst": []}


class Mean:
    """A codec that sends the picture's mean colour."""

    id = "00112233aabbccdd"

    def integers(self, image: Image.Image) -> Any:
        return (np.asarray(image).mean(axis=(0, 1)) / 2).astype(np.int8)[None, :, None, None]

    def encode(self, integers: Any, rate: int) -> bytes:
        return b"\xaf\x00" + bytes.fromhex(self.id)[:4] + integers[rate].tobytes()


def test_other_formats_are_shown_as_what_they_are_and_features_not_at_all(
    views: list[View],
) -> None:
    rungs = (Rung(format="webp", quality=5), Rung(format="features", codec=Mean.id, rate=0))
    answers = replace(table(views[:2], [0.0, 0.0], [0.9, 0.8]), ladder=(*rungs, REFERENCE))
    takes = replace(TAKES, formats=("JPEG", "WEBP"), codecs=(Mean.id,))
    seen = worst_failures(
        views[:2],
        replace(answers, agreement={"any_hit": np.zeros((2, 3))}),
        np.array([0, 1]),
        lambda key, rung: TRUTH if rung == REFERENCE else ANSWER,
        takes,
        codec=Mean(),
    )
    webp, stream = seen.worst
    assert webp.as_dict()["sent"]["picture"].startswith("data:image/webp;base64,")
    assert (stream.sent.picture, stream.sent.size, stream.sent.width) == (None, 9, 0)
    assert stream.reference.picture is not None
    page = exhibits({"failures": seen.as_dict(), "metric": "any_hit"})
    assert "Sent as f0-0011: 9 bytes, no picture" in page
