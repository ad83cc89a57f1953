"""What all figures share: pictures of each scenery, each service's answers, and both agents.

One *case* is one service and one scenery. Its photos are asked about at the paper's qualities, at
our ladder's rungs and at DeepN-JPEG's tables; the paper's agent (Algorithm 1) and ours learn from
six tenths of them and are measured on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.backends.base import Label
from edge_sdk.codec import encode
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import FULL, PAPER, Ladder, Rung
from export.network import FactoredHead, Prefix
from export.run import TrainingRun
from model_store.errors import UsageError
from training import assets
from training.cameras import thermal_camera
from training.job import Job
from training.labels.ledger import picture_key
from training.labels.table import AnswerTable, concatenate
from training.learn.decisions import policy_of, scores
from training.learn.deepn import deepn_rungs
from training.learn.dqn import Trace
from training.learn.features import Features
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.operating import expected_point
from training.measure.baselines import chosen
from training.measure.intervals import Resampling, resample
from training.measure.paper_agent import learn_paper_agent, paper_choices
from training.measure.trial import TEST_SHARE, Parts, Plan, run_trial
from training.photos import View, readable, views
from training.progress import Stages
from training.reproduce.cache import cached, name_of

__all__ = [
    "DAY",
    "NIGHT",
    "QUICK_PHOTOS",
    "TRADE_OFF",
    "Case",
    "Choice",
    "Request",
    "gather",
    "sceneries",
]

DAY, NIGHT = "day", "night"

#: Photos of a scenery that ``--quick`` looks at.
QUICK_PHOTOS = 100

#: Least photos of a scenery: fewer leave nothing to say about any of the parts.
LEAST = 12

#: Of the photos learnt from, our heads are fitted to these; the others certify.
_TRAIN_SHARE = 0.5

#: How the policies that are our agent at another trade-off are called.
TRADE_OFF = "our agent at λ"

#: So many of them are drawn.
_TRADE_OFFS = 24

#: Longer side of the built-in photos and of made-up night frames, in pixels.
_FRAME = 512

#: Table scales from coarse to fine; 1 is DeepN-JPEG as published.
_DEEPN_SCALES = (3.0, 2.0, 1.0, 0.5)

_NO_INPUTS = (np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        command: as typed, for the captions.
        target: agreement that our agent is certified for.
        seed: of the split and of all else.
        uplink: megabits a second, or None.
        extractors: backbones to compare with MobileNetV2's prefix.
    """

    command: str
    target: float
    seed: int
    uplink: float | None = None
    extractors: tuple[str, ...] = ()

    def rng(self) -> np.random.Generator:
        """Return the generator of a figure's intervals; every figure starts it anew."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Choice:
    """What a policy sent for some pictures.

    Attributes:
        table: answers on its ladder.
        rungs: each picture's rung, (N,).
    """

    table: AnswerTable
    rungs: NDArray[np.int64]

    @property
    def size(self) -> NDArray[np.float64]:
        """Size ratio of each picture."""
        return chosen(self.table.size_ratio, self.rungs)

    @property
    def bytes(self) -> NDArray[np.float64]:
        """Bytes of each picture's file."""
        return chosen(self.table.bytes, self.rungs)

    def agreement(self, metric: str = "any_hit") -> NDArray[np.float64]:
        """Agreement of each picture."""
        return chosen(self.table.agreement[metric], self.rungs)

    @property
    def names(self) -> list[str]:
        """Name of each picture's rung."""
        return [self.table.ladder[rung].name for rung in self.rungs]


