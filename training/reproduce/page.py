"""All exhibits of a run on one page that needs nothing else: tables, drawings, captions.

Not here: the report of a trained agent (``training.measure.page``).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from training.reproduce.exhibit import Exhibit, Row

__all__ = ["page"]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#111;background:#fff;max-width:66rem;margin:0 auto;
padding:1rem}
section{margin:2.5rem 0}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-bottom:.3rem}
svg{width:100%;height:auto;font-family:inherit}
p.caption{color:#333;font-size:.9rem}
div.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem}
th,td{border-bottom:1px solid #bbb;padding:.35rem .6rem;text-align:left;vertical-align:top}
@media print{section{break-inside:avoid}}
"""

#: Rows up to which an exhibit without a drawing is shown as a table.
_MOST = 60


def page(exhibits: Sequence[Exhibit], streams: Iterable[tuple[str, str]] = ()) -> str:
    """Return the HTML.

    Args:
        exhibits: in order.
        streams: title and SVG of the drawings of Fig. 12.
    """
    parts = [_section(one) for one in exhibits]
    parts += [f"<section><h2>{_text(title)}</h2>{svg}</section>" for title, svg in streams]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>AdaCompress: the paper reproduced</title><style>{_STYLE}</style>"
        "<h1>AdaCompress: the paper’s figures and tables on these pictures</h1>"
        + "".join(parts)
        + "</html>\n"
    )


def _section(exhibit: Exhibit) -> str:
    shown = exhibit.svg or (_table(exhibit.rows) if len(exhibit.rows) <= _MOST else "")
    return (
        f'<section id="{_text(exhibit.name)}"><h2>{_text(exhibit.title)}</h2>{shown}'
        f'<p class="caption">{_text(exhibit.caption)} Data: {_text(exhibit.name)}.csv.</p>'
        "</section>"
    )


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _text(value: object) -> str:
    return html.escape("" if value is None else str(value))
