"""What a user writes to name a cloud service: ``SCHEME[+http]://HOST/PATH`` or ``SCHEME:MODEL``.

A specification never holds a key. One that seems to is refused without being repeated.

    >>> from edge_sdk.backends.spec import parse_spec
    >>> parse_spec("baidu+http://127.0.0.1:8000")
    Spec(scheme='baidu', transport='http', host='127.0.0.1:8000', path='')
    >>> parse_spec("local:efficientnet-lite0").path
    'efficientnet-lite0'
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from model_store.errors import UsageError

__all__ = ["TRANSPORTS", "Spec", "is_loopback", "parse_spec"]

TRANSPORTS = ("https", "http")

_FORM = re.compile(r"(?P<scheme>[a-z][a-z0-9-]*)(\+(?P<transport>[a-z0-9]+))?:(?P<rest>.*)", re.I)
_HOW = "write SCHEME://HOST (baidu://aip.baidubce.com), SCHEME+http://HOST:PORT or local:MODEL"


@dataclass(frozen=True, slots=True)
class Spec:
    """One parsed specification.

    Attributes:
        scheme: names the service's dialect, lower case.
        transport: ``https`` or ``http``; empty for a service inside this process.
        host: host name, with the port if one was given; empty if the service has a default.
        path: what follows the host without slashes at its ends, or the model of ``SCHEME:MODEL``.
    """

    scheme: str
    transport: str
    host: str
    path: str = ""


def parse_spec(text: str) -> Spec:
    """Read a specification.

    Raises:
        UsageError: it has another form, another transport, or carries a key or a query.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{_shown(text)!r} is not a backend; {_HOW}.")
    scheme, transport, rest = match["scheme"].lower(), match["transport"], match["rest"]
    if rest.startswith("//"):
        return _parse_url(text, scheme, (transport or "https").lower(), rest)
    if transport or not rest or not re.fullmatch(r"[\w./-]+", rest):
        raise UsageError(f"{_shown(text)!r} is not a backend; {_HOW}.")
    return Spec(scheme, "", "", rest)


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` (a port may follow) is this very machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _parse_url(text: str, scheme: str, transport: str, rest: str) -> Spec:
    if transport not in TRANSPORTS:
        raise UsageError(
            f"The backend {_shown(text)!r} has the transport {transport!r}; allowed are "
            f"{' and '.join(TRANSPORTS)}."
        )
    if any(sign in rest for sign in "@?#"):
        raise UsageError(
            f"A {scheme} backend was given with a user name, a query or a fragment; keys come from "
            "the environment, never from the specification."
        )
    try:
        url = urlsplit(rest)
        url.port  # noqa: B018 - urllib checks the port only when it is read
    except ValueError as error:
        raise UsageError(f"The backend {_shown(text)!r} has no valid host: {error}.") from error
    if re.search(r"\s", url.netloc):
        raise UsageError(f"The backend {_shown(text)!r} has white space in its host; {_HOW}.")
    return Spec(scheme, transport, url.netloc.lower(), url.path.strip("/"))


def _shown(text: str) -> str:
    """Return ``text`` without anything that might be a key."""
    return re.sub(r"//[^/]*@", "//***@", text.strip()).partition("?")[0][:100]
