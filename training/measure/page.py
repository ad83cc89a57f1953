"""The report as one HTML page: no network, no script, readable at a desk and on a phone.

Rendered from the report's JSON document alone, so page and document cannot disagree. Every name
comes from outside and is escaped. Not here: the numbers (``evaluate``), the drawing (``figures``).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any, get_args

from training.measure import figures, sections, stream_figure, style
from training.measure.learning_figure import learning_curve

__all__ = ["TITLES", "main_figures", "render"]

#: Rows of the main table; every fixed rung for itself follows in a second one.
TITLES: Mapping[str, str] = {
    "reference": "reference",
    "best_fixed_paper": "best fixed, paper",
    "best_fixed": "best fixed",
    "random": "random",
    "deepn_jpeg": "DeepN-JPEG",
    "deepn_jpeg_continuous": "DeepN, continuous",
    "perceptual": "perceptual",
    "dqn": "paper DQN",
    "agent": "our agent",
    "oracle": "oracle",
}

METRICS: Mapping[str, str] = {
    "any_hit": "the reference’s best label is among the answer’s best five",
    "eq1": "share of the reference’s labels among the answer’s best five",
    "top1": "both best labels are the same",
    "jaccard": "overlap of the two label sets",
}

Json = Mapping[str, Any]


def render(document: Json, rungs: Sequence[str]) -> str:
    """Return the page of an ``adacompress.report/1`` document.

    Args:
        document: the report.
        rungs: names of its ladder's rungs, cheapest first.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
    """
    template = resources.files(__package__).joinpath("report_template.html")
    return Template(template.read_text(encoding="utf-8")).substitute(
        headline=_headline(document),
        verdicts="\n".join(_verdict(one) for one in _verdicts(document)),
        bars=_bars(document),
        policies=_policies(document),
        fixed=_fixed(document),
        metrics=_metrics(document),
        curve=_curve(document),
        confidence=sections.confidence(document),
        noise=sections.noise(document),
        study=_study(document),
        rungs=_rungs(document, rungs),
        timeline=_timeline(document),
        certificate=_certificate(document["operating_point"]),
        facts=_facts(document),
        worth=sections.worth(document),
        synthetic=_synthetic(document["synthetic"]),
        command=_text(document["command"]),
        reproduce=_reproduce(document),
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}&nbsp;%"


def _verdicts(document: Json) -> list[Json]:
    """The qualities that everybody knows first, then the harder opponent."""
    return [one for one in (document.get("quality_verdict"), document["verdict"]) if one]


def _verdict(verdict: Json) -> str:
    sentence = _text(verdict["sentence"]).replace(" %", "&nbsp;%")
    return f'<p class="verdict {_text(verdict["outcome"])}">{sentence}</p>'


def _headline(document: Json) -> str:
    verdict = _verdicts(document)[0]
    noun = "quality" if document.get("quality_verdict") else "rung"
    saved, fixed = 1 - verdict["size_ratio"], 1 - verdict["fixed_size_ratio"]
    words = "fewer bytes" if saved >= 0 else "more bytes"
    but = "but " if fixed > saved else ""
    return (
        f"<strong>{_percent(abs(saved))}</strong> <span>{words} at {verdict['agreement']:.3f} "
        f"agreement; {but}the best fixed {noun} saves {_percent(fixed)}.</span>"
    )


def _bars(document: Json) -> str:
    verdict = document["verdict"]
    sizes = {"reference": 1.0}
    if document.get("quality_verdict"):
        sizes["best fixed quality"] = document["quality_verdict"]["fixed_size_ratio"]
    sizes["best fixed rung"] = verdict["fixed_size_ratio"]
    sizes["our agent"] = verdict["size_ratio"]
    longest = max(sizes.values())
    return "".join(
        f'<div class="bar"><span>{title}</span><i style="width:{100 * size / longest:.2f}%"></i>'
        f"<b>{_percent(size, 1)}</b></div>"
        for title, size in sizes.items()
    )


def _policies(document: Json) -> str:
    return "".join(
        _row(document["policies"][name], title, agent=name == "agent")
        for name, title in TITLES.items()
        if name in document["policies"]
    )


def _fixed(document: Json) -> str:
    return "".join(
        _row(policy, name.removeprefix("fixed:"))
        for name, policy in document["policies"].items()
        if name.startswith("fixed:")
    )


def _row(policy: Json, title: str, *, agent: bool = False) -> str:
    rung = policy.get("rung")
    rung = f"<small>{_text(rung)}</small>" if rung not in (None, title) else ""
    figures_ = (
        (policy["size_ratio"], 3),
        (policy["wire_ratio"], 3),
        *((policy["agreement"][metric], 3) for metric in METRICS),
        (policy["calls_per_image"], 2),
    )
    cells = "".join(_cell(figure, digits) for figure, digits in figures_)
    mark = ' class="agent"' if agent else ""
    return f'<tr{mark}><th scope="row">{_text(title)}{rung}</th>{cells}</tr>'


def _cell(figure: Json, digits: int) -> str:
    exact = figure["lo"] == figure["hi"]
    between = f"{figure['lo']:.{digits}f}–{figure['hi']:.{digits}f}"
    interval = "" if exact else f"<small>{between}</small>"
    return f"<td>{figure['mean']:.{digits}f}{interval}</td>"


def _metrics(document: Json) -> str:
    said = "; ".join(f"<b>{name}</b>: {meaning}" for name, meaning in METRICS.items())
    score = document["backend"].get("min_score")
    cut = f" Labels with a score below {_text(score)} do not count." if score else ""
    return f"{said}. Target, oracle and verdict are about <b>{_text(document['metric'])}</b>.{cut}"


def _both_widths(draw: Any, description: str) -> str:
    drawn = "".join(f'<div class="{width}">{draw(width)}</div>' for width in get_args(style.Width))
    return f'<div class="card" role="img" aria-label="{_text(description)}">{drawn}</div>'


def main_figures(document: Json) -> dict[str, str]:
    """Return the curve, and those of a stream and a study if there was one, as SVG by name."""
    drawn = {"curve": _curve_svg(document, "wide")}
    if document["timeline"]:
        drawn["timeline"] = stream_figure.timeline(document["timeline"])
    if document.get("study"):
        target = document["operating_point"]["target"]
        drawn["learning"] = learning_curve(document["study"]["points"], target=target)
    return drawn


def _curve_svg(document: Json, width: style.Width) -> str:
    return figures.rate_agreement(
        document["curve"],
        document["policies"],
        metric=document["metric"],
        target=document["operating_point"]["target"],
        width=width,
    )


def _curve(document: Json) -> str:
    return _both_widths(
        lambda width: _curve_svg(document, width),
        "Agreement over size ratio of fixed rungs, the agent and the other policies",
    )


def _study(document: Json) -> str:
    if not document.get("study"):
        return ""
    target = document["operating_point"]["target"]
    drawn = _both_widths(
        lambda width: learning_curve(document["study"]["points"], target=target, width=width),
        "Size ratio at the target over the number of photos learnt from",
    )
    return f"<h2>What more photos buy</h2><figure>{drawn}</figure>{sections.study(document)}"


def _rungs(document: Json, rungs: Sequence[str]) -> str:
    if not document["sceneries"]:
        return "<p>No choices were recorded.</p>"
    return _both_widths(
        lambda width: figures.chosen_rungs(document["sceneries"], rungs, width=width),
        "Share of pictures sent at each rung, per scenery",
    )


def _timeline(document: Json) -> str:
    columns = document["timeline"]
    if not columns or not columns["image"]:
        return "<p>No stream was run.</p>"
    return _both_widths(
        lambda width: stream_figure.timeline(columns, width=width),
        "Accuracy, p_est, state and upload size over the stream of images",
    )


def _certificate(point: Json) -> str:
    target, achieved = point["target"], point["achieved"]
    seen = ""
    if achieved is not None and point["n"]:
        seen = (
            f"On {point['n']} held-out pictures{_effective(point)} the agent agreed in "
            f"{_percent(achieved, 1)}."
        )
    if point["certified"] and target is not None:
        promise = (
            f"If its true agreement on such pictures were below {_percent(target)}, a result this "
            f"good would come up with probability {_percent(point['delta'])} at most "
            f"({_text(point['test'] or 'test')})."
        )
    elif target is None:
        promise = "It carries no certificate, because it was not calibrated to a target."
    else:
        promise = f"An agreement of {_percent(target)} is <b>not certified</b>."
    note = _text(point["note"]) if not point["certified"] or not seen else ""
    return " ".join(part for part in (seen, promise, note) if part)


def _effective(point: Json) -> str:
    if not 0 < point["n_effective"] < point["n"]:
        return ""
    return (
        f" (worth {point['n_effective']:.0f} independent ones, because views of one photo look "
        "alike)"
    )


def _facts(document: Json) -> str:
    facts = {
        "answers bought": str(document["labels_bought"]),
        "cost": f"{document['cost_usd']:.2f} USD",
    }
    if document["decision_encode_ratio"] is not None:
        facts |= {
            "to choose a rung": f"{document['decision_ms']:.1f} ms",
            "to encode": f"{document['encode_ms']:.1f} ms",
            "choosing / encoding": f"{document['decision_encode_ratio']:.1f}×",
        }
    closed = document["gap_closed"].get("agent")
    if closed is not None:
        between = f"{100 * closed['lo']:.0f} to {100 * closed['hi']:.0f}"
        facts["of the gap from fixed to oracle closed"] = (
            f"{100 * closed['mean']:.0f} % <small>{between}</small>"
        )
    return "".join(f"<div><dd>{value}</dd><dt>{name}</dt></div>" for name, value in facts.items())


def _synthetic(notes: Sequence[str]) -> str:
    if not notes:
        return "<p>Nothing: all pictures are as they were given.</p>"
    return "<ul>" + "".join(f"<li>{_text(note)}</li>" for note in notes) + "</ul>"


def _reproduce(document: Json) -> str:
    parts = (
        f"{name}: {part['photos']} photos, {part['views']} views, fingerprint {part['fingerprint']}"
        for name, part in document["photos"].items()
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
    return "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in rows.items())
