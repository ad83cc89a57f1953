"""Labels a scenery's pictures by one service and learns both agents from them: makes a case.

Its photos are asked about at the paper's qualities, at our ladder's rungs and at DeepN-JPEG's
tables; the paper's agent (Algorithm 1) and ours learn from six tenths of them and are measured on
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_sdk.ladder import FULL, PAPER, Ladder
from export.network import Prefix
from training.job import Job
from training.learn.decisions import certified_or_expected
from training.learn.deepn import deepn_rungs
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.measure.paper_agent import learn_paper_agent
from training.measure.trial import TEST_SHARE, Plan, run_trial
from training.photos import View
from training.reproduce.cache import cached, name_of
from training.reproduce.cases import Case, Request

__all__ = ["gather"]

#: Of the photos learnt from, our heads are fitted to these; the others certify.
_TRAIN_SHARE = 0.5

#: Table scales from coarse to fine; 1 is DeepN-JPEG as published.
_DEEPN_SCALES = (3.0, 2.0, 1.0, 0.5)


def gather(
    job: Job,
    scenery: str,
    pictures: Sequence[View],
    prefixes: tuple[Prefix, Prefix],
    run: Path,
    request: Request,
    *,
    probes: int,
) -> Case:
    """Label a scenery's pictures and learn both agents.

    Args:
        job: the service.
        scenery: its name.
        pictures: its photos.
        prefixes: with classifier confidence, for our agent, and without, for the paper's.
        run: the run's folder.
        request: target and seed.
        probes: candidates that our agent may look at, which takes time to learn.
    """
    stages, name = job.stages, f"{scenery} photos by {job.backend.name}"
    with stages.stage(f"DeepN-JPEG tables of {scenery} photos", len(pictures)) as step:
        deepn = _deepn(tuple(pictures), step)
    ladder = tuple(dict.fromkeys((*PAPER, *FULL, *deepn)))
    facts = job.backend.name, job.labeller.model_version, job.min_score, request.seed, probes
    everything = cached(
        run / "cases" / f"{name_of(pictures, ladder, *facts)}.npz",
        ladder,
        lambda: job.labelled(prefixes[0], pictures, ladder, name, look_at=FULL if probes else ()),
    )
    with stages.stage(f"learning from {name}"):
        goal = Goal(
            backend=job.backend.name,
            target=request.target,
            scenery=scenery,
            seed=request.seed,
            max_probes=probes,
            model_version=job.labeller.model_version,
        )
        return _learnt(job, scenery, pictures, prefixes, everything, goal, deepn)


def _deepn(pictures: tuple[View, ...], step: Any) -> Ladder:
    # The paper's encodings have plain Huffman tables, so these have as well.
    made = deepn_rungs(pictures, _DEEPN_SCALES, progress=step)["faithful"]
    return tuple(replace(rung, entropy="plain") for rung in made)


def _learnt(
    job: Job,
    scenery: str,
    pictures: Sequence[View],
    prefixes: tuple[Prefix, Prefix],
    everything: Labelled,
    goal: Goal,
    deepn: Ladder,
) -> Case:
    total = len(set(everything.table.groups))
    plan = Plan(
        goal=goal, ladder=FULL, calls=(len(FULL), 0), train_share=_TRAIN_SHARE, opponent=False
    )
    photos = total - round(TEST_SHARE * total)
    trained = run_trial(prefixes, everything, plan, photos=photos, seed=goal.seed)
    run = certified_or_expected(trained.run, trained.parts.held, goal.target)
    dqn, trace = learn_paper_agent(prefixes[1], trained.parts.train, trained.parts.held, goal)
    by_photo = {view.photo: view for view in pictures}
    return Case(
        job, scenery, everything, trained.parts, run, dqn, trace, deepn, by_photo, prefixes[1]
    )
