"""One AWS operation through boto3, under this product's rules.

boto3 (extra ``aws``) signs, sends and reads. It makes one attempt a call, because
``edge_sdk.backends.guard`` counts; it always checks certificates, follows no redirect, and its
errors become those of ``edge_sdk.errors``, without a key in any text. Keys, profiles, a CA bundle
and a proxy come from where boto3 always looks for them; the endpoint does not, so that an upload
goes to the region that a specification names.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from edge_sdk.backends.guard import HttpPolicy
from edge_sdk.backends.keys import PLACEHOLDER, Keys
from edge_sdk.backends.refusals import kind_of_status, refusal
from edge_sdk.backends.spec import is_loopback
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendThrottled,
    BackendUnavailable,
    ClosedError,
)
from model_store.errors import BackendError, EnvironmentMissing

__all__ = ["KEYS", "AwsOperation", "configured_region", "import_boto3", "placeholders_if_none"]

#: The first of the places where boto3 looks for keys.
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

_ERRORS: Mapping[str, type[BackendError]] = {
    **dict.fromkeys(
        ("ThrottlingException", "ProvisionedThroughputExceededException", "LimitExceededException"),
        BackendThrottled,
    ),
    "ServiceQuotaExceededException": BackendQuota,
    **dict.fromkeys(
        (
            "InternalFailure",
            "InternalServerError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
        ),
        BackendUnavailable,
    ),
    **dict.fromkeys(
        (
            "AccessDeniedException",
            "ExpiredTokenException",
            "IncompleteSignatureException",
            "InvalidSignatureException",
            "MissingAuthenticationTokenException",
            "NotAuthorized",
            "OptInRequired",
            "RequestExpired",
            "SubscriptionRequiredException",
            "UnrecognizedClientException",
        ),
        BackendAuth,
    ),
}

#: What botocore's errors on the way mean; see ``edge_sdk.backends.guard.HttpPolicy``.
_REASONS = {
    "ConnectTimeoutError": "did not accept a connection within {policy.connect_s:.3g} s",
    "ConnectionClosedError": "closed the connection before its answer was complete",
    "EndpointConnectionError": "cannot be reached",
    "ProxyConnectionError": "cannot be reached through the proxy that the environment names",
    "ReadTimeoutError": (
        "did not send its whole answer in time ({policy.read_s:.3g} s of silence allowed)"
    ),
    "SSLError": "has no TLS certificate that this device trusts",
}

#: What must appear in no message and no log line: the key's id, the signature, a session's token.
_SIGNED = re.compile(r"(?:Credential|Signature)=([^,/\s]+)")
_LOGGED = re.compile(
    r"((?:Credential|Signature)=|Signature:\s+|x-amz-security-token['\"]?:\s*b?['\"]?)[^,'\"\s]+",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Sent:
    """What left in one attempt."""

    size: int = 0
    secrets: tuple[str, ...] = ()


class AwsOperation:
    """One operation of one AWS service; safe to call from several threads.

    Args:
        name: the backend's name, for messages.
        operation: the service and the operation, as in ``rekognition.DetectLabels``.
        region: signs and, without ``endpoint_url``, says where.
        endpoint_url: another address, ``http://HOST:PORT``.
        keys: asked once for ``KEYS`` and perhaps a session token; None is boto3's own search.
        policy: its limits on connecting and on silence.
        errors: what the service's own codes mean.
    """

    def __init__(
        self,
        name: str,
        operation: str,
        region: str,
        *,
        endpoint_url: str | None,
        keys: Keys | None,
        policy: HttpPolicy,
        errors: Mapping[str, type[BackendError]],
    ) -> None:
        self._name, self._operation, self._region = name, operation, region
        self._endpoint_url, self._keys, self._policy = endpoint_url, keys, policy
        self._errors = {**_ERRORS, **errors}
        self._own = threading.local()
        self._lock = threading.Lock()
        self._client: Any = None  # under _lock
        self._closed = False  # under _lock

    def client(self) -> Any:
        """Return boto3's client, the same one every time."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"The client of {self._name} is closed; open another one.")
            if self._client is None:
                self._client = self._connect()
            return self._client

    def attempt(self, method: str, **wishes: object) -> tuple[dict[str, Any], int]:
        """Make one attempt; return the answer and the size of the body that left, in bytes.

        Args:
            method: the operation's name in Python, as in ``detect_labels``.
            wishes: its parameters.

        Raises:
            BackendError: a leaf of ``edge_sdk.errors``.
        """
        call = getattr(self.client(), method)
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        sent = self._own.sent = _Sent()
        try:
            return call(**wishes), sent.size
        except ClientError as error:
            failed: BackendError = self._refusal(error.response, sent.secrets)
        except BotoCoreError as error:
            failed = self._failure(error)
        except (ResponseParserError, LookupError, TypeError, AttributeError) as error:
            # botocore trips over JSON that is not of the operation's form.
            failed = BackendProtocol(
                f"{self._name} answered no {self._operation} ({type(error).__name__} while reading "
                "it); is it the service that was meant?"
            )
        finally:
            del self._own.sent
        raise failed  # not chained: texts and attributes of botocore's errors may hold keys

    def close(self) -> None:
        """Release the connections; calling it twice is fine."""
        with self._lock:
            self._closed, client, self._client = True, self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Any:
        boto3 = import_boto3()
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=self._policy.connect_s,
            read_timeout=self._policy.read_s,
            ignore_configured_endpoint_urls=True,
            # A proxy named in the environment is not the way to this very machine.
            proxies={} if is_loopback(urlsplit(self._endpoint_url or "").netloc) else None,
        )
        given = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        keys = self._keys() if self._keys else ()
        try:
            session = botocore.session.get_session()
            client = boto3.Session(botocore_session=session).client(
                self._operation.partition(".")[0],
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                config=config,
                verify=_trust(session),
                **dict(zip(given, keys, strict=False)),
            )
        except BotoCoreError as error:
            failed = self._failure(error)
        else:
            return self._watched(client)
        raise failed

    def _watched(self, client: Any) -> Any:
        events = client.meta.events
        events.register(f"before-send.{self._operation}", self._note)
        events.register(f"response-received.{self._operation}", self._check_complete)
        for name in ("botocore.auth", "botocore.endpoint", "botocore.parsers"):
            logging.getLogger(name).addFilter(_hide_secrets)
        return client

    def _note(self, request: Any, **_: object) -> None:
        """Keep what leaves; botocore calls this in the thread that asks."""
        sent: _Sent = self._own.sent
        sent.size = len(request.body)
        token = _as_text(request.headers.get("X-Amz-Security-Token"))
        sent.secrets = (
            token,
            *_SIGNED.findall(_as_text(request.headers.get("Authorization"))),
        )

    def _check_complete(self, response_dict: dict[str, Any] | None, **_: object) -> None:
        """Raise for an answer that was cut off, which botocore takes for an empty one."""
        if response_dict is None:
            return
        announced = str(response_dict["headers"].get("content-length", ""))
        if announced.isdecimal() and len(response_dict["body"]) < int(announced):
            raise self._unavailable(_REASONS["ConnectionClosedError"])

    def _refusal(self, answer: dict[str, Any], secrets: tuple[str, ...]) -> BackendError:
        code = str(answer["Error"].get("Code", ""))
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        kind = self._errors.get(code) or kind_of_status(status)
        shown = code if code and not code.isdecimal() else f"HTTP {status}"
        return refusal(kind, self._name, shown, answer["Error"].get("Message"), secrets=secrets)

    def _failure(self, error: Exception) -> BackendError:
        """Return what an error of botocore's own is, without its text."""
        from botocore import exceptions as theirs

        name = type(error).__name__
        if isinstance(error, theirs.ConnectionError | theirs.HTTPClientError):
            reason = _REASONS.get(name, f"cannot be asked ({name})")
            return self._unavailable(reason.format(policy=self._policy))
        return BackendAuth(
            f"boto3 finds no usable keys or configuration for {self._name} ({name}). "
            f"Set {' and '.join(KEYS)}, or AWS_PROFILE."
        )

    def _unavailable(self, reason: str) -> BackendUnavailable:
        return BackendUnavailable(f"{self._name} {reason}. Check the network and the service.")


