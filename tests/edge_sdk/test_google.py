"""The client of Google Cloud Vision against a scripted service on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator.transports.rest import (
    ImageAnnotatorRestTransport,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Box, Label
from edge_sdk.backends.google import (
    ANNOTATE_PATH,
    CAPABILITIES,
    KEYS,
    MAX_REQUEST,
    TOKEN,
    GoogleBackend,
    open_spec,
)
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
SQUARE = [{"x": 0.25, "y": 0.5}, {"x": 0.75, "y": 0.5}, {"x": 0.75, "y": 1}, {"x": 0.25, "y": 1}]
ANSWER = {
    "labelAnnotations": [
        {"mid": "/m/0bt9lr", "description": "Dog", "score": 0.25, "topicality": 0.25},
        {"mid": "/m/01yrx", "description": "Cat", "score": 0.5, "topicality": 0.5},
    ],
}


def jpeg(width: int = 32, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def reply(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status, mimetype="application/json")


def answer(**found: Any) -> Response:
    return reply({"responses": [found]})


def refusal(status: int, code: str, message: str = "the reason", **more: Any) -> Response:
    error = {"code": status, "message": message, "status": code, **more}
    return reply({"error": error}, status)


def objects(*vertices: dict[str, Any], **other: Any) -> dict[str, Any]:
    found = {"name": "Dog", "score": 0.5, "boundingPoly": {"normalizedVertices": list(vertices)}}
    return {"localizedObjectAnnotations": [found | other]}


class Service:
    """Answers uploads from a list (the last one for ever) and keeps what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.host = f"localhost:{server.port}"
        self.uploads: list[Request] = []
        self.answers = [answer(**ANSWER)]
        self.pauses: list[float] = []
        self.clients: list[GoogleBackend] = []
        server.expect_request(ANNOTATE_PATH, method="POST").respond_with_handler(self.upload)

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def client(
        self, features: str = "labels", token: Callable[[], str] | None = None
    ) -> GoogleBackend:
        http = HttpClient(self.url, clock=lambda: 0.0, sleep=self.pauses.append, jitter=lambda: 1.0)
        self.clients.append(
            GoogleBackend(self.url, features, keys=lambda: (KEY,), token=token, http=http)
        )
        return self.clients[-1]


def ask_with_googles_client(url: str, data: bytes, types: list[Any]) -> None:
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    transport = ImageAnnotatorRestTransport(host=url, credentials=anonymous)
    features = [vision.Feature(type_=one, max_results=10) for one in types]
    wanted = vision.AnnotateImageRequest(image=vision.Image(content=data), features=features)
    with vision.ImageAnnotatorClient(transport=transport) as client:
        client.batch_annotate_images(requests=[wanted])


@pytest.fixture
def service(httpserver: HTTPServer) -> Iterator[Service]:
    made = Service(httpserver)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture
def backend(service: Service) -> GoogleBackend:
    return service.client()


def test_it_is_a_backend_whose_name_tells_the_features_and_no_key(service: Service) -> None:
    names = {f: service.client(f).name for f in ("labels", "objects", "labels+objects")}

    assert isinstance(service.client(), Backend)
    assert names == {
        "labels": f"google://{service.host}",
        "objects": f"google://{service.host}/objects",
        "labels+objects": f"google://{service.host}/labels+objects",
    }


def test_every_feature_is_billed_and_only_objects_have_boxes(service: Service) -> None:
    told = [service.client(f).capabilities for f in ("labels", "objects", "labels+objects")]

    assert [one.price_usd for one in told] == pytest.approx([0.0015, 0.00225, 0.00375])
    assert [one.boxes for one in told] == [False, True, True]


def test_labels_come_best_first(backend: GoogleBackend) -> None:
    recognition = backend.recognize(jpeg(40, 30))

    assert recognition.labels == (Label("Cat", 0.5), Label("Dog", 0.25))
    assert recognition.size == (40, 30)
    assert recognition.model_version is None


