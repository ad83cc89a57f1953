"""How every figure looks, and how it becomes a text: palette, type, sizes, the SVG itself.

Not here: what is drawn (see ``figures``).

    with Sheet("rate", "wide", height=5.0) as sheet:
        sheet.figure.subplots().plot([0, 1], [0, 1], color=BLUE)
        text = sheet.svg()
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from model_store.errors import EnvironmentMissing

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "WIDTHS",
    "Sheet",
    "Width",
    "short",
]

Width = Literal["wide", "narrow"]

# Okabe and Ito's palette.
BLACK, GREY = "#000000", "#8a8a8a"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILLION, PURPLE = "#D55E00", "#CC79A7"

#: Inches; a point of text then comes out at 10 to 14 pixels on the page.
WIDTHS: Mapping[Width, float] = {"wide": 9.4, "narrow": 4.3}

_STYLE = {
    "svg.fonttype": "none",  # texts stay texts: small, searchable, in the reader's own font
    "svg.hashsalt": "adacompress",  # same figures, same ids, same bytes
    "text.parse_math": False,  # a name with a dollar sign is a name
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "hatch.linewidth": 0.6,
}


class Sheet:
    """One figure being drawn, in the house style."""

    def __init__(self, name: str, width: Width, *, height: float) -> None:
        try:
            # Only whoever draws needs matplotlib, and no display.
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError as error:
            raise EnvironmentMissing(
                "Drawing the report needs matplotlib, which is not installed; install "
                "adacompress[demo]."
            ) from error
        self.name = f"{name}-{width}"
        self._style = matplotlib.rc_context(_STYLE)
        self._new = Figure
        self._size = (WIDTHS[width], height)

    def __enter__(self) -> Sheet:
        self._style.__enter__()
        self.figure = self._new(figsize=self._size, layout="constrained")
        return self

    def __exit__(self, *raised: Any) -> None:
        self._style.__exit__(*raised)

    def svg(self) -> str:
        """Return the figure as one ``<svg>`` element that scales and can share a page."""
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # The reader's font may well have what the measuring font has not.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(buffer, format="svg", metadata=nothing)
        text = buffer.getvalue()
        opening, drawing = text[text.index("<svg ") :].strip().split(">", 1)
        # Without a size of its own the figure takes the width of its place on the page.
        opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
        # Ids are unique within a figure only, and a page holds several.
        drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", drawing)
        return f"{opening}>{drawing}"


def short(text: str, most: int) -> str:
    """Make a name from outside fit for a drawing: printable, and not too long."""
    clean = "".join(sign if sign.isprintable() else "�" for sign in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
