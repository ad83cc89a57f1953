"""The client of Azure AI Vision against a scripted service on loopback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.models import VisualFeatures
from azure.core.credentials import AzureKeyCredential
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends import open_backend
from edge_sdk.backends.azure import ANALYZE_PATH, CAPABILITIES, KEYS, AzureBackend, open_spec
from edge_sdk.backends.base import Backend, Box, Label
from edge_sdk.backends.http import HttpClient
from edge_sdk.backends.spec import Spec, parse_spec
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

KEY = "key-K1K1K1"
MODEL = {"modelVersion": "2023-10-01", "metadata": {"width": 64, "height": 64}}
TAGS = {
    "tagsResult": {
        "values": [{"name": "dog", "confidence": 0.25}, {"name": "cat", "confidence": 0.5}]
    }
}
OBJECTS = {
    "objectsResult": {
        "values": [
            {
                "boundingBox": {"x": 1, "y": 2, "w": 30, "h": 40},
                "tags": [{"name": "dog", "confidence": 0.375}],
            }
        ]
    }
}


def jpeg(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def reply(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status, mimetype="application/json")


def refusal(status: int, code: str, message: str = "the reason", inner: str = "") -> Response:
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner, "message": message}
    return reply({"error": error}, status)


class Service:
    """Answers uploads from a list (the last one for ever) and keeps what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.host = f"localhost:{server.port}"
        self.uploads: list[Request] = []
        self.answers = [reply(MODEL | TAGS | OBJECTS)]
        self.pauses: list[float] = []
        self.clients: list[AzureBackend] = []
        server.expect_request(ANALYZE_PATH, method="POST").respond_with_handler(self.upload)

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def client(self, features: str = "tags") -> AzureBackend:
        http = HttpClient(self.url, clock=lambda: 0.0, sleep=self.pauses.append, jitter=lambda: 1.0)
        self.clients.append(AzureBackend(self.url, features, keys=lambda: (KEY,), http=http))
        return self.clients[-1]


@pytest.fixture
def service(httpserver: HTTPServer) -> Iterator[Service]:
    made = Service(httpserver)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture
def backend(service: Service) -> AzureBackend:
    return service.client()


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "VISION_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_a_backend_whose_name_tells_the_features_and_no_key(service: Service) -> None:
    names = {f: service.client(f).name for f in ("tags", "objects", "tags+objects")}

    assert isinstance(service.client(), Backend)
    assert names == {
        "tags": f"azure://{service.host}",
        "objects": f"azure://{service.host}/objects",
        "tags+objects": f"azure://{service.host}/tags+objects",
    }


def test_every_feature_is_billed_and_only_objects_have_boxes(service: Service) -> None:
    told = [service.client(f).capabilities for f in ("tags", "objects", "tags+objects")]

    assert [one.price_usd for one in told] == pytest.approx([0.001, 0.001, 0.002])
    assert [one.boxes for one in told] == [False, True, True]


def test_tags_come_best_first_with_the_model_and_the_request_id(
    service: Service, backend: AzureBackend
) -> None:
    service.answers = [reply(MODEL | TAGS)]
    service.answers[0].headers["apim-request-id"] = "a-b-c"

    recognition = backend.recognize(jpeg(80, 60))

    assert recognition.labels == (Label("cat", 0.5), Label("dog", 0.25))
    assert recognition.model_version == "2023-10-01"
    assert recognition.request_id == "a-b-c"
    assert recognition.size == (80, 60)


def test_the_body_is_the_file_and_its_length_is_known_beforehand(
    service: Service, backend: AzureBackend
) -> None:
    data = jpeg(200, 100)

    recognition = backend.recognize(data)

    sent = service.uploads[0]
    assert sent.content_type == "application/octet-stream"
    assert sent.headers["Ocp-Apim-Subscription-Key"] == KEY
    assert sent.data == data
    assert recognition.wire_bytes == sent.content_length == backend.wire_size(data) == len(data)


@pytest.mark.parametrize(
    ("features", "theirs"),
    [
        ("tags", [VisualFeatures.TAGS]),
        ("objects", [VisualFeatures.OBJECTS]),
        ("tags+objects", [VisualFeatures.TAGS, VisualFeatures.OBJECTS]),
    ],
)
def test_the_request_is_the_one_that_azures_own_client_sends(
    service: Service, features: str, theirs: list[VisualFeatures]
) -> None:
    data = jpeg()
    with ImageAnalysisClient(endpoint=service.url, credential=AzureKeyCredential(KEY)) as client:
        client.analyze(image_data=data, visual_features=theirs)

    service.client(features).recognize(data)

    by_them, by_us = service.uploads
    assert (by_us.method, by_us.path) == (by_them.method, by_them.path)
    assert by_us.query_string == by_them.query_string
    assert by_us.data == by_them.data
    for name in ("Content-Type", "Content-Length", "Ocp-Apim-Subscription-Key"):
        assert by_us.headers[name] == by_them.headers[name]