def test_the_body_is_json_with_base64_and_its_length_is_known_beforehand(
    service: Service, backend: GoogleBackend
) -> None:
    data = jpeg(200, 100)

    recognition = backend.recognize(data)

    sent = service.uploads[0]
    assert sent.content_type == "application/json"
    assert sent.get_json() == {
        "requests": [
            {
                "image": {"content": base64.b64encode(data).decode()},
                "features": [{"type": "LABEL_DETECTION", "maxResults": 10}],
            }
        ]
    }
    assert recognition.wire_bytes == sent.content_length == backend.wire_size(data)
    assert recognition.wire_bytes > len(data) * 4 / 3


@given(st.binary(max_size=300), st.sampled_from(["labels", "objects", "labels+objects"]))
def test_the_size_on_the_wire_is_that_of_the_json(data: bytes, features: str) -> None:
    names = {"labels": "LABEL_DETECTION", "objects": "OBJECT_LOCALIZATION"}
    asked = [{"type": names[one], "maxResults": 10} for one in features.split("+")]
    image = {"content": base64.b64encode(data).decode()}
    document = {"requests": [{"image": image, "features": asked}]}
    with contextlib.closing(GoogleBackend("https://vision.googleapis.com", features)) as backend:
        assert backend.wire_size(data) == len(json.dumps(document, separators=(",", ":")))


@pytest.mark.parametrize(
    ("features", "types"),
    [
        ("labels", [vision.Feature.Type.LABEL_DETECTION]),
        ("objects", [vision.Feature.Type.OBJECT_LOCALIZATION]),
        (
            "labels+objects",
            [vision.Feature.Type.LABEL_DETECTION, vision.Feature.Type.OBJECT_LOCALIZATION],
        ),
    ],
)
def test_the_request_is_the_one_that_googles_own_client_sends(
    service: Service, features: str, types: list[Any]
) -> None:
    data = jpeg()
    ask_with_googles_client(service.url, data, types)

    service.client(features).recognize(data)

    by_them, by_us = service.uploads
    assert (by_us.method, by_us.path) == (by_them.method, by_them.path)
    assert by_us.content_type == by_them.content_type
    document = by_them.get_json()
    for feature in document["requests"][0]["features"]:
        feature["type"] = vision.Feature.Type(feature["type"]).name
    assert by_us.get_json() == document
    read = vision.BatchAnnotateImagesRequest.from_json
    assert read(by_us.data) == read(by_them.data)


def test_the_key_travels_in_a_header_and_not_in_the_url(
    service: Service, backend: GoogleBackend
) -> None:
    backend.recognize(jpeg())

    assert service.uploads[0].headers["X-Goog-Api-Key"] == KEY
    assert "Authorization" not in service.uploads[0].headers
    assert service.uploads[0].query_string == b""


def test_an_oauth_token_travels_as_bearer_instead_of_the_key(service: Service) -> None:
    service.client(token=lambda: "token-1").recognize(jpeg())

    assert service.uploads[0].headers["Authorization"] == "Bearer token-1"
    assert "X-Goog-Api-Key" not in service.uploads[0].headers


def test_a_refused_token_is_asked_for_again_once(service: Service) -> None:
    service.answers = [refusal(401, "UNAUTHENTICATED"), answer(**ANSWER)]
    tokens = iter(["token-1", "token-2"])

    assert service.client(token=lambda: next(tokens)).recognize(jpeg()).labels
    sent = [request.headers["Authorization"] for request in service.uploads]
    assert sent == ["Bearer token-1", "Bearer token-2"]


