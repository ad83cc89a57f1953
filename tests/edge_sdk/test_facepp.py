"""The client of Face++ against a scripted service on loopback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from urllib3 import encode_multipart_formdata
from werkzeug import Request, Response

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Label
from edge_sdk.backends.facepp import CAPABILITIES, KEYS, RECOGNIZE_PATH, FaceppBackend
from edge_sdk.backends.http import HttpClient
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError

KEY, SECRET = "key-K1K1K1", "secret-S2S2S2"
FOUND = {
    "time_used": 752,
    "request_id": "1470472868,dacf2ff1-ea45",
    "image_id": "Dd2xUw9S/7yjr0oDHHSL/Q==",
    "objects": [{"value": "Dog", "confidence": 25.0}, {"value": "Cat", "confidence": 62.5}],
    "scenes": [{"value": "Cat", "confidence": 50.0}],
}


def jpeg(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def reply(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status, mimetype="application/json")


def refusal(status: int, message: str) -> Response:
    return reply({"time_used": 3, "error_message": message, "request_id": "1,c6f5"}, status)


class Service:
    """Answers uploads from a list (the last one for ever) and keeps what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url, self.port = server.url_for(""), server.port
        self.uploads: list[Request] = []
        self.bodies: list[bytes] = []
        self.answers = [reply(FOUND)]
        self.pauses: list[float] = []
        server.expect_request(RECOGNIZE_PATH, method="POST").respond_with_handler(self.upload)

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        self.bodies.append(request.get_data(parse_form_data=False))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def service(httpserver: HTTPServer) -> Service:
    return Service(httpserver)


@pytest.fixture
def backend(service: Service) -> Iterator[FaceppBackend]:
    http = HttpClient(
        service.url, clock=lambda: 0.0, sleep=service.pauses.append, jitter=lambda: 1.0
    )
    made = FaceppBackend(service.url, keys=lambda: (KEY, SECRET), http=http)
    yield made
    made.close()


def test_it_is_a_backend_that_declares_the_documented_limits(
    service: Service, backend: FaceppBackend
) -> None:
    assert isinstance(backend, Backend)
    assert backend.name == f"facepp://localhost:{service.port}"
    assert CAPABILITIES.max_bytes == 2 * 1024 * 1024
    assert (CAPABILITIES.min_side, CAPABILITIES.max_side) == (48, 4096)
    assert CAPABILITIES.encoding == "multipart"
    assert not CAPABILITIES.boxes


def test_objects_and_scenes_are_one_list_best_first(backend: FaceppBackend) -> None:
    recognition = backend.recognize(jpeg())

    assert recognition.labels == (Label("Cat", 0.625), Label("Cat", 0.5), Label("Dog", 0.25))
    assert recognition.request_id == "1470472868,dacf2ff1-ea45"
    assert recognition.model_version is None
    assert recognition.size == (64, 48)


def test_the_form_has_both_keys_and_the_file_byte_for_byte(
    service: Service, backend: FaceppBackend
) -> None:
    data = jpeg()

    recognition = backend.recognize(data)

    (request,), (body,) = service.uploads, service.bodies
    boundary = request.content_type.removeprefix("multipart/form-data; boundary=")
    expected, _ = encode_multipart_formdata(
        {"api_key": KEY, "api_secret": SECRET, "image_file": ("image.jpg", data, "image/jpeg")},
        boundary=boundary,
    )
    assert body == expected
    assert request.headers["Content-Length"] == str(len(body))
    assert recognition.wire_bytes == backend.wire_size(data) == len(body)
    assert request.query_string == b""


def test_another_reader_of_forms_finds_the_same_fields(
    service: Service, backend: FaceppBackend
) -> None:
    data = jpeg() + b"\r\n--\r\n\x00\xff"

    backend.recognize(data)

    (request,), (body,) = service.uploads, service.bodies
    headers = {"Content-Type": request.headers["Content-Type"]}
    with Request.from_values(method="POST", data=body, headers=headers) as again:
        assert dict(again.form) == {"api_key": KEY, "api_secret": SECRET}
        assert list(again.files) == ["image_file"]
        assert again.files["image_file"].read() == data
        assert again.files["image_file"].mimetype == "image/jpeg"


