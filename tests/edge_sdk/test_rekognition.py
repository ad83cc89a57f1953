"""The client of Amazon Rekognition, boto3 included, against a scripted service on loopback."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Box, Label
from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.backends.keys import PLACEHOLDER
from edge_sdk.backends.rekognition import CAPABILITIES, KEYS, RekognitionBackend
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
    ClosedError,
)
from model_store.errors import BackendError, EnvironmentMissing, UsageError

IDENTITY, SECRET, TOKEN = "AKIAK1K1K1", "secret+S2S2/S2", "token/T3T3+T3=="
FOUND = {
    "LabelModelVersion": "3.0",
    "Labels": [
        {"Name": "Dog", "Confidence": 25.0},
        {
            "Name": "Person",
            "Confidence": 99.0,
            "Instances": [
                {
                    "BoundingBox": {"Left": 0.25, "Top": 0.5, "Width": 0.125, "Height": 0.25},
                    "Confidence": 75.0,
                },
                {
                    "BoundingBox": {"Left": 0, "Top": 0, "Width": 1, "Height": 1},
                    "Confidence": 50.0,
                },
            ],
        },
        {"Name": "Cat", "Confidence": 62.5, "Instances": [], "Parents": []},
    ],
}


def jpeg(width: int = 160, height: int = 80) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def reply(document: Any, status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(document), status, named, content_type="application/x-amz-json-1.1")


def refusal(status: int, kind: str, message: str = "the reason") -> Response:
    return reply({"__type": kind, "Code": kind, "Message": message}, status)


class Service:
    """Answers uploads from a list (the last one for ever) and keeps what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url, self.port = server.url_for("").rstrip("/"), server.port
        self.uploads: list[Request] = []
        self.answers = [reply(FOUND)]
        self.pauses: list[float] = []
        server.expect_request("/", method="POST").respond_with_handler(self.upload)

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


Open = Callable[..., RekognitionBackend]


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def service(httpserver: HTTPServer) -> Service:
    return Service(httpserver)


@pytest.fixture
def opened(service: Service) -> Iterator[Open]:
    made: list[RekognitionBackend] = []

    def build(policy: HttpPolicy | None = None, **choices: Any) -> RekognitionBackend:
        guard = Guard(
            "rekognition",
            policy,
            clock=lambda: 0.0,
            sleep=service.pauses.append,
            jitter=lambda: 1.0,
        )
        choices = {
            "endpoint_url": service.url,
            "keys": lambda: (IDENTITY, SECRET, TOKEN),
            "guard": guard,
            **choices,
        }
        made.append(RekognitionBackend("eu-west-1", **choices))
        return made[-1]

    yield build
    for backend in made:
        backend.close()


def test_it_is_a_backend_that_declares_the_documented_limits(
    service: Service, opened: Open
) -> None:
    assert isinstance(opened(), Backend)
    assert opened().name == f"rekognition://localhost:{service.port}"
    assert CAPABILITIES.max_bytes == 5_242_880
    assert (CAPABILITIES.min_side, CAPABILITIES.max_side) == (80, 10_000)
    assert CAPABILITIES.boxes
    assert CAPABILITIES.tells_version


def test_labels_come_best_first_an_object_once_per_instance_with_its_box(opened: Open) -> None:
    recognition = opened().recognize(jpeg(160, 80))

    assert recognition.labels == (
        Label("Person", 0.75, Box(40.0, 40.0, 20.0, 20.0)),
        Label("Cat", 0.625),
        Label("Person", 0.5, Box(0.0, 0.0, 160.0, 80.0)),
        Label("Dog", 0.25),
    )
    assert recognition.model_version == "3.0"
    assert recognition.size == (160, 80)


def test_the_request_id_is_amazons(service: Service, opened: Open) -> None:
    service.answers = [reply(FOUND, x_amzn_RequestId="03507c9b")]

    assert opened().recognize(jpeg()).request_id == "03507c9b"


