"""What a call costs, from a data file with the date when it was checked."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

__all__ = ["price"]


def price(*names: str) -> float | None:
    """Return the dollars that one call for all of ``names`` costs, None where one is not known.

    Args:
        names: keys of ``prices.json``, such as ``google:LABEL_DETECTION``; features are billed
            one by one.
    """
    total = 0.0
    for name in names:
        usd: float | None = _table()[name]["usd"]
        if usd is None:
            return None
        total += usd
    return total


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    document = json.loads(files(__package__).joinpath("prices.json").read_text("utf-8"))
    table: dict[str, dict[str, Any]] = document["usd_per_call"]
    return table