def test_every_upload_has_a_boundary_of_its_own_and_the_same_length(
    service: Service, backend: FaceppBackend
) -> None:
    data = jpeg()

    for _ in range(2):
        backend.recognize(data)

    kinds = {request.headers["Content-Type"] for request in service.uploads}
    assert len(kinds) == 2
    assert len({len(body) for body in service.bodies}) == 1


def test_nothing_found_is_a_valid_answer(service: Service, backend: FaceppBackend) -> None:
    service.answers = [reply({"request_id": "1", "objects": [], "scenes": []})]

    assert backend.recognize(jpeg()).labels == ()


def test_a_service_that_names_its_model_is_quoted(service: Service, backend: FaceppBackend) -> None:
    service.answers[0].headers["X-Model-Version"] = "lite0@1234"

    assert backend.recognize(jpeg()).model_version == "lite0@1234"


@pytest.mark.parametrize(
    ("status", "message", "kind", "uploads"),
    [
        (403, "CONCURRENCY_LIMIT_EXCEEDED", BackendThrottled, 3),
        (401, "AUTHENTICATION_ERROR", BackendAuth, 1),
        (403, "AUTHORIZATION_ERROR: Denied by Admin", BackendAuth, 1),
        (403, "AUTHORIZATION_ERROR:Insufficient Account Balance", BackendQuota, 1),
        (403, "INSUFFICIENT_PERMISSION:image_file", BackendAuth, 1),
        (400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file", BackendRejected, 1),
        (400, "INVALID_IMAGE_SIZE: image_file", BackendRejected, 1),
        (400, "IMAGE_FILE_TOO_LARGE: image_file", BackendTooLarge, 1),
        (400, "MISSING_ARGUMENTS: image_url, image_file", BackendRejected, 1),
        (400, "BAD_ARGUMENTS:image_file", BackendRejected, 1),
        (400, "COEXISTENCE_ARGUMENTS", BackendRejected, 1),
        (400, "SOMETHING_NEW", BackendRejected, 1),
        (412, "IMAGE_DOWNLOAD_TIMEOUT", BackendUnavailable, 3),
        (404, "API_NOT_FOUND", BackendProtocol, 1),
        (500, "INTERNAL_ERROR", BackendUnavailable, 3),
        (200, "INTERNAL_ERROR", BackendUnavailable, 3),
    ],
)
def test_every_error_message_has_its_error_and_its_number_of_attempts(
    service: Service,
    backend: FaceppBackend,
    status: int,
    message: str,
    kind: type[BackendError],
    uploads: int,
) -> None:
    service.answers = [refusal(status, message)]

    with pytest.raises(kind) as caught:
        backend.recognize(jpeg())

    assert type(caught.value) is kind
    assert caught.value.code == message.partition(":")[0]
    assert caught.value.said == message
    assert message in str(caught.value)
    assert len(service.uploads) == uploads


def test_a_plain_text_that_refuses_too_large_a_body_is_understood(
    service: Service, backend: FaceppBackend
) -> None:
    service.answers = [Response("Request Entity Too Large", 413, mimetype="text/plain")]

    with pytest.raises(BackendTooLarge, match="HTTP 413"):
        backend.recognize(jpeg())


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, BackendProtocol), (302, BackendProtocol), (403, BackendAuth), (502, BackendUnavailable)],
)
def test_a_page_instead_of_json_is_an_error_by_its_status(
    service: Service, backend: FaceppBackend, status: int, kind: type[BackendError]
) -> None:
    service.answers = [Response("<html>", status, mimetype="text/html")]

    with pytest.raises(kind):
        backend.recognize(jpeg())


