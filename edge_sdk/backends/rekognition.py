"""Client of Amazon Rekognition's ``DetectLabels``: the file inline, base64 inside JSON, no bucket.

Signing, sending and keys are ``edge_sdk.backends.aws``'s matter.

    >>> from edge_sdk.backends.rekognition import RekognitionBackend
    >>> RekognitionBackend("eu-west-1")
    RekognitionBackend('rekognition://eu-west-1')
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from edge_sdk.backends.aws import (
    KEYS,
    AwsOperation,
    configured_region,
    import_boto3,
    placeholders_if_none,
)
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.backends.guard import Guard
from edge_sdk.backends.keys import Keys, address
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.parsing import best_first, box, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.spec import Spec
from edge_sdk.errors import BackendRejected, BackendTooLarge
from model_store.errors import UsageError

__all__ = ["CAPABILITIES", "KEYS", "OPERATION", "RekognitionBackend", "open_spec"]

OPERATION = "rekognition.DetectLabels"

CAPABILITIES = Capabilities(
    max_bytes=5_242_880,
    min_side=80,
    max_side=10_000,
    formats=("JPEG", "PNG"),
    encoding="base64",
    boxes=True,
    tells_version=True,
    price_usd=price("rekognition"),
)

_ERRORS = {
    "ImageTooLargeException": BackendTooLarge,
    **dict.fromkeys(
        (
            "InvalidImageFormatException",
            "InvalidParameterException",
            "InvalidS3ObjectException",
            "ValidationException",
        ),
        BackendRejected,
    ),
}

#: A signature names a region; a local cloud does not care which.
_LOCAL_REGION = "us-east-1"
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")


def open_spec(spec: Spec) -> RekognitionBackend:
    """Open ``rekognition://REGION`` or ``rekognition+http://HOST:PORT``, a local cloud.

    ``rekognition://`` alone is the region that boto3 is configured for.
    """
    import_boto3()
    if spec.path:
        raise UsageError(
            f"A Rekognition backend has no path, seen {spec.path!r}; write rekognition://REGION."
        )
    if spec.transport == "http":
        url, keys = address(spec, ""), placeholders_if_none()
        return RekognitionBackend(_LOCAL_REGION, endpoint_url=url, keys=keys)
    return RekognitionBackend(spec.host or configured_region())


class RekognitionBackend:
    """The ``Backend`` of Amazon Rekognition and of services that speak its dialect.

    Args:
        region: signs and, without ``endpoint_url``, says where.
        endpoint_url: another address, ``http://HOST:PORT``.
        keys: asked once for ``KEYS`` and perhaps a session token; default is boto3's own search.
        max_labels: label names in an answer at most. Ten, not the service's 1000, because metrics
            that look at whole lists would count its guesses.
        min_confidence: names below this percentage are not in the answer. The service's own default
            is 55, ours is 0: ``min_score`` does the same later, and can be changed without buying
            the answers again.
        guard: pace, retries and time limits.
        clock: monotonic seconds, for the latency.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        region: str,
        *,
        endpoint_url: str | None = None,
        keys: Keys | None = None,
        max_labels: int = 10,
        min_confidence: float = 0.0,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not _REGION.fullmatch(region):
            raise UsageError(
                f"There is no AWS region {region!r}; write one, as in rekognition://eu-west-1, or "
                "set AWS_DEFAULT_REGION and write rekognition://."
            )
        self.name = f"rekognition://{urlsplit(endpoint_url).netloc if endpoint_url else region}"
        self._wishes = {"MaxLabels": max_labels, "MinConfidence": min_confidence}
        self._guard, self._clock = guard or Guard(self.name), clock
        self._aws = AwsOperation(
            self.name,
            OPERATION,
            region,
            endpoint_url=endpoint_url,
            keys=keys,
            policy=self._guard.policy,
            errors=_ERRORS,
        )

    def __repr__(self) -> str:
        return f"RekognitionBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels, best first, objects with their boxes.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Amazon's code and message.
        """
        size = check_limits(jpeg, self.capabilities, self.name)
        self._aws.client()  # made before the clock starts: it takes as long as an answer
        started = self._clock()
        answer, wire_bytes = self._guard.call(lambda _deadline: self._ask(jpeg))
        with dialect(self.name, "Labels[] with Name, Confidence and Instances[]"):
            labels = best_first(_labels(answer["Labels"], size))
        return Recognition(
            labels=labels,
            wire_bytes=wire_bytes,
            latency_s=self._clock() - started,
            model_version=answer.get("LabelModelVersion"),
            request_id=str(answer["ResponseMetadata"].get("RequestId", "")),
            size=size,
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: JSON around the file in base64."""
        around = json.dumps({"Image": {"Bytes": ""}, **self._wishes})
        return len(around) + 4 * -(-len(jpeg) // 3)

    def close(self) -> None:
        """Release the connections; a later ``recognize`` raises ``ClosedError``."""
        self._aws.close()

    def _ask(self, jpeg: bytes) -> tuple[dict[str, Any], int]:
        return self._aws.attempt("detect_labels", Image={"Bytes": jpeg}, **self._wishes)


def _labels(found: Iterable[dict[str, Any]], size: tuple[int, int]) -> Iterator[Label]:
    """Yield one label per instance, or one without a box where there are no instances."""
    width, height = size
    for item in found:
        name, instances = text(item["Name"]), item.get("Instances") or ()
        if not instances:
            yield Label(name, score(item["Confidence"], 100.0))
        for instance in instances:
            part = instance["BoundingBox"]  # in shares of the picture's sides
            place = box(
                part["Left"] * width,
                part["Top"] * height,
                part["Width"] * width,
                part["Height"] * height,
            )
            yield Label(name, score(instance["Confidence"], 100.0), place)