def import_boto3() -> Any:
    """Return the package boto3.

    Raises:
        EnvironmentMissing: it is not installed.
    """
    try:
        import boto3  # here, because it takes long and few need it
    except ImportError:
        raise EnvironmentMissing(
            "Amazon's services need boto3, which is not installed; run "
            "`pip install 'adacompress[aws]'`."
        ) from None
    return boto3


def configured_region() -> str:
    """Return the region that boto3 is configured for, or an empty text."""
    boto3 = import_boto3()
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session().region_name or ""
    except BotoCoreError:  # such as a profile that does not exist
        return ""


def placeholders_if_none() -> Keys | None:
    """Return keys that a local cloud takes if the environment names none, else None."""
    if os.environ.get(KEYS[0]) or os.environ.get("AWS_PROFILE"):
        return None
    return lambda: (PLACEHOLDER, PLACEHOLDER)


def _trust(session: Any) -> str | bool:
    """Return the CA bundle that is configured, else True.

    An empty setting would switch the check of certificates off in some versions of botocore.
    """
    for bundle in (session.get_config_variable("ca_bundle"), os.environ.get("REQUESTS_CA_BUNDLE")):
        if bundle and bundle.strip():
            return str(bundle)
    return True


def _as_text(header: bytes | str | None) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else header or ""


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Mask what signs a request in botocore's debug lines, which repeat headers and answers."""
    record.msg, record.args = _LOGGED.sub(r"\1***", record.getMessage()), ()
    return True
