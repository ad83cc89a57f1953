"""HTML that every page has in common: escaped texts, tables, figures in two widths, the whole page.

A page loads nothing: its policy allows no source but itself and pictures within it, and no script
but the ones given here.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any, get_args

from training.measure import style

__all__ = [
    "Json",
    "both_widths",
    "cell",
    "filled",
    "paragraph",
    "percent",
    "table",
    "text",
    "whole",
]

Json = Mapping[str, Any]


def text(value: Any) -> str:
    """Escape anything from outside."""
    return html.escape(str(value))


def percent(share: float, digits: int = 0) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.{digits}f}&nbsp;%"


def saved_usd(amount: float) -> str:
    """Return an amount saved in words; what is below zero is spent."""
    return f"{abs(amount):,.2f} USD {'more' if amount < 0 else 'less'}"


def paragraph(sentence: str, kind: str = "") -> str:
    """Return a paragraph of plain text, of class ``kind``."""
    said = text(sentence).replace(" %", "&nbsp;%")
    return f'<p class="{text(kind)}">{said}</p>' if kind else f"<p>{said}</p>"


def table(title: str, columns: Sequence[str], rows: str) -> str:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        title: tells people who cannot see it what it is.
        columns: heads, plain text.
        rows: HTML.
    """
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(title)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def cell(figure: Json, digits: int = 3) -> str:
    """Return a figure with its interval, if it has one."""
    exact = figure["lo"] == figure["hi"]
    between = f"{figure['lo']:.{digits}f}–{figure['hi']:.{digits}f}"
    interval = "" if exact else f"<small>{between}</small>"
    return f"<td>{figure['mean']:.{digits}f}{interval}</td>"


def both_widths(draw: Callable[[style.Width], str], description: str) -> str:
    """Return a drawing for a desk and one for a phone; one of them is shown."""
    drawn = "".join(f'<div class="{width}">{draw(width)}</div>' for width in get_args(style.Width))
    return f'<div class="card" role="img" aria-label="{text(description)}">{drawn}</div>'


def filled(name: str, **parts: str) -> str:
    """Return the template ``name`` of this package with its parts filled in."""
    return Template(_read(name)).substitute(parts)


def whole(title: str, body: str, scripts: Sequence[str] = ()) -> str:
    """Return a page.

    Args:
        title: plain text.
        body: HTML.
        scripts: files of this package that may run on it.
    """
    texts = [_read(name) for name in scripts]
    allowed = " ".join(f"'sha256-{_digest(one)}'" for one in texts) or "'none'"
    return filled(
        "page.html",
        title=text(title),
        allowed=allowed,
        body=body,
        scripts="".join(f"<script>{one}</script>" for one in texts),
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
