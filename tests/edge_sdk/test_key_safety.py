"""No client lets a key out to where it was not sent: redirects, false certificates, headers."""

from __future__ import annotations

import datetime
import io
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends.azure import AzureBackend
from edge_sdk.backends.baidu import TOKEN_PATH, BaiduBackend
from edge_sdk.backends.base import Backend
from edge_sdk.backends.facepp import FaceppBackend
from edge_sdk.backends.google import GoogleBackend
from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.backends.http import HttpClient
from edge_sdk.backends.rekognition import RekognitionBackend
from edge_sdk.backends.torchserve import TorchServeBackend
from edge_sdk.errors import BackendAuth, BackendUnavailable
from model_store.errors import BackendError

#: Resolved to this very machine by the tests: on loopback the environment is not asked at all.
HOST = "service.example"

KEY, SECRET, TOKEN = "k3y-of-mine", "s3cret-of-mine", "t0ken-of-mine"
ONCE = HttpPolicy(attempts=1, read_s=5.0)


def http(url: str) -> HttpClient:
    return HttpClient(url, policy=ONCE)


Open = Callable[[str], Backend]
OPEN: dict[str, Open] = {
    "azure": lambda url: AzureBackend(url, keys=lambda: (KEY,), http=http(url)),
    "baidu": lambda url: BaiduBackend(url, keys=lambda: (KEY, SECRET), http=http(url)),
    "facepp": lambda url: FaceppBackend(url, keys=lambda: (KEY, SECRET), http=http(url)),
    "google": lambda url: GoogleBackend(url, keys=lambda: (KEY,), http=http(url)),
    "google, by token": lambda url: GoogleBackend(url, token=lambda: TOKEN, http=http(url)),
    "rekognition": lambda url: RekognitionBackend(
        "eu-west-1",
        endpoint_url=url,
        keys=lambda: (KEY, SECRET, TOKEN),
        guard=Guard("rekognition", ONCE),
    ),
    "torchserve": lambda url: TorchServeBackend(url, "cats", keys=lambda: (TOKEN,), http=http(url)),
}
dialects = pytest.mark.parametrize("dialect", OPEN)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((96, 96), 80).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


# Redirects.


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[HTTPServer]:
    """Another server, which is to hear nothing."""
    with HTTPServer() as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("way", [*OPEN, "baidu, with its token"])
def test_a_redirect_carries_neither_key_nor_picture_to_another_server(
    httpserver: HTTPServer, elsewhere: HTTPServer, way: str, status: int
) -> None:
    sent: list[str] = []

    def redirect(request: Request) -> Response:
        sent.append(request.path)
        if way == "baidu, with its token" and request.path == TOKEN_PATH:
            return Response(f'{{"access_token": "{TOKEN}", "expires_in": 3600}}')
        return Response("{}", status, {"Location": elsewhere.url_for(request.full_path)})

    httpserver.expect_request("", method="POST").respond_with_handler(redirect)
    httpserver.expect_request("/").respond_with_handler(redirect)
    with (
        closing(OPEN[way.removesuffix(", with its token")](httpserver.url_for(""))) as backend,
        pytest.raises(BackendError) as caught,
    ):
        backend.recognize(JPEG)

    assert len(sent) == (2 if way == "baidu, with its token" else 1)
    assert not elsewhere.log
    assert not caught.value.transient
    assert not [one for one in (KEY, SECRET, TOKEN) if one in str(caught.value)]


# Certificates.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that is its own word."""
    x509 = pytest.importorskip("cryptography.x509", reason="makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    names = [x509.DNSName(one) for one in (HOST, "localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        made.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture(scope="module")
def tls_server(certificate: Path) -> Iterator[HTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(ssl_context=context) as server:
        yield server


@pytest.fixture
def tls(tls_server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """A server with that certificate, under both names."""
    resolve: Callable[..., Any] = socket.getaddrinfo

    def nearby(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if host == HOST else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", nearby)
    tls_server.clear()
    return tls_server


@pytest.mark.parametrize("host", [HOST, "localhost"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "AWS_CA_BUNDLE": ""},
        {"REQUESTS_CA_BUNDLE": " ", "CURL_CA_BUNDLE": " ", "AWS_CA_BUNDLE": " "},
        {"REQUESTS_CA_BUNDLE": "False", "AWS_CA_BUNDLE": "False", "PYTHONHTTPSVERIFY": "0"},
    ],
    ids=["nothing", "empty", "a space", "False"],
)
@dialects
def test_no_setting_makes_a_client_trust_a_certificate_that_nobody_signed(
    tls: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    environment: dict[str, str],
    host: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with (
        closing(OPEN[dialect](f"https://{host}:{tls.port}")) as backend,
        pytest.raises(BackendUnavailable) as caught,
    ):
        backend.recognize(JPEG)

    if not any(environment.values()):
        assert "has no TLS certificate that this device trusts" in str(caught.value)
    assert not tls.log


def test_an_empty_bundle_in_amazons_own_file_is_no_setting_either(
    tls: HTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nca_bundle =\n")

    with (
        closing(OPEN["rekognition"](f"https://{HOST}:{tls.port}")) as backend,
        pytest.raises(BackendUnavailable, match="TLS certificate"),
    ):
        backend.recognize(JPEG)
    assert not tls.log


def test_a_bundle_that_is_not_there_is_told(
    tls: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")

    with (
        closing(OPEN["azure"](f"https://{HOST}:{tls.port}")) as backend,
        pytest.raises(BackendUnavailable, match=r"REQUESTS_CA_BUNDLE .* names certificates"),
    ):
        backend.recognize(JPEG)


@dialects
def test_a_bundle_of_ones_own_is_a_setting(
    tls: HTTPServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    with (
        closing(OPEN[dialect](f"https://{HOST}:{tls.port}")) as backend,
        pytest.raises(BackendError),  # nothing is served there
    ):
        backend.recognize(JPEG)
    assert len(tls.log) == 1


# Headers.


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel", "€", " k-1"])
@pytest.mark.parametrize(
    "build",
    [
        lambda url, key: AzureBackend(url, keys=lambda: (key,)),
        lambda url, key: GoogleBackend(url, keys=lambda: (key,)),
        lambda url, key: GoogleBackend(url, token=lambda: key),
        lambda url, key: TorchServeBackend(url, "cats", keys=lambda: (key,)),
    ],
    ids=["azure", "google", "google, by token", "torchserve"],
)
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(
    httpserver: HTTPServer, build: Callable[[str, str], Backend], key: str
) -> None:
    with (
        closing(build(httpserver.url_for(""), key)) as backend,
        pytest.raises(BackendAuth, match="is empty or has a sign") as caught,
    ):
        backend.recognize(JPEG)
    assert not key or key not in str(caught.value)
    assert not httpserver.log
