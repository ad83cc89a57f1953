"""Cloud vision services behind one protocol, and the registry that opens one by its name.

    from edge_sdk.backends import open_backend
    with contextlib.closing(open_backend("baidu://aip.baidubce.com")) as backend:
        print(backend.recognize(jpeg).labels)

A service's module (and ``requests`` with it) is imported when it is opened, not before.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable

from edge_sdk.backends.base import Backend
from edge_sdk.backends.spec import TRANSPORTS, Spec, parse_spec
from model_store.errors import UsageError

__all__ = ["Backend", "Factory", "Spec", "known_schemes", "open_backend", "parse_spec", "register"]

Factory = Callable[[Spec], Backend]

#: Scheme -> module of this package with a function ``open_spec(spec)``.
_OWN = {
    name: f"edge_sdk.backends.{name}"
    for name in ("azure", "baidu", "facepp", "google", "rekognition", "torchserve")
}

#: Scheme -> who registers it, for those that live on a higher floor.
_ELSEWHERE = {"local": "the package training; run `pip install 'adacompress[train]'`"}

#: Installed packages may provide services: ``scheme = "module:function_of_a_spec"``.
ENTRY_POINTS = "adacompress.backends"

_registered: dict[str, Factory] = {}


def register(scheme: str, factory: Factory) -> None:
    """Make ``open_backend`` use ``factory`` for ``scheme``; a later registration wins."""
    _registered[scheme] = factory


def known_schemes() -> list[str]:
    """Return the schemes that can be opened now."""
    return sorted(_registered.keys() | _OWN.keys())


def open_backend(spec: str) -> Backend:
    """Open the service that ``spec`` names; nothing is sent yet.

    Raises:
        UsageError: the specification cannot be read, or nobody provides its scheme.
        EnvironmentMissing: what the service needs is not installed.
    """
    parsed = parse_spec(spec)
    return _factory(parsed.scheme)(parsed)


def _factory(scheme: str) -> Factory:
    if scheme in _registered:
        return _registered[scheme]
    if scheme in _OWN:
        factory: Factory = importlib.import_module(_OWN[scheme]).open_spec
        return factory
    from importlib.metadata import entry_points  # 3 MB: only for a scheme that is not our own

    for provided in entry_points(group=ENTRY_POINTS, name=scheme):
        plugin: Factory = provided.load()
        return plugin
    if scheme in _ELSEWHERE:
        raise UsageError(f"The backend scheme {scheme!r} is provided by {_ELSEWHERE[scheme]}.")
    known = known_schemes()
    close = difflib.get_close_matches(scheme, [*known, *_ELSEWHERE], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if scheme in TRANSPORTS:
        hint = f" Write the dialect, too: facepp+{scheme}://HOST:PORT."
    raise UsageError(
        f"Nobody knows the backend scheme {scheme!r}; known: {', '.join(known)}.{hint}"
    )
