"""Face++'s dialect as a pure function, and with curl, requests and our client over a socket."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from urllib3 import encode_multipart_formdata

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.facepp import RECOGNIZE_PATH, FaceppBackend
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.errors import BackendRejected, BackendThrottled, BackendUnavailable
from model_store.errors import BackendError
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response, Rules
from training.cloud.dialects.facepp import MAX_ENTITY, Facepp
from training.cloud.server import CloudServer
from training.cloud.settings import Settings

ID = "0123456789abcdef" * 2
LABELS = (
    Label("dog", 0.75, Box(10.0, 5.0, 20.0, 10.0)),
    Label("cat", 0.5),
    Label("dog", 0.25, Box(0.0, 10.0, 10.0, 10.0)),
)
KEYS = {"api_key": "k", "api_secret": "s"}


class Stub:
    name, version, boxes = "stub", "stub@1", True

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return LABELS

    def answer_many(self, jpegs: Sequence[bytes]) -> list[Any]:
        return [LABELS for _ in jpegs]


def picture(width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def dialect(*keys: str) -> Facepp:
    return Facepp(Rules(secret=b"", keys={"facepp": keys} if keys else {}))


def request(fields: dict[str, Any]) -> Request:
    body, kind = encode_multipart_formdata(fields)
    return Request("POST", RECOGNIZE_PATH, headers={"content-type": kind}, body=body)


def asking(data: bytes, **others: Any) -> Request:
    return request({**KEYS, "image_file": ("a.jpg", data, "image/jpeg"), **others})


def urlencoded(**fields: Any) -> Request:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return Request("POST", RECOGNIZE_PATH, headers=kind, body=urlencode(fields).encode())


def refused(asked: Request, facepp: Facepp | None = None) -> tuple[int, str]:
    """Return the status and the message that a request is refused with."""
    response = (facepp or dialect()).picture(asked, 0.0, ID)
    assert isinstance(response, Response)
    document = json.loads(response.body)
    assert document["request_id"] == "01234567-89ab-cdef-0123-456789abcdef"
    return response.status, str(document["error_message"])


def test_it_is_a_dialect_that_knows_its_requests_and_its_specification() -> None:
    facepp: Dialect = dialect()

    assert facepp.spec("http://127.0.0.1:8000") == "facepp+http://127.0.0.1:8000"
    assert facepp.mine(Request("POST", RECOGNIZE_PATH))
    assert not facepp.mine(Request("GET", RECOGNIZE_PATH))
    assert not facepp.mine(Request("POST", "/facepp/v3/detect"))


def test_the_very_bytes_reach_the_model_in_every_documented_way() -> None:
    encoded = base64.b64encode(picture()).decode()

    for asked in (
        asking(picture()),
        asking(picture(), image_base64="!", image_url="http://localhost/"),
        request({**KEYS, "image_base64": encoded, "image_url": "http://localhost/"}),
        urlencoded(**KEYS, image_base64=encoded),
    ):
        assert dialect().picture(asked, 0.0, ID) == picture()


def test_every_name_is_one_object_and_there_are_no_scenes() -> None:
    response = dialect().respond(asking(b""), Answer(LABELS, (64, 48), "stub@1", ID, 0.0123))

    assert response.status == 200
    assert json.loads(response.body) == {
        "time_used": 12,
        "request_id": "01234567-89ab-cdef-0123-456789abcdef",
        "image_id": base64.b64encode(bytes.fromhex(ID)).decode(),
        "objects": [{"value": "dog", "confidence": 75.0}, {"value": "cat", "confidence": 50.0}],
        "scenes": [],
    }


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (request({"api_key": "k"}), 400, "MISSING_ARGUMENTS: api_secret"),
        (request({"api_key": "k", "api_secret": ""}), 400, "MISSING_ARGUMENTS: api_secret"),
        (Request("POST", RECOGNIZE_PATH), 400, "MISSING_ARGUMENTS: api_key, api_secret"),
        (request(KEYS), 400, "MISSING_ARGUMENTS: image_url, image_file, image_base64"),
        (
            request({**KEYS, "image_url": "http://localhost/"}),
            400,
            "INVALID_IMAGE_URL: this local cloud fetches nothing",
        ),
        (asking(b""), 400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file"),
        (asking(b"no picture"), 400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file"),
        (asking(picture(kind="BMP")), 400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file"),
        (
            request({**KEYS, "image_base64": "!"}),
            400,
            "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_base64",
        ),
        (asking(picture(47, 60)), 400, "INVALID_IMAGE_SIZE: image_file"),
        (asking(picture(60, 4097)), 400, "INVALID_IMAGE_SIZE: image_file"),
        (asking(bytes(2 * 1024 * 1024 + 1)), 400, "IMAGE_FILE_TOO_LARGE: image_file"),
    ],
)
def test_a_bad_request_is_refused_by_name(asked: Request, status: int, message: str) -> None:
    assert refused(asked) == (status, message)


def test_too_large_a_body_is_refused_in_plain_text() -> None:
    response = dialect().picture(asking(bytes(MAX_ENTITY)), 0.0, ID)

    assert isinstance(response, Response)
    assert (response.status, response.content_type) == (413, "text/plain")
    assert response.body == b"Request Entity Too Large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_documented_formats_and_limits_are_accepted(kind: str) -> None:
    small = picture(48, 4096, kind)

    for data in (small, small + bytes(2 * 1024 * 1024 - len(small))):
        assert dialect().picture(asking(data), 0.0, ID) == data


def test_a_server_with_keys_takes_no_others() -> None:
    assert dialect("k", "s").picture(asking(picture()), 0.0, ID) == picture()
    assert refused(asking(picture()), dialect("k", "other")) == (401, "AUTHENTICATION_ERROR")
    assert refused(asking(picture()), dialect("öther", "s")) == (401, "AUTHENTICATION_ERROR")


@given(st.binary(max_size=200), st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_body_and_no_content_type_breaks_the_server(body: bytes, kind: str) -> None:
    asked = Request("POST", RECOGNIZE_PATH, headers={"content-type": kind}, body=body)
    assert refused(asked)
    assert refused(urlencoded(**KEYS, image_base64=body))
    assert refused(asking(body))


@contextmanager
def cloud(*keys: str, fault: str = "") -> Iterator[CloudServer]:
    with CloudServer(
        Stub(),
        dialects=["facepp"],
        rules=Rules(secret=b"", keys={"facepp": keys} if keys else {}),
        settings=Settings(faults={fault: 1.0} if fault else {}),
    ) as server:
        yield server


def test_curl_uploads_a_file_as_the_documentation_shows(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    file = tmp_path / "a.jpg"
    file.write_bytes(picture())
    with cloud("k", "s") as server:
        command = [curl, "--silent", "--noproxy", "*", "-X", "POST", server.url + RECOGNIZE_PATH]
        fields = ["-F", "api_key=k", "-F", "api_secret=s", "-F", f"image_file=@{file}"]
        done = subprocess.run([*command, *fields], capture_output=True, check=True, timeout=30)

    found = json.loads(done.stdout)["objects"]
    assert [one["value"] for one in found] == ["dog", "cat"]


def test_requests_uploads_a_file() -> None:
    with cloud() as server:
        answer = requests.post(
            server.url + RECOGNIZE_PATH, data=KEYS, files={"image_file": picture()}, timeout=30
        )

    assert answer.json()["objects"][0] == {"value": "dog", "confidence": 75.0}
    assert answer.headers["X-Model-Version"] == "stub@1"


def test_our_client_reads_the_labels_and_the_model() -> None:
    with cloud() as server, closing(open_backend(server.spec_of("facepp"))) as backend:
        recognition = backend.recognize(picture())

    assert recognition.labels == (Label("dog", 0.75), Label("cat", 0.5))
    assert recognition.model_version == "stub@1"
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
        http = HttpClient(server.url, policy=HttpPolicy(attempts=1))
        backend = FaceppBackend(server.url, keys=lambda: ("k", "s"), http=http)
        with closing(backend), pytest.raises(kind) as caught:
            backend.recognize(picture())
    assert type(caught.value) is kind


def test_every_fault_has_its_message_and_status() -> None:
    told = {fault: dialect().refuse(fault, ID) for fault in Fault}

    assert {
        fault: (one.status, json.loads(one.body)["error_message"]) for fault, one in told.items()
    } == {
        Fault.THROTTLED: (403, "CONCURRENCY_LIMIT_EXCEEDED"),
        Fault.UNAVAILABLE: (500, "INTERNAL_ERROR"),
        Fault.TOKEN: (401, "AUTHENTICATION_ERROR"),
        Fault.IMAGE: (400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file"),
    }
