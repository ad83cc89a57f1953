"""TorchServe's dialect as a pure function, and with curl and our client over a socket."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from urllib3 import encode_multipart_formdata

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.backends.torchserve import CAPABILITIES, TOKEN, TorchServeBackend
from edge_sdk.errors import BackendAuth, BackendProtocol, BackendRejected, BackendUnavailable
from model_store.errors import BackendError
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response, Rules
from training.cloud.dialects.torchserve import TorchServe
from training.cloud.server import CloudServer
from training.cloud.settings import Settings

ID = "0123456789abcdef" * 2
PATH = "/predictions/default"
CLASSES = (Label("dog", 0.75), Label("cat", 0.125), Label("dog", 0.0625))
OBJECTS = (
    Label("dog", 0.75, Box(10.0, 5.0, 20.0, 10.5)),
    Label("dog", 0.5, Box(0.0, 0.0, 64.0, 48.0)),
)


class Stub:
    name, version = "stub", "stub@1"

    def __init__(self, labels: tuple[Label, ...]) -> None:
        self.labels, self.boxes = labels, labels is OBJECTS

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return self.labels

    def answer_many(self, jpegs: Sequence[bytes]) -> list[Any]:
        return [self.labels for _ in jpegs]


def picture(width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def dialect(*tokens: str) -> TorchServe:
    return TorchServe(Rules(secret=b"", keys={"torchserve": tokens} if tokens else {}))


def asking(data: bytes, path: str = PATH, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", path, headers=named, body=data)


def answered(response: bytes | Response) -> tuple[int, Any]:
    assert isinstance(response, Response)
    assert response.headers["x-request-id"] == "01234567-89ab-cdef-0123-456789abcdef"
    return response.status, json.loads(response.body)


def responded(labels: tuple[Label, ...], path: str = PATH) -> tuple[int, Any]:
    answer = Answer(labels, (64, 48), "stub@1", ID)
    return answered(dialect().respond(asking(b"", path), answer))


def test_it_is_a_dialect_that_knows_its_requests_and_its_specification() -> None:
    torchserve: Dialect = dialect()

    assert torchserve.spec("http://127.0.0.1:8000") == "torchserve+http://127.0.0.1:8000/default"
    assert torchserve.mine(Request("POST", "/predictions/any"))
    assert torchserve.mine(Request("PUT", "/predictions/any/1.0"))
    assert torchserve.mine(Request("GET", "/ping"))
    assert not torchserve.mine(Request("POST", "/ping"))
    assert not torchserve.mine(Request("GET", "/predictions/any"))
    assert not torchserve.mine(Request("GET", "/models"))


def test_the_very_bytes_reach_the_model_as_body_or_as_form() -> None:
    body, kind = encode_multipart_formdata({"data": ("a.jpg", picture(), "image/jpeg")})

    assert dialect().picture(asking(picture()), 0.0, ID) == picture()
    assert dialect().picture(asking(picture(), content_type="image/jpeg"), 0.0, ID) == picture()
    assert dialect().picture(asking(body, content_type=kind), 0.0, ID) == picture()


def test_a_classifier_answers_as_the_handler_of_classifiers() -> None:
    assert responded(CLASSES) == (200, {"dog": 0.75, "cat": 0.125})


def test_a_detector_answers_as_the_handler_of_detectors() -> None:
    assert responded(OBJECTS) == (
        200,
        [
            {"dog": [10.0, 5.0, 30.0, 15.5], "score": 0.75},
            {"dog": [0.0, 0.0, 64.0, 48.0], "score": 0.5},
        ],
    )
    assert responded(()) == (200, [])


@pytest.mark.parametrize("name", ["default", "stub", "default/1", "stub/1", "stub/stub@1"])
def test_the_model_answers_to_its_name_to_default_and_to_its_version(name: str) -> None:
    assert responded(CLASSES, f"/predictions/{name}")[0] == 200


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("other", "ModelNotFoundException", "Model not found: other"),
        ("", "ModelNotFoundException", "Model not found: "),
        (
            "stub/2",
            "ModelVersionNotFoundException",
            "Model version: 2 does not exist for model: stub",
        ),
    ],
)
def test_another_model_is_not_found(name: str, kind: str, message: str) -> None:
    expected = (404, {"code": 404, "type": kind, "message": message})
    assert responded(CLASSES, f"/predictions/{name}") == expected


@pytest.mark.parametrize("data", [b"", b"no picture", picture(kind="TIFF")])
def test_a_file_that_is_no_picture_is_a_bad_request(data: bytes) -> None:
    status, document = answered(dialect().picture(asking(data), 0.0, ID))

    assert (status, document["code"]) == (400, 400)


def test_too_large_a_body_is_refused_without_words() -> None:
    small = picture()
    largest = small + bytes(CAPABILITIES.max_bytes - len(small))

    assert dialect().picture(asking(largest), 0.0, ID) == largest
    response = dialect().picture(asking(largest + b"x"), 0.0, ID)
    assert isinstance(response, Response)
    assert (response.status, response.body) == (413, b"")


def test_its_health_is_told_for_free() -> None:
    response = dialect().picture(Request("GET", "/ping"), 0.0, ID)

    assert answered(response) == (200, {"status": "Healthy"})
    assert isinstance(response, Response)
    assert response.kind == "health"


def test_a_server_without_a_token_takes_any() -> None:
    for headers in ({}, {"authorization": "Bearer any"}):
        assert dialect().picture(asking(picture(), **headers), 0.0, ID) == picture()


def test_a_server_with_a_token_takes_no_other() -> None:
    mine = dialect("right")

    assert mine.picture(asking(picture(), authorization="Bearer right"), 0.0, ID) == picture()
    for headers in ({}, {"authorization": "Bearer wröng"}, {"authorization": "right"}):
        for path in (PATH, "/ping"):
            status, document = answered(mine.picture(asking(picture(), path, **headers), 0.0, ID))
            assert (status, document["type"]) == (400, "InvalidKeyException")


@given(st.binary(max_size=200), st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_body_and_no_content_type_breaks_the_server(body: bytes, kind: str) -> None:
    for content_type in (kind, f"multipart/{kind}"):
        told = dialect().picture(asking(body, content_type=content_type), 0.0, ID)
        # What begins as a feature stream is the model's to judge.
        assert (body[:1] == b"\xaf" and told == body) or answered(told)[0] == 400


@contextmanager
def cloud(
    *tokens: str, labels: tuple[Label, ...] = CLASSES, fault: str = ""
) -> Iterator[CloudServer]:
    with CloudServer(
        Stub(labels),
        dialects=["torchserve"],
        rules=Rules(secret=b"", keys={"torchserve": tokens} if tokens else {}),
        settings=Settings(faults={fault: 1.0} if fault else {}),
    ) as server:
        yield server


@pytest.mark.parametrize(
    "upload",
    [
        ["-T", "{file}"],
        ["-X", "POST", "-T", "{file}"],
        ["-F", "data=@{file}"],
        ["--data-binary", "@{file}", "-H", "Content-Type: application/octet-stream"],
    ],
)
def test_curl_uploads_a_file_as_the_documentation_shows(tmp_path: Path, upload: list[str]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    file = tmp_path / "a.jpg"
    file.write_bytes(picture())
    with cloud("right") as server:
        command = [curl, "--silent", "--noproxy", "*", "-H", "Authorization: Bearer right"]
        given = [word.format(file=file) for word in upload]
        done = subprocess.run(
            [*command, server.url + PATH, *given], capture_output=True, check=True, timeout=30
        )

    assert json.loads(done.stdout) == {"dog": 0.75, "cat": 0.125}


def test_our_client_reads_classes() -> None:
    with cloud() as server, closing(open_backend(server.spec_of("torchserve"))) as backend:
        recognition = backend.recognize(picture())

    assert recognition.labels == (Label("dog", 0.75), Label("cat", 0.125))
    assert recognition.model_version == "stub@1"
    assert len(recognition.request_id) == 36


def test_our_client_reads_the_very_boxes() -> None:
    with (
        cloud(labels=OBJECTS) as server,
        closing(open_backend(server.spec_of("torchserve"))) as backend,
    ):
        assert backend.recognize(picture()).labels == OBJECTS


def test_our_client_learns_the_model_without_a_call() -> None:
    with cloud() as server:
        with closing(TorchServeBackend(server.url, "stub")) as backend:
            assert backend.model_version() == "stub@1"
        assert server.counts()["billed"] == 0


def test_our_client_brings_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with cloud("right") as server, closing(open_backend(server.spec)) as backend:
        with pytest.raises(BackendAuth, match="Token Authorization failed"):
            backend.recognize(picture())
        monkeypatch.setenv(TOKEN, "right")
        assert backend.recognize(picture()).labels


def test_our_client_tells_that_there_is_no_such_model() -> None:
    with (
        cloud() as server,
        closing(TorchServeBackend(server.url, "other")) as backend,
        pytest.raises(BackendProtocol, match="Model not found: other"),
    ):
        backend.recognize(picture())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("throttle", BackendUnavailable),
        ("5xx", BackendUnavailable),
        ("reset", BackendUnavailable),
        ("image", BackendRejected),
    ],
)
def test_our_client_understands_every_fault(fault: str, kind: type[BackendError]) -> None:
    with cloud(fault=fault) as server:
        http = HttpClient(server.url, policy=HttpPolicy(attempts=1))
        with (
            closing(TorchServeBackend(server.url, "stub", http=http)) as backend,
            pytest.raises(kind) as caught,
        ):
            backend.recognize(picture())
    assert type(caught.value) is kind


def test_every_fault_has_its_type_and_status() -> None:
    told = {fault: answered(dialect().refuse(fault, ID)) for fault in Fault}

    assert {fault: (status, one["type"]) for fault, (status, one) in told.items()} == {
        Fault.THROTTLED: (503, "ServiceUnavailableException"),
        Fault.UNAVAILABLE: (503, "InternalServerException"),
        Fault.TOKEN: (400, "InvalidKeyException"),
        Fault.IMAGE: (400, "InternalServerException"),
    }
