"""Learning that starts from another agent's heads, and the answers that are asked for in doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder, Rung
from export.network import FactoredHead
from export.probe_head import ProbeHead
from training.labels.recorded import Recorded
from training.labels.sampling import stratified
from training.learn.acquire import acquire, doubtful
from training.learn.goal import Goal
from training.learn.heads import Heads, Start
from training.learn.labelled import Labelled
from training.learn.probing import fit_probe, predictions
from training.learn.reward import Reward
from training.learn.seen import Seen

Array = NDArray[np.float64]
Fit = Callable[..., Heads]

#: The last rung decodes to the reference's pixels.
LADDER: Ladder = (Rung(10), Rung(20), Rung(35), Rung(55), Rung(75))
SAME = len(LADDER) - 1
WORDS = np.array(["cat", "dog", "car", "cup", "hat", "sea", "sky", "tie"], dtype=object)
WIDTH = 12
CENTRES = np.random.default_rng(9).normal(0.0, 1.0, (len(WORDS), WIDTH))
HARM = np.array([1.2, 0.9, 0.6, 0.3, 0.0])[:, None]

#: A prefix that is cut, so that it has no classifier of its own.
CUT: Any = SimpleNamespace(confidence=False, classifier=None)


def own_words() -> Any:
    """Return a prefix whose own classifier knows these kinds of things."""
    last = torch.nn.Linear(WIDTH, len(CENTRES))
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(CENTRES))
        last.bias.copy_(torch.from_numpy(-0.5 * (CENTRES**2).sum(axis=1)))
    return SimpleNamespace(confidence=False, classifier=[None, last])


PREFIX = own_words()


def world(seed: int, count: int = 150, *, told_by: str = "looks") -> Seen:
    """Return pictures of eight kinds of things, every rung answered.

    Args:
        seed: of every choice.
        count: N.
        told_by: what foretells an answer: ``looks``, whether the encoding still looks like the same
            kind of thing; ``features``, the original's first one and the rung.
    """
    rng = np.random.default_rng(seed)
    word = rng.integers(len(WORDS), size=count)
    features = CENTRES[word] + rng.normal(0.0, 0.3, (count, WIDTH))
    looks = features[:, None] + rng.gamma(1.0, 1.0, (count, 1, 1)) * HARM * rng.normal(
        0.0, 1.0, (count, 1, WIDTH)
    )
    logit = np.linspace(-1.0, 2.0, len(LADDER)) + 3.0 * features[:, :1]
    agreement = (rng.random(logit.shape) < 1.0 / (1.0 + np.exp(-logit))).astype(float)
    if told_by == "looks":
        agreement = (nearest(looks) == nearest(features)[:, None]).astype(float)
    agreement[:, SAME] = 1.0
    return Seen(
        ladder=LADDER,
        features=features.astype(np.float32),
        groups=np.array([f"photo{seed}.{index}" for index in range(count)], dtype=object),
        agreement=agreement,
        size_ratio=np.geomspace(0.15, 0.95, len(LADDER)) * rng.uniform(0.9, 1.1, (count, 1)),
        labels=WORDS[word],
        looks=looks.astype(np.float32),
    )


def nearest(features: Array) -> NDArray[np.int64]:
    return np.asarray(np.argmax(features @ CENTRES.T - 0.5 * (CENTRES**2).sum(axis=1), axis=-1))


def asked(seen: Seen, calls: int, seed: int = 0) -> Seen:
    """Return the same with ``calls`` answers a picture."""
    rungs = stratified(len(seen.features), len(LADDER), calls, np.random.default_rng(seed))
    known = np.zeros(seen.agreement.shape, dtype=bool)
    np.put_along_axis(known, rungs, values=True, axis=1)
    known[:, SAME] = True
    return replace(seen, agreement=np.where(known, seen.agreement, np.nan))


def fitted(seen: Seen, start: Start = Start(), prefix: Any = PREFIX) -> Heads:  # noqa: B008
    return Heads.of(prefix, seen, Reward(), np.random.default_rng(0), start)


@pytest.fixture(scope="module")
def parent() -> Heads:
    """An agent that has seen plenty."""
    return fitted(world(100, 600))


@pytest.fixture(scope="module")
def foreseeing() -> Heads:
    """An agent that has seen plenty of pictures whose features foretell the answers."""
    return fitted(replace(world(100, 600, told_by="features"), looks=None))


def loss(told: Array, truth: Array) -> float:
    p = np.clip(told, 1e-4, 1.0 - 1e-4)
    return float(-np.log(np.where(truth == 1.0, p, 1.0 - p)).mean())


def own_look(probe: ProbeHead, seen: Seen) -> Array:
    told = predictions(probe, seen.looked()).diagonal(axis1=1, axis2=2)
    return np.asarray(np.delete(told, SAME, axis=1), dtype=np.float64)


def truths(seen: Seen) -> Array:
    return np.asarray(np.delete(seen.agreement, SAME, axis=1))


def upside_down(probe: ProbeHead) -> ProbeHead:
    """Return a head that foresees the opposite."""
    turned = ProbeHead.from_state(probe.state_dict(), LADDER)
    with torch.no_grad():
        turned.weight.neg_()
        turned.bias.neg_()
    return turned


def backwards(head: FactoredHead) -> FactoredHead:
    """Return a head that foresees the opposite, and surely."""
    turned = FactoredHead(WIDTH, LADDER)
    turned.load_state_dict(head.state_dict())
    with torch.no_grad():
        turned.agreement_logit.weight.mul_(-20.0)
        turned.agreement_logit.bias.mul_(-20.0)
    turned.eval()
    return turned


# --- whether to start there -------------------------------------------------------------------


def test_a_start_whose_probe_foresees_the_answers_is_taken(parent: Heads) -> None:
    few = asked(world(1, 20), 1)
    heads = fitted(few, Start(probe=parent.probe))
    assert heads.started
    assert heads.vocabulary == "imagenet"
    assert not fitted(few).started


def test_a_start_whose_static_head_foresees_the_answers_is_taken(foreseeing: Heads) -> None:
    few = asked(replace(world(2, 40, told_by="features"), looks=None), 1)
    assert fitted(few, Start(static=foreseeing.static)).started
    assert not fitted(few).started


def test_a_start_that_is_nonsense_is_not_taken(parent: Heads, foreseeing: Heads) -> None:
    assert parent.probe is not None
    start = Start(backwards(foreseeing.static), upside_down(parent.probe))
    for told_by in ("looks", "features"):
        known = world(2, told_by=told_by)
        heads, alone = fitted(known, start), fitted(known)
        assert not heads.started
        assert heads.probe is not None
        assert alone.probe is not None
        for one, other in ((heads.static, alone.static), (heads.probe, alone.probe)):
            for name, value in one.state_dict().items():
                assert torch.equal(value, other.state_dict()[name]), name


def test_who_starts_from_much_foresees_more_from_little(parent: Heads) -> None:
    few, others = asked(world(3, 40), 1), world(4, 300)
    alone, started = fitted(few).probe, fitted(few, Start(probe=parent.probe)).probe
    assert started is not None
    assert alone is not None
    losses = [loss(own_look(one, others), truths(others)) for one in (started, alone)]
    assert losses[0] < 0.7 * losses[1]


def test_a_start_knows_more_in_the_contest_as_well(parent: Heads) -> None:
    few = asked(world(3, 24), 2)
    alone, started = (
        heads.contest(np.random.default_rng(0)).log_loss
        for heads in (fitted(few), fitted(few, Start(probe=parent.probe)))
    )
    assert started["probing"] < alone["probing"]


def test_a_start_without_looks_or_words_has_no_probe(parent: Heads) -> None:
    blind = replace(asked(world(3, 20), 2), looks=None)
    heads = fitted(blind, Start(probe=parent.probe))
    assert (heads.probe, heads.started, heads.vocabulary) == (None, False, "none")
    mute = replace(asked(world(3, 20), 2), labels=np.full(20, "", dtype=object))
    heads = fitted(mute, Start(probe=parent.probe), CUT)
    assert (heads.probe, heads.started, heads.vocabulary) == (None, False, "none")


# --- what a probe learns to a start -----------------------------------------------------------


def empty(seen: Seen) -> ProbeHead:
    weight = torch.from_numpy(CENTRES).float()
    classifier = weight, -0.5 * (weight * weight).sum(dim=1)
    sizes = torch.from_numpy(np.log(seen.size_ratio).mean(axis=0))
    return ProbeHead(classifier, torch.full((WIDTH,), 0.3), LADDER, sizes)


@pytest.fixture(scope="module")
def start() -> ProbeHead:
    seen = world(100, 400)
    return fit_probe(empty(seen), seen.looked(), seen.agreement, LADDER)


def learnt(seen: Seen, head: ProbeHead, start: ProbeHead | None = None) -> ProbeHead:
    return fit_probe(head, seen.looked(), seen.agreement, LADDER, start=start)


def test_with_few_answers_it_foresees_about_what_its_start_does(start: ProbeHead) -> None:
    others, few = world(6, 200), asked(world(5, 30), 1)
    expected = own_look(start, others)
    far = np.abs(own_look(learnt(few, twin(start)), others) - expected).mean()
    near = np.abs(own_look(learnt(few, twin(start), start), others) - expected).mean()
    assert near < 0.05
    assert near < 0.25 * far


@pytest.mark.parametrize("count", [1, 3])
def test_hardly_any_answer_changes_hardly_anything(count: int, start: ProbeHead) -> None:
    others, seen = world(6, 200), world(5, count)
    silent = np.full_like(seen.agreement, np.nan)
    silent[:, 1] = seen.agreement[:, 1]
    told = own_look(learnt(replace(seen, agreement=silent), twin(start), start), others)
    assert np.abs(told - own_look(start, others)).mean() < 0.02


def twin(head: ProbeHead) -> ProbeHead:
    """Return an untrained head with the same words, spread and places."""
    made = ProbeHead.from_state(head.state_dict(), LADDER)
    with torch.no_grad():
        made.weight.zero_()
        made.bias.zero_()
        made.mean.zero_()
        made.scale.fill_(1.0)
    return made


def test_many_answers_outweigh_a_wrong_start(start: ProbeHead) -> None:
    known, others = world(7, 600), world(6, 300)
    truth = truths(others)
    wrong = upside_down(start)
    healed = learnt(known, twin(start), wrong)
    assert loss(own_look(healed, others), truth) < 0.5 * loss(own_look(wrong, others), truth)


def test_the_start_itself_is_left_alone(start: ProbeHead) -> None:
    before = {name: value.clone() for name, value in start.state_dict().items()}
    learnt(asked(world(5, 30), 2), twin(start), start)
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- where answers are in doubt ---------------------------------------------------------------


@given(calls=st.integers(1, 2), spent=st.integers(1, 2), seed=st.integers(0, 50))
@settings(max_examples=8)
def test_nothing_settled_is_in_doubt(calls: int, spent: int, seed: int) -> None:
    seen = asked(world(seed, 40), spent, seed)
    rungs = doubtful(PREFIX, seen, calls, np.random.default_rng(seed))
    assert rungs is not None
    assert rungs.shape == (40, calls)
    assert (rungs != SAME).all()
    assert np.isnan(np.take_along_axis(seen.agreement, rungs, axis=1)).all()
    assert all(len(set(row)) == calls for row in rungs.tolist())


def test_the_least_foreseeable_rungs_are_in_doubt(parent: Heads) -> None:
    """Its probe is nearly the parent's, so what that one finds uncertain is asked about."""
    seen = asked(world(8, 200), 1)
    rungs = doubtful(PREFIX, seen, 1, np.random.default_rng(0), Start(probe=parent.probe))
    assert rungs is not None
    assert parent.probe is not None
    told = predictions(parent.probe, seen.looked()).diagonal(axis1=1, axis2=2)
    doubt = np.where(np.isnan(seen.agreement), told * (1.0 - told), np.nan)
    picked = np.take_along_axis(doubt, rungs, axis=1)[:, 0]
    assert picked.mean() > 2.0 * np.nanmean(doubt)
    assert (picked >= 0.8 * np.nanmax(doubt, axis=1)).mean() > 0.7