def test_the_body_is_what_boto3_alone_would_send(service: Service, opened: Open) -> None:
    data = jpeg()
    plain = boto3.client(
        "rekognition",
        region_name="eu-west-1",
        endpoint_url=service.url,
        aws_access_key_id=IDENTITY,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
    )

    opened().recognize(data)
    plain.detect_labels(Image={"Bytes": data}, MaxLabels=10, MinConfidence=0.0)
    plain.close()

    ours, theirs = service.uploads
    assert ours.data == theirs.data
    for name in ("X-Amz-Target", "Content-Type", "Content-Length", "X-Amz-Security-Token"):
        assert ours.headers[name] == theirs.headers[name]
    signed = r"AWS4-HMAC-SHA256 (Credential=.*), (SignedHeaders=.*), Signature=[0-9a-f]{64}"
    found = [re.fullmatch(signed, each.headers["Authorization"]) for each in (ours, theirs)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].groups() == found[1].groups()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_body_has_the_file_in_base64_and_its_length_is_known_beforehand(
    service: Service, opened: Open, length: int
) -> None:
    data = jpeg() + bytes(length)
    backend = opened(max_labels=7, min_confidence=12.5)

    recognition = backend.recognize(data)

    (request,) = service.uploads
    assert json.loads(request.data) == {
        "Image": {"Bytes": base64.b64encode(data).decode()},
        "MaxLabels": 7,
        "MinConfidence": 12.5,
    }
    assert request.headers["X-Amz-Target"] == "RekognitionService.DetectLabels"
    assert request.headers["Content-Length"] == str(len(request.data))
    assert recognition.wire_bytes == backend.wire_size(data) == len(request.data)


def test_everything_the_service_sees_is_asked_for_unless_told_otherwise(
    service: Service, opened: Open
) -> None:
    opened().recognize(jpeg())

    sent = json.loads(service.uploads[0].data)
    assert (sent["MaxLabels"], sent["MinConfidence"]) == (10, 0.0)


def test_threads_share_the_client_and_each_counts_its_own_bytes(
    service: Service, opened: Open
) -> None:
    backend = opened()
    files = [jpeg(80 + 16 * n, 80) for n in range(8)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(backend.recognize, files))

    assert [answer.wire_bytes for answer in answers] == [backend.wire_size(f) for f in files]


def test_no_label_is_a_valid_answer(service: Service, opened: Open) -> None:
    service.answers = [reply({"Labels": [], "LabelModelVersion": "3.0"})]

    assert opened().recognize(jpeg()).labels == ()


@pytest.mark.parametrize(
    ("status", "name", "kind", "uploads"),
    [
        (500, "ThrottlingException", BackendThrottled, 3),
        (400, "ThrottlingException", BackendThrottled, 3),
        (400, "ProvisionedThroughputExceededException", BackendThrottled, 3),
        (400, "LimitExceededException", BackendThrottled, 3),
        (400, "ServiceQuotaExceededException", BackendQuota, 1),
        (500, "InternalServerError", BackendUnavailable, 3),
        (503, "ServiceUnavailable", BackendUnavailable, 3),
        (504, "SomethingNew", BackendUnavailable, 3),
        (400, "ImageTooLargeException", BackendTooLarge, 1),
        (400, "InvalidImageFormatException", BackendRejected, 1),
        (400, "InvalidParameterException", BackendRejected, 1),
        (400, "InvalidS3ObjectException", BackendRejected, 1),
        (400, "ValidationException", BackendRejected, 1),
        (400, "SomethingNew", BackendRejected, 1),
        (400, "AccessDeniedException", BackendAuth, 1),
        (400, "UnrecognizedClientException", BackendAuth, 1),
        (400, "ExpiredTokenException", BackendAuth, 1),
        (400, "InvalidSignatureException", BackendAuth, 1),
        (403, "SomethingNew", BackendAuth, 1),
        (404, "UnknownOperationException", BackendProtocol, 1),
    ],
)
def test_every_exception_has_its_error_and_its_number_of_attempts(
    service: Service, opened: Open, status: int, name: str, kind: type[BackendError], uploads: int
) -> None:
    service.answers = [refusal(status, name)]

    with pytest.raises(kind, match=rf"{name} \(the reason\)") as caught:
        opened().recognize(jpeg())

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.said) == (name, "the reason")
    assert len(service.uploads) == uploads


