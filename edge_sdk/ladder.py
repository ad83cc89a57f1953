"""Rungs and ladders: the encoder settings an agent chooses from.

A *rung* is one encoder setting (the paper's action ``c``), a *ladder* an ordered tuple of them.
``PAPER`` is the paper's ten qualities; ``FULL`` adds scale and free entropy coding. A rung may
bring its own quantisation tables, as the DeepN-JPEG baseline does.

    >>> from edge_sdk.ladder import FULL, PAPER, REFERENCE
    >>> [rung.quality for rung in PAPER]
    [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    >>> FULL[-1].pixels == REFERENCE.pixels
    True
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_store.errors import UsageError
from model_store.files import sha256_bytes

__all__ = [
    "CANDIDATES",
    "FULL",
    "LADDERS",
    "PAPER",
    "REFERENCE",
    "SAFE",
    "Ladder",
    "Rung",
    "Tables",
    "ladder_from_dicts",
]

SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
ENTROPY_CODINGS = ("plain", "optimized", "progressive")

#: Quantisation tables of luma and of chroma, 64 steps each in raster order.
Tables = tuple[tuple[int, ...], tuple[int, ...]]

#: Coefficients of a block.
_STEPS = 64
#: Largest step of a baseline JPEG, 8 bits.
_COARSEST = 255


@dataclass(frozen=True, slots=True)
class Rung:
    """One encoder setting.

    Attributes:
        quality: JPEG quality, 1 to 95; scales the tables as libjpeg does, 50 leaves them alone.
        scale: both sides are multiplied by this before encoding, 0 < scale <= 1.
        subsampling: chroma subsampling, one of ``SUBSAMPLINGS``.
        entropy: Huffman coding, one of ``ENTROPY_CODINGS``; it changes bytes, never pixels.
        tables: quantisation steps of quality 50, for (luma, chroma) 64 whole numbers from 1 to 255
            in raster order; None for libjpeg's own.
    """

    quality: int
    scale: float = 1.0
    subsampling: str = "4:2:0"
    entropy: str = "optimized"
    tables: Tables | None = None

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
        if self.tables is not None:  # JSON has lists, which could not be hashed
            object.__setattr__(self, "tables", _checked(self.tables))

    @property
    def name(self) -> str:
        """Short stable name, as in ``q15-plain``, ``q25@0.5`` or, with tables, ``q50-t1a2b``."""
        scale = "" if self.scale == 1.0 else f"@{self.scale:g}"
        tables = "" if self.tables is None else f"-t{_digest(self.tables)[:4]}"
        chroma = "" if self.subsampling == "4:2:0" else f"-{self.subsampling.replace(':', '')}"
        entropy = "" if self.entropy == "optimized" else f"-{self.entropy}"
        return f"q{self.quality}{scale}{tables}{chroma}{entropy}"

    @property
    def pixels(self) -> tuple[int, float, str] | tuple[int, float, str, str]:
        """What decides the decoded pixels; rungs that share it get the same answer.

        The tables' digest is its fourth part, if there are any.
        """
        own = (self.quality, self.scale, self.subsampling)
        return own if self.tables is None else (*own, _digest(self.tables))

    @property
    def scaled_tables(self) -> Tables | None:
        """The tables after scaling by the quality, as the encoder takes them; None without any."""
        if self.tables is None:
            return None
        luma, chroma = (_scaled(table, self.quality) for table in self.tables)
        return luma, chroma

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the inverse is ``Rung(**mapping)``.

        Rungs without tables do not mention them, so that older readers understand them.
        """
        mapping = asdict(self)
        tables = mapping.pop("tables")
        return mapping if tables is None else mapping | {"tables": [list(one) for one in tables]}


Ladder = tuple[Rung, ...]

#: Pillow's default JPEG, the paper's benchmark c_ref = 75 (Table 1): plain Huffman, 4:2:0.
REFERENCE = Rung(quality=75, entropy="plain")

