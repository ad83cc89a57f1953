"""The fleet's service over real HTTP: uvicorn on loopback, the device's client, real retraining."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn

from edge_sdk.fleet import TOKEN, HttpRetrainer
from edge_sdk.memory import Memory, Transition, read_transitions
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.transit import pack, unpack
from export.publish import publish_run
from model_store import Manifest, Store, UsageError
from model_store.errors import AdaCompressError
from model_store.files import sha256_bytes
from training.__main__ import main
from training.learn.fit import fit_bandit
from training.learn.goal import Goal
from training.retrain import retrain
from training.serve.jobs import Jobs
from training.serve.service import service
from training.serve.worker import Workers

SECRET = "a-token-of-this-fleet"
GOAL = Goal(backend="local:stand-in", scenery="day", target=0.9)


class InProcess:
    """A retrainer that does the work at once, in this process."""

    def __init__(self) -> None:
        self._result: RetrainResult | None = None

    def start(self, request: RetrainRequest) -> None:
        try:
            self._result = RetrainResult(retrain(request.to_json()).id)
        except AdaCompressError as error:
            self._result = RetrainResult(None, str(error))

    def poll(self) -> RetrainResult | None:
        return self._result

    def close(self) -> None:
        pass


class Stub(InProcess):
    """A retrainer whose agents are the parent under another seed."""

    def start(self, request: RetrainRequest) -> None:
        store = Store(request.store)
        old = store.load(request.parent)
        new = replace(old.manifest, training={**old.manifest.training, "seed": request.seed})
        files = {entry.path: (entry.role, old.file(entry.role)) for entry in old.manifest.files}
        self._result = RetrainResult(store.publish(new, files).id)


class Idle(InProcess):
    """A retrainer that never ends."""

    def start(self, request: RetrainRequest) -> None:
        pass


@dataclass
class Fleet:
    """A running service."""

    url: str
    store: Store
    jobs: Jobs

    def retrainer(self, **choices: Any) -> HttpRetrainer:
        return HttpRetrainer(self.url, **{"token": lambda: SECRET, "look_s": 0.02} | choices)

    def ask(self, method: str, path: str, token: str = SECRET, **choices: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", **choices.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=10, **choices)


@contextlib.contextmanager
def running(
    folder: Path, make: Callable[[], Any] = InProcess, count: int = 1, **choices: Any
) -> Iterator[Fleet]:
    jobs = Jobs(folder / "jobs")
    store = Store(folder / "fleet")
    workers = Workers(jobs, store.root, count=count, retrainer=make)
    app = service(jobs, workers, store, folder / "incoming", SECRET, **choices)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    workers.start()
    thread.start()
    try:
        yield Fleet(f"http://127.0.0.1:{listener.getsockname()[1]}", store, jobs)
    finally:
        server.should_exit = True
        thread.join()
        workers.stop()
        jobs.close()
        listener.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with running(tmp_path / "service") as started:
        yield started


@dataclass
class Device:
    """A device's store with one agent, and transitions of a night."""

    store: Store
    parent: Manifest
    memory: Path

    def request(self, **changes: Any) -> RetrainRequest:
        wanted: dict[str, Any] = {
            "store": str(self.store.root),
            "parent": self.parent.id,
            "memory": str(self.memory),
            "scenery": "night",
            "alpha": 1.0,
            "beta": 0.0,
            "target_accuracy": 0.9,
            "seed": 5,
        }
        return RetrainRequest(**(wanted | changes))


@pytest.fixture(scope="module")
def device(tmp_path_factory: Any, stand_in: Any, make_labelled: Any) -> Device:
    folder = tmp_path_factory.mktemp("device")
    run, _ = fit_bandit(stand_in, make_labelled(0, 120), make_labelled(1, 90), GOAL)
    store = Store(folder / "store")
    parent = publish_run(run, store, aliases=["current"])[0]
    seen, rng = make_labelled(2, 40, harder=3.0), np.random.default_rng(0)
    with contextlib.closing(Memory(folder / "memory.sqlite")) as memory:
        memory.append(
            Transition(
                features=seen.features.values[row],
                rung=rung,
                reward=0.0,
                agreement=float(seen.table.agreement["any_hit"][row, rung]),
                size_ratio=float(seen.table.size_ratio[row, rung]),
                image=str(seen.table.keys[row]),
                palette=np.full(24, 1 / 24, dtype=np.float32),
            )
            for row in range(len(seen.table))
            for rung in rng.integers(0, len(seen.table.ladder), 2).tolist()
        )
    return Device(store, parent, folder / "memory.sqlite")


