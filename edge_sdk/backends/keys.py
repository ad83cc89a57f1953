"""Where keys come from: the environment or a callable, asked when needed, kept by nobody.

On loopback placeholders stand in for missing keys: a local cloud takes any. To another machine a
key travels encrypted or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import BackendAuth
from model_store.errors import UsageError

__all__ = ["PLACEHOLDER", "Keys", "address", "for_header", "from_environment", "keys_for"]

#: () -> the keys, in the order that a service's module documents.
Keys = Callable[[], tuple[str, ...]]

#: Unlike any word of a message, because keys are masked in messages.
PLACEHOLDER = "no-key-needed-on-loopback"


def from_environment(service: str, *names: str) -> Keys:
    """Return a callable that reads these environment variables.

    The callable raises ``BackendAuth`` that names those which are not set.
    """

    def keys() -> tuple[str, ...]:
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise BackendAuth(f"There are no keys for {service}: set {' and '.join(missing)}.")
        return tuple(os.environ[name] for name in names)

    return keys


def keys_for(host: str, service: str, *names: str) -> Keys:
    """Return :func:`from_environment`, or placeholders if ``host`` is loopback and none are set."""
    if is_loopback(host) and not os.environ.get(names[0]):
        return lambda: (PLACEHOLDER,) * len(names)
    return from_environment(service, *names)


def for_header(key: str, service: str) -> str:
    """Return a key that travels in an HTTP header, as it is.

    A line break at its end, which copying leaves behind, would end the header and begin another.

    Raises:
        BackendAuth: it is empty, or no header can carry it; the key is not repeated.
    """
    if not re.fullmatch(r"[!-~]+", key):
        raise BackendAuth(
            f"The key or token for {service} is empty or has a sign that no HTTP header can carry; "
            "set it again."
        )
    return key


def address(spec: Spec, host: str, *, keys: bool = True) -> str:
    """Return ``https://HOST`` of a specification.

    Args:
        spec: what the user wrote.
        host: used where the specification has none.
        keys: keys will be sent there.

    Raises:
        UsageError: keys would travel unencrypted to another machine.
    """
    host = spec.host or host
    if keys and spec.transport == "http" and not is_loopback(host):
        raise UsageError(
            f"{spec.scheme}+http://{host} would send keys unencrypted to another machine; write "
            f"{spec.scheme}://{host}. Plain HTTP is for a local cloud on loopback."
        )
    return f"{spec.transport}://{host}"
