"""The report's cost calculator: fields for the reader's own prices, and the sum for given ones.

The page computes with ``calculator.js``; without JavaScript the sentence for the given prices, or
for examples, stands there. Not here: measuring what is sent (``uploads``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.measure.markup import Json, saved_usd, text

__all__ = ["EXAMPLES", "SCRIPT", "calculator", "sentence"]

SCRIPT = "calculator.js"

#: What stands in a field that nobody gave a figure for.
EXAMPLES: Mapping[str, float] = {
    "usd_per_gb": 0.09,
    "usd_per_call": 0.001,
    "images_per_day": 10_000,
}

#: Field of the page, field of the prices, label, hint.
_FIELDS = (
    ("gigabyte", "usd_per_gb", "Price per GB sent", "USD"),
    ("call", "usd_per_call", "Price per call", "USD"),
    ("images", "images_per_day", "Images per day", ""),
)

_DAYS = 365


def calculator(document: Json) -> str:
    """Return the section, or nothing where nobody measured what was sent."""
    uploads = document.get("uploads")
    if not uploads:
        return ""
    given = {name: one for name, one in (document.get("prices") or {}).items() if one is not None}
    prices = {**EXAMPLES, **given}
    data = {
        "reference": uploads["reference_bytes"],
        "saved": uploads["bytes_saved"]["mean"],
        "saved-lo": uploads["bytes_saved"]["lo"],
        "saved-hi": uploads["bytes_saved"]["hi"],
        "calls": uploads["extra_calls"]["mean"],
        "calls-lo": uploads["extra_calls"]["lo"],
        "calls-hi": uploads["extra_calls"]["hi"],
    }
    written = " ".join(f'data-{name}="{value!r}"' for name, value in data.items())
    fields = "".join(_field(*field, prices) for field in _FIELDS)
    examples = [label[0].lower() + label[1:] for _, name, label, _ in _FIELDS if name not in given]
    note = f" Examples that nobody gave: {', '.join(examples)}." if examples else ""
    return (
        "<h2>What it is worth at your prices</h2>"
        f'<div class="calculator" {written}><fieldset hidden><legend>Prices</legend>{fields}'
        f'</fieldset><output aria-live="polite">{text(sentence(uploads, prices))}</output></div>'
        '<p class="note">From the uploads measured here; how often the monitor asks besides is '
        f"what it asks of pictures like these. “From … to” takes the 95&nbsp;% intervals of bytes "
        f"and calls at their worse and better ends.{note}</p>"
    )


def sentence(uploads: Json, prices: Mapping[str, float]) -> str:
    """Return what ``calculator.js`` says at these prices."""
    images, saved, calls = prices["images_per_day"], uploads["bytes_saved"], uploads["extra_calls"]

    def net(sent: float, asked: float) -> float:
        return images * (sent / 1e9 * prices["usd_per_gb"] - asked * prices["usd_per_call"])

    worth, bill = net(saved["mean"], calls["mean"]), net(uploads["reference_bytes"], -1.0)
    wire, low, high = (
        images * saved["mean"] / 1e9,
        net(saved["lo"], calls["hi"]),
        net(saved["hi"], calls["lo"]),
    )
    return (
        f"{images:,.0f} images a day cost {_usd(bill - worth)} a day with the agent and "
        f"{_usd(bill)} as references: {saved_usd(worth)} a day, {saved_usd(_DAYS * worth)} a year "
        f"(from {saved_usd(_DAYS * low)} to {saved_usd(_DAYS * high)}). On the wire that is "
        f"{abs(wire):,.2f} GB {'more' if wire < 0 else 'less'} a day; the monitor makes "
        f"{images * calls['mean']:,.0f} calls more."
    )


def _field(name: str, price: str, label: str, unit: str, prices: Mapping[str, Any]) -> str:
    written = f"{prices[price]:.10f}".rstrip("0").rstrip(".")
    hint = f" <small>{unit}</small>" if unit else ""
    return (
        f'<label><span>{label}{hint}</span><input name="{name}" type="number" min="0" step="any" '
        f'inputmode="decimal" required value="{written}"></label>'
    )


def _usd(amount: float) -> str:
    return f"{amount:,.2f} USD"
