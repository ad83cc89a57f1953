"""The vendors' documented ``curl`` lines against the local cloud, where a client is not enough.

Face++'s and TorchServe's are in the tests of their dialects.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from PIL import Image

from edge_sdk.backends.azure import ANALYZE_PATH
from edge_sdk.backends.baidu import RECOGNIZE_PATH, TOKEN_PATH
from edge_sdk.backends.base import Label
from edge_sdk.backends.google import ANNOTATE_PATH
from edge_sdk.errors import ImageError
from training.cloud.dialects.base import Rules
from training.cloud.server import CloudServer

KEYS = {"azure": ("k",), "baidu": ("k", "s"), "google": ("k",)}


class Stub:
    name, version, boxes = "stub", "stub@1", False

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return (Label("dog", 0.75), Label("cat", 0.5))

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) for jpeg in jpegs]


@pytest.fixture
def url() -> Iterator[str]:
    with CloudServer(Stub(), rules=Rules(secret=b"x", keys=KEYS)) as server:
        yield server.url


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    buffer, file = io.BytesIO(), tmp_path / "a.jpg"
    Image.effect_noise((96, 80), 80).save(buffer, "JPEG")
    file.write_bytes(buffer.getvalue())
    return file


def curl(*arguments: str) -> Any:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [program, "--silent", "--noproxy", "*", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


def test_azure(url: str, picture: Path) -> None:
    answer = curl(
        *("-H", "Ocp-Apim-Subscription-Key: k", "-H", "Content-Type: application/octet-stream"),
        *("--data-binary", f"@{picture}"),
        f"{url}{ANALYZE_PATH}?features=tags&model-version=latest&language=en"
        "&api-version=2023-10-01",
    )

    assert answer["tagsResult"]["values"][0] == {"name": "dog", "confidence": 0.75}
    assert answer["metadata"] == {"width": 96, "height": 80}


def test_baidu(url: str, picture: Path, tmp_path: Path) -> None:
    keys = "grant_type=client_credentials&client_id=k&client_secret=s"
    token = curl("-X", "POST", f"{url}{TOKEN_PATH}?{keys}")["access_token"]
    assert curl(f"{url}{TOKEN_PATH}", "--data", keys)["access_token"]
    form = tmp_path / "form"
    form.write_text("image=" + quote_plus(base64.b64encode(picture.read_bytes())))

    answer = curl(
        *(f"{url}{RECOGNIZE_PATH}?access_token={token}", "--data", f"@{form}"),
        *("-H", "Content-Type:application/x-www-form-urlencoded"),
    )

    assert [one["keyword"] for one in answer["result"]] == ["dog", "cat"]


@pytest.mark.parametrize("key", ["X-Goog-Api-Key: k", "Authorization: Bearer k"])
def test_google(url: str, picture: Path, tmp_path: Path, key: str) -> None:
    content = base64.b64encode(picture.read_bytes()).decode()
    features = [{"maxResults": 1, "type": "LABEL_DETECTION"}]
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"requests": [{"image": {"content": content}, "features": features}]})
    )

    answer = curl(
        *("-X", "POST", "-H", key, "-H", "Content-Type: application/json; charset=utf-8"),
        *("-d", f"@{request}", url + ANNOTATE_PATH),
    )

    (found,) = answer["responses"][0]["labelAnnotations"]
    assert (found["description"], found["score"]) == ("dog", 0.75)
