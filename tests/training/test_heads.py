"""Both heads fitted to the same pictures, and the contest that says which of them pays."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import PAPER, Ladder, Rung
from edge_sdk.policy import OperatingPoint, choose
from export.network import DQNHead
from training.learn.decisions import policy, scores
from training.learn.heads import Heads
from training.learn.policies import GRID, SAFEST, ByValue, Fixed, Probing, Static
from training.learn.probing import predictions
from training.learn.reward import Reward
from training.learn.seen import Seen

#: The last rung decodes to the reference's pixels.
LADDER: Ladder = (Rung(10), Rung(20), Rung(35), Rung(55), Rung(75))
SAME = len(LADDER) - 1
WORDS = np.array(["cat", "dog", "car", "cup", "hat", "sea", "sky", "tie"], dtype=object)
CENTRES = np.random.default_rng(9).normal(0.0, 1.0, (len(WORDS), 12))
BASE = np.linspace(-1.0, 2.0, len(LADDER))

Array = NDArray[np.float64]

#: A prefix that is cut, so that it has no classifier of its own.
CUT: Any = SimpleNamespace(confidence=False, classifier=None)


def nearest(features: Array) -> NDArray[np.int64]:
    return np.asarray(np.argmax(features @ CENTRES.T - 0.5 * (CENTRES**2).sum(axis=1), axis=-1))


def seen(seed: int, told_by: str, count: int = 150) -> Seen:
    """Return pictures of eight kinds of things.

    Args:
        seed: of every choice.
        told_by: what foretells an answer besides the rung: ``nothing``; ``features``, the first of
            them; ``looks``, whether the encoding still looks like the same kind of thing.
        count: N.
    """
    rng = np.random.default_rng(seed)
    word = rng.integers(len(WORDS), size=count)
    features = CENTRES[word] + rng.normal(0.0, 0.3, (count, 12))
    harm = rng.gamma(1.0, 1.0, (count, 1, 1)) * np.array([1.2, 0.9, 0.6, 0.3, 0.0])[:, None]
    looks = features[:, None] + harm * rng.normal(0.0, 1.0, (count, 1, 12))
    logit = BASE + (3.0 * features[:, :1] if told_by == "features" else 0.0)
    agreement = (rng.random((count, len(LADDER))) < 1.0 / (1.0 + np.exp(-logit))).astype(float)
    if told_by == "looks":
        agreement = (nearest(looks) == nearest(features)[:, None]).astype(float)
    agreement[:, SAME] = 1.0
    return Seen(
        ladder=LADDER,
        features=features.astype(np.float32),
        groups=np.array([f"photo{index}" for index in range(count)], dtype=object),
        agreement=agreement,
        size_ratio=np.geomspace(0.15, 0.95, len(LADDER)) * rng.uniform(0.9, 1.1, (count, 1)),
        labels=WORDS[word],
        looks=looks.astype(np.float32),
    )


def fitted(pictures: Seen, prefix: Any = CUT, seed: int = 0) -> Heads:
    return Heads.of(prefix, pictures, Reward(), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def looking() -> Heads:
    return fitted(seen(0, "looks"))


# --- the contest ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told_by", "winner"), [("nothing", "fixed"), ("features", "static"), ("looks", "probing")]
)
def test_what_foretells_the_answers_decides_who_wins(told_by: str, winner: str) -> None:
    found = fitted(seen(0, told_by)).contest(np.random.default_rng(0))
    assert found.winner == winner
    assert list(found.log_loss) == ["fixed", "static", "probing"]


def test_the_same_pictures_and_seed_make_the_same_heads_and_contest(looking: Heads) -> None:
    again = fitted(seen(0, "looks"))
    assert looking.probe is not None
    assert again.probe is not None
    for one, other in ((looking.static, again.static), (looking.probe, again.probe)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    contests = [heads.contest(np.random.default_rng(5)) for heads in (looking, again)]
    assert contests[0] == contests[1]


def test_rungs_that_agree_by_construction_decide_nothing() -> None:
    pictures = seen(0, "looks", count=60)
    silent = pictures.agreement.copy()
    silent[:, SAME] = np.nan
    with_them, without = (
        fitted(replace(pictures, agreement=one)).contest(np.random.default_rng(0))
        for one in (pictures.agreement, silent)
    )
    assert with_them.log_loss == pytest.approx(without.log_loss)


def test_a_few_answers_a_picture_are_enough() -> None:
    pictures = seen(0, "looks", count=300)
    asked = np.random.default_rng(0).random(pictures.agreement.shape) < 0.4
    heads = fitted(replace(pictures, agreement=np.where(asked, pictures.agreement, np.nan)))
    assert heads.contest(np.random.default_rng(0)).winner == "probing"


def test_on_fresh_pictures_a_probe_is_as_good_as_the_contest_said() -> None:
    """More features than pictures: words are learnt by heart, and are less sure of others."""
    heads, others = fitted(wide(0, 100)), wide(1, 300)
    assert heads.vocabulary == "service"
    assert heads.probe is not None
    told = predictions(heads.probe, others.looked()).diagonal(axis1=1, axis2=2)[:, :SAME]
    p = np.clip(told, 1e-4, 1.0 - 1e-4).astype(np.float64)
    fresh = -np.log(np.where(others.agreement[:, :SAME] == 1.0, p, 1.0 - p)).mean()
    found = heads.contest(np.random.default_rng(0)).log_loss
    assert fresh < 1.2 * found["probing"] < 1.2 * found["fixed"]


def wide(seed: int, count: int, width: int = 150) -> Seen:
    """Return pictures of many features whose service answers by eight sums of them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0.0, 3.5 / np.sqrt(width), (len(WORDS), width))
    features = centres[rng.integers(8, size=count)] + rng.normal(0.0, 1.0, (count, width))
    harm = rng.gamma(1.0, 1.0, (count, 1, 1)) * np.array([1.2, 0.9, 0.6, 0.3, 0.0])[:, None]
    looks = features[:, None] + harm * rng.normal(0.0, 1.0, (count, len(LADDER), width))
    word, words = (np.argmax(one @ centres.T, axis=-1) for one in (features, looks))
    return replace(
        seen(seed, "nothing", count),
        features=features.astype(np.float32),
        looks=looks.astype(np.float32),
        agreement=(words == word[:, None]).astype(float),
        labels=WORDS[word],
    )


