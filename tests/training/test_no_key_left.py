"""A run with keys leaves no key and no token behind: not in a file, not in what it says."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from PIL import Image

from edge_sdk.__main__ import main as edge_sdk
from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from training import assets
from training.__main__ import main as training
from training.cloud.dialects.base import Rules
from training.cloud.server import CloudServer

#: With signs that base64 and url-encoding change.
KEYS = {
    "ADACOMPRESS_BAIDU_API_KEY": "baidu+key/with=4e1f",
    "ADACOMPRESS_BAIDU_SECRET_KEY": "baidu+secret/with=9a0c",
    "ADACOMPRESS_FACEPP_API_KEY": "facepp+key/with=77d2",
    "ADACOMPRESS_FACEPP_API_SECRET": "facepp+secret/with=b3e8",
}
#: What the local cloud's Baidu gives for them: a version, an expiry, a signature.
TOKEN = re.compile(rb"24\.\d{10}\.[0-9a-f]{64}")


class Stub:
    name, version, boxes = "stub", "stub@1", False

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return (Label("cat", 0.75), Label("dog", 0.25))

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) for jpeg in jpegs]


def shapes(key: str) -> Iterator[bytes]:
    """Yield how a key may look: as it is, url-encoded, in base64 wherever it begins there."""
    yield from (key.encode(), quote(key, safe="").encode(), quote_plus(key).encode())
    for offset in range(3):
        padded = base64.b64encode(bytes(offset) + key.encode())
        # The first and the last signs depend on what is around the key.
        yield padded[-(-8 * offset // 6) : len(padded.rstrip(b"=")) - 1]


def found(data: bytes) -> list[str]:
    """Return the names of the keys and tokens in ``data``."""
    names = [name for name, key in KEYS.items() if any(shape in data for shape in shapes(key))]
    return names + ["a token"] * bool(TOKEN.search(data))


@pytest.mark.parametrize("around", [b"", b"x", b"xy", b"xyz"])
def test_the_search_finds_keys_in_every_shape(around: bytes) -> None:
    name, key = next(iter(KEYS.items()))
    plain = around + key.encode() + around

    assert found(plain) == found(base64.b64encode(plain)) == [name]
    assert found(b"key=" + quote_plus(plain).encode()) == [name]
    assert found(b"access_token=24.1700000000." + b"0f" * 32) == ["a token"]
    assert found(b"nothing of the kind" + around) == []


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudServer]:
    baidu, facepp = (tuple(KEYS.values())[at : at + 2] for at in (0, 2))
    rules = Rules(secret=b"of the server", keys={"baidu": baidu, "facepp": facepp})
    with CloudServer(Stub(), rules=rules, log=tmp_path / "log.jsonl") as server:
        yield server


@pytest.fixture
def photos(installed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in assets.photos("objects")[:9]:
        with Image.open(path) as opened:
            opened.convert("RGB").resize((200, 150)).save(folder / f"{path.stem}.png")
    return folder


@pytest.mark.slow
def test_no_file_and_no_line_of_a_run_holds_a_key_or_a_token(
    tmp_path: Path,
    photos: Path,
    cloud: CloudServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    places = ["--images", str(photos), "--store", str(tmp_path / "store")]
    caplog.set_level(logging.DEBUG)
    services = {name: ["--backend", cloud.spec_of(name)] for name in ("baidu", "facepp")}
    fit = ["fit", *places, *services["baidu"], "--run", str(tmp_path / "run"), "--max-probes", "0"]
    assert training(fit) == 0
    assert edge_sdk(["run", *places, *services["facepp"], "--json"]) == 0
    for dialect, secret in (("baidu", "_BAIDU_SECRET_KEY"), ("facepp", "_FACEPP_API_SECRET")):
        monkeypatch.setenv(f"ADACOMPRESS{secret}", "another=value")
        assert edge_sdk(["run", *places, *services[dialect]]) == 6

    said = capfd.readouterr()
    assert said.err.count("Check the keys") == 2
    assert caplog.text.count("POST /oauth/2.0/token?") > 0  # the most talkative log was on
    assert found((said.out + said.err + caplog.text).encode()) == []
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in left}
    assert {"log.jsonl", "ledger.sqlite", "memory.sqlite", "run.json", "manifest.json"} <= names
    assert {str(path): found(path.read_bytes()) for path in left if found(path.read_bytes())} == {}
    assert cloud.counts()["billed"] > 9 * 2
