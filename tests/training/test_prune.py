"""The ladder learnt for a service: what is kept, what is dropped, and how little that takes."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, logit

from edge_sdk import backends
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.ladder import CANDIDATES, FULL, REFERENCE, Ladder, Rung
from model_store.errors import UsageError
from training.commands import fit
from training.job import LADDER_VIEWS, Job
from training.learn.prior import means, measured, of_size
from training.learn.prune import LIMIT, foreseen, prune
from training.photos import View, views
from training.progress import Stages

Array = NDArray[np.float64]

REFERENCE_PIXELS = FULL[-1]

#: What a service that bears scaling does to the candidates, and one that does not.
EASY = np.array([1.5 * np.log(rung.quality / 8) + 1.5 * np.log(rung.scale) for rung in CANDIDATES])
CLOSE = EASY + np.array([8.0 * np.log(rung.scale) for rung in CANDIDATES])
PRIOR = expit(EASY)
SIZES = np.array([(rung.quality / 75) ** 0.7 * rung.scale**1.5 for rung in CANDIDATES])


def answers(logits: Array, count: int, calls: int = 4, seed: int = 0) -> Array:
    """Ask about some candidates of every picture."""
    rng, rungs = np.random.default_rng(seed), len(logits)
    said = (rng.random((count, rungs)) < expit(logits)).astype(float)
    asked = np.argsort(rng.random((count, rungs)), axis=1) < calls
    return np.where(asked, said, np.nan)


def pruned(agreement: Array, limit: int = LIMIT, sizes: Array = SIZES) -> Ladder:
    return prune(agreement, np.tile(sizes, (len(agreement), 1)), CANDIDATES, PRIOR, limit)


def size_of(rung: Rung) -> float:
    return float(SIZES[CANDIDATES.index(rung)])


# --- the candidates ---------------------------------------------------------------------------


def test_no_two_candidates_are_the_same_and_the_references_pixels_are_the_last() -> None:
    assert len({rung.name for rung in CANDIDATES}) == len(CANDIDATES)
    assert len({rung.pixels for rung in CANDIDATES}) == len(CANDIDATES)
    assert CANDIDATES[-1] == REFERENCE_PIXELS
    assert REFERENCE_PIXELS.pixels == REFERENCE.pixels


def test_every_candidate_was_measured_beforehand() -> None:
    known = means(CANDIDATES)
    assert known.shape == (len(CANDIDATES),)
    assert ((known >= 0.0) & (known <= 1.0)).all()
    assert known[-1] == 1.0


def test_a_rung_that_was_not_measured_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prior.json"
    file.write_text(json.dumps({"agreement": {"q5": 0.5}}))
    assert means((Rung(5),), file).tolist() == [0.5]
    with pytest.raises(UsageError, match=r"no agreement of q6; .* training\.learn\.prior"):
        means((Rung(5), Rung(6)), file)


# --- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 5, LIMIT, 100])
@pytest.mark.parametrize("logits", [EASY, CLOSE], ids=["easy", "close"])
def test_few_rungs_are_kept_cheapest_first_and_the_references_pixels_are_the_last(
    logits: Array, limit: int
) -> None:
    ladder = pruned(answers(logits, 60), limit)
    sizes = [size_of(rung) for rung in ladder]
    assert 2 <= len(ladder) <= limit
    assert sizes == sorted(sizes)
    assert ladder[-1] == REFERENCE_PIXELS
    assert len(set(ladder)) == len(ladder)


def test_a_larger_rung_that_agrees_less_is_dropped() -> None:
    agreement = answers(EASY, 400)
    ladder = pruned(agreement, limit=100)
    told = foreseen(agreement, CANDIDATES, PRIOR)
    kept = [told[CANDIDATES.index(rung)] for rung in ladder]
    assert kept == sorted(kept)
    for rung, value, size in zip(CANDIDATES, told, SIZES, strict=True):
        beaten = any(told[i] >= value and SIZES[i] < size for i in range(len(SIZES)))
        assert not (beaten and rung in ladder)


def test_a_rung_that_costs_more_than_the_references_pixels_is_dropped() -> None:
    dear = np.where(np.arange(len(SIZES)) == CANDIDATES.index(Rung(20)), 1.5, SIZES)
    assert Rung(20) not in pruned(answers(EASY, 60), limit=100, sizes=dear)


def test_a_service_that_looks_closely_keeps_full_size_rungs() -> None:
    close, easy = pruned(answers(CLOSE, 60)), pruned(answers(EASY, 60))
    full_size = [
        sum(rung.scale == 1.0 for rung in ladder) / len(ladder) for ladder in (close, easy)
    ]
    assert full_size[0] > 0.5 > full_size[1]
    assert min(rung.scale for rung in easy) < 0.5


def test_the_steps_are_of_similar_size() -> None:
    ladder = pruned(answers(EASY, 200), limit=8)
    steps = np.diff([np.log(size_of(rung)) for rung in ladder])
    assert steps.max() < 4.0 * np.median(steps)


def test_the_same_answers_give_the_same_ladder() -> None:
    assert pruned(answers(CLOSE, 60)) == pruned(answers(CLOSE, 60))


# --- what is foreseen -------------------------------------------------------------------------


def test_without_answers_the_order_is_the_priors_and_a_few_change_little() -> None:
    nobody = np.full((3, len(CANDIDATES)), np.nan)
    alone = foreseen(nobody, CANDIDATES, PRIOR)
    assert alone[-1] == 1.0
    assert (alone[:-1] < PRIOR[:-1]).all()
    assert np.abs(logit(alone[:-1]) - EASY[:-1]).max() < 2.5
    few = foreseen(answers(CLOSE, 2), CANDIDATES, PRIOR)
    many = foreseen(answers(CLOSE, 400), CANDIDATES, PRIOR)
    truth = expit(CLOSE)
    assert np.abs(few - alone)[:-1].mean() < 0.5 * np.abs(many - alone)[:-1].mean()
    assert np.abs(many - truth)[:-1].max() < 0.15


def test_answers_to_the_references_pixels_teach_nothing() -> None:
    nobody = np.full((50, len(CANDIDATES)), np.nan)
    same = nobody.copy()
    same[:, -1] = 1.0
    np.testing.assert_array_equal(
        foreseen(same, CANDIDATES, PRIOR), foreseen(nobody, CANDIDATES, PRIOR)
    )


def test_a_rung_that_departs_from_its_neighbours_is_found_out() -> None:
    odd = EASY.copy()
    place = CANDIDATES.index(Rung(20, 0.5))
    odd[place] = -3.0
    told = foreseen(answers(odd, 400), CANDIDATES, PRIOR)
    assert told[place] < told[place - 1] - 0.1  # of a lower quality


@pytest.mark.parametrize(
    ("candidates", "limit", "sentence"),
    [((Rung(5), Rung(20)), 8, "reference's pixels; add"), ((Rung(5), Rung(75)), 1, "at most 1")],
)
def test_what_cannot_be_a_ladder_is_refused(candidates: Ladder, limit: int, sentence: str) -> None:
    table = np.ones((3, 2))
    with pytest.raises(UsageError, match=sentence):
        prune(table, table, candidates, np.array([0.5, 0.9]), limit)


# --- with a service ---------------------------------------------------------------------------


class Service:
    """Sees what is in a picture of at least ``side`` pixels, and nothing in smaller ones."""

    def __init__(self, side: int) -> None:
        self.name, self.side, self.uploads = "fake://host", side, 0
        self.capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        large = min(Image.open(io.BytesIO(jpeg)).size) >= self.side
        return (Label("cat" if large else "blur", 0.9),)

    def recognize(self, jpeg: bytes) -> Recognition:
        self.uploads += 1
        return Recognition(self.answer(jpeg), len(jpeg), model_version="1")

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


@pytest.fixture
def pictures(tmp_path: Path) -> list[View]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(LADDER_VIEWS + 10):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(folder / f"{number:02}.png")
    return views(sorted(folder.iterdir()), 1, long_side=None, seed=0)


def test_local_models_are_measured_rung_by_rung(pictures: Sequence[View]) -> None:
    ladder = (Rung(20, 0.25), Rung(20, 0.75), Rung(75))
    models: list[Any] = [Service(32), Service(64)]
    assert measured(models, pictures[:3], ladder).tolist() == [0.0, 0.5, 1.0]


def test_a_job_learns_the_ladder_from_at_most_sixty_views_and_pays_once(
    pictures: list[View], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, told = Service(64), io.StringIO()
    monkeypatch.setitem(backends._registered, "fake", lambda spec: service)
    ladders = []
    for _ in range(2):
        with Job("fake://host", tmp_path / "run", Stages(told)) as job:
            ladders.append(job.learned_ladder(pictures, 4))
            assert service.uploads <= LADDER_VIEWS * 5
    assert ladders[0] == ladders[1]
    assert ladders[0][-1] == REFERENCE_PIXELS
    scales = [rung.scale for rung in ladders[0]]
    assert scales.count(1.0) > len(scales) / 2
    assert f"kept {len(scales)} rungs: {ladders[0][0].name}, " in told.getvalue()


def test_fit_offers_it_beside_the_fixed_ladders() -> None:
    parser = argparse.ArgumentParser()
    fit.add_parser(parser.add_subparsers())
    given = ["fit", "--images", "a", "--backend", "b", "--store", "c", "--run", "d"]
    assert parser.parse_args([*given, "--ladder", "learned"]).ladder == "learned"
    assert parser.parse_args(given).ladder is None


def test_what_was_not_measured_is_expected_to_do_as_rungs_of_its_size() -> None:
    sizes, known = np.array([0.4, 0.1, 0.2]), np.array([0.9, 0.3, 0.6])
    found = of_size(np.array([0.2, 0.05, 0.9, np.sqrt(0.1 * 0.2)]), sizes, known)
    np.testing.assert_allclose(found, [0.6, 0.3, 0.9, 0.45])
