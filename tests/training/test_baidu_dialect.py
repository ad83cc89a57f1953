"""Baidu's dialect as a pure function, without sockets and without weights."""

from __future__ import annotations

import base64
import io
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.backends.baidu import RECOGNIZE_PATH, TOKEN_PATH
from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from training.cloud.dialects.baidu import Rules, respond
from training.cloud.dialects.base import Request, Response

NOW = 1_700_000_000.5
RULES = Rules(secret=b"a server's secret")


class Stub:
    name = "stub"
    version = "stub@1"

    def __init__(self, labels: tuple[Label, ...] = (Label("cat", 0.75),)) -> None:
        self.labels = labels
        self.seen: list[bytes] = []

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        self.seen.append(jpeg)
        return self.labels


def picture(width: int = 20, height: int = 20, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def ask_token(rules: Rules = RULES, now: float = NOW, **other: str) -> Response:
    given = {"grant_type": "client_credentials", "client_id": "k", "client_secret": "s", **other}
    return respond(Request("POST", TOKEN_PATH, given), Stub(), rules, now)


def token(rules: Rules = RULES, now: float = NOW) -> str:
    return str(ask_token(rules, now).document["access_token"])


def upload(
    body: bytes, model: Stub | None = None, access_token: str | None = None, now: float = NOW
) -> Response:
    query = {"access_token": token() if access_token is None else access_token}
    return respond(Request("POST", RECOGNIZE_PATH, query, body), model or Stub(), RULES, now)


def form(data: bytes) -> bytes:
    return urlencode({"image": base64.b64encode(data).decode()}).encode()


def test_any_pair_of_keys_buys_a_token_for_thirty_days() -> None:
    response = ask_token()

    assert response.status == 200
    assert response.document["expires_in"] == 2_592_000


def test_the_keys_may_come_in_the_body() -> None:
    body = b"grant_type=client_credentials&client_id=k&client_secret=s"
    response = respond(Request("POST", TOKEN_PATH, {}, body), Stub(), RULES, NOW)

    assert "access_token" in response.document


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": ""}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
    ],
)
def test_a_token_request_without_keys_is_refused(
    query: dict[str, str], status: int, error: str
) -> None:
    response = ask_token(RULES, NOW, **query)

    assert (response.status, response.document["error"]) == (status, error)


def test_a_server_with_a_pair_of_keys_accepts_only_them() -> None:
    rules = Rules(secret=b"x", keys=("key", "sécret"))

    assert ask_token(rules, client_id="key", client_secret="sécret").status == 200
    assert ask_token(rules, client_id="other", client_secret="sécret").status == 401
    assert ask_token(rules, client_id="key", client_secret="other").status == 401


def test_an_upload_is_answered_with_labels_and_the_very_bytes_reach_the_model() -> None:
    model = Stub((Label("cat", 0.75), Label("dog", 0.25)))
    jpeg = picture()

    response = upload(form(jpeg), model)

    assert response.status == 200
    assert response.document["result_num"] == 2
    assert response.document["result"][0] == {"keyword": "cat", "score": 0.75, "root": "ImageNet"}
    assert isinstance(response.document["log_id"], int)
    assert model.seen == [jpeg]


def test_no_label_is_an_empty_result() -> None:
    assert upload(form(picture()), Stub(())).document["result"] == []


@pytest.mark.parametrize("wrong", ["", "24", "24.99999999999.", "24.x.y", "24.²²." + "0" * 64, "é"])
def test_an_invalid_token_is_error_110(wrong: str) -> None:
    assert upload(form(picture()), access_token=wrong).document["error_code"] == 110


def test_a_token_of_another_server_is_error_110() -> None:
    foreign = token(Rules(secret=b"another"))

    assert upload(form(picture()), access_token=foreign).document["error_code"] == 110


def test_a_token_lives_to_its_last_second() -> None:
    mine = token(Rules(secret=RULES.secret, token_life_s=60), now=1000.0)

    assert "result" in upload(form(picture()), access_token=mine, now=1059.9).document
    assert upload(form(picture()), access_token=mine, now=1060.0).document["error_code"] == 111


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 216200),
        (b"image=", 216200),
        (b"other=1", 216200),
        (b"\xff\xfe", 216200),
        (b"&".join(b"a=1" for _ in range(50)), 216200),
        (b"image=%21%21", 216203),
        (b"image=abc", 216203),
        (b"image=ab+c", 216203),  # an unescaped plus is a space
        (form(b"no picture"), 216201),
        (form(picture(kind="GIF")), 216201),
        (form(picture(14, 20)), 216202),
        (form(picture(20, 4097)), 216202),
        (b"image=" + b"A" * (4 * 1024 * 1024), 216202),
    ],
)
def test_a_bad_upload_is_http_200_with_its_error_code(body: bytes, code: int) -> None:
    response = upload(body)

    assert response.status == 200
    assert response.document["error_code"] == code
    assert response.document["error_msg"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_the_documented_formats_and_side_limits_are_accepted(kind: str) -> None:
    assert "result" in upload(form(picture(15, 4096, kind))).document


def test_a_picture_that_breaks_while_it_is_decoded_is_a_format_error() -> None:
    class Broken(Stub):
        def answer(self, jpeg: bytes) -> tuple[Label, ...]:
            raise ImageError("broken")

    assert upload(form(picture()), Broken()).document["error_code"] == 216201


@pytest.mark.parametrize(
    ("method", "path"), [("GET", RECOGNIZE_PATH), ("POST", "/"), ("POST", "/rest/2.0/other")]
)
def test_another_method_or_path_is_not_found(method: str, path: str) -> None:
    response = respond(Request(method, path), Stub(), RULES, NOW)

    assert (response.status, response.document["error_code"]) == (404, 3)


def test_the_secret_and_the_keys_are_not_shown() -> None:
    assert "secret" not in repr(Rules(secret=b"secret", keys=("k", "secret")))


@given(st.binary(max_size=200), st.text(max_size=80))
def test_no_body_and_no_token_breaks_the_server(body: bytes, access_token: str) -> None:
    for sent in (body, b"image=" + quote(body).encode(), form(body)):
        assert upload(sent).status == 200
    assert upload(body, access_token=access_token).document["error_code"] == 110
