"""Sections of the report's page that are there only if they were measured.

Each takes the report's JSON document and returns HTML, or nothing. Every text from outside is
escaped. Not here: the page they are part of (``page``).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

__all__ = ["confidence", "noise", "worth"]

Json = Mapping[str, Any]


def confidence(document: Json) -> str:
    """Agreement by the score of the reference's best label."""
    bins = document.get("by_confidence")
    if not bins:
        return ""
    rows = "".join(_bin(one, document["metric"]) for one in bins)
    return (
        "<h2>Where the service is sure, and where not</h2>"
        '<div class="scroll" tabindex="0"><table><thead><tr>'
        '<th scope="col">score</th><th scope="col">pictures</th>'
        '<th scope="col">size ratio</th>'
        f'<th scope="col">{html.escape(document["metric"])}</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">Our agent, by the score of the reference’s best label. Where that is low, '
        "the service’s answer is nearly arbitrary, and so is agreement with it.</p>"
    )


def noise(document: Json) -> str:
    """The service's agreement with itself."""
    found = document.get("noise")
    if not found:
        return ""
    mark = " unclear" if found["target_above"] else ""
    return f"<h2>The service’s own noise</h2>{_paragraph(found['sentence'], f'verdict{mark}')}"


def worth(document: Json) -> str:
    """What the agent saves in dollars and milliseconds."""
    cost = document.get("cost")
    return _paragraph(cost["sentence"], "") if cost else ""


def _bin(one: Json, metric: str) -> str:
    between = f"{one['at_least']:g} to {one['below']:g}"
    return (
        f'<tr><th scope="row">{between}</th><td>{one["pictures"]}</td>'
        f"{_cell(one['size_ratio'])}{_cell(one['agreement'][metric])}</tr>"
    )


def _cell(figure: Json) -> str:
    return f"<td>{figure['mean']:.3f}<small>{figure['lo']:.3f}–{figure['hi']:.3f}</small></td>"


def _paragraph(sentence: str, kind: str) -> str:
    text = html.escape(sentence).replace(" %", "&nbsp;%")
    return f'<p class="{kind}">{text}</p>' if kind else f"<p>{text}</p>"
