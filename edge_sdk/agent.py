"""An agent at work: it decides what a picture is sent as. ``edge_sdk.assembly`` makes one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import takes
from edge_sdk.climb import Look, climb
from edge_sdk.codec import Streams, framed
from edge_sdk.engine import Engine, Scores
from edge_sdk.ladder import REFERENCE, Ladder, Rung, kinds_of
from edge_sdk.palette import palette_of
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from edge_sdk.scenery import Signature
from edge_sdk.second_look import Probe
from edge_sdk.view import View

__all__ = ["Agent", "Decision", "Encode"]

_log = logging.getLogger("edge_sdk.agent")

#: Rung -> the file of the picture at hand, and its bytes over the reference's.
Encode = Callable[[Rung], tuple[bytes, float]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an agent says about one picture.

    Attributes:
        rung: index into the agent's ladder.
        scores: of this picture, N = 1.
        probed: rungs that were encoded and looked at before.
        palette: of the picture, see ``edge_sdk.palette``; None where nobody looked at colours yet.
        agent: id of the agent that decided.
    """

    rung: int
    scores: Scores
    probed: tuple[int, ...] = ()
    palette: NDArray[np.float32] | None = None
    agent: str = ""

    @property
    def features(self) -> NDArray[np.float32]:
        """The picture's features, float32 (D,)."""
        return np.asarray(self.scores.features[0])

    def coloured(self, image: Image.Image) -> Decision:
        """Return the decision with its picture's palette, which the scenery is watched by."""
        return self if self.palette is not None else replace(self, palette=palette_of(image))


@dataclass(frozen=True, slots=True)
class Agent:
    """An engine with its ladder, operating point and scenery; immutable, hence thread-safe.

    Attributes:
        id: the store's id.
        engine: scores a picture's rungs.
        operating_point: the trade-off that meets the accuracy target.
        scenery: name of the scenery it was trained on.
        signature: what that scenery looks like to the features, or None.
        probe: compares encodings with their original, or None.
        plain: the trade-off certified for deciding without a look, where it is another one.
        fixed: the rung that may be sent without any decision, by a certificate; None for the
            reference.
        codec: makes the streams of rungs of features, or None.
        barred: rungs that are not chosen, see :meth:`on`.
    """

    id: str
    engine: Engine
    operating_point: OperatingPoint
    scenery: str = ""
    signature: Signature | None = None
    probe: Probe | None = None
    plain: OperatingPoint | None = None
    fixed: int | None = None
    codec: Streams | None = None
    barred: frozenset[int] = frozenset()

    def on(self, capabilities: Capabilities) -> Agent:
        """Return the same agent without the rungs that a service does not read.

        Without those, too, whose codec is not at hand. What was certified with them is not any
        more; the rule of deciding still holds.
        """
        barred = frozenset(
            index
            for index, rung in enumerate(self.ladder)
            if not takes(capabilities, rung) or not (rung.has_pixels or self.codec)
        )
        if barred == self.barred:
            return self
        _log.warning(
            "Agent %s does without %s: the service does not read them, or their codec is not here.",
            self.id,
            ", ".join(self.ladder[index].name for index in sorted(barred)),
        )
        return replace(
            self,
            barred=barred,
            operating_point=_without(self.operating_point, barred, self.ladder),
            plain=None,
            fixed=None if self.fixed in barred else self.fixed,
        )

    @property
    def ladder(self) -> Ladder:
        """The rungs that a decision indexes."""
        return self.engine.ladder

    def decide(
        self,
        image: Image.Image,
        encode: Encode | None = None,
        usable: Collection[int] | None = None,
        caution: float = 1.0,
    ) -> Decision:
        """Choose a rung for an RGB picture.

        Args:
            image: the picture.
            encode: returns the file of a rung and its size ratio; without it nothing is probed.
            usable: rungs that a probing agent may choose from; default all.
            caution: factor on the trade-off, see ``edge_sdk.steering``.
        """
        scores = self.engine.run(to_input(image, self.engine.side))
        point = self.operating_point.times(caution)
        if self.probe is None or encode is None or not point.max_probes or point.trade_off is None:
            chosen = int(choose(scores, point, self.barred)[0])
            return Decision(chosen, scores, agent=self.id)
        assert scores.agreement is not None  # assembly has checked that
        assert scores.size_ratio is not None
        free = range(len(self.ladder)) if usable is None else usable
        rung, probed = climb(
            scores.agreement[0],
            scores.size_ratio[0],
            point.trade_off,
            partial(self._look, self.probe, _Original(self.engine, image, scores), encode),
            point.max_probes,
            [index for index in free if index not in self.barred],
            kinds_of(self.ladder),
            [index for index, one in enumerate(self.ladder) if not one.has_pixels],
        )
        return Decision(rung, scores, probed, agent=self.id)

    def _look(self, probe: Probe, original: _Original, encode: Encode, index: int) -> Look:
        rung = self.ladder[index]
        jpeg, size_ratio = encode(rung)
        candidate = self.engine.run(to_input(load(jpeg).image, self.engine.side)).features[0]
        before = original.seen(rung.view)
        return Look(probe.run(before, candidate, index, size_ratio), size_ratio)

    def rung(self, index: int) -> Rung:
        """Return the rung behind an index."""
        return self.ladder[index]


class _Original:
    """A picture's features as a whole and as views show it, each computed once.

    What a view leaves out says nothing about what an encoding of the view does.
    """

    def __init__(self, engine: Engine, image: Image.Image, scores: Scores) -> None:
        self._engine, self._image = engine, image
        self._known: dict[View | None, NDArray[np.float32]] = {None: scores.features[0]}

    def seen(self, view: View | None) -> NDArray[np.float32]:
        """Return the features, float32 (D,)."""
        if view is not None and view not in self._known:
            pixels = to_input(framed(self._image, view), self._engine.side)
            self._known[view] = self._engine.run(pixels).features[0]
        return self._known[view]


def _without(point: OperatingPoint, barred: Collection[int], ladder: Ladder) -> OperatingPoint:
    """Return a point for a ladder that lacks some rungs: the safest for a fixed one among them."""
    if point.rung in barred:
        safe = [index for index, rung in enumerate(ladder) if rung.pixels == REFERENCE.pixels]
        point = replace(point, rung=next((index for index in safe if index not in barred), None))
    note = f"{point.note} Not certified here: some of its rungs are not used.".strip()
    return replace(point, certified=False, note=note)