def test_a_rate_limit_that_passes_is_waited_for(service: Service, opened: Open) -> None:
    slow = refusal(500, "ThrottlingException")
    service.answers = [slow, slow, reply(FOUND)]

    assert opened().recognize(jpeg()).labels
    assert service.pauses[:1] == [0.5]


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_boto3_makes_one_attempt_whatever_the_environment_says(
    service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    service.answers = [refusal(503, "ServiceUnavailable")]

    with pytest.raises(BackendUnavailable, match="1 attempt was made"):
        opened(HttpPolicy(attempts=1)).recognize(jpeg())
    assert len(service.uploads) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, BackendProtocol),
        (403, BackendAuth),
        (413, BackendTooLarge),
        (429, BackendThrottled),
        (502, BackendUnavailable),
    ],
)
def test_a_page_instead_of_an_exception_is_an_error_by_its_status(
    service: Service, opened: Open, status: int, kind: type[BackendError]
) -> None:
    service.answers = [Response("<html>", status, mimetype="text/html")]

    with pytest.raises(kind, match=f"HTTP {status}"):
        opened().recognize(jpeg())


@pytest.mark.parametrize(
    "content",
    [
        b"<html>log in</html>",
        b"[]",
        b"5",
        b"{}",
        b'{"Labels": null}',
        b'{"Labels": 5}',
        b'{"Labels": ["cat"]}',
        b'{"Labels": [{"Name": "cat"}]}',
        b'{"Labels": [{"Name": "", "Confidence": 5}]}',
        b'{"Labels": [{"Name": "cat", "Confidence": 101}]}',
        b'{"Labels": [{"Name": "cat", "Confidence": 5, "Instances": [{}]}]}',
        b'{"Labels": [{"Name": "cat", "Confidence": 5, "Instances": [{"Confidence": 5, '
        b'"BoundingBox": {"Left": "x"}}]}]}',
    ],
)
def test_an_answer_of_another_form_is_a_protocol_error(
    service: Service, opened: Open, content: bytes
) -> None:
    service.answers = [Response(content, content_type="application/x-amz-json-1.1")]

    with pytest.raises(BackendProtocol):
        opened().recognize(jpeg())
    assert len(service.uploads) == 1