#: The paper's ten discrete actions (section 3.3).
PAPER: Ladder = tuple(Rung(quality=q, entropy="plain") for q in range(5, 100, 10))

#: The product's ladder, cheapest first: the frontier of size and agreement that an open
#: classifier drew, thinned to steps of about a sixth. Down-scaling and optimised Huffman tables
#: move that frontier far more than any choice among the paper's qualities. The last rung decodes to
#: the reference's very pixels, hence to its answer, so safety is always on the ladder.
FULL: Ladder = (
    Rung(quality=15, scale=0.25),
    Rung(quality=10, scale=0.375),
    Rung(quality=15, scale=0.375),
    Rung(quality=10, scale=0.5),
    Rung(quality=22, scale=0.375),
    Rung(quality=15, scale=0.5),
    Rung(quality=20, scale=0.5),
    Rung(quality=10, scale=0.75),
    Rung(quality=28, scale=0.5),
    Rung(quality=35, scale=0.5),
    Rung(quality=20, scale=0.75),
    Rung(quality=60, scale=0.5, entropy="progressive"),
    Rung(quality=28, scale=0.75),
    Rung(quality=20),
    Rung(quality=45, scale=0.75),
    Rung(quality=35),
    Rung(quality=55, entropy="progressive"),
    Rung(quality=75, entropy="progressive"),
)

#: What an agent may choose from that no answer of the service has certified: rungs that at least
#: nine answers in ten of every open recogniser survive, see ``training/learn/prior.json``.
SAFE: Ladder = FULL[12:]

_FINE: Mapping[float, tuple[int, ...]] = {
    1.0: (5, 8, 10, 15, 20, 25, 35, 45, 55, 65),
    0.75: (5, 8, 10, 15, 20, 28, 35, 45, 55, 70),
    0.5: (8, 10, 15, 20, 28, 35, 45, 60, 75),
    0.375: (10, 15, 22, 30, 45, 60),
    0.25: (15, 30, 60),
}


def _smallest(quality: int, scale: float) -> Rung:
    """Return the 4:2:0 rung of these pixels in the entropy coding that is smaller there.

    A progressive file carries several scans' headers, which only pay in a large file.
    """
    large = quality >= 45 and scale >= 0.5
    return Rung(quality, scale, entropy="progressive" if large else "optimized")


#: What a ladder for one service and scenery is chosen from, by scale and quality, not by size. The
#: last rung decodes to the reference's pixels, as ``FULL``'s does.
CANDIDATES: Ladder = (
    *(_smallest(quality, scale) for scale, qualities in _FINE.items() for quality in qualities),
    Rung(quality=15, subsampling="4:4:4"),
    Rung(quality=35, scale=0.75, subsampling="4:4:4"),
    FULL[-1],
)

LADDERS: Mapping[str, Ladder] = {"paper": PAPER, "full": FULL, "safe": SAFE}


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


def _checked(tables: Any) -> Tables:
    """Return JSON's lists as tuples.

    Raises:
        UsageError: they are no two tables.
    """
    try:
        pair = [tuple(table) for table in tables]
    except TypeError:
        pair = []
    wrong = [step for table in pair for step in table if not _is_step(step)]
    if len(pair) != 2 or any(len(table) != _STEPS for table in pair) or wrong:
        found = f"tables of {[len(table) for table in pair]} steps"
        raise UsageError(
            f"A rung has {found}{f', among them {wrong[0]!r}' if wrong else ''}; allowed are two, "
            f"luma and chroma, of {_STEPS} whole numbers from 1 to {_COARSEST} in raster order."
        )
    return pair[0], pair[1]


def _is_step(step: Any) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and 1 <= step <= _COARSEST


def _scaled(table: tuple[int, ...], quality: int) -> tuple[int, ...]:
    """Scale steps by a quality: libjpeg's ``jpeg_quality_scaling`` and ``jpeg_add_quant_table``."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((step * percent + 50) // 100, 1), _COARSEST) for step in table)


def _digest(tables: Tables) -> str:
    return sha256_bytes(json.dumps(tables).encode())[:16]
