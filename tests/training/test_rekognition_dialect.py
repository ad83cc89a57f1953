"""Rekognition's dialect as a pure function, and with boto3 and our client over a socket."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.backends.rekognition import KEYS, RekognitionBackend
from edge_sdk.errors import BackendRejected, BackendThrottled, BackendUnavailable
from model_store.errors import BackendError
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response, Rules
from training.cloud.dialects.rekognition import Rekognition
from training.cloud.server import CloudServer
from training.cloud.settings import Settings

ID = "0123456789abcdef" * 2
SIZE = (160, 80)
LABELS = (
    Label("dog", 0.75, Box(40.0, 20.0, 80.0, 40.0)),
    Label("cat", 0.625),
    Label("dog", 0.5, Box(0.0, 10.0, 10.0, 10.0)),
    Label("sofa", 0.25, Box(0.0, 0.0, 160.0, 80.0)),
)
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIAK1/20261121/us-east-1/rekognition/aws4_request, "
    "SignedHeaders=host, Signature=abc1"
)


class Stub:
    name, version, boxes = "stub", "stub@1", True

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return LABELS

    def answer_many(self, jpegs: Sequence[bytes]) -> list[Any]:
        return [LABELS for _ in jpegs]


def picture(width: int = SIZE[0], height: int = SIZE[1], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def dialect(*keys: str) -> Rekognition:
    return Rekognition(Rules(secret=b"", keys={"rekognition": keys} if keys else {}))


def request(document: Any, **headers: str) -> Request:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    target = {"x-amz-target": "RekognitionService.DetectLabels", "authorization": SIGNED}
    return Request("POST", "/", headers={**target, **named}, body=body)


def asking(data: bytes, **wishes: Any) -> Request:
    return request({"Image": {"Bytes": base64.b64encode(data).decode()}, **wishes})


def refused(asked: Request, rekognition: Rekognition | None = None) -> str:
    """Return the exception that a request is refused with."""
    response = (rekognition or dialect()).picture(asked, 0.0, ID)
    assert isinstance(response, Response)
    assert response.status == 400
    assert response.headers["x-amzn-RequestId"] == "01234567-89ab-cdef-0123-456789abcdef"
    document = json.loads(response.body)
    assert document["Message"]
    assert document["Code"] == document["__type"]
    return str(document["__type"])


def responded(labels: tuple[Label, ...] = LABELS, **wishes: Any) -> dict[str, Any]:
    response = dialect().respond(asking(b"", **wishes), Answer(labels, SIZE, "stub@1", ID))
    assert response.status == 200
    assert response.content_type == "application/x-amz-json-1.1"
    return dict(json.loads(response.body))


def test_it_is_a_dialect_that_knows_its_requests_and_its_specification() -> None:
    rekognition: Dialect = dialect()

    assert rekognition.spec("http://127.0.0.1:8000") == "rekognition+http://127.0.0.1:8000"
    assert rekognition.mine(asking(b""))
    assert rekognition.mine(request({}, x_amz_target="RekognitionService.DetectFaces"))
    assert not rekognition.mine(request({}, x_amz_target="DynamoDB_20120810.GetItem"))
    assert not rekognition.mine(Request("POST", "/"))
    assert not rekognition.mine(Request("GET", "/", headers=asking(b"").headers))


def test_the_very_bytes_reach_the_model() -> None:
    assert dialect().picture(asking(picture()), 0.0, ID) == picture()


def test_every_name_is_one_entry_with_the_places_of_its_instances() -> None:
    document = responded(MinConfidence=0)

    assert document["LabelModelVersion"] == "stub@1"
    assert [(one["Name"], one["Confidence"]) for one in document["Labels"]] == [
        ("dog", 75.0),
        ("cat", 62.5),
        ("sofa", 25.0),
    ]
    dog, cat, _ = document["Labels"]
    assert dog["Instances"] == [
        {
            "BoundingBox": {"Width": 0.5, "Height": 0.5, "Left": 0.25, "Top": 0.25},
            "Confidence": 75.0,
        },
        {
            "BoundingBox": {"Width": 0.0625, "Height": 0.125, "Left": 0.0, "Top": 0.125},
            "Confidence": 50.0,
        },
    ]
    assert cat["Instances"] == cat["Parents"] == cat["Aliases"] == cat["Categories"] == []


@pytest.mark.parametrize(
    ("wishes", "names", "instances"),
    [
        ({}, ["dog", "cat"], 1),  # at least 55 percent, unless told otherwise
        ({"MinConfidence": 75}, ["dog"], 1),
        ({"MinConfidence": 75.5}, [], 0),
        ({"MinConfidence": 0, "MaxLabels": 1}, ["dog"], 2),
        ({"MaxLabels": 0}, [], 0),
    ],
)
def test_the_wished_number_and_sureness_are_kept_to(
    wishes: dict[str, Any], names: list[str], instances: int
) -> None:
    found = responded(**wishes)["Labels"]

    assert [one["Name"] for one in found] == names
    assert sum(len(one["Instances"]) for one in found if one["Name"] == "dog") == instances


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (request({}, authorization=""), "MissingAuthenticationTokenException"),
        (request({}, authorization="Bearer x"), "IncompleteSignatureException"),
        (request({}, authorization=SIGNED[:90]), "IncompleteSignatureException"),
        (
            request({}, x_amz_target="RekognitionService.DetectFaces"),
            "UnknownOperationException",
        ),
        (request(b""), "SerializationException"),
        (request(b"[" * 100_000), "SerializationException"),
        (request([]), "SerializationException"),
        (request({}), "InvalidParameterException"),
        (request({"Image": {}}), "InvalidParameterException"),
        (request({"Image": {"Bytes": 5}}), "InvalidParameterException"),
        (request({"Image": {"Bytes": "!"}}), "SerializationException"),
        (request({"Image": {"Bytes": "é"}}), "SerializationException"),
        (request({"Image": {"S3Object": {"Bucket": "b"}}}), "InvalidS3ObjectException"),
        (asking(picture(), MaxLabels=-1), "InvalidParameterException"),
        (asking(picture(), MaxLabels=1.5), "InvalidParameterException"),
        (asking(picture(), MinConfidence=101), "InvalidParameterException"),
        (asking(picture(), MinConfidence="55"), "InvalidParameterException"),
        (asking(picture(), MinConfidence=True), "InvalidParameterException"),
        (asking(b""), "InvalidParameterException"),
        (asking(b"no picture"), "InvalidImageFormatException"),
        (asking(picture(kind="WEBP")), "InvalidImageFormatException"),
        (asking(picture(79, 100)), "InvalidParameterException"),
        (asking(picture(80, 10_001)), "InvalidParameterException"),
        (asking(bytes(5_242_881)), "ImageTooLargeException"),
    ],
)
def test_a_bad_request_is_refused_by_name(asked: Request, name: str) -> None:
    assert refused(asked) == name


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_documented_formats_and_limits_are_accepted(kind: str) -> None:
    for data in (picture(80, 10_000, kind), picture(kind=kind) + bytes(5_000_000)):
        assert dialect().picture(asking(data), 0.0, ID) == data


def test_a_server_with_keys_takes_no_other_name() -> None:
    assert dialect("AKIAK1", "secret").picture(asking(picture()), 0.0, ID) == picture()
    assert refused(asking(picture()), dialect("AKIAÖ")) == "UnrecognizedClientException"


@given(st.binary(max_size=200))
def test_no_body_breaks_the_server(body: bytes) -> None:
    assert refused(request(body))
    assert refused(asking(body))


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_document_breaks_the_server(odd: Any) -> None:
    for document in (odd, {"Image": odd}, {"Image": {"Bytes": odd}}):
        assert refused(request(document))
    for name in ("MaxLabels", "MinConfidence"):
        assert dialect().picture(asking(picture(), **{name: odd}), 0.0, ID)


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@contextmanager
def cloud(*keys: str, fault: str = "") -> Iterator[CloudServer]:
    with CloudServer(
        Stub(),
        dialects=["rekognition"],
        rules=Rules(secret=b"", keys={"rekognition": keys} if keys else {}),
        settings=Settings(faults={fault: 1.0} if fault else {}),
    ) as server:
        yield server


@contextmanager
def amazons_client(server: CloudServer, key: str = "AKIAK1") -> Iterator[Any]:
    client = boto3.client(
        "rekognition",
        region_name="eu-west-1",
        endpoint_url=server.url,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with closing(client):
        yield client


def test_boto3_reads_labels_boxes_and_the_model() -> None:
    with cloud() as server, amazons_client(server) as client:
        answer = client.detect_labels(
            Image={"Bytes": picture()}, Features=["GENERAL_LABELS"], MinConfidence=50
        )

    assert answer["LabelModelVersion"] == "stub@1"
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36
    dog, cat = answer["Labels"]
    assert (dog["Name"], cat["Name"]) == ("dog", "cat")
    assert dog["Instances"][1] == {
        "BoundingBox": {"Width": 0.0625, "Height": 0.125, "Left": 0.0, "Top": 0.125},
        "Confidence": 50.0,
    }


def test_boto3_knows_every_refusal_by_name() -> None:
    with cloud("AKIAK1") as server:
        with amazons_client(server) as client:
            with pytest.raises(client.exceptions.InvalidImageFormatException):
                client.detect_labels(Image={"Bytes": b"no picture"})
            with pytest.raises(client.exceptions.InvalidS3ObjectException):
                client.detect_labels(Image={"S3Object": {"Bucket": "bucket", "Name": "a.jpg"}})
            with pytest.raises(botocore.exceptions.ClientError, match="DetectLabels alone"):
                client.detect_faces(Image={"Bytes": picture()})
        with (
            amazons_client(server, key="AKIAK2") as client,
            pytest.raises(botocore.exceptions.ClientError, match="UnrecognizedClientException"),
        ):
            client.detect_labels(Image={"Bytes": picture()})


def test_our_client_reads_the_labels_and_the_very_boxes() -> None:
    with cloud() as server, closing(open_backend(server.spec_of("rekognition"))) as backend:
        recognition = backend.recognize(picture())

    assert recognition.labels == LABELS
    assert recognition.model_version == "stub@1"
    assert recognition.size == SIZE
    assert len(recognition.request_id) == 36


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("throttle", BackendThrottled),
        ("5xx", BackendUnavailable),
        ("reset", BackendUnavailable),
        ("image", BackendRejected),
    ],
)
def test_our_client_understands_every_fault(fault: str, kind: type[BackendError]) -> None:
    with cloud(fault=fault) as server:
        backend = RekognitionBackend(
            "us-east-1",
            endpoint_url=server.url,
            keys=lambda: ("AKIAK1", "secret"),
            guard=Guard("rekognition", HttpPolicy(attempts=1)),
        )
        with closing(backend), pytest.raises(kind) as caught:
            backend.recognize(picture())
    assert type(caught.value) is kind


def test_every_fault_has_its_exception() -> None:
    told = {fault: dialect().refuse(fault, ID) for fault in Fault}

    assert {fault: json.loads(one.body)["__type"] for fault, one in told.items()} == {
        Fault.THROTTLED: "ThrottlingException",
        Fault.UNAVAILABLE: "InternalServerError",
        Fault.TOKEN: "UnrecognizedClientException",
        Fault.IMAGE: "InvalidImageFormatException",
    }
    assert [told[fault].status for fault in Fault] == [500, 500, 400, 400]
