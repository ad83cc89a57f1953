"""Azure's dialect as a pure function, and with Azure's own client over a socket."""

from __future__ import annotations

import io
import json
from contextlib import closing
from typing import Any

import pytest
import werkzeug
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.models import VisualFeatures
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytest_httpserver import HTTPServer

from edge_sdk.backends import open_backend
from edge_sdk.backends.azure import ANALYZE_PATH, CAPABILITIES, AzureBackend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.errors import (
    BackendAuth,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
)
from model_store.errors import BackendError
from training.cloud.dialects.azure import Azure
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response, Rules

ID = "0123456789abcdef" * 2
UUID = "01234567-89ab-cdef-0123-456789abcdef"
SIZE = (80, 60)
LABELS = (
    Label("dog", 0.75, Box(10.0, 5.0, 20.0, 10.0)),
    Label("cat", 0.5, Box(0.0, 0.0, 80.0, 60.0)),
    Label("dog", 0.25, Box(0.0, 10.0, 10.0, 10.0)),
)
HEADERS = {"ocp-apim-subscription-key": "k", "content-type": "application/octet-stream"}
QUERY = {"api-version": "2023-10-01", "features": "tags"}
BOTH = [VisualFeatures.TAGS, VisualFeatures.OBJECTS]


def picture(width: int = SIZE[0], height: int = SIZE[1], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def dialect(*keys: str) -> Azure:
    return Azure(Rules(secret=b"", keys={"azure": keys} if keys else {}))


def asking(
    body: bytes | None = None,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Request:
    body = picture() if body is None else body
    return Request("POST", ANALYZE_PATH, QUERY | (query or {}), HEADERS | (headers or {}), body)


def refused(asked: Request, azure: Azure | None = None) -> tuple[int, str, str]:
    """Return the status, the code and the inner code that a request is refused with."""
    response = (azure or dialect()).picture(asked, 0.0, ID)
    assert isinstance(response, Response)
    assert response.headers["apim-request-id"] == UUID
    error = json.loads(response.body)["error"]
    assert error["message"]
    return response.status, error["code"], error.get("innererror", {}).get("code", "")


def responded(features: str, labels: tuple[Label, ...] = LABELS) -> dict[str, Any]:
    answer = Answer(labels, SIZE, "stub@1", ID)
    response = dialect().respond(asking(query={"features": features}), answer)
    assert response.status == 200
    assert response.headers["apim-request-id"] == UUID
    return dict(json.loads(response.body))


def test_it_is_a_dialect_that_knows_its_requests_and_its_specification() -> None:
    azure: Dialect = dialect()

    assert azure.mine(asking())
    assert not azure.mine(Request("GET", ANALYZE_PATH))
    assert not azure.mine(Request("POST", "/vision/v3.2/analyze"))
    assert azure.spec("http://127.0.0.1:8000") == "azure+http://127.0.0.1:8000"


@pytest.mark.parametrize("features", ["tags", "objects", "tags,objects", "Objects,Tags"])
def test_the_body_is_the_picture(features: str) -> None:
    data = picture()

    assert dialect().picture(asking(data, {"features": features}), 0.0, ID) == data


def test_tags_are_distinct_names_with_their_best_score() -> None:
    assert responded("tags") == {
        "modelVersion": "stub@1",
        "metadata": {"width": 80, "height": 60},
        "tagsResult": {
            "values": [{"name": "dog", "confidence": 0.75}, {"name": "cat", "confidence": 0.5}]
        },
    }


def test_objects_are_one_per_box() -> None:
    document = responded("objects")

    assert "tagsResult" not in document
    assert document["objectsResult"]["values"] == [
        {
            "boundingBox": {"x": 10, "y": 5, "w": 20, "h": 10},
            "tags": [{"name": "dog", "confidence": 0.75}],
        },
        {
            "boundingBox": {"x": 0, "y": 0, "w": 80, "h": 60},
            "tags": [{"name": "cat", "confidence": 0.5}],
        },
        {
            "boundingBox": {"x": 0, "y": 10, "w": 10, "h": 10},
            "tags": [{"name": "dog", "confidence": 0.25}],
        },
    ]


def test_boxes_are_rounded_at_their_edges() -> None:
    labels = (Label("cat", 0.5, Box(0.6, 1.4, 2.0, 2.2)),)

    (found,) = responded("objects", labels)["objectsResult"]["values"]

    assert found["boundingBox"] == {"x": 1, "y": 1, "w": 2, "h": 3}


def test_a_classifier_finds_no_objects() -> None:
    document = responded("tags,objects", (Label("cat", 0.75),))

    assert document["objectsResult"] == {"values": []}
    assert document["tagsResult"] == {"values": [{"name": "cat", "confidence": 0.75}]}


def test_no_label_is_an_empty_answer() -> None:
    document = responded("tags,objects", ())

    assert document["tagsResult"] == document["objectsResult"] == {"values": []}


def big() -> bytes:
    return picture() + bytes(CAPABILITIES.max_bytes)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (asking(b""), (400, "InvalidRequest", "InvalidImageFormat")),
        (asking(b"no picture"), (400, "InvalidRequest", "InvalidImageFormat")),
        (asking(picture(49, 60)), (400, "InvalidRequest", "InvalidImageSize")),
        (asking(picture(50, 16_001)), (400, "InvalidRequest", "InvalidImageSize")),
        (asking(big()), (400, "InvalidRequest", "InvalidImageSize")),
        (asking(query={"api-version": ""}), (400, "InvalidRequest", "BadArgument")),
        (
            asking(query={"features": "tags,caption"}),
            (400, "InvalidRequest", "NotSupportedVisualFeature"),
        ),
        (asking(query={"features": ""}), (400, "InvalidRequest", "NotSupportedVisualFeature")),
        (
            asking(headers={"content-type": "application/json"}),
            (415, "UnsupportedMediaType", ""),
        ),
        (asking(headers={"ocp-apim-subscription-key": ""}), (401, "401", "")),
    ],
    ids=range(10),
)
def test_a_bad_request_has_its_error(asked: Request, told: tuple[int, str, str]) -> None:
    assert refused(asked) == told


