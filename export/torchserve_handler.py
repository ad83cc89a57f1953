"""The handler inside a TorchServe archive: a picture in, its rung and Q-values out.

``export.torchserve`` copies this file into the archive, with the packages ``edge_sdk`` and
``model_store`` beside it, so it imports nothing else: what answers here is what runs on a device.
TorchServe calls :func:`handle`, once with None to load the agent, then with batches of requests.

    curl http://127.0.0.1:8080/predictions/day -T photo.jpg
    curl http://127.0.0.1:8080/predictions/day -F data=@photo.jpg -F jpeg=1   # and the JPEG to send
    curl http://127.0.0.1:8080/predictions/day -T photo.jpg -H 'X-AdaCompress-Jpeg: 1'    # the same
"""

from __future__ import annotations

import base64
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities
from edge_sdk.errors import ImageError
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.reading import load
from model_store.agent import StoredAgent
from model_store.blobs import Blobs
from model_store.files import read_json
from model_store.manifest import Manifest

__all__ = ["HEADER", "MANIFEST", "SCHEMA", "handle"]

SCHEMA = "adacompress.decision/1"

#: A request's header that asks for the encoded file.
HEADER = "X-AdaCompress-Jpeg"

#: The agent's manifest inside the archive; its files lie beside it.
MANIFEST = "agent.json"


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]]:
    """Answer a batch of requests.

    Args:
        data: one mapping a request: the picture's file as ``data`` or ``body``. With a field
            ``jpeg`` of 1, or such a header, the answer holds the encoded file, in base64 (what is
            asked in the address does not arrive here). None loads the agent.
        context: TorchServe's: the folder that the archive was unpacked to, headers, states.
    """
    agent = _agent(Path(str(context.system_properties["model_dir"])))
    return [_answer(agent, row, context, place) for place, row in enumerate(data or [])]


def _answer(agent: Agent, row: dict[str, Any], context: Any, place: int) -> dict[str, Any]:
    file = row.get("data") or row.get("body") or b""
    try:
        picture = load(bytes(file) if isinstance(file, bytes | bytearray) else b"")
    except ImageError as error:
        context.set_response_status(400, "not a picture", place)
        return {"schema": SCHEMA, "error": str(error)}
    # Which service the encoding is for is not known here.
    packer = Packer(picture, _anything(agent), codec=agent.codec)
    decision = agent.decide(picture.image, packer.candidate)
    rung = agent.rung(decision.rung)
    answer = {
        "schema": SCHEMA,
        "agent": agent.id,
        "rung": decision.rung,
        "encoder": rung.as_dict(),
        "q_values": decision.scores.q_values[0].astype(float).round(6).tolist(),
        "probed": list(decision.probed),
    }
    if _wants_jpeg(row, context.get_all_request_header(place)):
        answer["jpeg"] = base64.b64encode(packer.pack(rung).jpeg).decode()
    return answer


def _anything(agent: Agent) -> Capabilities:
    return UNLIMITED if agent.codec is None else replace(UNLIMITED, codecs=(agent.codec.id,))


def _wants_jpeg(row: dict[str, Any], headers: dict[str, str]) -> bool:
    named = {name.lower(): value for name, value in headers.items()}
    asked = row.get("jpeg") or named.get(HEADER.lower()) or "0"
    return (bytes(asked) if isinstance(asked, bytes | bytearray) else asked) not in ("0", b"0")


@functools.cache  # one folder a worker process
def _agent(folder: Path) -> Agent:
    manifest = Manifest.from_json(read_json(folder / MANIFEST))
    return load_agent(StoredAgent(manifest, _Files(folder, manifest)))


class _Files(Blobs):
    """An agent's files by their paths in a folder, where a store has them by their hashes."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder)
        self._paths = {entry.sha256: folder / entry.path for entry in manifest.files}

    def path(self, sha256: str) -> Path:
        return self._paths[sha256]
