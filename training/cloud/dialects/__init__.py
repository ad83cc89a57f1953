"""Vendors' dialects as pure functions: a request and a model in, a response out, no sockets."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence

from model_store.errors import UsageError
from training.cloud.dialects.base import Dialect, Rules

__all__ = ["DIALECTS", "open_dialects"]

#: Dialect -> its class, in the module of the dialect's name. Imported when they are served.
DIALECTS: Mapping[str, str] = {
    "baidu": "Baidu",
    "rekognition": "Rekognition",
    "google": "Google",
    "azure": "Azure",
    "facepp": "Facepp",
    "torchserve": "TorchServe",
}


def open_dialects(names: Sequence[str] | None, rules: Rules) -> list[Dialect]:
    """Return the named dialects in this order, each once; all of ``DIALECTS`` for None.

    Raises:
        UsageError: there is no such dialect, or none is named.
    """
    wanted = list(dict.fromkeys(DIALECTS if names is None else names))
    if not wanted:
        raise UsageError(f"No dialect is named; known: {', '.join(DIALECTS)}.")
    return [_open(name, rules) for name in wanted]


def _open(name: str, rules: Rules) -> Dialect:
    if name not in DIALECTS:
        close = difflib.get_close_matches(name, DIALECTS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"There is no dialect {name!r}; known: {', '.join(DIALECTS)}.{hint}")
    module = importlib.import_module(f"training.cloud.dialects.{name}")
    dialect: Dialect = getattr(module, DIALECTS[name])(rules)
    return dialect