def test_doubt_does_not_depend_on_a_pictures_own_answers_yet_to_come() -> None:
    seen = asked(world(8, 60), 2)
    rungs = [doubtful(PREFIX, seen, 2, np.random.default_rng(0)) for _ in range(2)]
    assert rungs[0] is not None
    np.testing.assert_array_equal(rungs[0], rungs[1])


def test_where_nobody_speaks_nothing_is_known_to_be_in_doubt() -> None:
    mute = replace(asked(world(8, 30), 2), labels=np.full(30, "", dtype=object))
    assert doubtful(CUT, mute, 2, np.random.default_rng(0)) is None


# --- asking about them ------------------------------------------------------------------------


def labelled(make_labelled: Callable[..., Labelled], *, spent: int, look: bool = True) -> Labelled:
    """Return pictures on the paper's ladder with ``spent`` answers each, and more to be had."""
    pictures = make_labelled(0, 30)
    answers = Recorded(pictures.table)
    answers.sample(spent, np.random.default_rng(0))
    shape = (30, len(pictures.table.ladder), WIDTH)
    looks = np.random.default_rng(0).normal(0.0, 1.0, shape).astype(np.float32)
    return replace(pictures, table=answers.table(), looks=looks if look else None, answers=answers)


def bought(prefix: Any, train: Labelled, calls: int = 2) -> NDArray[np.bool_]:
    """Return the answers that are known afterwards and were not before."""
    before = np.isnan(train.table.agreement["any_hit"])
    more = acquire(prefix, train, Goal(backend="local:x"), calls)
    new = before & ~np.isnan(more.table.agreement["any_hit"])
    assert more.table.calls == train.table.calls + new.sum()
    return np.asarray(new)


