"""The client of TorchServe against a scripted service on loopback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Box, Label
from edge_sdk.backends.http import HttpClient
from edge_sdk.backends.torchserve import CAPABILITIES, TOKEN, TorchServeBackend
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError

SECRET = "token-T1T1T1"
CLASSES = {"dog": 0.25, "cat": 0.5}


def jpeg(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def reply(document: Any, status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(document), status, named, mimetype="application/json")


def refusal(status: int, kind: str, message: str = "the reason") -> Response:
    return reply({"code": status, "type": kind, "message": message}, status)


Open = Callable[..., TorchServeBackend]


class Service:
    """Answers uploads from a list (the last one for ever) and keeps what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url, self.port = server.url_for(""), server.port
        self.uploads: list[Request] = []
        self.answers = [reply(CLASSES)]
        self.pauses: list[float] = []
        for path in ("/predictions/resnet-18", "/predictions/resnet-18/2.0"):
            server.expect_request(path, method="POST").respond_with_handler(self.upload)

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def service(httpserver: HTTPServer) -> Service:
    return Service(httpserver)


@pytest.fixture
def opened(service: Service) -> Iterator[Open]:
    made: list[TorchServeBackend] = []

    def build(version: str = "", *, token: str = "") -> TorchServeBackend:
        http = HttpClient(
            service.url, clock=lambda: 0.0, sleep=service.pauses.append, jitter=lambda: 1.0
        )
        keys = (token,) if token else ()
        made.append(
            TorchServeBackend(service.url, "resnet-18", version, keys=lambda: keys, http=http)
        )
        return made[-1]

    yield build
    for backend in made:
        backend.close()


def test_it_is_a_backend_named_after_server_and_model(service: Service, opened: Open) -> None:
    assert isinstance(opened(), Backend)
    assert opened().name == f"torchserve://localhost:{service.port}/resnet-18"
    assert opened("2.0").name == f"torchserve://localhost:{service.port}/resnet-18/2.0"
    assert [opened(v).capabilities.tells_version for v in ("", "2.0")] == [False, True]


def test_a_classifiers_answer_becomes_labels_best_first(service: Service, opened: Open) -> None:
    service.answers = [reply(CLASSES, x_request_id="a-b-c")]

    recognition = opened().recognize(jpeg())

    assert recognition.labels == (Label("cat", 0.5), Label("dog", 0.25))
    assert recognition.request_id == "a-b-c"
    assert recognition.model_version is None
    assert recognition.size == (64, 48)


def test_a_detectors_answer_becomes_labels_with_boxes(service: Service, opened: Open) -> None:
    service.answers = [
        reply(
            [
                {"person": [1.5, 2.0, 31.5, 42.0], "score": 0.75},
                {"person": [10, 20, 30, 40], "score": 0.875},
            ]
        )
    ]

    assert opened().recognize(jpeg()).labels == (
        Label("person", 0.875, Box(10.0, 20.0, 20.0, 20.0)),
        Label("person", 0.75, Box(1.5, 2.0, 30.0, 40.0)),
    )


@pytest.mark.parametrize(
    ("item", "box"),
    [
        ({}, None),
        ({"box": None}, None),
        ({"box": [1, 2, 4, 8]}, Box(1.0, 2.0, 3.0, 6.0)),
        ({"box": {"xmin": 1, "ymin": 2, "xmax": 4, "ymax": 8}}, Box(1.0, 2.0, 3.0, 6.0)),
    ],
)
def test_a_list_of_labels_and_scores_is_understood_too(
    service: Service, opened: Open, item: dict[str, Any], box: Box | None
) -> None:
    service.answers = [reply([{"label": "cat", "score": 0.5, **item}])]

    assert opened().recognize(jpeg()).labels == (Label("cat", 0.5, box),)


@pytest.mark.parametrize("document", [{}, []])
def test_nothing_found_is_a_valid_answer(service: Service, opened: Open, document: Any) -> None:
    service.answers = [reply(document)]

    assert opened().recognize(jpeg()).labels == ()


@pytest.mark.parametrize(
    "document",
    [
        None,
        0.5,
        "cat",
        {"cat": "often"},
        {"cat": 93},
        {"": 0.5},
        {"predictions": [0.5]},
        {"label": "cat", "score": 0.5},
        [0.5],
        ["cat"],
        [["cat", 0.5]],
        [{"label": "cat"}],
        [{"cat": [1, 2, 3, 4]}],
        [{"cat": [1, 2, 3], "score": 0.5}],
        [{"cat": [1, 2, 3, "x"], "score": 0.5}],
        [{"cat": 0.5, "score": 0.5}],
        [{"cat": [1, 2, 3, 4], "dog": [1, 2, 3, 4], "score": 0.5}],
        [{"label": "cat", "score": 0.5, "box": {"xmin": 1}}],
        [{"score": 0.5}],
    ],
)
def test_an_answer_of_another_form_is_refused_with_the_forms_that_are_known(
    service: Service, opened: Open, document: Any
) -> None:
    service.answers = [reply(document)]

    with pytest.raises(BackendProtocol, match=r"expected an ImageClassifier's .*ObjectDetector's"):
        opened().recognize(jpeg())


