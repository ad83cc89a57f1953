"""The local cloud in a process of its own, through the real command."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Label
from edge_sdk.ladder import REFERENCE
from model_store.errors import EnvironmentMissing, UsageError
from training.assets import find
from training.cloud import process
from training.cloud.models import open_model
from training.cloud.process import CloudProcess

ROOT = Path(__file__).parents[2]
JPEG = codec.encode(Image.effect_noise((96, 80), 80).convert("RGB"), REFERENCE)

# A child process that serves a stub through the real command, without weights.
CHILD = """
import sys
from edge_sdk.backends.base import Label
from model_store import cli
from training.cloud import command

class Stub:
    boxes = False
    def __init__(self, name):
        self.name, self.version = name, name + "@1"
    def answer(self, jpeg):
        return (Label("cat", 0.75),)
    def answer_many(self, jpegs):
        return [self.answer(jpeg) for jpeg in jpegs]

command.open_model = Stub
parser = cli.parser("training", "test")
command.add_parser(parser.add_subparsers())
sys.exit(cli.run(parser, ["cloud", *sys.argv[1:]]))
"""
COMMAND = (sys.executable, "-c", CHILD)


def test_a_process_serves_and_ends_with_the_block() -> None:
    with CloudProcess("stub", command=COMMAND) as cloud:
        child = cloud._child
        assert child is not None
        assert child.poll() is None
        backend = open_backend(cloud.spec)
        assert backend.recognize(JPEG).labels == (Label("cat", 0.75),)
        assert cloud.model == "stub@1"
        backend.close()

    assert child.returncode == 0


def test_a_process_ends_when_the_block_is_interrupted() -> None:
    children = []

    def work() -> None:
        with CloudProcess("stub", command=COMMAND) as cloud:
            children.append(cloud._child)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [child and child.returncode for child in children] == [0]


def test_a_process_ends_when_its_starter_is_killed() -> None:
    program = (
        "import sys\n"
        "from training.cloud.process import CloudProcess\n"
        "cloud = CloudProcess('stub', command=(sys.executable, '-c', sys.argv[1]))\n"
        "cloud.__enter__()\n"
        "print(cloud.url, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, CHILD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline().rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            starter.kill()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""  # either way the orphan hangs up


def _attentive() -> None:
    """Undo what a shell does to a job in the background: it is started deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("told", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_the_command_says_when_it_is_ready_and_obeys_signals(
    told: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [*COMMAND, "--model", "stub", "--port", "0"],
        preexec_fn=_attentive,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,  # its end means nothing: a service manager gives this one
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert requests.get(ready["url"], timeout=5).status_code == 404
        child.send_signal(told)
        assert child.wait(20) == code

    assert ready["ready"] is True
    assert ready["spec"] == ready["specs"]["baidu"] == f"baidu+{ready['url']}"
    assert ready["model"] == "stub@1"


def test_options_reach_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = ["--dialects", "torchserve, azure", "--swap-after", "1", "--swap-to", "other"]
    options += ["--log", str(log), "--rename-labels", "--seed", "7"]
    with CloudProcess("stub", command=COMMAND, options=options) as cloud:
        assert list(cloud.specs) == ["torchserve", "azure"]
        assert cloud.spec == cloud.specs["torchserve"]
        with contextlib.closing(open_backend(cloud.specs["azure"])) as backend:
            answers = [backend.recognize(JPEG) for _ in range(2)]

    assert [answer.labels[0].name for answer in answers] == ["cat", "cat (renamed)"]
    assert [answer.model_version for answer in answers] == ["stub@1", "other@1+renamed"]
    assert [json.loads(line)["billed"] for line in log.read_text().splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (["--dialects", "clarifai"], "There is no dialect 'clarifai'"),
        (["--faults", "fire=1"], "There is no fault 'fire'"),
        (["--latency", "long"], "--latency long is not understood"),
        (["--qps", "0"], "--qps is 0"),
        (["--swap-to", "other"], "no --swap-after"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(option: list[str], why: str) -> None:
    with (
        pytest.raises(UsageError, match=why),
        CloudProcess("stub", command=COMMAND, options=option),
    ):
        pass


def test_a_process_on_a_port_in_use_repeats_the_childs_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(EnvironmentMissing, match=r"did not start: Port \d+ .* is in use"),
        CloudProcess("stub", taken.getsockname()[1], command=COMMAND),
    ):
        pass


def test_a_child_with_a_usage_error_is_a_usage_error() -> None:
    with (
        pytest.raises(UsageError, match="There is no port 70000"),
        CloudProcess("stub", 70000, command=COMMAND),
    ):
        pass


@pytest.mark.parametrize("code", ["raise SystemExit('no reason')", "print('hello')", "pass"])
def test_a_child_that_does_not_serve_is_an_environment_error(code: str) -> None:
    with (
        pytest.raises(EnvironmentMissing, match="did not start: "),
        CloudProcess("stub", command=(sys.executable, "-c", code)),
    ):
        pass


def test_a_stubborn_child_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_END_S", 0.1)
    stubborn = (
        "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        """print('{"ready": true, "url": "", "spec": "", "specs": {}, "model": ""}', flush=True);"""
        "threading.Event().wait()"
    )
    with CloudProcess("stub", command=(sys.executable, "-c", stubborn)) as cloud:
        child = cloud._child

    assert child is not None
    assert child.returncode == -signal.SIGKILL


def test_the_real_command_serves_a_real_model() -> None:
    try:
        find("efficientnet-lite0")
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))
    here = open_model("efficientnet-lite0")

    with CloudProcess("efficientnet-lite0") as cloud:
        backend = open_backend(cloud.spec)
        answer = backend.recognize(JPEG)
        backend.close()

    assert cloud.model == answer.model_version == here.version
    assert answer.labels == here.answer(JPEG)