def test_a_few_more_answers_are_bought(make_labelled: Callable[..., Labelled]) -> None:
    new = bought(PREFIX, labelled(make_labelled, spent=2))
    assert (new.sum(axis=1) == 2).all()


def test_where_doubt_is_unknown_other_rungs_are_asked_about(
    make_labelled: Callable[..., Labelled],
) -> None:
    """As ``fit`` does: the job and the goal have one seed, and ask about as many rungs."""
    new = bought(CUT, labelled(make_labelled, spent=2))
    assert 0 < new.sum() <= 60
    assert (new.sum(axis=1) <= 2).all()


def test_where_nobody_looks_or_nothing_is_for_sale_nothing_is_bought(
    make_labelled: Callable[..., Labelled],
) -> None:
    goal = Goal(backend="local:x")
    for train, calls in (
        (labelled(make_labelled, spent=2), 0),
        (labelled(make_labelled, spent=2, look=False), 2),
        (replace(labelled(make_labelled, spent=2), answers=None), 2),
    ):
        assert acquire(PREFIX, train, goal, calls) is train


# --- joining ----------------------------------------------------------------------------------


def test_pictures_are_joined_in_order_with_all_that_is_known() -> None:
    one, other = world(0, 5), asked(world(1, 7), 1)
    both = one.joined(other)
    for name in ("features", "groups", "agreement", "size_ratio", "labels", "looks"):
        parts = [getattr(one, name), getattr(other, name)]
        np.testing.assert_array_equal(getattr(both, name), np.concatenate(parts))
    assert both.ladder == LADDER
    np.testing.assert_array_equal(both.take(np.arange(5)).features, one.features)


def test_joined_pictures_have_looks_only_if_both_have() -> None:
    one, other = world(0, 5), world(1, 7)
    assert one.joined(replace(other, looks=None)).looks is None
    assert replace(one, looks=None).joined(other).looks is None
