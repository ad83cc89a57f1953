"""What a service says when it says no, as one of the product's errors and one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError

__all__ = ["kind_of_status", "refusal"]

_ADVICE: Mapping[type[BackendError], str] = {
    BackendUnavailable: "Try again later.",
    BackendThrottled: "Send fewer pictures a second, or raise the account's limit.",
    BackendQuota: "The account's quota is spent; wait for the next period, or raise it.",
    BackendAuth: "Check the keys and what the account may use.",
    BackendRejected: "Sending this picture again will not help.",
    BackendTooLarge: "Send a smaller picture.",
    BackendProtocol: "This client does not know that code; is it the service that was meant?",
}

_STATUS: Mapping[int, type[BackendError]] = {
    **dict.fromkeys((401, 403, 407), BackendAuth),
    **dict.fromkeys((400, 411, 412, 415, 422), BackendRejected),
    408: BackendUnavailable,
    413: BackendTooLarge,
    429: BackendThrottled,
}

_MOST_SAID = 200


def kind_of_status(status: int) -> type[BackendError]:
    """Return what an HTTP status means where the body says nothing better."""
    return _STATUS.get(status, BackendUnavailable if status >= 500 else BackendProtocol)


def refusal(
    kind: type[BackendError],
    service: str,
    code: str,
    said: object,
    *,
    secrets: Iterable[str] = (),
    retry_after_s: float | None = None,
) -> BackendError:
    """Return the error of one refusal.

    Args:
        kind: a leaf of ``edge_sdk.errors``.
        service: the backend's name.
        code: the service's own code, such as ``18``.
        said: the service's own message; services repeat keys and tokens in it.
        secrets: what is masked in it.
        retry_after_s: seconds that the service asks to wait.
    """
    text = " ".join(str(said or "no message").split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = text[:_MOST_SAID]
    return kind(
        f"{service} refused with {code} ({text}). {_ADVICE[kind]}",
        code=code,
        said=text,
        retry_after_s=retry_after_s,
    )