@pytest.mark.parametrize(
    ("status", "code", "inner", "kind", "uploads"),
    [
        (429, "429", "", BackendThrottled, 3),
        (500, "InternalServerError", "", BackendUnavailable, 3),
        (503, "ServiceUnavailable", "", BackendUnavailable, 3),
        (504, "Timeout", "", BackendUnavailable, 3),
        (401, "401", "", BackendAuth, 1),
        (403, "403", "", BackendAuth, 1),
        (400, "InvalidRequest", "InvalidImageFormat", BackendRejected, 1),
        (400, "InvalidRequest", "InvalidImageSize", BackendTooLarge, 1),
        (400, "InvalidRequest", "NotSupportedVisualFeature", BackendRejected, 1),
        (400, "InvalidRequest", "", BackendRejected, 1),
        (415, "UnsupportedMediaType", "", BackendRejected, 1),
        (413, "", "", BackendTooLarge, 1),
        (404, "404", "", BackendProtocol, 1),
    ],
)
def test_every_error_document_has_its_error_and_its_number_of_attempts(
    service: Service,
    backend: AzureBackend,
    status: int,
    code: str,
    inner: str,
    kind: type[BackendError],
    uploads: int,
) -> None:
    service.answers = [refusal(status, code, inner=inner)]

    with pytest.raises(kind) as caught:
        backend.recognize(jpeg())

    assert type(caught.value) is kind
    assert caught.value.code == (inner or code or f"HTTP {status}")
    assert caught.value.said == "the reason"
    assert len(service.uploads) == uploads


@pytest.mark.parametrize("envelope", [True, False])
def test_a_spent_quota_is_told_apart_from_a_wrong_key(
    service: Service, backend: AzureBackend, envelope: bool
) -> None:
    said = {"code": "403", "message": "Out of call volume quota. Quota will be replenished soon."}
    service.answers = [reply({"error": said} if envelope else said, 403)]

    with pytest.raises(BackendQuota):
        backend.recognize(jpeg())
    assert len(service.uploads) == 1


def test_a_rate_limit_that_passes_is_waited_for_as_long_as_the_service_asks(
    service: Service, backend: AzureBackend
) -> None:
    slow = refusal(429, "429")
    slow.headers["Retry-After"] = "7"
    service.answers = [slow, reply(MODEL | TAGS)]

    assert backend.recognize(jpeg()).labels
    assert 7.0 in service.pauses


@pytest.mark.parametrize("document", [{"error": None}, {"error": "no"}, ["no"], "no", None])
def test_an_error_document_of_another_form_means_what_its_status_means(
    service: Service, backend: AzureBackend, document: Any
) -> None:
    service.answers = [reply(document, 403)]

    with pytest.raises(BackendAuth, match="HTTP 403"):
        backend.recognize(jpeg())


def test_nothing_found_is_a_valid_answer(service: Service) -> None:
    nothing: dict[str, Any] = {"values": []}
    service.answers = [reply(MODEL | {"tagsResult": nothing, "objectsResult": nothing})]

    assert service.client("tags+objects").recognize(jpeg()).labels == ()


def test_boxes_are_in_pixels(service: Service) -> None:
    labels = service.client("objects").recognize(jpeg()).labels

    assert labels == (Label("dog", 0.375, Box(1.0, 2.0, 30.0, 40.0)),)


def test_both_lists_become_one(service: Service) -> None:
    labels = service.client("tags+objects").recognize(jpeg()).labels

    assert labels == (
        Label("cat", 0.5),
        Label("dog", 0.375, Box(1.0, 2.0, 30.0, 40.0)),
        Label("dog", 0.25),
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        MODEL,
        TAGS | OBJECTS,
        TAGS | OBJECTS | {"modelVersion": ""},
        MODEL | OBJECTS | {"tagsResult": None},
        MODEL | OBJECTS | {"tagsResult": {"values": [{"name": "cat"}]}},
        MODEL | OBJECTS | {"tagsResult": {"values": [{"name": 5, "confidence": 0.5}]}},
        MODEL | OBJECTS | {"tagsResult": {"values": [{"name": "cat", "confidence": 93}]}},
        MODEL | TAGS | {"objectsResult": {"values": [{"tags": []}]}},
        MODEL
        | TAGS
        | {
            "objectsResult": {
                "values": [
                    {
                        "tags": [{"name": "cat", "confidence": 0.5}],
                        "boundingBox": {"x": 1, "y": 2, "w": 3},
                    }
                ]
            }
        },
    ],
)
def test_an_answer_of_another_form_is_a_protocol_error(
    service: Service, document: dict[str, Any]
) -> None:
    service.answers = [reply(document)]

    with pytest.raises(BackendProtocol, match="of another form"):
        service.client("tags+objects").recognize(jpeg())


