"""Retraining by a fleet's service: ``python -m training serve`` on a machine that can.

Everything happens on a thread of its own: the parent agent is lent if the service lacks it, the
transitions are sent once (a repeated send finds the same job), the result is asked for until it is
there and published to this device's store. What is sent are features and palettes, no pictures.

    EdgeClient(config, retrainer=HttpRetrainer("https://fleet.example:8443"))
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_sdk.backends.spec import is_loopback
from edge_sdk.memory import read_transitions
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.transit import pack
from model_store.errors import AdaCompressError, UsageError
from model_store.files import sha256_bytes

if TYPE_CHECKING:
    import requests

__all__ = ["TOKEN", "HttpRetrainer"]

#: Environment variable with the fleet's token.
TOKEN = "ADACOMPRESS_FLEET_TOKEN"

_TIMEOUT_S = (3.0, 30.0)
_DEADLINE_S = 6 * 3600.0
#: Seconds between two looks at a job, and the longest pause while the service cannot be reached.
_LOOK_S, _LONGEST_S = 5.0, 120.0
#: Answers that a later try may change.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_ERROR_CHARACTERS = 300


class HttpRetrainer:
    """A retrainer that a fleet's service does the work for.

    Args:
        url: the service's address; https, or this machine.
        token: returns the fleet's token; default reads ``ADACOMPRESS_FLEET_TOKEN``.
        look_s: seconds between two looks at the job.
        deadline_s: seconds after which the job is given up.
        clock: seconds that only grow.

    Raises:
        UsageError: the address would send the token unencrypted, or is none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str] = lambda: os.environ.get(TOKEN, ""),
        look_s: float = _LOOK_S,
        deadline_s: float = _DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))
        if not safe or not parts.netloc or parts.username is not None:
            raise UsageError(
                f"The fleet's address has the scheme {parts.scheme!r}; allowed is https://HOST, or "
                f"http:// to this machine alone. The token goes into {TOKEN}, not into the address."
            )
        self._url = url.rstrip("/")
        self._token = token
        self._look_s, self._deadline_s = look_s, deadline_s
        self._clock = clock
        self._task: _Task | None = None

    def start(self, request: RetrainRequest) -> None:
        """Begin on a thread of its own."""
        self.close()
        self._task = _Task(self, request)
        self._task.thread.start()

    def poll(self) -> RetrainResult | None:
        """Return the result once it is there."""
        task = self._task
        if task is None or task.result is None:
            return None
        self._task = None
        return task.result

    def close(self) -> None:
        """Give the job up; the service is told on the way out, nobody waits for that."""
        task, self._task = self._task, None
        if task is not None:
            task.cancelled.set()

    def work(self, request: RetrainRequest, cancelled: threading.Event) -> RetrainResult:
        """Do the whole job; called on the task's thread."""
        import requests  # not needed by a device that retrains otherwise

        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self._token()}"
            visit = _Visit(self._url, session, cancelled, self._clock, self._deadline_s)
            try:
                return visit.retrained(request, self._look_s)
            except AdaCompressError as error:
                return RetrainResult(None, f"the fleet's service: {error}")


class _Task:
    """One job's thread and its result."""

    def __init__(self, owner: HttpRetrainer, request: RetrainRequest) -> None:
        self.cancelled = threading.Event()
        self.result: RetrainResult | None = None
        self._owner, self._request = owner, request
        self.thread = threading.Thread(target=self._run, name="adacompress-fleet", daemon=True)

    def _run(self) -> None:
        try:
            self.result = self._owner.work(self._request, self.cancelled)
        except Exception as error:  # a thread that dies silently would leave the loop waiting
            self.result = RetrainResult(None, f"{type(error).__name__}: {error}")


class _Visit:
    """The conversation with the service about one job."""

    def __init__(
        self,
        url: str,
        session: requests.Session,
        cancelled: threading.Event,
        clock: Callable[[], float],
        deadline_s: float,
    ) -> None:
        self._url, self._session, self._cancelled = url, session, cancelled
        self._clock, self._ends = clock, clock() + deadline_s

    def retrained(self, request: RetrainRequest, look_s: float) -> RetrainResult:
        self._lend(Path(request.store), request.parent)
        wanted = {**request.to_json(), "store": "", "memory": ""}
        body = pack(wanted, read_transitions(request.memory))
        # The name of the job is its content: sent twice, it is one job.
        job = f"/v1/jobs/{sha256_bytes(body)[:32]}"
        self._ask("PUT", job, body)
        tag = ""
        while not self._cancelled.wait(look_s):
            answer = self._ask("GET", job, headers={"If-None-Match": tag})
            if answer.status_code == 304:
                continue
            tag, told = answer.headers.get("ETag", ""), answer.json()
            if told["state"] == "done":
                return RetrainResult(self._fetch(Path(request.store), str(told["agent"])))
            if told["state"] == "failed":
                return RetrainResult(None, str(told["reason"]))
        self._ask("DELETE", job)
        return RetrainResult(None, "it was given up")

    def _lend(self, root: Path, name: str) -> None:
        """Send the parent agent, if the service lacks it."""
        if self._ask("GET", f"/v1/agents/{name}", missing=True).status_code != 404:
            return
        from model_store import Store

        parent = Store(root).load(name)
        for entry in parent.manifest.files:
            self._ask("PUT", f"/v1/blobs/{entry.sha256}", parent.file(entry.role))
        import json

        self._ask("PUT", f"/v1/agents/{name}", json.dumps(parent.manifest.to_json()).encode())

    def _fetch(self, root: Path, name: str) -> str:
        """Publish the service's agent to this device's store and return its id."""
        from model_store import Manifest, Store

        manifest = Manifest.from_json(self._ask("GET", f"/v1/agents/{name}").json())
        files = {}
        for entry in manifest.files:
            content = self._ask("GET", f"/v1/blobs/{entry.sha256}").content
            if sha256_bytes(content) != entry.sha256:
                raise UsageError(f"the file {entry.path} of agent {name} came damaged")
            files[entry.path] = (entry.role, content)
        scenery = str((manifest.scenery or {}).get("name", ""))
        aliases = [f"scenery/{scenery}"] if scenery else []
        return Store(root).publish(manifest, files, aliases=aliases).id

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        missing: bool = False,
    ) -> requests.Response:
        """Ask until there is an answer that stays, or the time is over."""
        import requests

        pause = 1.0
        while True:
            reason = ""
            try:
                answer = self._session.request(
                    method, self._url + path, data=body, headers=headers, timeout=_TIMEOUT_S
                )
                reason = _reason(answer)
                if answer.ok or (missing and answer.status_code == 404):
                    return answer
                if answer.status_code not in _PASSING:
                    raise UsageError(reason)
            except requests.RequestException as error:
                reason = type(error).__name__
            if self._clock() + pause > self._ends:
                raise UsageError(f"no answer in time, the last was: {reason}")
            if self._cancelled.wait(pause):
                raise UsageError("it was given up")
            pause = min(2.0 * pause, _LONGEST_S)


def _reason(answer: requests.Response) -> str:
    try:
        told: Any = answer.json()
        said = str(told["detail"])
    except (ValueError, KeyError, TypeError):
        said = ""
    return f"{answer.status_code} {said}"[:_ERROR_CHARACTERS]
