"""Google's dialect as a pure function, and with Google's own client over a socket."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import werkzeug
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator.transports.rest import (
    ImageAnnotatorRestTransport,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytest_httpserver import HTTPServer

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.google import ANNOTATE_PATH, MAX_REQUEST, GoogleBackend
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.errors import (
    BackendAuth,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
)
from model_store.errors import BackendError
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response, Rules
from training.cloud.dialects.google import Google

ID = "0123456789abcdef" * 2
SIZE = (40, 20)
LABELS = (
    Label("dog", 0.75, Box(10.0, 5.0, 20.0, 10.0)),
    Label("cat", 0.5, Box(0.0, 0.0, 40.0, 20.0)),
    Label("dog", 0.25, Box(0.0, 10.0, 10.0, 10.0)),
)


def picture(width: int = SIZE[0], height: int = SIZE[1], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def dialect(*keys: str) -> Google:
    return Google(Rules(secret=b"", keys={"google": keys} if keys else {}))


def request(document: Any, **headers: str) -> Request:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Request("POST", ANNOTATE_PATH, headers=headers, body=body)


def asking(data: bytes | str, *features: Any) -> Request:
    content = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    wanted = [f if isinstance(f, dict) else {"type": f} for f in features or ("LABEL_DETECTION",)]
    return request({"requests": [{"image": {"content": content}, "features": wanted}]})


def refused(asked: Request, google: Google | None = None) -> dict[str, Any]:
    """Return the error that a request is refused with, or that of its picture."""
    response = (google or dialect()).picture(asked, 0.0, ID)
    assert isinstance(response, Response)
    document = json.loads(response.body)
    if response.status == 200:
        (one,) = document["responses"]
        error: dict[str, Any] = one["error"]
        return error
    assert document["error"]["code"] == response.status
    return dict(document["error"])


def responded(*features: Any, labels: tuple[Label, ...] = LABELS) -> dict[str, Any]:
    response = dialect().respond(asking(picture(), *features), Answer(labels, SIZE, "stub@1", ID))
    assert response.status == 200
    (one,) = json.loads(response.body)["responses"]
    return dict(one)


def test_it_is_a_dialect_that_knows_its_requests_and_its_specification() -> None:
    google: Dialect = dialect()

    assert google.mine(asking(picture()))
    assert not google.mine(Request("GET", ANNOTATE_PATH))
    assert not google.mine(Request("POST", "/v1/files:annotate"))
    assert google.spec("http://127.0.0.1:8000") == "google+http://127.0.0.1:8000"


def test_the_very_bytes_of_the_picture_reach_the_model() -> None:
    data = picture()

    assert dialect().picture(asking(data), 0.0, ID) == data


def test_base64_may_be_url_safe_and_without_padding() -> None:
    data = picture()
    text = base64.b64encode(data).decode()
    for one in (text, text.rstrip("="), base64.urlsafe_b64encode(data).decode().rstrip("=")):
        assert dialect().picture(asking(one), 0.0, ID) == data


@pytest.mark.parametrize("feature", ["LABEL_DETECTION", 4])
def test_labels_are_distinct_names_with_their_best_score(feature: Any) -> None:
    assert responded(feature) == {
        "labelAnnotations": [
            {"description": "dog", "score": 0.75, "topicality": 0.75},
            {"description": "cat", "score": 0.5, "topicality": 0.5},
        ]
    }


@pytest.mark.parametrize("feature", ["OBJECT_LOCALIZATION", 19])
def test_objects_are_one_per_box_and_leave_zeros_out(feature: Any) -> None:
    found = responded(feature)["localizedObjectAnnotations"]

    assert [(one["name"], one["score"]) for one in found] == [
        ("dog", 0.75),
        ("cat", 0.5),
        ("dog", 0.25),
    ]
    assert found[0]["boundingPoly"]["normalizedVertices"] == [
        {"x": 0.25, "y": 0.25},
        {"x": 0.75, "y": 0.25},
        {"x": 0.75, "y": 0.75},
        {"x": 0.25, "y": 0.75},
    ]
    assert found[1]["boundingPoly"]["normalizedVertices"] == [
        {},
        {"x": 1.0},
        {"x": 1.0, "y": 1.0},
        {"y": 1.0},
    ]


def test_a_classifier_finds_no_objects() -> None:
    labels = (Label("cat", 0.75),)

    assert responded("OBJECT_LOCALIZATION", labels=labels) == {}
    assert list(responded("LABEL_DETECTION", "OBJECT_LOCALIZATION", labels=labels)) == [
        "labelAnnotations"
    ]


def test_no_label_is_an_empty_answer() -> None:
    assert responded("LABEL_DETECTION", "OBJECT_LOCALIZATION", labels=()) == {}


@pytest.mark.parametrize(("most", "count"), [(1, 1), (5, 5), (50, 12), (0, 10), (-1, 10)])
def test_no_more_entries_come_than_are_asked_for(most: int, count: int) -> None:
    labels = tuple(Label(f"label {n}", 1 - n / 100) for n in range(12))

    found = responded({"type": "LABEL_DETECTION", "maxResults": most}, labels=labels)

    assert len(found["labelAnnotations"]) == count


NOTHING: dict[str, Any] = {"image": {"content": ""}, "features": [{"type": 4}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        ([], "Invalid JSON"),
        (None, "Invalid JSON"),
        ({}, "Invalid JSON"),
        ({"requests": None}, "exactly one image"),
        ({"requests": []}, "exactly one image"),
        ({"requests": [NOTHING, NOTHING]}, "exactly one image"),
        ({"requests": ["cat"]}, "exactly one image"),
        ({"requests": {"a": 1}}, "exactly one image"),
        ({"requests": [NOTHING | {"features": 5}]}, r"requests\[0\]\.features"),
        ({"requests": [NOTHING | {"features": ["x"]}]}, r"requests\[0\]\.features"),
        ({"requests": [NOTHING | {"features": [{"type": []}]}]}, r"requests\[0\]\.features"),
        (
            {"requests": [NOTHING | {"features": [{"type": 4, "maxResults": "x"}]}]},
            r"requests\[0\]\.features",
        ),
        (
            b'{"requests":[{"features":[{"type":4,"maxResults":Infinity}]}]}',
            r"requests\[0\]\.features",
        ),
        (
            {"requests": [NOTHING | {"features": [{"type": "FACE_DETECTION"}]}]},
            "LABEL_DETECTION and OBJECT_LOCALIZATION",
        ),
        ({"requests": [NOTHING | {"features": [{}]}]}, "LABEL_DETECTION and OBJECT_LOCALIZATION"),
        ({"requests": [NOTHING | {"image": 5}]}, "nothing is fetched"),
        (
            {"requests": [NOTHING | {"image": {"source": {"imageUri": "https://a/b"}}}]},
            "nothing is fetched",
        ),
        ({"requests": [NOTHING | {"image": {"content": "ab!d"}}]}, "no base64"),
        ({"requests": [NOTHING | {"image": {"content": "é"}}]}, "no base64"),
        ({"requests": [NOTHING | {"image": {"content": 5}}]}, "no base64"),
        (b" " * (MAX_REQUEST + 1), "exceeds the limit: 10485760 bytes"),
    ],
)
def test_a_bad_request_is_an_invalid_argument(document: Any, said: str) -> None:
    error = refused(request(document))

    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    with pytest.raises(ValueError, match=said):
        raise ValueError(error["message"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (request({"requests": [NOTHING]}), "Request must specify image and features."),
        (request({"requests": [{}]}), "Request must specify image and features."),
        (asking(b"no picture"), "Bad image data."),
    ],
)
def test_a_bad_picture_is_an_error_inside_http_200(asked: Request, said: str) -> None:
    assert refused(asked) == {"code": 3, "message": said}


def test_more_than_75_megapixels_are_an_error_inside_http_200() -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_001, 7_500)).save(buffer, "PNG")

    error = refused(asking(buffer.getvalue()))

    assert error == {"code": 3, "message": "Image too large. Please limit to 75 megapixels."}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_documented_formats_are_accepted(kind: str) -> None:
    data = picture(kind=kind)

    assert dialect().picture(asking(data), 0.0, ID) == data


def with_key(**given: Any) -> Request:
    plain = asking(picture())
    return Request(plain.method, plain.path, **given, body=plain.body)


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"x-goog-api-key": "right"}},
        {"query": {"key": "right"}},
        {"headers": {"authorization": "Bearer right"}},
    ],
)
def test_a_server_with_keys_takes_them_in_every_documented_place(given: Any) -> None:
    assert dialect("right").picture(with_key(**given), 0.0, ID) == picture()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, "PERMISSION_DENIED"),
        ({"headers": {"x-goog-api-key": "wrong"}}, "INVALID_ARGUMENT"),
        ({"query": {"key": "wröng"}}, "INVALID_ARGUMENT"),
        ({"headers": {"authorization": "Bearer wrong"}}, "UNAUTHENTICATED"),
    ],
)
def test_a_server_with_keys_takes_no_others(given: Any, status: str) -> None:
    error = refused(with_key(**given), dialect("right"))

    assert error["status"] == status
    if status == "INVALID_ARGUMENT":
        assert error["details"][0]["reason"] == "API_KEY_INVALID"


@given(st.binary(max_size=200))
def test_no_body_breaks_the_server(body: bytes) -> None:
    assert refused(request(body))
    assert refused(asking(body))


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_document_breaks_the_server(odd: Any) -> None:
    for document in (odd, {"requests": odd}, {"requests": [odd]}):
        assert refused(request(document))
    for field in ("image", "features"):
        assert refused(request({"requests": [NOTHING | {field: odd}]}))


class Cloud:
    """The dialect on a socket, in front of a model that says ``labels`` to everything."""

    def __init__(self, server: HTTPServer, *keys: str) -> None:
        self.dialect, self.labels = dialect(*keys), LABELS
        self.fault: Fault | None = None
        self.url = f"http://127.0.0.1:{server.port}"
        server.expect_request(ANNOTATE_PATH, method="POST").respond_with_handler(self.handle)

    def handle(self, sent: werkzeug.Request) -> werkzeug.Response:
        headers = {name.lower(): value for name, value in sent.headers.items()}
        asked = Request(sent.method, sent.path, sent.args.to_dict(), headers, sent.get_data())
        told = self.dialect.picture(asked, 0.0, ID)
        if self.fault is not None:
            told = self.dialect.refuse(self.fault, ID)
        if isinstance(told, bytes):
            with Image.open(io.BytesIO(told)) as opened:
                told = self.dialect.respond(asked, Answer(self.labels, opened.size, "stub@1", ID))
        return werkzeug.Response(
            told.body, told.status, dict(told.headers), content_type=told.content_type
        )


@contextmanager
def googles_client(url: str) -> Iterator[Any]:
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    transport = ImageAnnotatorRestTransport(host=url, credentials=anonymous)
    with vision.ImageAnnotatorClient(transport=transport) as client:
        yield client


def wanted(data: bytes, *types: Any) -> vision.AnnotateImageRequest:
    features = [vision.Feature(type_=one) for one in types]
    return vision.AnnotateImageRequest(image=vision.Image(content=data), features=features)


BOTH = (vision.Feature.Type.LABEL_DETECTION, vision.Feature.Type.OBJECT_LOCALIZATION)


def test_googles_own_client_reads_labels_and_boxes(httpserver: HTTPServer) -> None:
    cloud = Cloud(httpserver)
    with googles_client(cloud.url) as client:
        (found,) = client.batch_annotate_images(requests=[wanted(picture(), *BOTH)]).responses

    assert [(one.description, one.score) for one in found.label_annotations] == [
        ("dog", 0.75),
        ("cat", 0.5),
    ]
    boxes = [
        [(vertex.x, vertex.y) for vertex in one.bounding_poly.normalized_vertices]
        for one in found.localized_object_annotations
    ]
    assert boxes[1] == [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert [one.name for one in found.localized_object_annotations] == ["dog", "cat", "dog"]


def test_googles_own_client_reads_the_error_of_a_picture(httpserver: HTTPServer) -> None:
    cloud = Cloud(httpserver)
    with googles_client(cloud.url) as client:
        (found,) = client.batch_annotate_images(requests=[wanted(b"no picture", *BOTH)]).responses

    assert (found.error.code, found.error.message) == (3, "Bad image data.")


def test_googles_own_client_reads_refusals(httpserver: HTTPServer) -> None:
    cloud = Cloud(httpserver)
    good = wanted(picture(), *BOTH)
    with googles_client(cloud.url) as client:
        with pytest.raises(exceptions.BadRequest, match="exactly one image"):
            client.batch_annotate_images(requests=[good, good])
        cloud.dialect = dialect("right")
        with pytest.raises(exceptions.Forbidden, match="unregistered callers"):
            client.batch_annotate_images(requests=[good])


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ("", (Label("dog", 0.75), Label("cat", 0.5))),
        ("/objects", LABELS),
        (
            "/labels+objects",
            (Label("dog", 0.75), LABELS[0], Label("cat", 0.5), LABELS[1], LABELS[2]),
        ),
    ],
)
def test_our_client_reads_the_labels_and_the_very_boxes(
    httpserver: HTTPServer, features: str, labels: tuple[Label, ...]
) -> None:
    cloud = Cloud(httpserver)
    with closing(open_backend(cloud.dialect.spec(cloud.url) + features)) as backend:
        recognition = backend.recognize(picture())

    assert recognition.labels == labels
    assert recognition.wire_bytes == httpserver.log[0][0].content_length


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.THROTTLED, BackendThrottled),
        (Fault.UNAVAILABLE, BackendUnavailable),
        (Fault.TOKEN, BackendAuth),
        (Fault.IMAGE, BackendRejected),
    ],
)
def test_our_client_understands_every_fault(
    httpserver: HTTPServer, fault: Fault, kind: type[BackendError]
) -> None:
    cloud = Cloud(httpserver)
    cloud.fault = fault
    http = HttpClient(cloud.url, policy=HttpPolicy(attempts=1))
    with (
        closing(GoogleBackend(cloud.url, keys=lambda: ("k",), http=http)) as backend,
        pytest.raises(kind) as caught,
    ):
        backend.recognize(picture())
    assert type(caught.value) is kind


def test_our_client_knows_a_wrong_key(httpserver: HTTPServer) -> None:
    cloud = Cloud(httpserver, "right")
    with (
        closing(GoogleBackend(cloud.url, keys=lambda: ("wrong",))) as backend,
        pytest.raises(BackendAuth, match="API key not valid"),
    ):
        backend.recognize(picture())