def test_a_token_refused_twice_is_an_auth_error(service: Service) -> None:
    service.answers = [refusal(401, "UNAUTHENTICATED", "token-2 is not valid")]
    tokens = iter(["token-1", "token-2"])

    with pytest.raises(BackendAuth, match=r"UNAUTHENTICATED \(\*\*\* is not valid\)"):
        service.client(token=lambda: next(tokens)).recognize(jpeg())
    assert len(service.uploads) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind", "uploads"),
    [
        (429, "RESOURCE_EXHAUSTED", BackendThrottled, 3),
        (503, "UNAVAILABLE", BackendUnavailable, 3),
        (500, "INTERNAL", BackendUnavailable, 3),
        (504, "DEADLINE_EXCEEDED", BackendUnavailable, 3),
        (502, "", BackendUnavailable, 3),
        (401, "UNAUTHENTICATED", BackendAuth, 1),
        (403, "PERMISSION_DENIED", BackendAuth, 1),
        (400, "INVALID_ARGUMENT", BackendRejected, 1),
        (400, "FAILED_PRECONDITION", BackendRejected, 1),
        (413, "", BackendTooLarge, 1),
        (404, "NOT_FOUND", BackendProtocol, 1),
        (501, "UNIMPLEMENTED", BackendUnavailable, 3),
    ],
)
def test_every_error_document_has_its_error_and_its_number_of_attempts(
    service: Service,
    backend: GoogleBackend,
    status: int,
    code: str,
    kind: type[BackendError],
    uploads: int,
) -> None:
    service.answers = [refusal(status, code)]

    with pytest.raises(kind) as caught:
        backend.recognize(jpeg())

    assert type(caught.value) is kind
    assert caught.value.code == (code or f"HTTP {status}")
    assert caught.value.said == "the reason"
    assert len(service.uploads) == uploads


@pytest.mark.parametrize(
    ("number", "code", "kind", "uploads"),
    [
        (3, "INVALID_ARGUMENT", BackendRejected, 1),
        (7, "PERMISSION_DENIED", BackendAuth, 1),
        (16, "UNAUTHENTICATED", BackendAuth, 1),
        (8, "RESOURCE_EXHAUSTED", BackendThrottled, 3),
        (2, "UNKNOWN", BackendUnavailable, 3),
        (4, "DEADLINE_EXCEEDED", BackendUnavailable, 3),
        (13, "INTERNAL", BackendUnavailable, 3),
        (14, "UNAVAILABLE", BackendUnavailable, 3),
        (12, "HTTP 200", BackendProtocol, 1),
        ("odd", "HTTP 200", BackendProtocol, 1),
        ([], "HTTP 200", BackendProtocol, 1),
    ],
)
def test_the_error_of_a_picture_inside_http_200_has_its_error(
    service: Service,
    backend: GoogleBackend,
    number: Any,
    code: str,
    kind: type[BackendError],
    uploads: int,
) -> None:
    service.answers = [answer(error={"code": number, "message": "the reason"})]

    with pytest.raises(kind) as caught:
        backend.recognize(jpeg())

    assert type(caught.value) is kind
    assert caught.value.code == code
    assert "(the reason)" in str(caught.value)
    assert len(service.uploads) == uploads


INVALID_KEY = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (refusal(400, "INVALID_ARGUMENT", "no valid key.", details=[INVALID_KEY]), BackendAuth),
        (
            refusal(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 9 bytes."),
            BackendTooLarge,
        ),
        (answer(error={"code": 3, "message": "Image too large. Please limit"}), BackendTooLarge),
        (
            refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded for limit 'Requests per day'"),
            BackendQuota,
        ),
    ],
)
def test_one_code_for_several_things_is_told_apart(
    service: Service, backend: GoogleBackend, response: Response, kind: type[BackendError]
) -> None:
    service.answers = [response]

    with pytest.raises(kind) as caught:
        backend.recognize(jpeg())

    assert type(caught.value) is kind
    assert len(service.uploads) == 1


def test_a_rate_limit_that_passes_is_waited_for_as_long_as_the_service_asks(
    service: Service, backend: GoogleBackend
) -> None:
    slow = refusal(429, "RESOURCE_EXHAUSTED")
    slow.headers["Retry-After"] = "7"
    service.answers = [slow, answer(**ANSWER)]

    assert backend.recognize(jpeg()).labels
    assert 7.0 in service.pauses