def result_of(retrainer: HttpRetrainer) -> RetrainResult:
    for _ in range(3000):
        result = retrainer.poll()
        if result is not None:
            return result
        threading.Event().wait(0.01)
    raise AssertionError("there is no result after half a minute")


def test_an_agent_is_made_from_features_and_published_on_the_device(
    fleet: Fleet, device: Device
) -> None:
    retrainer = fleet.retrainer()
    retrainer.start(device.request())
    made = result_of(retrainer)
    assert made.reason == ""
    assert made.agent is not None
    assert device.store.aliases()["scenery/night"] == made.agent
    assert device.store.verify(made.agent) == {made.agent: ()}
    manifest = device.store.manifest(made.agent)
    assert manifest.parent == device.parent.id
    assert manifest.scenery is not None
    assert manifest.scenery["signature"]["n"] == 40
    assert "palette" in manifest.scenery["signature"]
    assert retrainer.poll() is None


def test_the_same_job_sent_twice_is_one_job(tmp_path: Path, device: Device) -> None:
    with running(tmp_path, Stub) as fleet:
        for _ in range(2):
            retrainer = fleet.retrainer()
            retrainer.start(device.request())
            assert result_of(retrainer).agent
        assert len(fleet.store.ids()) == 2  # the lent parent and one new agent


def test_many_devices_at_once(tmp_path: Path, device: Device) -> None:
    def one(seed: int) -> RetrainResult:
        retrainer = fleet.retrainer()
        retrainer.start(device.request(seed=seed))
        return result_of(retrainer)

    with running(tmp_path, Stub, count=3) as fleet, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(100, 108)))
        assert {result.reason for result in made} == {""}
        assert len({result.agent for result in made}) == 8
        assert len(fleet.store.ids()) == 9


def test_a_job_that_cannot_be_done_tells_why(fleet: Fleet, device: Device) -> None:
    retrainer = fleet.retrainer()
    retrainer.start(device.request(target_accuracy=2.0))
    assert "target accuracy is 2" in result_of(retrainer).reason


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/agents/x"), ("PUT", "/v1/blobs/x"), ("PUT", "/v1/jobs/x"), ("GET", "/v1/jobs/x")],
)
def test_without_the_token_nothing_is_told(fleet: Fleet, method: str, path: str) -> None:
    answer = fleet.ask(method, path, token="a wrong one")
    assert (answer.status_code, answer.json()) == (
        401,
        {"detail": "The token is missing or wrong."},
    )
    assert fleet.ask("GET", "/healthz", token="").json() == {"waiting": 0}


def test_a_wrong_token_ends_the_job_with_a_reason(fleet: Fleet, device: Device) -> None:
    retrainer = fleet.retrainer(token=lambda: "a wrong one")
    retrainer.start(device.request())
    assert "401 The token" in result_of(retrainer).reason


def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, most=1000) as fleet:
        answer = fleet.ask("PUT", f"/v1/blobs/{'0' * 64}", data=b"x" * 5000)
        assert answer.status_code == 413


def test_a_state_that_is_known_is_not_sent_again(tmp_path: Path, device: Device) -> None:
    with running(tmp_path, Idle) as fleet:
        body = pack(device.request().to_json(), read_transitions(device.memory))
        path = f"/v1/jobs/{sha256_bytes(body)[:32]}"
        assert fleet.ask("PUT", path, data=body).status_code == 409  # the parent is unknown
        fleet.store.publish(
            device.parent,
            {
                entry.path: (entry.role, device.store.load(device.parent.id).file(entry.role))
                for entry in device.parent.files
            },
        )
        assert fleet.ask("PUT", path, data=body).status_code == 202
        told = fleet.ask("GET", path)
        again = fleet.ask("GET", path, headers={"If-None-Match": told.headers["ETag"]})
        assert again.status_code in (200, 304)
        if again.status_code == 200:  # a worker took it in between
            told, again = (
                again,
                fleet.ask("GET", path, headers={"If-None-Match": again.headers["ETag"]}),
            )
        assert (again.status_code, again.content) == (304, b"")
        fleet.ask("DELETE", path)
        assert fleet.ask("GET", path).json()["reason"] == "its device gave it up"


