"""The report of a ``fit`` as one HTML page, rendered from its JSON document alone.

Needs no drawing library, which who only learns has not installed.
"""

from __future__ import annotations

from training.measure import sections
from training.measure.markup import Json, filled, percent, table, text, whole

__all__ = ["render"]

#: Contestants of ``training.learn.contest``, simplest first.
_WAYS = {
    "fixed": "one rung for every picture",
    "static": "one look at the picture",
    "probing": "looks at candidate encodings",
}


def render(document: Json) -> str:
    """Return the page of an ``adacompress.fit-report/1`` document."""
    body = filled(
        "fit_template.html",
        headline=_headline(document),
        note=_note(document),
        certificate=sections.certificate(document["operating_points"][0]),
        decides=_decides(document),
        points=_points(document),
        rungs=_rungs(document),
        facts=_facts(document),
        command=text(document["command"]),
        reproduce=sections.reproduce(document),
    )
    return whole("AdaCompress: what was learnt", body)


def _headline(document: Json) -> str:
    point, scenery = document["operating_points"][0], text(document["scenery"] or "these photos")
    if point["certified"]:
        return (
            f"<strong>{percent(point['target'])}</strong> <span>agreement is certified for "
            f"{scenery}, with probability {percent(1 - point['delta'])}.</span>"
        )
    return f"<span>The agent for {scenery} carries no certificate.</span>"


def _note(document: Json) -> str:
    seen = document["on_calibration"]
    said = ""
    if seen:
        said = (
            f"On its calibration photos it sends {percent(seen['size_ratio']['mean'], 1)} of the "
            "reference’s bytes; it was chosen on those very photos, which flatters it. "
        )
    return (
        f"<p>{said}No photo is left that it has not seen, so nothing is compared here: "
        "<code>python -m training evaluate</code> does that, on other photos.</p>"
    )


def _decides(document: Json) -> str:
    contest, point = document["contest"], document["operating_points"][0]
    if not contest:
        return "<p>By its Q-values, from one look at the picture.</p>"
    rows = "".join(
        f"<tr{' class=agent' if kind == contest['winner'] else ''}>"
        f'<th scope="row">{way}</th><td>{contest["log_loss"][kind]:.4f}</td></tr>'
        for kind, way in _WAYS.items()
        if kind in contest["log_loss"]
    )
    kind = "fixed" if point["rung"] is not None else "probing" if point["max_probes"] else "static"
    contestants = table("Contest", ("way of deciding", "log-loss"), rows)
    started = " Its heads are corrections of heads given beforehand." if document["started"] else ""
    return (
        f"<p>By {_WAYS[kind]}.{started}</p>{contestants}"
        '<p class="note">How well each way foresees answers to training photos that it was not '
        "fitted to, in nats an answer; less is better. A way that looks must win by more than a "
        "standard error, and a certified fixed rung that is cheaper still replaces it.</p>"
    )


def _points(document: Json) -> str:
    rows = "".join(_point(point) for point in document["operating_points"])
    columns = ("operating point", "target", "certified", "looks at most", "trade-off λ", "pictures")
    return table("Operating points", columns, rows)


def _point(point: Json) -> str:
    fixed = point["rung"] is not None
    name = "always one rung" if fixed else "with looks" if point["max_probes"] else "one look"
    trade_off = "–" if point["trade_off"] is None else f"{point['trade_off']:g}"
    target = "–" if point["target"] is None else f"{point['target']:g}"
    certified = "yes" if point["certified"] else "no"
    return (
        f'<tr><th scope="row">{name}</th><td>{target}</td><td>{certified}</td>'
        f"<td>{point['max_probes']}</td><td>{trade_off}</td><td>{point['n']}</td></tr>"
    )


def _rungs(document: Json) -> str:
    if not document["rungs"]:
        return ""
    longest = max(document["rungs"].values())
    bars = "".join(
        f'<div class="bar"><span>{text(name)}</span><i style="width:{100 * share / longest:.2f}%">'
        f"</i><b>{percent(share)}</b></div>"
        for name, share in document["rungs"].items()
    )
    return (
        f'<h2>Chosen rungs</h2><div class="bars even">{bars}</div><p class="note">Shares of the '
        "calibration photos. A rung’s name is its JPEG quality (w: WebP’s, f: a codec’s rate), @ "
        "its scale, ^ the service’s view, and its entropy coding where that is not optimised.</p>"
    )


def _facts(document: Json) -> str:
    facts = {f"{name} photos": photos["photos"] for name, photos in document["photos"].items()}
    facts["answers bought"] = document["labels_bought"]
    facts["cost of this run"] = f"{document['cost_usd']:.2f} USD"
    return "".join(
        f"<div><dd>{text(value)}</dd><dt>{text(name)}</dt></div>" for name, value in facts.items()
    )