def test_an_error_without_a_message_is_one_by_its_status(
    service: Service, backend: FaceppBackend
) -> None:
    service.answers = [reply({"request_id": "1"}, 503)]

    with pytest.raises(BackendUnavailable, match="HTTP 503"):
        backend.recognize(jpeg())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"objects": []},
        {"objects": None, "scenes": []},
        {"objects": [{"value": "cat"}], "scenes": []},
        {"objects": [{"value": "", "confidence": 5}], "scenes": []},
        {"objects": [{"value": "cat", "confidence": 101}], "scenes": []},
        {"objects": [], "scenes": ["cat"]},
    ],
)
def test_an_answer_of_another_form_is_a_protocol_error(
    service: Service, backend: FaceppBackend, document: dict[str, Any]
) -> None:
    service.answers = [reply(document)]

    with pytest.raises(BackendProtocol, match=r"expected objects\[\] and scenes\[\]"):
        backend.recognize(jpeg())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", BackendRejected),
        (b"no picture", BackendRejected),
        (jpeg(47, 60), BackendRejected),
        (jpeg(60, 4097), BackendTooLarge),
        (jpeg() + bytes(2 * 1024 * 1024), BackendTooLarge),
    ],
)
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, backend: FaceppBackend, data: bytes, kind: type[BackendError]
) -> None:
    with pytest.raises(kind):
        backend.recognize(data)
    assert service.uploads == []


def test_the_largest_file_is_sent(service: Service, backend: FaceppBackend) -> None:
    small = jpeg()

    backend.recognize(small + bytes(CAPABILITIES.max_bytes - len(small)))

    assert len(service.uploads) == 1


def test_missing_keys_are_named_before_anything_is_sent(service: Service) -> None:
    backend = FaceppBackend(service.url)

    with pytest.raises(BackendAuth, match=" and ".join(KEYS)):
        backend.recognize(jpeg())
    with pytest.raises(BackendAuth, match="There are no keys"):
        backend.wire_size(jpeg())
    backend.close()
    assert service.uploads == []


def test_an_empty_key_is_refused_before_anything_is_sent(service: Service) -> None:
    backend = FaceppBackend(service.url, keys=lambda: (KEY, ""))

    with pytest.raises(BackendAuth, match="is empty"):
        backend.recognize(jpeg())
    backend.close()
    assert service.uploads == []


def test_keys_are_asked_for_every_upload(service: Service) -> None:
    pairs = iter([("first", "one"), ("second", "two")])
    backend = FaceppBackend(service.url, keys=lambda: next(pairs))

    for _ in range(2):
        backend.recognize(jpeg())
    backend.close()

    assert [b"second" in body for body in service.bodies] == [False, True]


def test_a_specification_opens_it_with_keys_of_the_environment(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(KEYS, (KEY, SECRET), strict=True):
        monkeypatch.setenv(name, value)
    backend = open_backend(f"facepp+http://localhost:{service.port}")

    backend.recognize(jpeg())
    backend.close()

    assert SECRET.encode() in service.bodies[0]


def test_a_local_cloud_needs_no_keys(service: Service) -> None:
    backend = open_backend(f"facepp+http://127.0.0.1:{service.port}")

    assert backend.recognize(jpeg()).labels
    backend.close()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("facepp://", "facepp://api-us.faceplusplus.com"),
        ("facepp://api-cn.faceplusplus.com", "facepp://api-cn.faceplusplus.com"),
    ],
)
def test_both_sites_can_be_named(spec: str, name: str) -> None:
    backend = open_backend(spec)

    assert backend.name == name
    backend.close()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("facepp://api-cn.faceplusplus.com/imagepp", "has no path"),
        ("facepp+http://api-cn.faceplusplus.com", "unencrypted"),
    ],
)
def test_another_specification_is_refused(spec: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        open_backend(spec)


def test_no_message_no_repr_and_no_log_line_holds_a_key(
    service: Service, backend: FaceppBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(backend), repr(vars(backend)), repr(vars(vars(backend)["_http"]))]
    for answer in (
        reply(FOUND),
        refusal(401, f"AUTHENTICATION_ERROR: {KEY} {SECRET}"),
        refusal(500, f"INTERNAL_ERROR: {SECRET}"),
        reply({"objects": [{"value": KEY}]}),
        Response(f"denied {SECRET}", 400, mimetype="text/plain"),
    ):
        service.answers = [answer]
        try:
            texts.append(repr(backend.recognize(jpeg())))
        except BackendError as error:
            texts += [repr(error), error.said, repr(error.__context__)]
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("werkzeug")]
    for secret in (KEY, SECRET):
        assert not any(secret in text for text in [*texts, *own])
    assert any("***" in text for text in texts)
