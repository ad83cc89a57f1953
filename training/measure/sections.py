"""Sections of the report's page that are there only if they were measured.

Each takes the report's JSON document and returns HTML, or nothing. Every text from outside is
escaped. Not here: the page they are part of (``page``).
"""

from __future__ import annotations

from training.measure.markup import Json, cell, paragraph, percent, table, text

__all__ = ["certificate", "confidence", "noise", "reproduce", "study", "worth"]


def certificate(point: Json) -> str:
    """What was promised in two sentences: what was seen, and what that proves."""
    target, achieved = point["target"], point["achieved"]
    seen = ""
    if achieved is not None and point["n"]:
        seen = (
            f"On {point['n']} held-out pictures{_effective(point)} the agent agreed in "
            f"{percent(achieved, 1)}."
        )
    if point["certified"] and target is not None:
        promise = (
            f"If its true agreement on such pictures were below {percent(target)}, a result this "
            f"good would come up with probability {percent(point['delta'])} at most "
            f"({text(point['test'] or 'test')})."
        )
    elif target is None:
        promise = "It carries no certificate, because it was not calibrated to a target."
    else:
        promise = f"An agreement of {percent(target)} is <b>not certified</b>."
    note = text(point["note"]) if not point["certified"] or not seen else ""
    return " ".join(part for part in (seen, promise, note) if part)


def _effective(point: Json) -> str:
    if not 0 < point["n_effective"] < point["n"]:
        return ""
    return (
        f" (worth {point['n_effective']:.0f} independent ones, because views of one photo look "
        "alike)"
    )


def confidence(document: Json) -> str:
    """Agreement by the score of the reference's best label."""
    bins = document.get("by_confidence")
    if not bins:
        return ""
    rows = "".join(_bin(one, document["metric"]) for one in bins)
    columns = ("score", "pictures", "size ratio", document["metric"])
    return (
        "<h2>Where the service is sure, and where not</h2>"
        f"{table('Agreement by score of the reference', columns, rows)}"
        '<p class="note">Our agent, by the score of the reference’s best label. Where that is low, '
        "the service’s answer is nearly arbitrary, and so is agreement with it.</p>"
    )


def noise(document: Json) -> str:
    """The service's agreement with itself."""
    found = document.get("noise")
    if not found:
        return ""
    mark = " unclear" if found["target_above"] else ""
    return f"<h2>The service’s own noise</h2>{paragraph(found['sentence'], f'verdict{mark}')}"


def worth(document: Json) -> str:
    """What the agent saves in dollars and milliseconds."""
    cost = document.get("cost")
    return paragraph(cost["sentence"]) if cost else ""


def study(document: Json) -> str:
    """Many agents learnt alike: what more photos buy, and whether the certificate kept its word."""
    found = document.get("study")
    if not found:
        return ""
    rows = "".join(map(_point, found["points"]))
    kept = paragraph(found["validity"]["sentence"]) if found["validity"] else ""
    columns = (
        "photos",
        "answers",
        "agent",
        "agreement",
        "best fixed rung",
        "agent − fixed",
        "paper DQN",
        "certified",
    )
    return (
        f"{table('Agents by number of photos', columns, rows)}"
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
        f"{cell(one['size_ratio'])}{cell(one['agreement'][metric])}</tr>"
    )


def reproduce(document: Json) -> str:
    """Everything that somebody needs to get the same figures."""
    parts = (
        f"{name}: {part['photos']} photos, {part['views']} views, fingerprint {part['fingerprint']}"
        for name, part in document["photos"].items()
        if part["photos"]
    )
    backend = document["backend"]
    service = f"{backend['name']}, model {backend.get('model_version') or 'not stated'}"
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    timings = ", ".join(f"{name} {spent:.1f} s" for name, spent in document["timings_s"].items())
    rows = {
        "seed": document["seed"],
        "photos": "\n".join(parts),
        "service": service,
        "versions": versions,
        "timings": timings,
    }
    return "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in rows.items())
