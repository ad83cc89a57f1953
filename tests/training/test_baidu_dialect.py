"""Baidu's dialect as a pure function, without sockets and without weights."""

from __future__ import annotations

import base64
import io
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.backends.baidu import RECOGNIZE_PATH, TOKEN_PATH
from edge_sdk.backends.base import Label
from training.cloud.dialects.baidu import Baidu
from training.cloud.dialects.base import Answer, Fault, Request, Response, Rules

NOW = 1_700_000_000.5
RULES = Rules(secret=b"a server's secret")
LABELS = (Label("cat", 0.75), Label("dog", 0.25))
IDENTITY = "0123456789abcdef0123456789abcdef"


def picture(width: int = 20, height: int = 20, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def document(response: Response) -> dict[str, Any]:
    assert isinstance(response.content, dict)
    return response.content


def ask_token(rules: Rules = RULES, now: float = NOW, body: bytes = b"", **other: str) -> Response:
    given = {"grant_type": "client_credentials", "client_id": "k", "client_secret": "s", **other}
    request = Request("POST", TOKEN_PATH, {} if body else given, body=body)
    response = Baidu(rules).picture(request, now, IDENTITY)
    assert isinstance(response, Response)
    return response


def token(rules: Rules = RULES, now: float = NOW) -> str:
    return str(document(ask_token(rules, now))["access_token"])


def upload(body: bytes, access_token: str | None = None, now: float = NOW) -> bytes | Response:
    query = {"access_token": token() if access_token is None else access_token}
    return Baidu(RULES).picture(Request("POST", RECOGNIZE_PATH, query, body=body), now, IDENTITY)


def error_code(refused: bytes | Response) -> int:
    assert isinstance(refused, Response)
    assert refused.status == 200
    assert document(refused)["error_msg"]
    return int(document(refused)["error_code"])


def told(labels: tuple[Label, ...]) -> dict[str, Any]:
    answer = Answer(labels, (20, 20), "stub@1", IDENTITY)
    return document(Baidu(RULES).respond(Request("POST", RECOGNIZE_PATH), answer))


def form(data: bytes) -> bytes:
    return urlencode({"image": base64.b64encode(data).decode()}).encode()


def test_any_pair_of_keys_buys_a_token_for_thirty_days() -> None:
    response = ask_token()

    assert (response.status, response.kind) == (200, "token")
    assert document(response)["expires_in"] == 2_592_000


def test_the_keys_may_come_in_the_body() -> None:
    body = b"grant_type=client_credentials&client_id=k&client_secret=s"

    assert "access_token" in document(ask_token(body=body))


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
    response = ask_token(RULES, NOW, b"", **query)

    assert (response.status, response.kind) == (status, "refused")
    assert document(response)["error"] == error


def test_a_server_with_a_pair_of_keys_accepts_only_them() -> None:
    rules = Rules(secret=b"x", keys={"baidu": ("key", "sécret")})

    assert ask_token(rules, client_id="key", client_secret="sécret").status == 200
    assert ask_token(rules, client_id="other", client_secret="sécret").status == 401
    assert ask_token(rules, client_id="key", client_secret="other").status == 401


def test_the_very_bytes_of_an_upload_are_the_picture() -> None:
    jpeg = picture()

    assert upload(form(jpeg)) == jpeg


def test_an_answer_names_keyword_and_score_best_first() -> None:
    answer = told(LABELS)

    assert answer["result_num"] == 2
    assert answer["result"][0] == {"keyword": "cat", "score": 0.75, "root": "object"}
    assert answer["log_id"] == int(IDENTITY[:15], 16)


def test_no_label_is_an_empty_result() -> None:
    assert told(())["result"] == []


@pytest.mark.parametrize("wrong", ["", "24", "24.99999999999.", "24.x.y", "24.²²." + "0" * 64, "é"])
def test_an_invalid_token_is_error_110(wrong: str) -> None:
    assert error_code(upload(form(picture()), access_token=wrong)) == 110


def test_a_token_of_another_server_is_error_110() -> None:
    foreign = token(Rules(secret=b"another"))

    assert error_code(upload(form(picture()), access_token=foreign)) == 110


def test_a_token_lives_to_its_last_second() -> None:
    mine = token(Rules(secret=RULES.secret, token_life_s=60), now=1000.0)

    assert upload(form(picture()), access_token=mine, now=1059.9) == picture()
    assert error_code(upload(form(picture()), access_token=mine, now=1060.0)) == 111


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
    assert error_code(upload(body)) == code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_the_documented_formats_and_side_limits_are_accepted(kind: str) -> None:
    assert upload(form(picture(15, 4096, kind))) == picture(15, 4096, kind)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.THROTTLED, 18),
        (Fault.UNAVAILABLE, 282000),
        (Fault.TOKEN, 111),
        (Fault.IMAGE, 216201),
    ],
)
def test_every_fault_is_http_200_with_its_error_code(fault: Fault, code: int) -> None:
    assert error_code(Baidu(RULES).refuse(fault, IDENTITY)) == code


@pytest.mark.parametrize(
    ("method", "path", "mine"),
    [
        ("POST", RECOGNIZE_PATH, True),
        ("POST", TOKEN_PATH, True),
        ("GET", TOKEN_PATH, True),
        ("GET", RECOGNIZE_PATH, False),
        ("POST", "/", False),
        ("POST", "/rest/2.0/other", False),
    ],
)
def test_the_path_tells_whose_a_request_is(method: str, path: str, mine: bool) -> None:
    assert Baidu(RULES).mine(Request(method, path)) is mine


def test_the_secret_and_the_keys_are_not_shown() -> None:
    assert "secret" not in repr(Rules(secret=b"secret", keys={"baidu": ("k", "secret")}))


@given(st.binary(max_size=200), st.text(max_size=80))
def test_no_body_and_no_token_breaks_the_dialect(body: bytes, access_token: str) -> None:
    for sent in (body, b"image=" + quote(body).encode(), form(body)):
        assert error_code(upload(sent)) >= 216200  # random bytes are no picture
    assert error_code(upload(body, access_token=access_token)) == 110