# --- whose words ------------------------------------------------------------------------------


def own_words(centres: Array) -> Any:
    """Return a prefix whose own classifier knows these kinds of things."""
    last = torch.nn.Linear(12, len(centres))
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(centres))
        last.bias.copy_(torch.from_numpy(-0.5 * (centres**2).sum(axis=1)))
    return SimpleNamespace(confidence=False, classifier=[None, last])


def test_the_words_that_foretell_more_are_spoken() -> None:
    pictures = seen(0, "looks")
    strange = np.random.default_rng(1).normal(0.0, 1.0, CENTRES.shape)
    assert fitted(pictures, own_words(strange)).vocabulary == "service"
    mumbled = replace(pictures, labels=np.random.default_rng(0).permutation(pictures.labels))
    assert fitted(mumbled, own_words(CENTRES)).vocabulary == "imagenet"


def test_a_service_with_few_words_leaves_the_prefixs_own_if_there_are_any() -> None:
    pictures = replace(seen(0, "looks", count=60), labels=np.full(60, "cat", dtype=object))
    heads = fitted(pictures, own_words(CENTRES))
    assert (heads.vocabulary, heads.probe is not None) == ("imagenet", True)
    heads = fitted(pictures)
    assert (heads.vocabulary, heads.probe) == ("none", None)
    assert set(heads.contest(np.random.default_rng(0)).log_loss) == {"fixed", "static"}
    assert set(heads.policies(pictures, 4)) == {"fixed", "static"}


# --- the policies -----------------------------------------------------------------------------


def test_every_way_of_deciding_is_offered_simplest_first(looking: Heads) -> None:
    others = seen(1, "looks", count=20)
    found = looking.policies(others, 3)
    assert [*found] == ["fixed", "static", "probing"]
    assert isinstance(found["probing"], Probing)
    assert found["probing"].max_probes == 3
    assert looking.probe is not None
    np.testing.assert_array_equal(
        found["probing"].predictions, predictions(looking.probe, others.looked())
    )
    np.testing.assert_array_equal(found["probing"].size_ratio, others.size_ratio)


