"""A real TorchServe with our archives: it decides as devices do, and reads their features."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.backends.torchserve import TorchServeBackend
from edge_sdk.errors import BackendProtocol, BackendRejected
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.reading import load
from export.codec_archive import CodecFiles, codec_archive
from export.torchserve import archive
from export.torchserve_handler import HEADER
from model_store import StoredAgent

#: The start of a Java machine and of a Python worker that imports torch, on a busy computer.
READY_S = 120.0
TIMEOUT_S = 20.0

#: Read here: every test starts without our variables.
_NAMED = os.environ.get("ADACOMPRESS_TORCHSERVE_PYTHON")

_START = "from ts.model_server import start; start()"


def _python() -> str:
    """Return a Python with TorchServe, or skip."""
    if shutil.which("java") is None:
        pytest.skip("no Java, which TorchServe needs")
    if _NAMED:
        return _NAMED
    if importlib.util.find_spec("ts") is None:
        pytest.skip("no TorchServe here, and ADACOMPRESS_TORCHSERVE_PYTHON names no Python with it")
    return sys.executable


@dataclass
class Server:
    inference: str
    management: str
    keys: dict[str, str]
    model: str

    def predict(self, jpeg: bytes, **headers: str) -> requests.Response:
        url = f"{self.inference}/predictions/{self.model}"
        return requests.post(url, data=jpeg, headers=headers, timeout=TIMEOUT_S)

    def status(self) -> str:
        """Return the state of the model's worker; the process alone says Healthy too early."""
        headers = _bearer(self.keys.get("management"))
        url = f"{self.management}/models/{self.model}"
        with contextlib.suppress(requests.ConnectionError):
            answer = requests.get(url, headers=headers, timeout=TIMEOUT_S)
            if answer.status_code == 200:
                return str([worker["status"] for worker in answer.json()[0]["workers"]])
        return "not there"


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def serving(mar: bytes, *, token: bool, model: str = "day") -> Iterator[Server]:
    python = _python()
    with tempfile.TemporaryDirectory(prefix="ts", ignore_cleanup_errors=True) as name:
        folder = Path(name)  # a short one: workers' sockets lie in it
        (folder / "models").mkdir()
        (folder / "models" / f"{model}.mar").write_bytes(mar)
        ports = _free_ports(5)
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        (folder / "config.properties").write_text(
            f"inference_address={addresses[0]}\nmanagement_address={addresses[1]}\n"
            f"metrics_address={addresses[2]}\ngrpc_inference_port={ports[3]}\n"
            f"grpc_management_port={ports[4]}\ndefault_workers_per_model=1\n"
        )
        command = [python, "-c", _START, "--start", "--foreground", "--ncs"]
        command += ["--model-store", "models", "--models", f"{model}={model}.mar"]
        command += ["--ts-config", "config.properties"]
        # Without PYTHONPATH: what answers has to be what is in the archive.
        kept = {
            key: text for key, text in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
        }
        places = {"TMPDIR": name, "LOG_LOCATION": name, "METRICS_LOCATION": name}
        bin_folder = str(Path(python).parent)
        path = {"PATH": os.pathsep.join((bin_folder, kept.get("PATH", "")))}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command + ([] if token else ["--disable-token-auth"]),
                cwd=folder,
                env={**kept, **places, **path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server = Server(addresses[0], addresses[1], {}, model)
            _wait(server, process, folder, token)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait(server: Server, process: subprocess.Popen[bytes], folder: Path, token: bool) -> None:
    until, pause = time.monotonic() + READY_S, threading.Event()
    while server.status() != "['READY']":
        if token and not server.keys:
            with contextlib.suppress(OSError, ValueError):
                document = json.loads((folder / "key_file.json").read_text())
                server.keys = {
                    name: entry["key"] for name, entry in document.items() if "key" in entry
                }
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"no worker ready: {(folder / 'log').read_text()[-3000:]}")
        pause.wait(0.3)


