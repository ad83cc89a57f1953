"""The report of a feature codec as one HTML page, rendered from its JSON document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.measure.markup import Json, both_widths, paragraph, table, text, whole
from training.measure.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Sheet,
    Width,
)

__all__ = ["rate", "render"]

#: Kind of upload: colour, marker, line.
_LINES: Mapping[str, tuple[str, str, str]] = {
    "features": (VERMILLION, "D", "-"),
    "JPEG of the full frame": (BLACK, "o", ":"),
    "WebP of the full frame": (BLUE, "s", ":"),
    "JPEG of the scaled frame": (SKY, "^", "--"),
    "WebP of the scaled frame": (GREEN, "v", "--"),
    "JPEG of the service's crop": (ORANGE, "P", "-."),
    "WebP of the service's crop": (PURPLE, "X", "-."),
}


def render(document: Json) -> str:
    """Return the page of an ``adacompress.codec-report/1`` document."""
    figure = both_widths(
        lambda width: rate(document, width),
        "Agreement over bytes a picture, features beside JPEG and WebP",
    )
    facts = {name: document["codec"][name] for name in ("id", "cut", "prefix", "entropy")}
    facts["classifier"] = document["codec"]["classifier"]["version"]
    facts["seed"] = document["seed"]
    facts["photos"] = ", ".join(
        f"{name} {part['photos']} ({part['fingerprint']})"
        for name, part in document["photos"].items()
    )
    facts["versions"] = ", ".join(f"{a} {b}" for a, b in document["versions"].items())
    facts["timings"] = ", ".join(f"{a} {b:.1f} s" for a, b in document["timings_s"].items())
    listed = "".join(f"<dt>{text(a)}</dt><dd>{text(b)}</dd>" for a, b in facts.items())
    body = (
        f"<h1>AdaCompress: a feature codec</h1>{_headline(document)}{figure}"
        "<h2>Chosen rates</h2>"
        f"{_chosen(document)}"
        "<h2>Beside pictures</h2>"
        f"{_beside(document)}"
        "<h2>Every rate</h2>"
        f"{_rates(document)}"
        f"{_shown(document)}"
        f"<h2>On the device</h2>{_device(document)}"
        "<h2>How to reproduce</h2>"
        f'<pre tabindex="0" role="region" aria-label="Command">{text(document["command"])}</pre>'
        f'<dl class="how">{listed}</dl>'
    )
    return whole("AdaCompress: a feature codec", body)


def rate(document: Json, width: Width) -> str:
    """Draw agreement over bytes: every rate, and the hull of every kind of picture."""
    with Sheet("codec", width, height=5.0 if width == "wide" else 5.6) as sheet:
        axes = sheet.figure.subplots()
        for kind, settings in document["curves"].items():
            colour, marker, line = _LINES[kind]
            points = settings if kind == "features" else _hull(settings)
            axes.plot(
                [one["bytes"] / 1000 for one in points],
                [one["agreement"] for one in points],
                line,
                color=colour,
                marker=marker,
                markersize=5,
                label=kind,
            )
        axes.set_xscale("log")
        axes.set_xlabel("kilobytes a picture (whole stream or file)")
        axes.set_ylabel("agreement")
        shown = [one["agreement"] for one in document["rates"]]
        axes.set_ylim(max(0.0, min(*shown, 0.8) - 0.02), 1.005)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _told(value) else "")
        axes.legend(loc="lower left", fontsize=8)
        return sheet.svg()


def _told(kilobytes: float) -> bool:
    """Tell whether a tick between powers of ten gets a number: the 2s and the 5s."""
    return f"{kilobytes:.0e}"[0] in "25"


def _hull(settings: list[Any]) -> list[Any]:
    """Return the settings that no other beats in both bytes and agreement."""
    best, kept = -1.0, []
    for one in sorted(settings, key=lambda one: (one["bytes"], -one["agreement"])):
        if one["agreement"] > best:
            best = one["agreement"]
            kept.append(one)
    return kept


def _headline(document: Json) -> str:
    reached = document["chosen"].get("0.95")
    if reached is None:
        return paragraph("No rate reaches an agreement of 0.95 on the calibration photos.", "lead")
    return (
        f'<p class="headline"><strong>{reached["bytes"]:.0f} bytes</strong> <span>a picture, at '
        f"an agreement of {reached['agreement']:.3f}; the reference takes "
        f"{document['reference_bytes']:,.0f}.</span></p>"
    )


def _chosen(document: Json) -> str:
    rows = ""
    for target, one in document["chosen"].items():
        head = f'<tr><th scope="row">{text(target)}</th>'
        if one is None:
            rows += f'{head}<td colspan="3">not reached on the calibration photos</td></tr>'
            continue
        low, high, share = one["low"], one["high"], one["share"]
        mixed = f"{low}" if low == high else f"{low} and {high} ({100 * share:.0f} % of pictures)"
        rows += (
            f"{head}<td>{one['bytes']:.0f}</td><td>{one['agreement']:.3f}</td><td>{mixed}</td></tr>"
        )
    said = table("Chosen rates", ("target", "bytes", "agreement", "rates"), rows)
    count = document["photos"]["test"]["photos"]
    return (
        f'{said}<p class="note">Chosen with a standard error to spare on the calibration photos '
        f"and their mirror images, measured on {count} others.</p>"
    )


def _beside(document: Json) -> str:
    targets = list(document["chosen"])
    rows = "".join(
        f'<tr{" class=agent" if kind == "features" else ""}><th scope="row">{text(kind)}</th>'
        + "".join(f"<td>{_bytes(sizes[target])}</td>" for target in targets)
        + "</tr>"
        for kind, sizes in document["hindsight"].items()
    )
    said = table("Bytes at an agreement", ("sent", *targets), rows)
    return (
        f'{said}<p class="note">Fewest mean bytes at each agreement, mixing two settings of a '
        "kind; read off the test photos for every kind alike, so this compares and promises "
        "nothing.</p>"
    )


def _bytes(size: float | None) -> str:
    return "–" if size is None else f"{size:,.0f}"


def _rates(document: Json) -> str:
    rows = "".join(
        f'<tr><th scope="row">{number}</th><td>{one["bytes"]:.0f}</td>'
        f"<td>{one['agreement']:.3f}</td><td>{aside['bytes']:.0f}</td>"
        f"<td>{aside['agreement']:.3f}</td></tr>"
        for number, (one, aside) in enumerate(
            zip(document["rates"], document["calibration"], strict=True)
        )
    )
    columns = ("rate", "bytes", "agreement", "bytes (calibration)", "agreement (calibration)")
    return table("Every rate", columns, rows)


def _shown(document: Json) -> str:
    """Return what is sent, made visible, if the codec has a viewer."""
    if not document["shown"]:
        return ""
    rates = [f"rate {one['rate']}" for one in document["shown"][0]["sent"]]
    rows = "".join(
        f"<tr><td>{_picture(one['view'], 'what the classifier sees of a photo')}</td>"
        + "".join(
            f"<td>{_picture(sent['picture'], _told_by(sent))}<br>{sent['bytes']:,} bytes</td>"
            for sent in one["sent"]
        )
        + "</tr>"
        for one in document["shown"]
    )
    return (
        f"<h2>What is sent, made visible</h2>"
        f"{table('Photos and what streams tell of them', ('the service’s view', *rates), rows)}"
        '<p class="note">Nobody needs these pictures: the tail answers from the features. They '
        "show what a stream keeps.</p>"
    )


def _told_by(sent: Json) -> str:
    return f"what rate {sent['rate']} tells of it"


def _picture(address: str, said: str) -> str:
    return f'<img src="{text(address)}" alt="{text(said)}" width="112">'


def _device(document: Json) -> str:
    device = document["device"]
    return paragraph(
        f"{device['macs'] / 1e6:.0f} million multiplications a picture, "
        f"{100 * device['macs'] / device['classifier_macs']:.0f} % of the whole classifier's; "
        f"{device['device_ms']:.1f} ms on one core here, "
        f"{device['reference_encode_ratio']:.1f} times what encoding the reference takes, and "
        f"{device['stream_ms']:.1f} ms for the stream."
    )