def test_a_page_instead_of_json_is_refused_in_the_same_way(service: Service, opened: Open) -> None:
    service.answers = [Response("<html>log in</html>", mimetype="text/html")]

    with pytest.raises(BackendProtocol, match=r"JSONDecodeError.*expected an ImageClassifier's"):
        opened().recognize(jpeg())


@pytest.mark.parametrize("token", ["", SECRET])
def test_the_body_is_the_file_and_a_token_goes_into_its_header(
    service: Service, opened: Open, token: str
) -> None:
    data = jpeg()
    backend = opened(token=token)

    recognition = backend.recognize(data)

    (request,) = service.uploads
    assert request.data == data
    assert request.headers["Content-Length"] == str(len(data))
    assert request.headers["Content-Type"] == "image/jpeg"
    assert request.headers.get("Authorization") == (f"Bearer {SECRET}" if token else None)
    assert recognition.wire_bytes == backend.wire_size(data) == len(data)


def test_one_version_can_be_asked_for_and_is_what_answers(service: Service, opened: Open) -> None:
    assert opened("2.0").recognize(jpeg()).model_version == "2.0"
    assert service.uploads[0].path == "/predictions/resnet-18/2.0"


def test_a_server_that_names_its_model_is_quoted(service: Service, opened: Open) -> None:
    service.answers = [reply(CLASSES, X_Model_Version="lite0@1234")]

    assert opened().recognize(jpeg()).model_version == "lite0@1234"
    assert opened("2.0").recognize(jpeg()).model_version == "lite0@1234"


def test_a_local_cloud_tells_its_model_for_free(
    httpserver: HTTPServer, service: Service, opened: Open
) -> None:
    httpserver.expect_request(
        "/ping", headers={"Authorization": f"Bearer {SECRET}"}
    ).respond_with_json({"status": "Healthy"}, headers={"X-Model-Version": "lite0@1234"})

    assert opened(token=SECRET).model_version() == "lite0@1234"
    assert service.uploads == []


def test_a_local_server_of_ones_own_tells_the_version_that_was_asked_for(
    httpserver: HTTPServer, opened: Open
) -> None:
    httpserver.expect_request("/ping").respond_with_json({"status": "Healthy"})

    assert opened("2.0").model_version() == "2.0"
    assert opened().model_version() is None


def test_a_server_that_is_not_well_is_told_of(httpserver: HTTPServer, opened: Open) -> None:
    httpserver.expect_request("/ping").respond_with_json({"status": "Unhealthy"}, status=500)

    with pytest.raises(BackendUnavailable, match="HTTP 500"):
        opened().model_version()


def test_a_server_elsewhere_is_not_asked_for_its_model() -> None:
    backend = TorchServeBackend("https://models.example", "resnet-18", "2.0")

    assert backend.model_version() == "2.0"
    backend.close()


@pytest.mark.parametrize(
    ("status", "name", "kind", "uploads"),
    [
        (400, "InvalidKeyException", BackendAuth, 1),
        (403, "InvalidKeyException", BackendAuth, 1),
        (401, "Unauthorized", BackendAuth, 1),
        (400, "BadRequestException", BackendRejected, 1),
        (400, "InternalServerException", BackendRejected, 1),
        (404, "ResourceNotFoundException", BackendProtocol, 1),
        (405, "MethodNotAllowedException", BackendProtocol, 1),
        (408, "RequestTimeoutException", BackendUnavailable, 3),
        (413, "TooLarge", BackendTooLarge, 1),
        (429, "TooMany", BackendThrottled, 3),
        (500, "InternalServerException", BackendUnavailable, 3),
        (503, "ServiceUnavailableException", BackendUnavailable, 3),
        (507, "OutOfMemoryError", BackendUnavailable, 3),
    ],
)
def test_every_status_has_its_error_and_its_number_of_attempts(
    service: Service, opened: Open, status: int, name: str, kind: type[BackendError], uploads: int
) -> None:
    service.answers = [refusal(status, name)]

    with pytest.raises(kind, match=rf"{name} \(the reason\)") as caught:
        opened().recognize(jpeg())

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.said) == (name, "the reason")
    assert len(service.uploads) == uploads