@pytest.fixture
def half_an_answer() -> Iterator[str]:
    """The address of a server that hangs up in the middle of its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5.0)

        def serve() -> None:
            for _ in range(3):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(1 << 20)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
                    connection.sendall(b'{"Labels": []}')

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_an_answer_that_is_cut_off_is_asked_for_again(half_an_answer: str, opened: Open) -> None:
    with pytest.raises(BackendUnavailable, match=r"before its answer was complete.*3 attempts"):
        opened(endpoint_url=half_an_answer).recognize(jpeg())


def test_a_service_that_nobody_runs_is_unavailable(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        opened(endpoint_url=f"http://127.0.0.1:{port}").recognize(jpeg())


def test_silence_is_unavailable(opened: Open) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(BackendUnavailable, match=r"0\.05 s of silence allowed"),
    ):
        opened(
            HttpPolicy(read_s=0.05, attempts=1),
            endpoint_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
        ).recognize(jpeg())


def test_a_proxy_is_not_the_way_to_this_very_machine(
    service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert opened().recognize(jpeg()).labels


def test_to_amazon_itself_the_environments_proxy_is_the_way(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")

    with pytest.raises(BackendUnavailable, match="through the proxy that the environment names"):
        opened(HttpPolicy(attempts=1), endpoint_url=None).recognize(jpeg())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", BackendRejected),
        (b"no picture", BackendRejected),
        (jpeg(79, 100), BackendRejected),
        (jpeg(100, 10_001), BackendTooLarge),
        (jpeg() + bytes(5_242_880), BackendTooLarge),
    ],
)
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, opened: Open, data: bytes, kind: type[BackendError]
) -> None:
    with pytest.raises(kind):
        opened().recognize(data)
    assert service.uploads == []


def test_a_closed_client_says_so(service: Service, opened: Open) -> None:
    backend = opened()
    backend.recognize(jpeg())
    backend.close()
    backend.close()

    with pytest.raises(ClosedError):
        backend.recognize(jpeg())


def test_keys_come_from_where_boto3_looks_for_them(
    service: Service, opened: Open, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {IDENTITY}\naws_secret_access_key = {SECRET}\n"
    )

    opened(keys=None).recognize(jpeg())

    assert f"Credential={IDENTITY}/" in service.uploads[0].headers["Authorization"]


def test_missing_keys_are_an_auth_error_before_anything_is_sent(
    service: Service, opened: Open
) -> None:
    with pytest.raises(BackendAuth, match=r"NoCredentialsError.*AWS_ACCESS_KEY_ID"):
        opened(keys=None).recognize(jpeg())
    assert service.uploads == []


def test_a_profile_that_does_not_exist_is_an_auth_error(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(BackendAuth, match="ProfileNotFound"):
        opened(keys=None).recognize(jpeg())


def test_an_endpoint_of_the_environment_is_not_where_a_region_is(
    service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
    backend = opened(endpoint_url=None)

    assert backend.name == "rekognition://eu-west-1"
    client = backend._aws.client()
    assert client.meta.endpoint_url == "https://rekognition.eu-west-1.amazonaws.com"


def test_a_local_cloud_needs_no_keys(service: Service) -> None:
    backend = open_backend(f"rekognition+http://127.0.0.1:{service.port}")

    assert backend.recognize(jpeg()).labels
    backend.close()
    signed = service.uploads[0].headers["Authorization"]
    assert f"Credential={PLACEHOLDER}/" in signed
    assert "/us-east-1/rekognition/aws4_request" in signed


def test_a_local_cloud_may_have_keys(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(KEYS, (IDENTITY, SECRET), strict=True):
        monkeypatch.setenv(name, value)
    backend = open_backend(f"rekognition+http://127.0.0.1:{service.port}")

    backend.recognize(jpeg())
    backend.close()

    assert f"Credential={IDENTITY}/" in service.uploads[0].headers["Authorization"]


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-west-1", "ap-southeast-5", "cn-north-1"])
def test_a_specification_names_the_region(region: str) -> None:
    backend = open_backend(f"rekognition://{region}")

    assert backend.name == f"rekognition://{region}"
    backend.close()


def test_without_a_region_it_is_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    backend = open_backend("rekognition://")

    assert backend.name == "rekognition://eu-central-1"
    backend.close()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("rekognition://", "There is no AWS region ''"),
        ("rekognition://127.0.0.1:8000", "There is no AWS region"),
        ("rekognition://rekognition.eu-west-1.amazonaws.com", "There is no AWS region"),
        ("rekognition://eu-west-1/bucket", "has no path"),
        ("rekognition+http://models.example", "unencrypted"),
    ],
)
def test_another_specification_is_refused(spec: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        open_backend(spec)


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(EnvironmentMissing, match=r"adacompress\[aws\]"):
        open_backend("rekognition://eu-west-1")


def test_what_signed_a_request_is_masked_wherever_the_service_repeats_it(
    service: Service, opened: Open
) -> None:
    service.answers = [refusal(400, "SomethingNew", f"{IDENTITY}, {TOKEN} it was")]

    with pytest.raises(BackendRejected, match=r"SomethingNew \(\*\*\*, \*\*\* it was\)"):
        opened().recognize(jpeg())


def test_no_message_no_repr_and_no_log_line_holds_a_key(
    service: Service, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = opened()
    backend.recognize(jpeg())
    signature = service.uploads[0].headers["Authorization"].rpartition("=")[2]
    texts = [repr(backend), repr(vars(backend)), repr(vars(backend._aws))]
    echo = f"signed Credential={IDENTITY}/20261121 with\nx-amz-security-token:{TOKEN}\n"
    for answer in (
        refusal(400, "UnrecognizedClientException", echo),
        refusal(400, "SomethingNew", echo),
        Response(echo, 403, mimetype="text/plain"),
    ):
        service.answers = [answer]
        with pytest.raises(BackendError) as caught:
            backend.recognize(jpeg())
        error: BaseException | None = caught.value
        assert not isinstance(caught.value.__context__, botocore.exceptions.ClientError)
        while error is not None:
            texts.append(repr(error))
            error = error.__cause__ or error.__context__
        texts.append(caught.value.said)
    # werkzeug is the service's side; urllib3 writes the method and the path.
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("werkzeug")]
    for secret in (IDENTITY, SECRET, TOKEN, signature):
        assert not any(secret in text for text in [*texts, *own])
    assert any("Credential=***" in line for line in own)
    assert any("x-amz-security-token:***" in line for line in own)
    assert any("***" in text for text in texts)