@pytest.mark.parametrize(
    "found", [{}, {"labelAnnotations": []}, {"localizedObjectAnnotations": []}]
)
def test_nothing_found_is_a_valid_answer(
    service: Service, backend: GoogleBackend, found: dict[str, Any]
) -> None:
    service.answers = [answer(**found)]

    assert backend.recognize(jpeg()).labels == ()


def test_a_score_of_zero_is_left_out_by_the_service(
    service: Service, backend: GoogleBackend
) -> None:
    service.answers = [answer(labelAnnotations=[{"description": "Cat"}])]

    assert backend.recognize(jpeg()).labels == (Label("Cat", 0.0),)


@pytest.mark.parametrize(
    ("vertices", "box"),
    [
        (SQUARE, Box(100.0, 100.0, 200.0, 100.0)),
        (SQUARE[2:] + SQUARE[:2], Box(100.0, 100.0, 200.0, 100.0)),  # any corner may come first
        ([{}, {"x": 0.5}, {"x": 0.5, "y": 0.5}, {"y": 0.5}], Box(0.0, 0.0, 200.0, 100.0)),
        ([{}, {}, {}, {}], Box(0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_boxes_are_in_pixels_of_the_upload_and_a_missing_coordinate_is_zero(
    service: Service, vertices: list[dict[str, float]], box: Box
) -> None:
    service.answers = [answer(**objects(*vertices))]

    assert service.client("objects").recognize(jpeg(400, 200)).labels == (Label("Dog", 0.5, box),)


def test_both_lists_become_one(service: Service) -> None:
    service.answers = [answer(**ANSWER, **objects(*SQUARE, score=0.375))]

    labels = service.client("labels+objects").recognize(jpeg(8, 8)).labels

    assert labels == (
        Label("Cat", 0.5),
        Label("Dog", 0.375, Box(2.0, 4.0, 4.0, 4.0)),
        Label("Dog", 0.25),
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"responses": None},
        {"responses": []},
        {"responses": [{}, {}]},
        {"responses": ["cat"]},
        {"responses": [{"labelAnnotations": None}]},
        {"responses": [{"labelAnnotations": ["cat"]}]},
        {"responses": [{"labelAnnotations": [{"score": 0.5}]}]},
        {"responses": [{"labelAnnotations": [{"description": 5, "score": 0.5}]}]},
        {"responses": [{"labelAnnotations": [{"description": "cat", "score": 93}]}]},
        {"responses": [{"labelAnnotations": [{"description": "cat", "score": "NaN"}]}]},
        {"responses": [{"localizedObjectAnnotations": [{"name": "cat", "score": 0.5}]}]},
        {"responses": [objects()]},
        {"responses": [objects({"x": "left"})]},
    ],
)
def test_an_answer_of_another_form_is_a_protocol_error(
    service: Service, backend: GoogleBackend, document: dict[str, Any]
) -> None:
    service.answers = [reply(document)]

    with pytest.raises(BackendProtocol, match="of another form"):
        backend.recognize(jpeg())


@pytest.mark.parametrize("error", [None, "text", ["text"], {"code": [], "status": 5}])
def test_an_error_document_of_another_form_means_what_its_status_means(
    service: Service, backend: GoogleBackend, error: Any
) -> None:
    service.answers = [reply({"error": error}, 403)]

    with pytest.raises(BackendAuth):
        backend.recognize(jpeg())


def test_a_login_page_instead_of_json_is_a_protocol_error(
    service: Service, backend: GoogleBackend
) -> None:
    service.answers = [Response("<html>log in</html>", mimetype="text/html")]

    with pytest.raises(BackendProtocol, match=r"text/html that is not a JSON object"):
        backend.recognize(jpeg())


def test_a_local_cloud_names_its_model_in_answers_and_for_free(
    service: Service, backend: GoogleBackend
) -> None:
    service.answers = [answer(**ANSWER), refusal(400, "INVALID_ARGUMENT")]
    for response in service.answers:
        response.headers["X-Model-Version"] = "lite0@1234"

    assert backend.recognize(jpeg()).model_version == "lite0@1234"
    assert backend.model_version() == "lite0@1234"
    assert service.uploads[1].get_json() == {"requests": []}


def test_the_public_service_is_not_asked_for_its_model() -> None:
    def keys() -> tuple[str, ...]:
        raise AssertionError

    assert GoogleBackend("https://vision.googleapis.com", keys=keys).model_version() is None


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg() + bytes(CAPABILITIES.max_bytes)])
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, backend: GoogleBackend, data: bytes
) -> None:
    with pytest.raises(BackendRejected):
        backend.recognize(data)

    assert service.uploads == []


