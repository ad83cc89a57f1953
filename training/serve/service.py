"""The service's HTTP face; ``edge_sdk.fleet`` is its client.

    PUT    /v1/agents/ID      a manifest, after its blobs     GET  the same, 404 if unknown
    PUT    /v1/blobs/SHA256   a file of an agent              GET  the same
    PUT    /v1/jobs/ID        request and transitions         GET  the state, with an ETag
    DELETE /v1/jobs/ID        nobody wants it any more
    GET    /healthz           without a token

Every other request carries ``Authorization: Bearer TOKEN``. Bodies have a limit.
"""

from __future__ import annotations

import hmac
import json
import re
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from edge_sdk.transit import unpack
from model_store import Manifest, Store
from model_store.errors import AdaCompressError
from model_store.files import sha256_bytes, write_atomic
from training.serve.jobs import Job, Jobs
from training.serve.worker import Workers

__all__ = ["MOST_BODY", "MOST_UNPACKED", "MOST_WAITING", "service"]

MOST_BODY = 64 * 2**20
MOST_UNPACKED = 256 * 2**20
#: Jobs that may wait; more are refused for now.
MOST_WAITING = 1000

_HEX = re.compile(r"[0-9a-f]{32,64}")


class _Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def service(
    jobs: Jobs, workers: Workers, store: Store, incoming: Path, token: str, most: int = MOST_BODY
) -> FastAPI:
    """Return the application.

    Args:
        jobs: the queue.
        workers: woken up by a new job.
        store: agents, lent and made.
        incoming: where the files of an agent wait for its manifest.
        token: what every device knows.
        most: bytes of a body.
    """
    app = FastAPI(title="AdaCompress fleet service", openapi_url=None)

    @app.exception_handler(_Refusal)
    async def _refused(_: Request, refusal: _Refusal) -> JSONResponse:
        headers = {"Retry-After": "30"} if refusal.status == 503 else {}
        return JSONResponse({"detail": str(refusal)}, refusal.status, headers)

    @app.exception_handler(AdaCompressError)
    async def _failed(_: Request, error: AdaCompressError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get("/healthz")
    def healthz() -> dict[str, int]:
        return {"waiting": jobs.waiting()}

    @app.get("/v1/agents/{name}")
    def agent(name: str, request: Request) -> JSONResponse:
        _admit(request, token)
        if name not in store.ids():
            raise _Refusal(404, f"There is no agent {name!r}; put it.")
        return JSONResponse(store.manifest(name).to_json())

    @app.put("/v1/agents/{name}")
    async def put_agent(name: str, request: Request) -> JSONResponse:
        _admit(request, token)
        manifest = Manifest.from_json(_json(await _body(request, most)))
        if name in store.ids():  # another device was faster
            return JSONResponse({"agent": name})
        waiting = {entry.path: (entry, incoming / entry.sha256) for entry in manifest.files}
        if missing := [entry.sha256 for entry, path in waiting.values() if not path.is_file()]:
            raise _Refusal(409, f"The file {missing[0]} is missing; put it first.")
        files = {place: (entry.role, path) for place, (entry, path) in waiting.items()}
        made = store.publish(manifest, files)
        for _, path in waiting.values():
            path.unlink(missing_ok=True)
        if made.id != name:
            raise _Refusal(422, f"The manifest is of agent {made.id}, not of {name}.")
        return JSONResponse({"agent": made.id}, 201)

    @app.get("/v1/blobs/{sha256}")
    def blob(sha256: str, request: Request) -> Response:
        _admit(request, token)
        for name in store.ids():
            found = store.load(name)
            for entry in found.manifest.files:
                if entry.sha256 == sha256:
                    return Response(found.file(entry.role), media_type="application/octet-stream")
        raise _Refusal(404, f"There is no file {sha256!r}.")

    @app.put("/v1/blobs/{sha256}")
    async def put_blob(sha256: str, request: Request) -> JSONResponse:
        _admit(request, token)
        content = await _body(request, most)
        if sha256_bytes(content) != sha256:
            raise _Refusal(422, f"The content is not that of {sha256!r}.")
        write_atomic(incoming / sha256, content)
        return JSONResponse({"sha256": sha256}, 201)

    @app.put("/v1/jobs/{name}")
    async def put_job(name: str, request: Request) -> JSONResponse:
        _admit(request, token)
        body = await _body(request, most)
        if not _HEX.fullmatch(name) or not sha256_bytes(body).startswith(name):
            raise _Refusal(422, "A job is named by the start of its content's SHA-256.")
        document, _ = unpack(body, most=MOST_UNPACKED)
        if document.get("parent") not in store.ids():
            raise _Refusal(409, f"The parent {document.get('parent')!r} is unknown; put it first.")
        if jobs.waiting() >= MOST_WAITING:
            raise _Refusal(503, "Too many jobs wait; come back later.")
        job = jobs.put(name, body)
        workers.wake()
        return _told(job, 202)

    @app.get("/v1/jobs/{name}")
    def job(name: str, request: Request) -> Response:
        _admit(request, token)
        found = jobs.get(name)
        if found is None:
            raise _Refusal(404, f"There is no job {name!r}.")
        if request.headers.get("If-None-Match") == found.tag:
            return Response(status_code=304, headers={"ETag": found.tag})
        return _told(found, 200)

    @app.delete("/v1/jobs/{name}")
    def give_up(name: str, request: Request) -> JSONResponse:
        _admit(request, token)
        jobs.end(name, reason="its device gave it up")
        return JSONResponse({})

    return app


def _admit(request: Request, token: str) -> None:
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise _Refusal(401, "The token is missing or wrong.")


async def _body(request: Request, most: int) -> bytes:
    """Read a body, but no more of it than is allowed."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > most:
            raise _Refusal(413, f"The body has more than the {most} bytes that are allowed.")
    return bytes(read)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise _Refusal(422, f"The body is no JSON: {error}.") from error


def _told(job: Job, status: int) -> JSONResponse:
    document = {"id": job.id, "state": job.state, "agent": job.agent, "reason": job.reason}
    return JSONResponse(document, status, {"ETag": job.tag})