@pytest.mark.parametrize("name", ["ModelNotFoundException", "ModelVersionNotFoundException"])
def test_a_model_that_is_not_there_is_told_by_its_name(
    service: Service, opened: Open, name: str
) -> None:
    service.answers = [refusal(404, name, "Model not found: resnet-18")]

    with pytest.raises(BackendProtocol, match="Check the model's name and version") as caught:
        opened().recognize(jpeg())

    assert "/resnet-18 is no model of that server (Model not found: resnet-18)" in str(caught.value)
    assert caught.value.code == name


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, BackendProtocol), (401, BackendAuth), (413, BackendTooLarge), (502, BackendUnavailable)],
)
def test_a_refusal_without_json_is_an_error_by_its_status(
    service: Service, opened: Open, status: int, kind: type[BackendError]
) -> None:
    service.answers = [Response("", status, mimetype="text/html")]

    with pytest.raises(kind, match=f"HTTP {status}"):
        opened().recognize(jpeg())


def test_a_full_queue_that_empties_is_waited_for(service: Service, opened: Open) -> None:
    busy = refusal(503, "ServiceUnavailableException")
    service.answers = [busy, busy, reply(CLASSES)]

    assert opened().recognize(jpeg()).labels
    assert service.pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", BackendRejected),
        (b"no picture", BackendRejected),
        (jpeg() + bytes(6_553_500), BackendTooLarge),
    ],
)
def test_what_the_server_would_refuse_is_not_sent(
    service: Service, opened: Open, data: bytes, kind: type[BackendError]
) -> None:
    with pytest.raises(kind):
        opened().recognize(data)
    assert service.uploads == []


def test_the_largest_file_and_the_smallest_picture_are_sent(service: Service, opened: Open) -> None:
    small = jpeg(1, 1)

    opened().recognize(small + bytes(CAPABILITIES.max_bytes - len(small)))

    assert len(service.uploads) == 1


def test_the_token_of_the_environment_is_asked_for_every_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend(f"torchserve+http://localhost:{service.port}/resnet-18")

    backend.recognize(jpeg())
    monkeypatch.setenv(TOKEN, SECRET)
    backend.recognize(jpeg())
    backend.close()

    sent = [request.headers.get("Authorization") for request in service.uploads]
    assert sent == [None, f"Bearer {SECRET}"]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (
            "torchserve://models.example:8443/ResNet_18",
            "torchserve://models.example:8443/ResNet_18",
        ),
        ("torchserve://models.example/lite0/1.0", "torchserve://models.example/lite0/1.0"),
        ("torchserve+http://models.example:8080/lite0", "torchserve://models.example:8080/lite0"),
    ],
)
def test_a_specification_names_server_model_and_perhaps_version(spec: str, name: str) -> None:
    backend = open_backend(spec)

    assert backend.name == name
    backend.close()


@pytest.mark.parametrize(
    "spec",
    [
        "torchserve://models.example",
        "torchserve:///lite0",
        "torchserve://models.example/lite0/1.0/more",
        "torchserve://models.example/lite0//1.0",
        "torchserve://models.example/..",
        "torchserve://models.example/a%2Fb",
        "torchserve://models.example/a b",
    ],
)
def test_another_specification_is_refused_with_the_right_one(spec: str) -> None:
    with pytest.raises(UsageError, match="write torchserve://HOST:PORT/MODEL"):
        open_backend(spec)


def test_a_token_does_not_travel_unencrypted_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = open_backend("torchserve+http://models.example:8080/lite0")
    monkeypatch.setenv(TOKEN, SECRET)

    with pytest.raises(UsageError, match="unencrypted"):
        early.recognize(jpeg())
    with pytest.raises(UsageError, match="unencrypted"):
        open_backend("torchserve+http://models.example:8080/lite0")
    early.close()


def test_no_message_no_repr_and_no_log_line_holds_the_token(
    service: Service, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = opened(token=SECRET)
    texts = [repr(backend), repr(vars(backend)), repr(vars(vars(backend)["_http"]))]
    for answer in (
        reply(CLASSES),
        refusal(400, "InvalidKeyException", f"wrong {SECRET}"),
        refusal(404, "ModelNotFoundException", f"wrong {SECRET}"),
        reply([SECRET]),
        Response(f"wrong {SECRET}", 503, mimetype="text/plain"),
    ):
        service.answers = [answer]
        try:
            texts.append(repr(backend.recognize(jpeg())))
        except BackendError as error:
            texts += [repr(error), error.said, repr(error.__context__)]
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("werkzeug")]
    assert not any(SECRET in text for text in [*texts, *own])
    assert any("***" in text for text in texts)