def test_who_may_not_or_did_not_look_has_no_second_look(looking: Heads) -> None:
    others = seen(1, "looks", count=20)
    assert [*looking.policies(others, 0)] == ["fixed", "static"]
    assert [*looking.policies(replace(others, looks=None), 3)] == ["fixed", "static"]
    blind = fitted(replace(seen(0, "looks"), looks=None))
    assert (blind.probe, blind.vocabulary) == (None, "none")
    assert [*blind.policies(others, 3)] == ["fixed", "static"]


def test_looking_pays_on_fresh_pictures(looking: Heads) -> None:
    others = seen(2, "looks", count=200)
    found, rows = looking.policies(others, 3), np.arange(200)

    def cheapest(kind: str) -> float:
        """Return the fewest bytes at which nineteen pictures of twenty agree."""
        steps = found[kind].steps if kind == "fixed" else (SAFEST, *GRID[::4])
        chosen = [found[kind].rungs(step) for step in steps]
        return min(
            float(others.size_ratio[rows, rungs].mean())
            for rungs in chosen
            if others.agreement[rows, rungs].mean() >= 0.95
        )

    assert cheapest("probing") < 0.75 * min(cheapest("static"), cheapest("fixed"))


def test_fixed_rungs_go_from_the_references_pixels_down() -> None:
    """Dearer rungs are no safer: one that sometimes disagrees would end the search at once."""
    pictures = seen(0, "nothing", count=60)
    ladder = (*LADDER[:3], LADDER[SAME], Rung(90))
    sizes = pictures.size_ratio.copy()
    sizes[:, 4] = 1.4
    heads = fitted(replace(pictures, ladder=ladder, size_ratio=sizes, looks=None))
    policies = heads.policies(replace(pictures, ladder=ladder, looks=None), 0)
    assert isinstance(policies["fixed"], Fixed)
    assert policies["fixed"].order == (3, 2, 1, 0)
    sure = fitted(replace(pictures, ladder=(*LADDER[:4], Rung(74)), looks=None))
    fixed = sure.policies(pictures, 0)["fixed"]
    assert isinstance(fixed, Fixed)
    assert fixed.order == (4, 3, 2, 1, 0)


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        (OperatingPoint(trade_off=2.0, max_probes=2), Probing),
        (OperatingPoint(trade_off=2.0), Static),
        (OperatingPoint(trade_off=None, rung=2), Fixed),
    ],
)
def test_an_agents_point_says_how_it_decides(
    point: OperatingPoint, kind: type, looking: Heads
) -> None:
    others = seen(1, "looks", count=20)
    found = policy(looking.static, looking.probe, point, others)
    assert type(found) is kind
    expected = choose(scores(looking.static, others.features), point)
    if kind is Probing:
        expected = looking.policies(others, 2)["probing"].at(point)
    np.testing.assert_array_equal(found.at(point), expected)


def test_an_agent_without_its_probe_or_with_q_values_decides_by_the_picture(
    looking: Heads,
) -> None:
    others, point = seen(1, "looks", count=20), OperatingPoint(trade_off=SAFEST, max_probes=2)
    assert policy(looking.static, None, point, others).at(point).tolist() == [SAME] * 20
    head = DQNHead(12, len(PAPER)).eval()
    found = policy(head, None, OperatingPoint(trade_off=None), others)
    assert isinstance(found, ByValue)
    best = scores(head, others.features).q_values.argmax(axis=1)
    np.testing.assert_array_equal(found.at(OperatingPoint(trade_off=None)), best)


def test_some_of_the_pictures_are_taken_with_all_that_is_known() -> None:
    pictures, rows = seen(0, "looks", count=12), np.array([7, 2])
    part = pictures.take(rows)
    assert part.looks is not None
    assert pictures.looks is not None
    np.testing.assert_array_equal(part.looks, pictures.looks[rows])
    for name in ("features", "groups", "agreement", "size_ratio", "labels"):
        np.testing.assert_array_equal(getattr(part, name), getattr(pictures, name)[rows])
    assert replace(pictures, looks=None).take(rows).looks is None