def test_what_does_not_belong_is_refused(fleet: Fleet, device: Device) -> None:
    body = pack(device.request().to_json(), read_transitions(device.memory))
    assert fleet.ask("PUT", f"/v1/jobs/{'0' * 32}", data=body).status_code == 422
    assert fleet.ask("PUT", f"/v1/blobs/{'0' * 64}", data=b"other").status_code == 422
    assert fleet.ask("PUT", "/v1/agents/x", data=b"{").status_code == 422
    manifest = json.dumps(device.parent.to_json())
    assert fleet.ask("PUT", f"/v1/agents/{device.parent.id}", data=manifest).status_code == 409
    assert fleet.ask("GET", f"/v1/blobs/{'0' * 64}").status_code == 404
    assert fleet.ask("GET", "/v1/jobs/unknown").status_code == 404
    garbage = b"PK no zip"
    answer = fleet.ask("PUT", f"/v1/jobs/{sha256_bytes(garbage)}", data=garbage)
    assert answer.status_code == 422
    assert "cannot be read" in answer.json()["detail"]


def test_what_ran_when_the_service_was_killed_runs_again(tmp_path: Path) -> None:
    first = Jobs(tmp_path)
    first.put("a" * 32, b"one")
    first.put("b" * 32, b"two")
    taken = first.take()
    assert taken is not None
    assert taken.id == "a" * 32
    first.close()  # as a killed one: nothing was ended
    with contextlib.closing(Jobs(tmp_path)) as second:
        assert second.waiting() == 2
        second.end("a" * 32, agent="night-1")
        assert second.put("a" * 32, b"one").state == "done"
        second.end("b" * 32, reason="no memory")
        assert second.put("b" * 32, b"two").state == "queued"


def test_transitions_travel_unchanged(device: Device) -> None:
    seen = read_transitions(device.memory)
    request, read = unpack(pack({"seed": 1}, seen), most=2**24)
    assert request == {"seed": 1}
    assert (read.features == seen.features).all()
    assert read.images == seen.images
    assert read.palettes is not None


@pytest.mark.parametrize("column", ["features", "rewards"])
def test_transitions_that_are_no_numbers_are_refused(device: Device, column: str) -> None:
    seen = read_transitions(device.memory)
    broken = np.full_like(getattr(seen, column), np.nan)
    with pytest.raises(UsageError, match="finite numbers"):
        unpack(pack({}, replace(seen, **{column: broken})), most=2**24)
    with pytest.raises(UsageError, match="bytes unpacked"):
        unpack(pack({}, seen), most=100)


@pytest.mark.parametrize(
    "url",
    ["http://fleet.example", "ftp://fleet.example", "https://", "https://user:pw@fleet.example"],
)
def test_the_token_travels_encrypted_or_to_this_machine_alone(url: str) -> None:
    with pytest.raises(UsageError, match="allowed is https"):
        HttpRetrainer(url)


def test_a_service_that_is_away_is_waited_for_until_the_deadline(device: Device) -> None:
    ticks = iter(range(0, 10_000, 50))
    retrainer = HttpRetrainer(
        "http://127.0.0.1:9", token=lambda: SECRET, deadline_s=60, clock=lambda: next(ticks)
    )
    retrainer.start(device.request())
    assert "no answer in time, the last was: ConnectionError" in result_of(retrainer).reason


def test_giving_up_waits_for_nobody(tmp_path: Path, device: Device) -> None:
    with running(tmp_path, Idle) as fleet:
        retrainer = fleet.retrainer()
        retrainer.start(device.request())
        assert retrainer.poll() is None
        retrainer.close()
        retrainer.close()
        assert retrainer.poll() is None


def test_the_command_wants_a_token(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv(TOKEN, "short")
    assert main(["serve", "--store", "agents"]) == 2
    assert "5 characters" in capsys.readouterr().err


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "training", "serve", "--store", str(tmp_path / "agents")],
        env={**os.environ, TOKEN: SECRET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    with child.stdout, child.stdin:
        told = json.loads(child.stdout.readline())
        answer = requests.get(f"{told['url']}/healthz", timeout=10)
        assert answer.json() == {"waiting": 0}
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) in (0, -signal.SIGTERM)
