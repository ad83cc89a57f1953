"""Ladders: the encoder settings an agent chooses from.

A *rung* (``edge_sdk.rung``) is one encoder setting, a *ladder* an ordered tuple of them, cheapest
first. ``PAPER`` is the paper's ten qualities; ``FULL`` adds scale and free entropy coding.
``owned`` is for who owns the service: WebP files and the service's own view besides.

    >>> from edge_sdk.ladder import FULL, PAPER, REFERENCE
    >>> [rung.quality for rung in PAPER]
    [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    >>> FULL[-1].pixels == REFERENCE.pixels
    True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.rung import ENTROPY_CODINGS, SUBSAMPLINGS, WEBP, Rung, Tables
from edge_sdk.view import View
from model_store.errors import UsageError

__all__ = [
    "CANDIDATES",
    "ENTROPY_CODINGS",
    "FULL",
    "LADDERS",
    "PAPER",
    "REFERENCE",
    "SUBSAMPLINGS",
    "Ladder",
    "Rung",
    "Tables",
    "kinds_of",
    "ladder_from_dicts",
    "owned",
]

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

LADDERS: Mapping[str, Ladder] = {"paper": PAPER, "full": FULL}

#: WebP of the whole frame; below a quarter of the sides nothing is left to compress.
_WHOLE: Mapping[float, tuple[int, ...]] = {
    1.0: (10, 25, 45, 70),
    0.75: (10, 25, 45),
    0.5: (8, 18, 35, 60),
    0.375: (15, 35, 60),
    0.25: (25, 55),
}
#: WebP of the service's view, which is small already.
_VIEWED: Mapping[float, tuple[int, ...]] = {
    1.0: (4, 10, 20, 32, 50, 75),
    0.75: (6, 14, 28, 50),
    0.5: (10, 22, 40, 65),
    0.375: (20, 50),
}
#: JPEG of it, for services that take nothing else.
_VIEWED_JPEG: Mapping[float, tuple[int, ...]] = {
    1.0: (12, 22, 35, 55, 75),
    0.75: (15, 28, 45),
    0.5: (15, 30, 60),
}


def owned(view: View | None) -> Ladder:
    """Return what a ladder for the service's owner is chosen from, in any order.

    ``FULL`` with the reference's pixels, WebP files, and both of the service's view if it is known.
    """
    kinds: tuple[tuple[str, View | None, Mapping[float, tuple[int, ...]]], ...] = (
        (WEBP, None, _WHOLE),
    )
    if view is not None:
        kinds += ((WEBP, view, _VIEWED), ("jpeg", view, _VIEWED_JPEG))
    found = (
        Rung(quality, scale, format=kind, view=shown)
        for kind, shown, settings in kinds
        for scale, qualities in settings.items()
        for quality in qualities
    )
    return *found, *FULL


def kinds_of(ladder: Ladder) -> tuple[int, ...]:
    """Return the number of each rung's kind, see ``Rung.kind``; whole-frame JPEG is number 0."""
    numbers = {REFERENCE.kind: 0}
    return tuple(numbers.setdefault(rung.kind, len(numbers)) for rung in ladder)


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
