"""What all figures read: one service's answers to one scenery's pictures, and both agents.

That is a *case*. How its photos are labelled and the agents learnt is ``gather``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.backends.base import Label
from edge_sdk.codec import encode
from edge_sdk.ladder import FULL, PAPER, Ladder, Rung
from export.network import Prefix
from export.run import TrainingRun
from training.job import Job
from training.labels.ledger import picture_key
from training.labels.table import AnswerTable, concatenate
from training.learn.decisions import policy_of
from training.learn.dqn import Trace
from training.learn.features import Features
from training.learn.labelled import Labelled
from training.measure.baselines import chosen
from training.measure.intervals import Resampling, resample
from training.measure.paper_agent import paper_choices
from training.measure.trial import Parts
from training.photos import View

__all__ = ["TRADE_OFF", "Case", "Choice", "Request"]

#: How the policies that are our agent at another trade-off are called.
TRADE_OFF = "our agent at λ"

#: So many of them are drawn.
_TRADE_OFFS = 24

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


def _joined(one: Labelled, other: Labelled) -> Labelled:
    values = np.concatenate([one.features.values, other.features.values])
    looks = None
    if one.looks is not None and other.looks is not None:
        looks = np.concatenate([one.looks, other.looks])
    return Labelled(Features(values, *_NO_INPUTS), concatenate([one.table, other.table]), looks)