def test_a_server_with_keys_takes_no_others() -> None:
    right = asking(headers={"ocp-apim-subscription-key": "right"})

    assert dialect("right").picture(right, 0.0, ID) == picture()
    assert refused(asking(), dialect("right")) == (401, "401", "")
    wrong = asking(headers={"ocp-apim-subscription-key": "wröng"})
    assert refused(wrong, dialect("right")) == (401, "401", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_documented_formats_are_accepted(kind: str) -> None:
    data = picture(kind=kind)

    assert dialect().picture(asking(data), 0.0, ID) == data


def test_the_vendors_answer_to_too_many_requests_names_a_pause() -> None:
    response = dialect().refuse(Fault.THROTTLED, ID)

    assert (response.status, response.headers["Retry-After"]) == (429, "1")


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_nothing_that_is_sent_breaks_the_server(body: bytes, features: str, kind: str) -> None:
    assert refused(asking(body))[0] == 400
    assert refused(asking(body, {"features": features}, {"content-type": kind}))[0] in (400, 415)


class Cloud:
    """The dialect on a socket, in front of a model that says ``LABELS`` to everything."""

    def __init__(self, server: HTTPServer, *keys: str) -> None:
        self.dialect = dialect(*keys)
        self.fault: Fault | None = None
        self.url = f"http://127.0.0.1:{server.port}"
        server.expect_request(ANALYZE_PATH, method="POST").respond_with_handler(self.handle)

    def handle(self, sent: werkzeug.Request) -> werkzeug.Response:
        headers = {name.lower(): value for name, value in sent.headers.items()}
        asked = Request(sent.method, sent.path, sent.args.to_dict(), headers, sent.get_data())
        told = self.dialect.picture(asked, 0.0, ID)
        if self.fault is not None:
            told = self.dialect.refuse(self.fault, ID)
        if isinstance(told, bytes):
            with Image.open(io.BytesIO(told)) as opened:
                told = self.dialect.respond(asked, Answer(LABELS, opened.size, "stub@1", ID))
        return werkzeug.Response(
            told.body, told.status, dict(told.headers), content_type=told.content_type
        )


def azures_client(url: str, key: str = "k") -> ImageAnalysisClient:
    return ImageAnalysisClient(endpoint=url, credential=AzureKeyCredential(key), retry_total=0)


def test_azures_own_client_reads_tags_and_boxes(httpserver: HTTPServer) -> None:
    with azures_client(Cloud(httpserver).url) as client:
        found = client.analyze(image_data=picture(), visual_features=BOTH)

    assert found.model_version == "stub@1"
    assert (found.metadata.width, found.metadata.height) == SIZE
    assert found.tags is not None
    assert [(tag.name, tag.confidence) for tag in found.tags.list] == [("dog", 0.75), ("cat", 0.5)]
    assert found.objects is not None
    first = found.objects.list[0]
    where = first.bounding_box
    assert (where.x, where.y, where.width, where.height) == (10, 5, 20, 10)
    assert first.tags[0].name == "dog"


def test_azures_own_client_reads_refusals(httpserver: HTTPServer) -> None:
    cloud = Cloud(httpserver, "right")
    with azures_client(cloud.url, "wrong") as client, pytest.raises(ClientAuthenticationError):
        client.analyze(image_data=picture(), visual_features=BOTH)
    with azures_client(cloud.url, "right") as client, pytest.raises(HttpResponseError) as caught:
        client.analyze(image_data=b"no picture", visual_features=BOTH)

    assert caught.value.error is not None
    assert caught.value.error.code == "InvalidRequest"
    assert caught.value.error.innererror is not None
    assert caught.value.error.innererror["code"] == "InvalidImageFormat"


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ("", (Label("dog", 0.75), Label("cat", 0.5))),
        ("/objects", LABELS),
        (
            "/tags+objects",
            (Label("dog", 0.75), LABELS[0], Label("cat", 0.5), LABELS[1], LABELS[2]),
        ),
    ],
)
def test_our_client_reads_the_tags_and_the_very_boxes(
    httpserver: HTTPServer, features: str, labels: tuple[Label, ...]
) -> None:
    cloud = Cloud(httpserver)
    with closing(open_backend(cloud.dialect.spec(cloud.url) + features)) as backend:
        recognition = backend.recognize(picture())

    assert recognition.labels == labels
    assert recognition.model_version == "stub@1"
    assert recognition.request_id == UUID
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
        closing(AzureBackend(cloud.url, keys=lambda: ("k",), http=http)) as backend,
        pytest.raises(kind) as caught,
    ):
        backend.recognize(picture())
    assert type(caught.value) is kind