def test_a_picture_of_more_than_75_megapixels_is_not_sent(
    service: Service, backend: GoogleBackend
) -> None:
    buffer = io.BytesIO()
    Image.new("L", (10_001, 7_500)).save(buffer, "JPEG")

    with pytest.raises(BackendTooLarge, match="75000000 pixels in all"):
        backend.recognize(buffer.getvalue())
    assert service.uploads == []


def test_the_largest_file_fits_the_json_limit_with_all_features(service: Service) -> None:
    backend = service.client("labels+objects")

    assert backend.wire_size(bytes(CAPABILITIES.max_bytes)) <= MAX_REQUEST
    assert backend.wire_size(bytes(CAPABILITIES.max_bytes + 1)) > MAX_REQUEST


@pytest.mark.parametrize("name", [*KEYS, *TOKEN])
def test_the_key_or_the_token_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, service: Service, name: str
) -> None:
    for other in (*KEYS, *TOKEN):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "from-the-environment")
    backend = open_spec(Spec("google", "http", service.host))

    backend.recognize(jpeg())
    backend.close()

    headers = service.uploads[0].headers
    given = headers.get("X-Goog-Api-Key") or headers["Authorization"]
    assert given.removeprefix("Bearer ") == "from-the-environment"


def test_a_local_cloud_needs_no_key(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    for name in (*KEYS, *TOKEN):
        monkeypatch.delenv(name, raising=False)
    backend = open_backend(f"google+http://{service.host}/objects")

    assert backend.recognize(jpeg()).labels
    backend.close()


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, *TOKEN):
        monkeypatch.delenv(name, raising=False)
    backend = open_backend("google://")

    with pytest.raises(BackendAuth, match=r"set ADACOMPRESS_GOOGLE_API_KEY\."):
        backend.recognize(jpeg())


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("google://", "google://vision.googleapis.com"),
        ("google:///labels", "google://vision.googleapis.com"),
        ("google:///objects", "google://vision.googleapis.com/objects"),
        ("google://eu-vision.googleapis.com/labels+objects", None),
    ],
)
def test_a_specification_names_host_and_features(spec: str, name: str | None) -> None:
    assert open_spec(parse_spec(spec)).name == (name or spec)


@pytest.mark.parametrize("path", ["faces", "objects+labels", "labels/objects"])
def test_features_that_are_not_offered_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"allowed are labels, objects, labels\+objects"):
        open_spec(Spec("google", "https", "", path))


def test_a_key_does_not_travel_unencrypted_to_another_machine() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        open_spec(parse_spec("google+http://vision.googleapis.com"))


@pytest.mark.parametrize("bearer", [False, True])
def test_no_message_no_repr_and_no_log_line_holds_a_key_or_a_token(
    service: Service, caplog: pytest.LogCaptureFixture, bearer: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = service.client(token=(lambda: KEY) if bearer else None)
    texts = [repr(backend), repr(vars(backend)), repr(vars(vars(backend)["_http"]))]
    for response in (
        answer(**ANSWER),
        answer(error={"code": 3, "message": f"bad {KEY}"}),
        refusal(403, "PERMISSION_DENIED", f"{KEY} may not"),
        refusal(400, "INVALID_ARGUMENT", f"API key {KEY}", details=[INVALID_KEY]),
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
