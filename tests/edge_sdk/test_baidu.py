"""The Baidu client against a scripted service on loopback."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends.baidu import (
    CAPABILITIES,
    KEYS,
    MAX_BASE64,
    RECOGNIZE_PATH,
    TOKEN_PATH,
    BaiduBackend,
    _form,
    open_spec,
)
from edge_sdk.backends.base import Backend, Label
from edge_sdk.backends.http import HttpClient
from edge_sdk.backends.keys import from_environment
from edge_sdk.backends.spec import Spec
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError

KEY, SECRET = "key-K1K1K1", "secret-S2S2S2"
RESULT = {
    "log_id": 42,
    "result": [
        {"keyword": "dog", "score": 0.25, "root": "animal"},
        {"keyword": "cat", "score": 0.5, "root": "animal"},
    ],
}


def picture(side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 80).save(buffer, "JPEG")
    return buffer.getvalue()


class Service:
    """Answers uploads from a list (the last one for ever) and counts what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.uploads: list[Request] = []
        self.tokens: list[Request] = []
        self.answers: list[Any] = [RESULT]
        self.life = 2_592_000
        self.now = 0.0
        self.pauses: list[float] = []
        server.expect_request(TOKEN_PATH, method="POST").respond_with_handler(self.token)
        server.expect_request(RECOGNIZE_PATH, method="POST").respond_with_handler(self.upload)

    def token(self, request: Request) -> Response:
        self.tokens.append(request)
        return reply({"access_token": f"token-{len(self.tokens)}", "expires_in": self.life})

    def upload(self, request: Request) -> Response:
        self.uploads.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Response) else reply(answer)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def client(self) -> BaiduBackend:
        http = HttpClient(
            self.server.url_for(""),
            clock=lambda: self.now,
            sleep=self.sleep,
            jitter=lambda: 1.0,
        )
        return BaiduBackend(
            self.server.url_for(""), keys=lambda: (KEY, SECRET), http=http, clock=lambda: self.now
        )


def reply(document: dict[str, Any], **headers: str) -> Response:
    return Response(json.dumps(document), mimetype="application/json", headers=headers)


def refusal(code: int, message: str = "the reason") -> dict[str, Any]:
    return {"error_code": code, "error_msg": message, "log_id": 7}


@pytest.fixture
def service(httpserver: HTTPServer) -> Service:
    return Service(httpserver)


@pytest.fixture
def backend(service: Service) -> Iterator[BaiduBackend]:
    client = service.client()
    yield client
    client.close()


