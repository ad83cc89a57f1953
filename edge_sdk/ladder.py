"""Rungs and ladders: the encoder settings an agent chooses from.

A *rung* is one encoder setting (the paper's action ``c``), a *ladder* an ordered tuple of them.
``PAPER`` is the paper's ten qualities; ``FULL`` adds scale and free entropy coding.

    >>> from edge_sdk.ladder import FULL, PAPER, REFERENCE
    >>> [rung.quality for rung in PAPER]
    [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    >>> FULL[-1].pixels == REFERENCE.pixels
    True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_store.errors import UsageError

__all__ = ["FULL", "LADDERS", "PAPER", "REFERENCE", "Ladder", "Rung", "ladder_from_dicts"]

SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
ENTROPY_CODINGS = ("plain", "optimized", "progressive")


@dataclass(frozen=True, slots=True)
class Rung:
    """One encoder setting.

    Attributes:
        quality: JPEG quality of libjpeg's standard tables, 1 to 95.
        scale: both sides are multiplied by this before encoding, 0 < scale <= 1.
        subsampling: chroma subsampling, one of ``SUBSAMPLINGS``.
        entropy: Huffman coding, one of ``ENTROPY_CODINGS``; it changes bytes, never pixels.
    """

    quality: int
    scale: float = 1.0
    subsampling: str = "4:2:0"
    entropy: str = "optimized"

    def __post_init__(self) -> None:
        if not (isinstance(self.quality, int) and 1 <= self.quality <= 95):
            raise UsageError(
                f"A rung has quality {self.quality!r}; allowed are whole numbers from 1 to 95."
            )
        if not 0.0 < self.scale <= 1.0:
            raise UsageError(f"A rung has scale {self.scale}; allowed is 0 < scale <= 1.")
        if self.subsampling not in SUBSAMPLINGS:
            raise UsageError(f"A rung has subsampling {self.subsampling!r}, not {SUBSAMPLINGS}.")
        if self.entropy not in ENTROPY_CODINGS:
            raise UsageError(f"A rung has entropy coding {self.entropy!r}, not {ENTROPY_CODINGS}.")

    @property
    def name(self) -> str:
        """Short stable name, as in ``q15-plain`` or ``q25@0.5``."""
        scale = "" if self.scale == 1.0 else f"@{self.scale:g}"
        chroma = "" if self.subsampling == "4:2:0" else f"-{self.subsampling.replace(':', '')}"
        entropy = "" if self.entropy == "optimized" else f"-{self.entropy}"
        return f"q{self.quality}{scale}{chroma}{entropy}"

    @property
    def pixels(self) -> tuple[int, float, str]:
        """What decides the decoded pixels; rungs that share it get the same answer."""
        return (self.quality, self.scale, self.subsampling)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the inverse is ``Rung(**mapping)``."""
        return asdict(self)


Ladder = tuple[Rung, ...]

#: Pillow's default JPEG, the paper's benchmark c_ref = 75 (Table 1): plain Huffman, 4:2:0.
REFERENCE = Rung(quality=75, entropy="plain")

#: The paper's ten discrete actions (section 3.3).
PAPER: Ladder = tuple(Rung(quality=q, entropy="plain") for q in range(5, 100, 10))

#: The product's ladder, cheapest first. Down-scaling and optimised Huffman tables move the
#: rate-agreement frontier far more than any choice among the paper's qualities. The last rung
#: decodes to the reference's very pixels, hence to its answer, so safety is always on the ladder.
FULL: Ladder = (
    Rung(quality=10, scale=0.5),
    Rung(quality=15, scale=0.5),
    Rung(quality=10, scale=0.75),
    Rung(quality=25, scale=0.5),
    Rung(quality=40, scale=0.5),
    Rung(quality=10),
    Rung(quality=20, scale=0.75),
    Rung(quality=15),
    Rung(quality=35, scale=0.75),
    Rung(quality=25),
    Rung(quality=55, scale=0.75),
    Rung(quality=35),
    Rung(quality=50),
    Rung(quality=65),
    Rung(quality=75),
)

LADDERS: Mapping[str, Ladder] = {"paper": PAPER, "full": FULL}


def ladder_from_dicts(rungs: Sequence[Mapping[str, Any]]) -> Ladder:
    """Read a ladder from a manifest's list of mappings.

    Raises:
        UsageError: the list is empty, or a mapping is not a rung.
    """
    if not rungs:
        raise UsageError("A ladder needs at least one rung; the list is empty.")
    try:
        return tuple(Rung(**rung) for rung in rungs)
    except TypeError as error:
        raise UsageError(f"A ladder holds something that is not a rung: {error}.") from error
