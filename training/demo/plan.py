"""What a demo run does, in numbers: the full one and the quick one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.estimator import LoopParameters

__all__ = ["FULL", "QUICK", "Plan", "Sizes"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything.

    Attributes:
        photos: how many of the built-in photos are used, spread over all of them; None for all.
        views: of each photo, for learning and measuring.
        shares: of the photos, for train, calibration and test.
        long_side: pictures are scaled down to this many pixels; 512 is about what the paper's have.
        day, night, day_again: pictures of the stream's three parts.
        retrain_after: explored transitions before the device re-trains.
        n: window of the loop. 20 pictures tell agreement 0.95 from 0.8, and one scenery from
            another, far better than Table 1's 10.
    """

    photos: int | None = None
    views: int
    shares: tuple[float, float, float]
    long_side: int
    day: int
    night: int
    day_again: int
    retrain_after: int
    n: int


#: Several views of a photo are worth little more than one to the certificate, but they teach.
FULL = Sizes(
    views=3,
    shares=(0.25, 0.45, 0.3),
    long_side=512,
    day=120,
    night=320,
    day_again=120,
    retrain_after=128,
    n=20,
)

#: One view of each photo: the smallest set on which an agreement of 0.95 can be certified.
QUICK = Sizes(
    photos=124,
    views=1,
    shares=(0.28, 0.49, 0.23),
    long_side=384,
    day=26,
    night=96,
    day_again=56,
    retrain_after=40,
    n=12,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A demo run.

    Attributes:
        run: folder for everything it writes.
        sizes: ``FULL`` or ``QUICK``.
        target: agreement asked for.
        min_score: labels below it do not count.
        seed: of everything that is random.
        model: the local cloud's classifier.
        port: the local cloud's; 0 takes a free one.
        images: a folder of own photos instead of the built-in ones.
        night: a folder of real night or thermal frames instead of the camera model.
        accuracy_threshold: A_0 of the device loop.
        reward_threshold: r_th of the device loop; 0 is what the reference itself earns, 1 - 1.
    """

    run: Path
    sizes: Sizes
    target: float = 0.95
    min_score: float = 0.0
    seed: int = 0
    model: str = "efficientnet-lite0"
    port: int = 0
    images: Path | None = None
    night: Path | None = None
    accuracy_threshold: float = 0.85
    reward_threshold: float = 0.0

    @property
    def loop(self) -> LoopParameters:
        """The device loop's parameters; what is not said here is Table 1's."""
        return LoopParameters(
            n=self.sizes.n, A_0=self.accuracy_threshold, r_th=self.reward_threshold
        )