def test_it_is_a_backend_with_a_name_without_keys(service: Service, backend: BaiduBackend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name == f"baidu://localhost:{service.server.port}"


def test_labels_come_best_first_with_the_request_id(
    service: Service, backend: BaiduBackend
) -> None:
    answer = backend.recognize(picture())

    assert answer.labels == (Label("cat", 0.5), Label("dog", 0.25))
    assert answer.request_id == "42"
    assert answer.model_version is None


def test_the_body_is_form_encoded_base64_and_its_length_is_known_beforehand(
    service: Service, backend: BaiduBackend
) -> None:
    jpeg = picture(200)

    answer = backend.recognize(jpeg)

    sent = service.uploads[0]
    assert sent.content_type == "application/x-www-form-urlencoded"
    assert base64.b64decode(sent.form["image"]) == jpeg
    assert answer.wire_bytes == sent.content_length == backend.wire_size(jpeg)
    assert answer.wire_bytes > len(jpeg) * 4 / 3


@given(st.binary(max_size=300))
def test_the_form_is_what_any_form_parser_reads(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert _form(data).decode() == urlencode({"image": text})
    assert parse_qs(_form(data).decode(), keep_blank_values=True) == {"image": [text]}


def test_the_token_is_bought_once_with_the_keys(service: Service, backend: BaiduBackend) -> None:
    for _ in range(3):
        backend.recognize(picture())

    assert [dict(request.args) for request in service.tokens] == [
        {"grant_type": "client_credentials", "client_id": KEY, "client_secret": SECRET}
    ]
    assert {request.args["access_token"] for request in service.uploads} == {"token-1"}


def test_threads_share_one_token(service: Service, backend: BaiduBackend) -> None:
    threads = [threading.Thread(target=backend.recognize, args=(picture(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(service.tokens) == 1
    assert len(service.uploads) == 4


def test_the_token_is_replaced_before_it_expires(service: Service, backend: BaiduBackend) -> None:
    service.life = 1000
    backend.recognize(picture())
    service.now = 699.0
    backend.recognize(picture())
    service.now = 700.0
    backend.recognize(picture())

    assert [request.args["access_token"] for request in service.uploads] == [
        "token-1",
        "token-1",
        "token-2",
    ]


@pytest.mark.parametrize("code", [100, 110, 111])
def test_a_refused_token_is_replaced_once(
    service: Service, backend: BaiduBackend, code: int
) -> None:
    service.answers = [refusal(code), RESULT]

    assert backend.recognize(picture()).labels[0].name == "cat"
    assert len(service.tokens) == len(service.uploads) == 2


def test_a_token_refused_twice_is_an_auth_error(service: Service, backend: BaiduBackend) -> None:
    service.answers = [refusal(110, "Access token invalid, token-2")]

    with pytest.raises(BackendAuth, match=r"refused with 110 \(Access token invalid, \*\*\*\)"):
        backend.recognize(picture())
    assert len(service.uploads) == 2


@pytest.mark.parametrize(
    ("code", "kind", "uploads"),
    [
        (1, BackendUnavailable, 3),
        (2, BackendUnavailable, 3),
        (282000, BackendUnavailable, 3),
        (18, BackendThrottled, 3),
        (4, BackendQuota, 1),
        (17, BackendQuota, 1),
        (19, BackendQuota, 1),
        (6, BackendAuth, 1),
        (13, BackendAuth, 1),
        (14, BackendAuth, 1),
        (15, BackendAuth, 1),
        (100, BackendAuth, 2),
        (216100, BackendRejected, 1),
        (216103, BackendRejected, 1),
        (216200, BackendRejected, 1),
        (216201, BackendRejected, 1),
        (216202, BackendTooLarge, 1),
        (216203, BackendRejected, 1),
        (336000, BackendProtocol, 1),
        ("odd", BackendProtocol, 1),
    ],
)
def test_every_error_code_has_its_error_and_its_number_of_attempts(
    service: Service, backend: BaiduBackend, code: Any, kind: type[BackendError], uploads: int
) -> None:
    service.answers = [refusal(code)]

    with pytest.raises(kind) as caught:
        backend.recognize(picture())

    assert type(caught.value) is kind
    assert f"{code if code != 'odd' else -1} (the reason)" in str(caught.value)
    assert len(service.uploads) == uploads


def test_a_rate_limit_that_passes_is_waited_for(service: Service, backend: BaiduBackend) -> None:
    service.answers = [refusal(18), refusal(18), RESULT]

    assert backend.recognize(picture()).labels
    assert sum(service.pauses) == 3.0  # the pace, halved to one request a second, asks for more


@pytest.mark.parametrize("code", [216630, 216634])
def test_no_recognition_is_a_valid_empty_answer(
    service: Service, backend: BaiduBackend, code: int
) -> None:
    service.answers = [refusal(code)]

    answer = backend.recognize(picture())

    assert answer.labels == ()
    assert answer.request_id == "7"


def test_an_empty_result_is_a_valid_answer(service: Service, backend: BaiduBackend) -> None:
    service.answers = [{"log_id": 1, "result": []}]

    assert backend.recognize(picture()).labels == ()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"result": None},
        {"result": [{"keyword": "cat"}]},
        {"result": [{"keyword": "", "score": 0.5}]},
        {"result": [{"keyword": 5, "score": 0.5}]},
        {"result": [{"keyword": "cat", "score": 93}]},
        {"result": [{"keyword": "cat", "score": "NaN"}]},
        {"result": ["cat"]},
    ],
)
def test_a_result_of_another_form_is_a_protocol_error(
    service: Service, backend: BaiduBackend, document: dict[str, Any]
) -> None:
    service.answers = [document]

    with pytest.raises(BackendProtocol, match="label list of another form"):
        backend.recognize(picture())


def test_a_login_page_instead_of_json_is_a_protocol_error(
    service: Service, backend: BaiduBackend
) -> None:
    service.answers = [Response("<html>log in</html>", mimetype="text/html")]

    with pytest.raises(BackendProtocol, match=r"text/html that is not a JSON object"):
        backend.recognize(picture())


@pytest.mark.parametrize(
    ("status", "kind"), [(403, BackendAuth), (413, BackendTooLarge), (404, BackendProtocol)]
)
def test_an_http_error_without_json_has_its_error(
    service: Service, backend: BaiduBackend, status: int, kind: type[BackendError]
) -> None:
    service.answers = [Response("<html>", status=status, mimetype="text/html")]

    with pytest.raises(kind, match=f"HTTP {status}"):
        backend.recognize(picture())


def test_a_service_that_names_its_model_is_quoted(service: Service, backend: BaiduBackend) -> None:
    service.answers = [reply(RESULT, **{"X-Model-Version": "lite0@1234"})]

    assert backend.recognize(picture()).model_version == "lite0@1234"


def test_a_local_cloud_tells_its_model_for_free(httpserver: HTTPServer) -> None:
    httpserver.expect_request(TOKEN_PATH).respond_with_json(
        {"access_token": "t", "expires_in": 1000}, headers={"X-Model-Version": "lite0@1234"}
    )
    backend = BaiduBackend(httpserver.url_for(""), keys=lambda: (KEY, SECRET))

    assert backend.model_version() == "lite0@1234"
    backend.close()


def test_the_public_service_is_not_asked_for_its_model() -> None:
    def keys() -> tuple[str, str]:
        raise AssertionError

    assert BaiduBackend("https://aip.baidubce.com", keys=keys).model_version() is None


@pytest.mark.parametrize("data", [b"", b"no picture", picture(14)])
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, backend: BaiduBackend, data: bytes
) -> None:
    with pytest.raises(BackendRejected):
        backend.recognize(data)

    assert service.uploads == service.tokens == []


def test_the_largest_file_fits_the_base64_limit_and_one_more_byte_does_not() -> None:
    assert len(base64.b64encode(bytes(CAPABILITIES.max_bytes))) <= MAX_BASE64
    assert len(base64.b64encode(bytes(CAPABILITIES.max_bytes + 1))) > MAX_BASE64


@pytest.mark.parametrize(
    ("document", "status", "kind"),
    [
        ({"error": "invalid_client", "error_description": f"bad {SECRET}"}, 401, BackendAuth),
        ({"error": "invalid_client", "error_description": "unknown client id"}, 200, BackendAuth),
        ({"access_token": 5, "expires_in": 10}, 200, BackendProtocol),
        ({"access_token": "t", "expires_in": "soon"}, 200, BackendProtocol),
        ({}, 200, BackendProtocol),
    ],
)
def test_no_token_is_an_error_without_the_keys(
    httpserver: HTTPServer, document: dict[str, Any], status: int, kind: type[BackendError]
) -> None:
    httpserver.expect_request(TOKEN_PATH).respond_with_json(document, status=status)
    backend = BaiduBackend(httpserver.url_for(""), keys=lambda: (KEY, SECRET))

    with pytest.raises(kind) as caught:
        backend.recognize(picture())
    backend.close()

    assert SECRET not in str(caught.value)


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACOMPRESS_BAIDU_API_KEY", KEY)
    monkeypatch.delenv("ADACOMPRESS_BAIDU_SECRET_KEY", raising=False)

    with pytest.raises(BackendAuth, match=r"set ADACOMPRESS_BAIDU_SECRET_KEY\.") as caught:
        from_environment("Baidu", *KEYS)()
    assert KEY not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setenv("ADACOMPRESS_BAIDU_API_KEY", KEY)
    monkeypatch.setenv("ADACOMPRESS_BAIDU_SECRET_KEY", SECRET)
    backend = open_spec(Spec("baidu", "http", f"localhost:{service.server.port}"))

    backend.recognize(picture())
    backend.close()

    assert service.tokens[0].args["client_secret"] == SECRET


def test_a_local_cloud_needs_no_keys(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.delenv("ADACOMPRESS_BAIDU_API_KEY", raising=False)
    backend = open_spec(Spec("baidu", "http", f"127.0.0.1:{service.server.port}"))

    assert backend.recognize(picture()).labels
    backend.close()


def test_empty_keys_are_refused_before_anything_is_sent(service: Service) -> None:
    backend = BaiduBackend(service.server.url_for(""), keys=lambda: ("", SECRET))

    with pytest.raises(BackendAuth, match="is empty"):
        backend.recognize(picture())
    assert service.tokens == []


def test_no_message_no_repr_and_no_log_line_holds_a_key_or_a_token(
    service: Service, backend: BaiduBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(backend), repr(vars(backend)["_http"])]
    for answer in (RESULT, refusal(110), refusal(17), Response("<html>"), Response(status=503)):
        service.answers = [answer]
        try:
            texts.append(repr(backend.recognize(picture())))
        except BackendError as error:
            texts.append(repr(error))
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("werkzeug")]
    for secret in (KEY, SECRET, "token-"):
        assert not any(secret in text for text in [*texts, *own])
    assert any("access_token=***" in line for line in own)
