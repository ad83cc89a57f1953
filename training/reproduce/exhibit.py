"""A figure or table of the paper as files: SVG, PNG, the data as CSV, a caption.

Not here: what is shown (the other modules of this room), and how drawings look (``measure.style``).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_store.files import write_atomic
from training.measure.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, Sheet

__all__ = ["LOOKS", "PANEL", "Exhibit", "Row", "drawn"]

Row = Mapping[str, Any]

#: Colour and hatch of the first, second, … series: told apart in grey by the hatch alone.
LOOKS = (
    (BLUE, ""),
    (ORANGE, "///"),
    (GREEN, "..."),
    (PURPLE, "xxx"),
    (SKY, "\\\\\\"),
    (VERMILLION, "+++"),
)

#: Inches of a panel's height.
PANEL = 2.6

_DPI = 150


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One figure or table.

    Attributes:
        name: of its files, such as ``figure5``.
        title: one line.
        caption: what is seen, of how many pictures, with what interval.
        rows: the data behind it, all with the same keys.
        svg, png: the drawing; empty for a table.
        facts: figures that the comparison with the paper takes up.
    """

    name: str
    title: str
    caption: str
    rows: Sequence[Row]
    svg: str = ""
    png: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> list[Path]:
        """Write the files and return them."""
        texts = {"csv": self._csv(), "txt": f"{self.title}\n\n{self.caption}\n"}
        if self.svg:
            texts["svg"] = self.svg
        contents = {kind: text.encode() for kind, text in texts.items()}
        if self.png:
            contents["png"] = self.png
        paths = []
        for kind, content in contents.items():
            paths.append(folder / f"{self.name}.{kind}")
            write_atomic(paths[-1], content)
        return paths

    def _csv(self) -> str:
        buffer = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(buffer, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return buffer.getvalue()


def drawn(name: str, height: float, draw: Callable[[Any], None]) -> tuple[str, bytes]:
    """Draw on one sheet and return it as SVG and as PNG.

    Args:
        name: of the figure.
        height: inches.
        draw: gets matplotlib's figure.
    """
    with Sheet(name, "wide", height=height) as sheet:
        draw(sheet.figure)
        svg, buffer = sheet.svg(), io.BytesIO()
        sheet.figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return svg, buffer.getvalue()
