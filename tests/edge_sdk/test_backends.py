"""The registry of services, their specifications and their declared limits."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk import backends
from edge_sdk.backends import Spec, open_backend, parse_spec, register
from edge_sdk.backends.base import Backend, Capabilities, Recognition
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.spec import is_loopback
from edge_sdk.errors import BackendRejected
from model_store.errors import UsageError


class Silent:
    name = "silent://"
    capabilities = Capabilities(max_bytes=1, min_side=1, max_side=1)

    def recognize(self, jpeg: bytes) -> Recognition:
        return Recognition((), self.wire_size(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_registered", {})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("baidu://aip.baidubce.com", Spec("baidu", "https", "aip.baidubce.com")),
        ("baidu+http://127.0.0.1:8000", Spec("baidu", "http", "127.0.0.1:8000")),
        ("BAIDU+HTTP://LocalHost:80/", Spec("baidu", "http", "localhost:80")),
        ("google://", Spec("google", "https", "")),
        ("rekognition://us-east-1", Spec("rekognition", "https", "us-east-1")),
        ("torchserve://host:8080/my/model/", Spec("torchserve", "https", "host:8080", "my/model")),
        ("baidu+http://[::1]:9", Spec("baidu", "http", "[::1]:9")),
        (" local:efficientnet-lite0 ", Spec("local", "", "", "efficientnet-lite0")),
    ],
)
def test_a_specification_is_read(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "baidu",
        "local:",
        "local+http:model",
        "local:a b",
        "baidu+ftp://host",
        "baidu://host:port",
        "baidu://host:99999",
        "baidu://a b",
        "://host",
        "baidu+http://[::1",
    ],
)
def test_a_specification_of_another_form_is_refused_with_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(text)

    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "baidu://KEY123:SECRET456@host",
        "baidu://host?api_key=KEY123&secret=SECRET456",
        "baidu://host/#SECRET456",
        "baidu+ftp://KEY123:SECRET456@host",
    ],
)
def test_keys_in_a_specification_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(text)

    assert "KEY123" not in str(caught.value)
    assert "SECRET456" not in str(caught.value)


@given(st.text())
def test_any_text_is_either_a_specification_or_a_usage_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except UsageError:
        return
    assert spec.scheme == spec.scheme.lower() != ""


def test_a_registered_scheme_opens_with_its_specification(registry: None) -> None:
    seen: list[Spec] = []

    def factory(spec: Spec) -> Backend:
        seen.append(spec)
        return Silent()

    register("local", factory)

    assert isinstance(open_backend("local:tiny"), Silent)
    assert seen == [Spec("local", "", "", "tiny")]
    assert "local" in backends.known_schemes()


def test_an_unknown_scheme_is_named_with_the_known_ones_and_a_suggestion(registry: None) -> None:
    words = r"'baidoo'.*known: azure, baidu, facepp, .*Did you mean 'baidu'\?"
    with pytest.raises(UsageError, match=words):
        open_backend("baidoo://host")


def test_a_bare_address_is_asked_for_its_dialect() -> None:
    with pytest.raises(UsageError, match=r"scheme 'http'.*facepp\+http://HOST:PORT"):
        open_backend("http://127.0.0.1:8000")


def test_an_installed_package_may_provide_a_scheme(
    registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "adacompress.backends"
    made = EntryPoint("mine", "edge_sdk.backends.baidu:open_spec", group)

    def installed(**selection: str) -> list[EntryPoint]:
        return [made] if selection == {"group": group, "name": "mine"} else []

    monkeypatch.setattr(importlib.metadata, "entry_points", installed)
    with contextlib.closing(open_backend("mine://127.0.0.1")) as backend:
        assert backend.name == "baidu://127.0.0.1"


def test_a_local_scheme_that_nobody_provides_names_the_package_that_would(
    registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_selection: [])
    with pytest.raises(UsageError, match=r"'local' is provided by the package training"):
        open_backend("local:efficientnet-lite0")


def test_the_registry_opens_its_own_services() -> None:
    backend = open_backend("baidu+http://127.0.0.1:1")

    assert isinstance(backend, Backend)
    assert backend.name == "baidu://127.0.0.1:1"
    backend.close()
    backend.close()


def test_baidu_has_a_default_host_and_no_path() -> None:
    assert open_backend("baidu://").name == "baidu://aip.baidubce.com"
    with pytest.raises(UsageError, match="no path"):
        open_backend("baidu://host/model")


def test_importing_the_registry_does_not_import_requests() -> None:
    code = "import sys, edge_sdk.backends; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "[::1]:80"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["aip.baidubce.com", "10.0.0.1:80", "", "[", "localhost.evil.com"])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def picture(width: int, height: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


LIMITS = Capabilities(max_bytes=10_000, min_side=15, max_side=200)


@pytest.mark.parametrize("size", [(15, 15), (200, 200), (15, 200)])
def test_pictures_at_the_limits_are_accepted(size: tuple[int, int]) -> None:
    check_limits(picture(*size), LIMITS, "the service")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (picture(14, 50), "14x50 pixels; the service accepts sides of 15 to 200"),
        (picture(50, 201), "50x201"),
        (bytes(10_001), "10001 bytes; the service accepts at most 10000"),
        (b"", "not a JPEG"),
        (b"not a picture", "not a JPEG"),
        (picture(50, 50, "PNG"), "not a JPEG"),
        (picture(50, 50)[:20], "not a JPEG"),
    ],
)
def test_other_files_are_refused_with_the_value_and_the_limit(data: bytes, words: str) -> None:
    with pytest.raises(BackendRejected, match=words):
        check_limits(data, LIMITS, "the service")
