"""Which answers to buy for learning: those that the answers so far foresee least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.network import Prefix, always_agrees
from training.labels.sampling import stratified
from training.learn.goal import Goal
from training.learn.heads import NO_START, Start
from training.learn.labelled import Labelled
from training.learn.seen import Seen
from training.learn.vocabulary import choose_words, own_look, teach

__all__ = ["acquire", "doubtful"]


def acquire(
    prefix: Prefix, train: Labelled, goal: Goal, calls: int, start: Start = NO_START
) -> Labelled:
    """Ask about the ``calls`` rungs of every training picture that teach most, if looks tell them.

    Args:
        prefix: made the features.
        train: with a few answers a picture.
        goal: whose metric counts.
        calls: answers a picture more.
        start: heads to start from.
    """
    if train.answers is None or train.looks is None or calls < 1:
        return train
    rng = np.random.default_rng([goal.seed, 1])  # not what the first sample drew
    rungs = doubtful(prefix, train.seen(goal.metric), calls, rng, start)
    if rungs is None:
        rungs = stratified(len(train.table), len(train.table.ladder), calls, rng)
    train.answers.ask(rungs)
    return train.refreshed()


def doubtful(
    prefix: Prefix,
    seen: Seen,
    calls: int,
    rng: np.random.Generator,
    start: Start = NO_START,
) -> NDArray[np.int64] | None:
    """Return the rungs of every picture whose answers are least foreseeable, (N, calls).

    A probe fitted to the answers so far looks at every encoding; where it says yes or no nearly
    certainly, an answer would teach little. What is chosen depends on what a picture looks like and
    not on its own answer, so what is fitted to the answers stays unbiased.

    Args:
        prefix: made the features.
        seen: with the answers so far.
        calls: rungs a picture; those already asked and the reference's pixels come last.
        rng: assigns photos to folds.
        start: heads to start from.

    Returns:
        None where no probe can be fitted.
    """
    words = choose_words(prefix, seen, rng, start.probe)
    if (probe := teach(seen, words)) is None:
        return None
    foreseen = own_look(probe, seen)
    foreseen = np.where(np.isnan(foreseen), seen.rung_means(len(foreseen)), foreseen)
    settled = ~np.isnan(seen.agreement) | np.array(always_agrees(seen.ladder))
    doubt = np.where(settled, -1.0, foreseen * (1.0 - foreseen))
    return np.argsort(-doubt, axis=1, kind="stable")[:, :calls]