@pytest.fixture(scope="module")
def agent(stored: StoredAgent) -> Agent:
    return load_agent(stored)


@pytest.fixture(scope="module")
def jpegs(make_jpegs: Callable[..., list[bytes]]) -> list[bytes]:
    return make_jpegs(8, side=96)


def _expected(agent: Agent, jpeg: bytes) -> tuple[int, bytes, Any]:
    packer = Packer(load(jpeg), UNLIMITED)
    decision = agent.decide(load(jpeg).image, packer.candidate)
    return decision.rung, packer.pack(agent.rung(decision.rung)).jpeg, decision.scores.q_values[0]


@pytest.mark.slow
def test_a_picture_posted_comes_back_with_the_rung_that_the_device_chooses(
    stored: StoredAgent, agent: Agent, jpegs: list[bytes]
) -> None:
    with serving(archive(stored), token=False) as server:
        rungs = set()
        for jpeg in jpegs:
            answer = server.predict(jpeg)
            assert answer.status_code == 200, answer.text
            document, (rung, _, q_values) = answer.json(), _expected(agent, jpeg)
            assert (document["agent"], document["rung"]) == (stored.id, rung)
            assert document["encoder"] == agent.rung(rung).as_dict()
            np.testing.assert_allclose(document["q_values"], q_values, atol=1e-4)
            assert "jpeg" not in document
            rungs.add(rung)
        assert len(rungs) > 1
        rung, file, _ = _expected(agent, jpegs[0])
        asked = server.predict(jpegs[0], **{HEADER: "1"}).json()
        assert (asked["rung"], base64.b64decode(asked["jpeg"])) == (rung, file)
        form = {"data": jpegs[0], "jpeg": b"1"}
        url = f"{server.inference}/predictions/day"
        assert requests.post(url, files=form, timeout=TIMEOUT_S).json() == asked
        refused = server.predict(b"no picture")
        assert refused.status_code == 400
        assert "error" in refused.json()


@pytest.mark.slow
def test_with_tokens_only_who_has_one_is_answered(
    stored: StoredAgent, agent: Agent, jpegs: list[bytes]
) -> None:
    with serving(archive(stored), token=True) as server:
        assert server.predict(jpegs[0]).status_code == 400  # TorchServe's own code for it
        answer = server.predict(jpegs[0], **_bearer(server.keys["inference"]))
        assert answer.status_code == 200, answer.text
        assert answer.json()["rung"] == _expected(agent, jpegs[0])[0]


@pytest.mark.slow
def test_features_posted_come_back_with_what_the_tail_says(
    make_codec: Callable[..., dict[str, bytes]], jpegs: list[bytes], tmp_path: Path
) -> None:
    for name, data in make_codec(kind="context").items():
        (tmp_path / name).write_bytes(data)
    codec, device = CodecFiles.open(tmp_path), FeatureCodec.open(tmp_path)
    with serving(codec_archive(codec), token=False, model="colours") as server:
        backend = TorchServeBackend(server.inference, "colours", f"codec-{device.id}")
        assert backend.capabilities.codecs == (device.id,)
        for number, jpeg in enumerate(jpegs):
            integers = device.integers(load(jpeg).image)
            stream = device.encode(integers, number % device.rates)
            answer, expected = backend.recognize(stream), codec.tail().answer(stream)
            assert [one.name for one in answer.labels] == [one.name for one in expected]
            assert answer.wire_bytes == len(stream)
            reference = backend.recognize(jpeg)
            assert {one.name for one in reference.labels} <= {*codec.tail().names}
        seen = server.predict(stream, **{"X-AdaCompress-View": "1"}).json()
        assert load(base64.b64decode(seen["picture"])).image.size == (4, 4)
        with pytest.raises(BackendRejected, match="checksum"):
            backend.recognize(stream[:-1] + bytes([stream[-1] ^ 1]))
        with pytest.raises(BackendProtocol, match="no model of that server"):
            TorchServeBackend(server.inference, "colours", f"codec-{'0' * 16}").recognize(jpegs[0])
