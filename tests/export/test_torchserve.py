"""The archive, without TorchServe: complete, self-contained, and it decides as a device does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.assembly import load_agent
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.reading import load
from export.torchserve import archive, model_name
from export.torchserve_handler import HEADER, SCHEMA, handle
from model_store import StoredAgent

MakeContext = Callable[..., Any]


@pytest.fixture(scope="module")
def unpacked(stored: StoredAgent, unpack: Callable[[bytes], Path]) -> Path:
    return unpack(archive(stored))


@pytest.fixture(scope="module")
def jpegs(make_jpegs: Callable[..., list[bytes]]) -> list[bytes]:
    return make_jpegs(6, side=64)


def test_the_manifest_is_what_torchserve_reads(stored: StoredAgent, unpacked: Path) -> None:
    manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["runtime"] == "python"
    assert manifest["model"] == {
        "modelName": "day",
        "serializedFile": "engine.onnx",
        "handler": "handler.py",
        "modelVersion": "1.0",
        "requirementsFile": "requirements.txt",
    }
    for name in ("serializedFile", "handler", "requirementsFile"):
        assert (unpacked / manifest["model"][name]).is_file()
    assert (unpacked / "engine.onnx").read_bytes() == stored.file("engine")


def test_training_pictures_and_weights_stay_at_home(unpacked: Path) -> None:
    assert not list(unpacked.rglob("*.npz"))
    assert not list(unpacked.rglob("*.safetensors"))


def test_equal_agents_make_equal_archives(stored: StoredAgent) -> None:
    assert archive(stored) == archive(stored)


def test_an_agent_without_a_scenery_has_a_name_too() -> None:
    nameless: Any = SimpleNamespace(manifest=SimpleNamespace(scenery=None))
    assert model_name(nameless) == "adacompress"


def test_the_handler_answers_what_a_device_decides(
    stored: StoredAgent, unpacked: Path, jpegs: list[bytes], make_context: MakeContext
) -> None:
    agent, context = load_agent(stored), make_context(unpacked)
    assert handle(None, context) == []
    answers = handle([{"body": jpeg} for jpeg in jpegs], context)
    for answer, jpeg in zip(answers, jpegs, strict=True):
        picture = load(jpeg)
        packer = Packer(picture, UNLIMITED)
        decision = agent.decide(picture.image, packer.candidate)
        assert (answer["schema"], answer["agent"]) == (SCHEMA, stored.id)
        assert (answer["rung"], answer["probed"]) == (decision.rung, list(decision.probed))
        assert answer["encoder"] == agent.rung(decision.rung).as_dict()
        np.testing.assert_allclose(answer["q_values"], decision.scores.q_values[0], atol=1e-5)
        assert "jpeg" not in answer
    assert not context.states


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"jpeg": b"1"}, {}), ({"jpeg": "yes"}, {}), ({}, {HEADER.lower(): "1"})],
)
def test_the_encoded_file_comes_on_request(
    fields: dict[str, Any],
    headers: dict[str, str],
    unpacked: Path,
    jpegs: list[bytes],
    make_context: MakeContext,
) -> None:
    (answer,) = handle([{"data": jpegs[0], **fields}], make_context(unpacked, headers))
    assert set(answer) >= {"rung", "jpeg"}


def test_no_file_is_sent_to_who_declines(
    unpacked: Path, jpegs: list[bytes], make_context: MakeContext
) -> None:
    (answer,) = handle([{"data": jpegs[0], "jpeg": b"0"}], make_context(unpacked, {HEADER: "0"}))
    assert "jpeg" not in answer


@pytest.mark.parametrize("row", [{"body": b"no picture"}, {}, {"body": {"json": 1}}])
def test_what_is_no_picture_is_told_so_and_the_others_are_answered(
    row: dict[str, Any], unpacked: Path, jpegs: list[bytes], make_context: MakeContext
) -> None:
    context = make_context(unpacked)
    good, bad = handle([{"body": jpegs[0]}, row], context)
    assert "rung" in good
    assert "error" in bad
    assert context.states == [(400, "not a picture", 1)]


def test_the_archive_needs_nothing_of_us_installed(
    unpacked: Path, jpegs: list[bytes], make_context: MakeContext
) -> None:
    picture = unpacked / "photo.jpg"
    picture.write_bytes(jpegs[0])
    code = (
        "import sys; folder = sys.argv[1]; sys.path.insert(0, folder)\n"
        "from types import SimpleNamespace as Space\n"
        "import handler, edge_sdk, model_store, json\n"
        "assert all(m.__file__.startswith(folder) for m in (handler, edge_sdk, model_store))\n"
        "context = Space(system_properties={'model_dir': folder},"
        " get_all_request_header=lambda _: {})\n"
        "row = {'body': open(folder + '/photo.jpg', 'rb').read()}\n"
        "print(json.dumps(handler.handle([row], context)[0]))\n"
        "assert not {'torch', 'onnx', 'export', 'requests'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(unpacked)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == handle([{"body": jpegs[0]}], make_context(unpacked))[0]
