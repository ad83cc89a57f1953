"""The report as one HTML page: nothing is loaded, readable at a desk, on a phone, by a keyboard.

Rendered from the report's JSON document alone, so page and document cannot disagree. Every name
comes from outside and is escaped. Not here: the numbers (``evaluate``), the drawing (``figures``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.measure import calculator, exhibits, figures, sections, stream_figure, style
from training.measure.learning_figure import learning_curve
from training.measure.markup import (
    Json,
    both_widths,
    cell,
    filled,
    percent,
    saved_usd,
    table,
    text,
    whole,
)

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

_DEVICE = "<h2>On the device</h2>"
_DEVICE_NOTE = (
    "Accuracy is the true agreement of the answers the caller got; the device itself sees only the "
    "share p_est of it. The benchmark uploads every picture as the reference. Re-training is "
    "shaded."
)

_COLUMNS = ("size ratio", "wire ratio", *METRICS, "calls per image")


def render(document: Json, rungs: Sequence[str]) -> str:
    """Return the page of an ``adacompress.report/1`` document.

    Args:
        document: the report.
        rungs: names of its ladder's rungs, cheapest first.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
    """
    worth_to_you = calculator.calculator(document)
    body = filled(
        "report_template.html",
        headline=_headline(document),
        money=_money(document),
        verdicts="\n".join(_verdict(one) for one in _verdicts(document)),
        bars=_bars(document),
        policies=_policies(document),
        fixed=_fixed(document),
        metrics=_metrics(document),
        curve=_curve(document),
        failures=exhibits.exhibits(document),
        confidence=sections.confidence(document),
        noise=sections.noise(document),
        study=_study(document),
        rungs=_rungs(document, rungs),
        timeline=_timeline(document),
        certificate=sections.certificate(document["operating_point"]),
        facts=_facts(document),
        worth=sections.worth(document),
        calculator=worth_to_you,
        synthetic=_synthetic(document["synthetic"]),
        command=text(document["command"]),
        reproduce=sections.reproduce(document),
    )
    return whole("AdaCompress report", body, [calculator.SCRIPT] if worth_to_you else [])


def _verdicts(document: Json) -> list[Json]:
    """The qualities that everybody knows first, then the harder opponent."""
    return [one for one in (document.get("quality_verdict"), document["verdict"]) if one]


def _verdict(verdict: Json) -> str:
    sentence = text(verdict["sentence"]).replace(" %", "&nbsp;%")
    return f'<p class="verdict {text(verdict["outcome"])}">{sentence}</p>'


def _headline(document: Json) -> str:
    verdict = _verdicts(document)[0]
    noun = "quality" if document.get("quality_verdict") else "rung"
    saved, fixed = 1 - verdict["size_ratio"], 1 - verdict["fixed_size_ratio"]
    words = "fewer bytes" if saved >= 0 else "more bytes"
    but = "but " if fixed > saved else ""
    return (
        f"<strong>{percent(abs(saved))}</strong> <span>{words} at {verdict['agreement']:.3f} "
        f"agreement; {but}the best fixed {noun} saves {percent(fixed)}.</span>"
    )


def _money(document: Json) -> str:
    """The saving in money, where prices were given: of a year, or else of a million images."""
    cost = document.get("cost")
    if not cost or not cost["net_usd_per_million"]:
        return ""
    net, factor, of = cost["net_usd_per_million"], 1.0, "A million images"
    if cost["net_usd_per_day"]:
        net, factor = cost["net_usd_per_day"], 365.0
        of = f"A year of {cost['prices']['images_per_day']:,.0f} images a day"
    mean, lo, hi = (saved_usd(factor * net[name]) for name in ("mean", "lo", "hi"))
    return (
        f'<p class="money">{of}: {mean} than as references <small>(95&nbsp;% interval {lo} to '
        f"{hi})</small></p>"
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
        f"<b>{percent(size, 1)}</b></div>"
        for title, size in sizes.items()
    )


def _policies(document: Json) -> str:
    rows = "".join(
        _row(document["policies"][name], title, agent=name == "agent")
        for name, title in TITLES.items()
        if name in document["policies"]
    )
    return table("Policies", ("policy", *_COLUMNS), rows)


def _fixed(document: Json) -> str:
    rows = "".join(
        _row(policy, name.removeprefix("fixed:"))
        for name, policy in document["policies"].items()
        if name.startswith("fixed:")
    )
    return table("Every fixed rung", ("rung", *_COLUMNS), rows)


def _row(policy: Json, title: str, *, agent: bool = False) -> str:
    rung = policy.get("rung")
    rung = f"<small>{text(rung)}</small>" if rung not in (None, title) else ""
    figures_ = (
        (policy["size_ratio"], 3),
        (policy["wire_ratio"], 3),
        *((policy["agreement"][metric], 3) for metric in METRICS),
        (policy["calls_per_image"], 2),
    )
    cells = "".join(cell(figure, digits) for figure, digits in figures_)
    mark = ' class="agent"' if agent else ""
    return f'<tr{mark}><th scope="row">{text(title)}{rung}</th>{cells}</tr>'


def _metrics(document: Json) -> str:
    said = "; ".join(f"<b>{name}</b>: {meaning}" for name, meaning in METRICS.items())
    score = document["backend"].get("min_score")
    cut = f" Labels with a score below {text(score)} do not count." if score else ""
    return f"{said}. Target, oracle and verdict are about <b>{text(document['metric'])}</b>.{cut}"


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
    places = "; ".join(
        f"{title} {policy['agreement'][document['metric']]['mean']:.3f} at size "
        f"{policy['size_ratio']['mean']:.3f}"
        for name, title in TITLES.items()
        if (policy := document["policies"].get(name))
    )
    return both_widths(
        lambda width: _curve_svg(document, width),
        f"Agreement over size ratio, fixed rungs as lines. {places}.",
    )


def _study(document: Json) -> str:
    if not document.get("study"):
        return ""
    target = document["operating_point"]["target"]
    drawn = both_widths(
        lambda width: learning_curve(document["study"]["points"], target=target, width=width),
        "Size ratio at the target over the number of photos learnt from",
    )
    return f"<h2>What more photos buy</h2><figure>{drawn}</figure>{sections.study(document)}"


def _rungs(document: Json, rungs: Sequence[str]) -> str:
    if not document["sceneries"]:
        return "<p>No choices were recorded.</p>"
    return both_widths(
        lambda width: figures.chosen_rungs(document["sceneries"], rungs, width=width),
        "Share of pictures sent at each rung, per scenery",
    )


def _timeline(document: Json) -> str:
    columns = document["timeline"]
    if not columns or not columns["image"]:
        return f"{_DEVICE}<p>No stream was run.</p>"
    drawn = both_widths(
        lambda width: stream_figure.timeline(columns, width=width),
        f"Accuracy, p_est, state and upload size over a stream of {len(columns['image'])} images",
    )
    return f"{_DEVICE}<figure>{drawn}<figcaption>{_DEVICE_NOTE}</figcaption></figure>"


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
    return "<ul>" + "".join(f"<li>{text(note)}</li>" for note in notes) + "</ul>"
