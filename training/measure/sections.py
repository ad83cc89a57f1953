"""Sections of the report's page that are there only if they were measured.

Each takes the report's JSON document and returns HTML, or nothing. Every text from outside is
escaped. Not here: the page they are part of (``page``).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

__all__ = ["confidence", "noise", "study", "worth"]

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


def study(document: Json) -> str:
    """Many agents learnt alike: what more photos buy, and whether the certificate kept its word."""
    found = document.get("study")
    if not found:
        return ""
    rows = "".join(map(_point, found["points"]))
    kept = _paragraph(found["validity"]["sentence"], "") if found["validity"] else ""
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr>'
        '<th scope="col">photos</th><th scope="col">answers</th><th scope="col">agent</th>'
        '<th scope="col">agreement</th><th scope="col">best fixed rung</th>'
        '<th scope="col">agent − fixed</th><th scope="col">paper DQN</th>'
        '<th scope="col">certified</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">Means over random splits of the photos, with standard deviations. Agent '
        "and fixed rung passed the same test on the same photos; both are measured on others.</p>"
        f"{kept}"
    )


def _point(point: Json) -> str:
    policies = point["policies"]
    dqn = policies.get("dqn")
    rival = "<td>–</td>"
    if dqn:
        agreed = dqn["agreement"]["mean"]
        rival = f"<td>{dqn['size_ratio']['mean']:.3f}<small>at {agreed:.3f}</small></td>"
    return (
        f'<tr><th scope="row">{point["photos"]}</th><td>{point["answers"]:.0f}</td>'
        f"{_deviating(policies['agent']['size_ratio'])}{_deviating(policies['agent']['agreement'])}"
        f"{_deviating(policies['best_fixed']['size_ratio'])}"
        f"{_deviating(point['agent_minus_best_fixed'])}{rival}"
        f"<td>{100 * point['certified']:.0f}&nbsp;%</td></tr>"
    )


def _deviating(figure: Json) -> str:
    return f"<td>{figure['mean']:.3f}<small>± {figure['sd']:.3f}</small></td>"


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
