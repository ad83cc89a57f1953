"""One encoder setting: a *rung*, the paper's action ``c``.

JPEG of the whole frame is what every service takes. Who owns the service may send other things: a
WebP file, the very square that the service's model looks at (a *view*), or the quantised features
of a learned codec. What a rung is shows in its name:

    >>> from edge_sdk.rung import Rung
    >>> from edge_sdk.view import View
    >>> Rung(quality=25, scale=0.5).name
    'q25@0.5'
    >>> Rung(format="webp", quality=30, view=View(side=224, resized=256)).name
    'w30^224of256'
    >>> Rung(format="features", codec="1a2b3c4d5e6f7a8b", rate=3).name
    'f3-1a2b'
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_sdk.view import View
from model_store.errors import UsageError
from model_store.files import sha256_bytes

__all__ = ["ENTROPY_CODINGS", "FEATURES", "FORMATS", "SUBSAMPLINGS", "WEBP", "Rung", "Tables"]

WEBP, FEATURES = "webp", "features"
FORMATS = ("jpeg", WEBP, FEATURES)
SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
ENTROPY_CODINGS = ("plain", "optimized", "progressive")

#: Quantisation tables of luma and of chroma, 64 steps each in raster order.
Tables = tuple[tuple[int, ...], tuple[int, ...]]

#: Coefficients of a block.
_STEPS = 64
#: Largest step of a baseline JPEG, 8 bits.
_COARSEST = 255
#: A feature stream's header has five bits for the rate.
_RATES = 32

_CODEC = re.compile(r"[0-9a-f]{16}")

#: What a format has no use for, and its value then.
_UNUSED: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "jpeg": (("codec", None), ("rate", None)),
    WEBP: (
        ("subsampling", "4:2:0"),
        ("entropy", "optimized"),
        ("tables", None),
        ("codec", None),
        ("rate", None),
    ),
    FEATURES: (
        ("quality", 0),
        ("scale", 1.0),
        ("subsampling", "4:2:0"),
        ("entropy", "optimized"),
        ("tables", None),
        ("view", None),
    ),
}


@dataclass(frozen=True, slots=True)
class Rung:
    """One encoder setting.

    Attributes:
        quality: of JPEG or WebP, 1 to 95; JPEG's scales the tables as libjpeg does, 50 leaves them
            alone. 0 for features, which have a rate.
        scale: both sides are multiplied by this before encoding, 0 < scale <= 1.
        subsampling: JPEG's chroma subsampling, one of ``SUBSAMPLINGS``; WebP always has 4:2:0.
        entropy: JPEG's Huffman coding, one of ``ENTROPY_CODINGS``; it changes bytes, never pixels.
        tables: JPEG's quantisation steps of quality 50, for (luma, chroma) 64 whole numbers from 1
            to 255 in raster order; None for libjpeg's own.
        format: one of ``FORMATS``.
        view: send the square that the service's own preparation makes of the picture, ``scale``
            times as large; None for the whole frame.
        codec: id of the codec that makes and reads the features.
        rate: which of the codec's rates, from 0.
    """

    quality: int = 0
    scale: float = 1.0
    subsampling: str = "4:2:0"
    entropy: str = "optimized"
    tables: Tables | None = None
    format: str = "jpeg"
    view: View | None = None
    codec: str | None = None
    rate: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"A rung has format {self.format!r}; allowed: {', '.join(FORMATS)}.")
        for name, value in _UNUSED[self.format]:
            if getattr(self, name) != value:
                raise UsageError(
                    f"A rung of format {self.format} has {name} {getattr(self, name)!r}, of which "
                    "that format knows nothing; leave it out."
                )
        if self.format == FEATURES:
            self._check_features()
            return
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
        if isinstance(self.view, Mapping):  # as JSON has it
            object.__setattr__(self, "view", View.from_dict(self.view))
        if not isinstance(self.view, View | None):
            raise UsageError(f"A rung has the view {self.view!r}; allowed is a View, or None.")

    def _check_features(self) -> None:
        if not (isinstance(self.codec, str) and _CODEC.fullmatch(self.codec)):
            raise UsageError(
                f"A rung of features has the codec {self.codec!r}; allowed is a codec's id of 16 "
                "hexadecimal digits."
            )
        if type(self.rate) is not int or not 0 <= self.rate < _RATES:
            raise UsageError(
                f"A rung of features has the rate {self.rate!r}; allowed are 0 to {_RATES - 1}."
            )

    @property
    def name(self) -> str:
        """Short stable name.

        ``q15-plain`` and ``q25@0.5`` are JPEG, with tables ``q50-t1a2b``; ``w30`` is WebP; ``^``
        tells the view, ``w30@0.5^224of256`` (``s`` after it: squeezed, ``c``: bicubic); ``f3-1a2b``
        is rate 3 of codec 1a2b…
        """
        if self.format == FEATURES:
            return f"f{self.rate}-{str(self.codec)[:4]}"
        letter = "w" if self.format == WEBP else "q"
        scale = "" if self.scale == 1.0 else f"@{self.scale:g}"
        tables = "" if self.tables is None else f"-t{_digest(self.tables)[:4]}"
        chroma = "" if self.subsampling == "4:2:0" else f"-{self.subsampling.replace(':', '')}"
        entropy = "" if self.entropy == "optimized" else f"-{self.entropy}"
        return f"{letter}{self.quality}{scale}{_view_text(self.view)}{tables}{chroma}{entropy}"

    @property
    def kind(self) -> str:
        """What the rung's like have in common: the format, and what of the picture is sent."""
        return f"{self.format}-{self.codec}" if self.codec else self.format + _view_text(self.view)

    @property
    def has_pixels(self) -> bool:
        """Whether what is sent can be looked at as a picture."""
        return self.format != FEATURES

    @property
    def pixels(self) -> tuple[int | float | str | None, ...]:
        """What decides the decoded pixels; rungs that share it get the same answer.

        Of a JPEG quality, scale and subsampling, then the tables' digest, if there are any, and the
        view, if there is one. Of the other formats the format comes first.
        """
        view = () if self.view is None else (_view_text(self.view),)
        if self.format == FEATURES:
            return FEATURES, self.codec, self.rate
        if self.format == WEBP:
            return WEBP, self.quality, self.scale, *view
        tables = () if self.tables is None else (_digest(self.tables),)
        return self.quality, self.scale, self.subsampling, *tables, *view

    @property
    def scaled_tables(self) -> Tables | None:
        """The tables after scaling by the quality, as the encoder takes them; None without any."""
        if self.tables is None:
            return None
        luma, chroma = (_scaled(table, self.quality) for table in self.tables)
        return luma, chroma

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the inverse is ``Rung(**mapping)``.

        What came later than an older reader is left out where it says nothing.
        """
        if self.format == FEATURES:
            return {"format": FEATURES, "codec": self.codec, "rate": self.rate}
        view = {} if self.view is None else {"view": self.view.as_dict()}
        own = {"quality": self.quality, "scale": self.scale}
        if self.format == WEBP:
            return {"format": WEBP, **own, **view}
        coding = {"subsampling": self.subsampling, "entropy": self.entropy}
        tables = {} if self.tables is None else {"tables": [list(one) for one in self.tables]}
        return own | coding | tables | view


def _view_text(view: View | None) -> str:
    """Return what a view adds to a name; it tells every field."""
    if view is None:
        return ""
    resized = "" if view.resized == view.side else f"of{view.resized}"
    bicubic = "c" if view.filter == "bicubic" else ""
    return f"^{view.side}{resized}{'s' if view.squeezed else ''}{bicubic}"


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