@dataclass(frozen=True)
class Case:
    """One service and one scenery.

    Attributes:
        job: the open service.
        scenery: its name.
        everything: all photos, on all rungs.
        parts: the same, split by photo.
        agent: ours.
        dqn: the paper's.
        trace: how that was learnt.
        deepn: DeepN-JPEG's rungs, coarse to fine.
        photos: photo to view.
        prefix: the network that the paper's agent's features come from.
    """

    job: Job
    scenery: str
    everything: Labelled
    parts: Parts
    agent: TrainingRun
    dqn: TrainingRun
    trace: Trace
    deepn: Ladder
    photos: dict[str, View]
    prefix: Prefix

    @property
    def backend(self) -> str:
        """The service's name, without what is the same for all local ones."""
        return self.job.backend.name.removeprefix("local:")

    @property
    def title(self) -> str:
        """Service and scenery."""
        return f"{self.backend}, {self.scenery}"

    @property
    def test(self) -> AnswerTable:
        """Answers to the pictures that no agent saw."""
        return self.parts.test.table

    @property
    def learnt(self) -> Labelled:
        """The photos that the agents were learnt from and certified on."""
        return _joined(self.parts.train, self.parts.held)

    def views(self, table: AnswerTable) -> list[View]:
        """Return the views of a table's pictures."""
        return [self.photos[str(group)] for group in table.groups]

    def paper(self, pictures: Labelled | None = None) -> Choice:
        """Return what the paper's agent sends, of the test pictures unless others are given."""
        pictures = pictures or self.parts.test
        table = pictures.table.on(PAPER)
        return Choice(table, paper_choices(self.dqn, pictures))

    def ours(self, pictures: Labelled | None = None) -> Choice:
        """Return what our agent sends."""
        own = (pictures or self.parts.test).on(FULL)
        return Choice(own.table, policy_of(self.agent, own).at(self.agent.operating_point))

    def trade_offs(self) -> dict[str, Choice]:
        """Return what our agent would send at other trade-offs than its own."""
        own = self.parts.test.on(FULL)
        free = replace(self.agent.operating_point, rung=None, trade_off=1.0)
        policy = policy_of(replace(self.agent, operating_point=free), own)
        steps = policy.steps[:: max(1, len(policy.steps) // _TRADE_OFFS)]
        return {f"{TRADE_OFF} {step:.3g}": Choice(own.table, policy.rungs(step)) for step in steps}

    def fixed(self, rung: Rung) -> Choice:
        """Return what one rung for all sends."""
        table = self.test.on((rung,))
        return Choice(table, np.zeros(len(table), dtype=np.int64))

    @property
    def promise(self) -> str:
        """Say what our agent's trade-off rests on."""
        certified = self.agent.operating_point.certified
        return f"{self.title} {'certified' if certified else 'expected by its own heads'}"

    def draws(self, rng: np.random.Generator) -> Resampling:
        """Return the resampling of the test photos that all figures of a case share."""
        return resample(self.test.groups, rng)

    def labels(self, view: View, rung: Rung) -> tuple[Label, ...]:
        """Return the service's answer, from the ledger where it is known."""
        image = view.open()
        return self.job.labeller.ask(picture_key(image), rung, encode(image, rung))


def sceneries(
    images: Path | None, night: Path | None, stages: Stages, *, most: int | None, seed: int
) -> dict[str, list[View]]:
    """Return the pictures of day and night; without night frames they are made from day photos.

    Raises:
        UsageError: there are too few.
    """
    if images is None:  # large photos; a camera's frame is smaller, and the demo's are as well
        by_day = views(assets.photos(), 1, long_side=_FRAME, seed=0)
    else:
        by_day = _whole(readable(find_pictures(images), stages.say))
    found = {DAY: _some(by_day, most)}
    if night is not None:
        found[NIGHT] = _some(_whole(readable(find_pictures(night), stages.say)), most)
    else:
        found[NIGHT] = [
            replace(view, long_side=_FRAME).through(thermal_camera, index)
            for index, view in enumerate(found[DAY])
        ]
    for name, pictures in found.items():
        if len(pictures) < LEAST:
            raise UsageError(
                f"There are {len(pictures)} {name} picture(s); allowed are {LEAST} or more, better "
                "a hundred."
            )
    return found


def _whole(paths: Sequence[Path]) -> list[View]:
    return views(paths, 1, long_side=None, seed=0)


def _some(pictures: list[View], most: int | None) -> list[View]:
    if most is None or len(pictures) <= most:
        return pictures
    rows = np.linspace(0, len(pictures) - 1, most).round().astype(int)
    return [pictures[row] for row in rows]


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
    run = _pointed(trained.run, trained.parts.held, goal.target)
    dqn, trace = learn_paper_agent(prefixes[1], trained.parts.train, trained.parts.held, goal)
    by_photo = {view.photo: view for view in pictures}
    return Case(
        job, scenery, everything, trained.parts, run, dqn, trace, deepn, by_photo, prefixes[1]
    )


def _pointed(run: TrainingRun, held: Labelled, target: float) -> TrainingRun:
    """Return the agent at its certified trade-off, or at one that it expects to be right.

    The paper's agents have no certificate either, and the safest rung would show nothing.
    """
    if run.operating_point.certified or not isinstance(run.head, FactoredHead):
        return run
    point = expected_point(scores(run.head, held.features.values), target)
    return replace(run, operating_point=point)


def _joined(one: Labelled, other: Labelled) -> Labelled:
    values = np.concatenate([one.features.values, other.features.values])
    looks = None
    if one.looks is not None and other.looks is not None:
        looks = np.concatenate([one.looks, other.looks])
    return Labelled(Features(values, *_NO_INPUTS), concatenate([one.table, other.table]), looks)
