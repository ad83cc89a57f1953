"""What a demo run does, in numbers: the full one and the quick one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_sdk.estimator import LoopParameters

__all__ = ["FULL", "QUICK", "Plan", "Sizes"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything.

    Attributes:
        views: of each photo, for learning and measuring.
        shares: of the photos, for train, calibration and test.
        day, night, day_again: pictures of the stream's three parts.
        retrain_after: explored transitions before the device re-trains.
    """

    views: int
    shares: tuple[float, float, float]
    day: int
    night: int
    day_again: int
    retrain_after: int


#: Several views of a photo are worth little more than one to the certificate, but they teach.
FULL = Sizes(
    views=3, shares=(0.34, 0.34, 0.32), day=120, night=320, day_again=120, retrain_after=128
)

#: One view of each photo: the smallest set on which an agreement of 0.95 can be certified.
QUICK = Sizes(views=1, shares=(0.30, 0.44, 0.26), day=40, night=140, day_again=80, retrain_after=60)


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
        long_side: pictures are scaled down to this many pixels, about what the paper's set has.
        loop: the device loop's parameters. A window of 20 tells agreement 0.95 from 0.8 far better
            than Table 1's 10; r_th = 0 is what the reference itself earns (1 - 1).
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
    long_side: int = 512
    loop: LoopParameters = field(default_factory=lambda: LoopParameters(n=20, A_0=0.85, r_th=0.0))
