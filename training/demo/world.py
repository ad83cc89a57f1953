"""A finite set of pictures, and what a service and an agent's head say about each, found out once.

Instead of the service and the engine a replayed device looks things up here; see ``replay``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.agreement import compare
from edge_sdk.backends.base import Label
from edge_sdk.codec import encode
from edge_sdk.engine import Scores
from edge_sdk.ladder import FULL, REFERENCE, Ladder, Rung, ladder_from_dicts
from export.run import head_from_bytes
from model_store import StoredAgent
from training.labels.labeller import Labeller
from training.labels.ledger import picture_key
from training.learn.decisions import scores
from training.photos import View

__all__ = ["Found", "ReplayEngine", "World"]

#: Sides of the stand-in for a picture: all that the palette looks at.
_GRID = 32
_SMALL = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one picture at one rung: bytes and labels."""

    size: int
    labels: tuple[Label, ...]


class World:
    """The pictures, and what a service says about them.

    Args:
        views: every picture that a stream may show.
        sceneries: of each.
        features: float32 (N, D) of each.
        labeller: the service.
        min_score: labels below it do not count.
    """

    def __init__(
        self,
        views: Sequence[View],
        sceneries: Sequence[str],
        features: NDArray[np.float32],
        labeller: Labeller,
        min_score: float = 0.0,
    ) -> None:
        self.views, self.sceneries, self.features = views, sceneries, features
        self.now = 0  # the picture that the device sees
        self._labeller, self._min_score = labeller, min_score
        self._found: dict[tuple[int, Rung], Found] = {}
        self._answers: dict[tuple[int, object], tuple[Label, ...]] = {}
        self._small: dict[int, Image.Image] = {}

    def small(self, place: int) -> Image.Image:
        """Return a stand-in for a picture, with its palette."""
        if place not in self._small:
            self._look(place, ())
        return self._small[place]

    def found(self, place: int, rung: Rung) -> Found:
        """Return what is known of a picture at a rung; the service is asked once."""
        if (place, rung) not in self._found:
            self._look(place, (rung,))
        return self._found[place, rung]

    def agreement(self, place: int, labels: Sequence[Label], metric: str) -> float:
        """Return how labels agree with the answer to the picture's reference."""
        truth = self.found(place, REFERENCE).labels
        return float(getattr(compare(truth, labels, self._min_score), metric))

    def prepare(self, step: Callable[[int], object]) -> None:
        """Ask about every reference beforehand."""
        for place in range(len(self.views)):
            self._look(place, (REFERENCE, FULL[-1]))
            step(1)

    def _look(self, place: int, rungs: Sequence[Rung]) -> None:
        image = self.views[place].open()
        grid = image.resize((_GRID, _GRID), Image.Resampling.NEAREST)
        self._small.setdefault(place, grid)
        for rung in rungs:
            jpeg, answer = encode(image, rung), (place, rung.pixels)
            if answer not in self._answers:
                self._answers[answer] = self._labeller.ask(picture_key(image), rung, jpeg)
            self._found[place, rung] = Found(len(jpeg), self._answers[answer])


class ReplayEngine:
    """Scores of an agent's head for the picture that the world shows, computed beforehand."""

    side, provider = _SMALL, "replay"

    def __init__(self, world: World, stored: StoredAgent) -> None:
        self.ladder: Ladder = ladder_from_dicts(stored.manifest.ladder)
        self._world = world
        head = head_from_bytes(stored.file("head"), self.ladder)
        self._scores = scores(head, world.features)
        self.factored = self._scores.agreement is not None

    def run(self, images: NDArray[np.uint8]) -> Scores:
        """Return the scores of the picture at hand."""
        del images
        row, known = slice(self._world.now, self._world.now + 1), self._scores
        return Scores(
            features=self._world.features[row],
            q_values=known.q_values[row],
            agreement=None if known.agreement is None else known.agreement[row],
            size_ratio=None if known.size_ratio is None else known.size_ratio[row],
        )