def test_a_login_page_instead_of_json_is_a_protocol_error(
    service: Service, backend: AzureBackend
) -> None:
    service.answers = [Response("<html>log in</html>", mimetype="text/html")]

    with pytest.raises(BackendProtocol, match=r"text/html that is not a JSON object"):
        backend.recognize(jpeg())


def test_a_local_cloud_tells_its_model_for_free(service: Service, backend: AzureBackend) -> None:
    refused = refusal(400, "InvalidRequest", inner="InvalidImageFormat")
    refused.headers["X-Model-Version"] = "lite0@1234"
    service.answers = [refused]

    assert backend.model_version() == "lite0@1234"
    assert service.uploads[0].content_length == 0


def test_the_public_service_is_not_asked_for_its_model() -> None:
    def keys() -> tuple[str, ...]:
        raise AssertionError

    assert AzureBackend("https://name.example", keys=keys).model_version() is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", BackendRejected),
        (b"no picture", BackendRejected),
        (jpeg(49, 64), BackendRejected),
        (jpeg(50, 16_001), BackendTooLarge),
        (jpeg() + bytes(CAPABILITIES.max_bytes), BackendTooLarge),
    ],
    ids=["empty", "no picture", "narrow", "long", "heavy"],
)
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, backend: AzureBackend, data: bytes, kind: type[BackendError]
) -> None:
    with pytest.raises(kind) as caught:
        backend.recognize(data)

    assert type(caught.value) is kind
    assert service.uploads == []


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"ADACOMPRESS_AZURE_KEY": "ours"}, "ours"),
        ({"VISION_KEY": "theirs"}, "theirs"),
        ({"ADACOMPRESS_AZURE_KEY": "ours", "VISION_KEY": "theirs"}, "ours"),
    ],
)
def test_the_key_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, service: Service, given: dict[str, str], used: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    backend = open_spec(Spec("azure", "http", service.host))

    backend.recognize(jpeg())
    backend.close()

    assert service.uploads[0].headers["Ocp-Apim-Subscription-Key"] == used


@pytest.mark.usefixtures("no_keys")
def test_a_local_cloud_needs_no_key(service: Service) -> None:
    backend = open_backend(f"azure+http://{service.host}/objects")

    assert backend.recognize(jpeg()).labels
    backend.close()


@pytest.mark.usefixtures("no_keys")
def test_a_missing_key_is_named() -> None:
    backend = open_backend("azure://name.example")

    with pytest.raises(BackendAuth, match=r"set ADACOMPRESS_AZURE_KEY\."):
        backend.recognize(jpeg())


def test_there_is_no_common_host() -> None:
    with pytest.raises(UsageError, match=r"write azure://NAME\.cognitiveservices"):
        open_spec(parse_spec("azure://"))


def test_a_specification_names_host_and_features() -> None:
    assert open_spec(parse_spec("azure://name.example/tags")).name == "azure://name.example"
    assert open_spec(parse_spec("azure://n.example/objects")).name == "azure://n.example/objects"


@pytest.mark.parametrize("path", ["faces", "objects+tags", "tags/objects"])
def test_features_that_are_not_offered_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"allowed are tags, objects, tags\+objects"):
        open_spec(Spec("azure", "https", "name.example", path))


def test_a_key_does_not_travel_unencrypted_to_another_machine() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        open_spec(parse_spec("azure+http://name.example"))


def test_no_message_no_repr_and_no_log_line_holds_a_key(
    service: Service, backend: AzureBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(backend), repr(vars(backend)), repr(vars(vars(backend)["_http"]))]
    for response in (
        reply(MODEL | TAGS),
        refusal(401, "401", f"{KEY} is wrong"),
        refusal(400, "InvalidRequest", f"bad {KEY}", "InvalidImageSize"),
        Response("<html>"),
        Response(KEY, 503),
    ):
        service.answers = [response]
        try:
            texts.append(repr(backend.recognize(jpeg())))
        except BackendError as error:
            texts += [repr(error), error.said, repr(error.__cause__), repr(error.__context__)]
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("werkzeug")]
    assert own
    assert not any(KEY in text for text in [*texts, *own])
