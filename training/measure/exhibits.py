"""The report's pictures: the agent's worst failures, as the service got them, with both answers.

Not here: finding them (``failures``).
"""

from __future__ import annotations

from training.measure.markup import Json, text

__all__ = ["exhibits"]


def exhibits(document: Json) -> str:
    """Return the section, or nothing where nobody looked for failures."""
    found = document.get("failures")
    if not found:
        return ""
    pictures, failed, worst = found["pictures"], found["failed"], found["worst"]
    title = "<h2>Worst failures</h2>"
    if not failed:
        return f"{title}<p>None: the answers to all {pictures} pictures agreed.</p>"
    said = (
        f"{title}<p>On {failed} of {pictures} pictures the answers did not agree fully "
        f"({text(document['metric'])})"
    )
    if not worst:
        return f"{said}; none is shown.</p>"
    shown = "".join(_exhibit(one, number) for number, one in enumerate(worst, start=1))
    return f'{said}. The worst, the surest references first:</p><ol class="exhibits">{shown}</ol>'


def _exhibit(one: Json, number: int) -> str:
    less = 1 - one["sent"]["bytes"] / one["reference"]["bytes"]
    return (
        f'<li><h3>{number}. {text(one["photo"])}</h3><div class="exhibit">'
        f"{_picture(one['reference'], 'Reference', one['photo'])}"
        f"{_picture(one['sent'], 'Sent as ' + one['rung'], one['photo'])}"
        f"<div>{_answer('Answer to the reference', one['reference'])}"
        f"{_answer('Answer to what was sent', one['sent'])}"
        f'<p class="note">{100 * less:.0f}&nbsp;% fewer bytes, agreement '
        f"{one['agreement']:.2f}</p></div></div></li>"
    )


def _picture(shown: Json, what: str, photo: str) -> str:
    if not shown["picture"]:
        caption = f"{text(what)}: {shown['bytes']:,} bytes, no picture"
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    size = f"{shown['width']}×{shown['height']}"
    copy = "" if shown["exact"] else ", shown as a smaller copy"
    best = shown["labels"][0]["name"] if shown["labels"] else "no label"
    alt = f"{what} of {photo}; the service says: {best}"
    return (
        f'<figure><img src="{text(shown["picture"])}" alt="{text(alt)}" width="{shown["width"]}" '
        f'height="{shown["height"]}"><figcaption>{text(what)}: {size}, '
        f"{shown['bytes']:,} bytes{copy}</figcaption></figure>"
    )


def _answer(title: str, shown: Json) -> str:
    if not shown["labels"]:
        return f"<h4>{title}</h4><p>No label that counts.</p>"
    labels = "".join(
        f"<li><span>{text(label['name'])}</span> <b>{label['score']:.2f}</b></li>"
        for label in shown["labels"]
    )
    return f"<h4>{title}</h4><ol>{labels}</ol>"
