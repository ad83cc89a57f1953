"""All exhibits of a run on one page that needs nothing else: tables, drawings, captions.

Not here: the report of a trained agent (``training.measure.page``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.measure.markup import table, text, whole
from training.reproduce.exhibit import Exhibit

__all__ = ["page"]

#: Rows up to which an exhibit without a drawing is shown as a table.
_MOST = 60


def page(exhibits: Sequence[Exhibit], streams: Iterable[tuple[str, str]] = ()) -> str:
    """Return the HTML.

    Args:
        exhibits: in order.
        streams: title and SVG of the drawings of Fig. 12.
    """
    parts = [_section(one) for one in exhibits]
    parts += [_drawn(title, svg) for title, svg in streams]
    return whole(
        "AdaCompress: the paper reproduced",
        "<h1>AdaCompress: the paper’s figures and tables on these pictures</h1>" + "".join(parts),
    )


def _drawn(title: str, svg: str) -> str:
    drawn = f'<div class="card" role="img" aria-label="{text(title)}">{svg}</div>'
    return f"<h2>{text(title)}</h2><figure>{drawn}</figure>"


def _section(exhibit: Exhibit) -> str:
    if exhibit.svg:
        shown = _drawn(exhibit.title, exhibit.svg)
    else:
        shown = f"<h2>{text(exhibit.title)}</h2>{_table(exhibit)}"
    caption = f"{text(exhibit.caption)} Data: {text(exhibit.name)}.csv."
    return f'<section id="{text(exhibit.name)}">{shown}<p class="note">{caption}</p></section>'


def _table(exhibit: Exhibit) -> str:
    if not 0 < len(exhibit.rows) <= _MOST:
        return ""
    lines = "".join("<tr>" + "".join(map(_cell, row.values())) + "</tr>" for row in exhibit.rows)
    return table(exhibit.title, list(exhibit.rows[0]), lines)


#: Sentences wrap and begin at the left, unlike figures.
_WORDS = ' style="text-align:left;white-space:normal;min-width:12em"'


def _cell(value: object) -> str:
    style = _WORDS if isinstance(value, str) else ""
    return f"<td{style}>{text('' if value is None else value)}</td>"
