"""Variants of a published agent's engine: the same agent, one file more, the same gate.

A variant is a new version of the agent: its manifest lists one file more, and says what the gate
measured. ``engine`` stays fp32: it is what re-training takes its prefix from, and what a device
falls back to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import probe
from edge_sdk.assembly import VARIANTS
from edge_sdk.engine import NATIVE, OnnxEngine
from edge_sdk.errors import EngineError
from export.bench import Row, bench
from export.gate import check_unrounded, fp32_agent, probe_set
from export.int8 import Quantized, quantize
from model_store import Draft, Manifest, Store, StoredAgent
from model_store.errors import GateFailed

__all__ = ["Int8", "engines", "publish_int8"]

#: How many times faster a variant has to be on the machine that makes it, to be worth its risk.
WORTH = 1.05

Tell = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class Int8:
    """What :func:`publish_int8` did.

    Attributes:
        manifest: of the agent with the variant.
        quantized: which blocks, and what the gate measured.
        rows: the timing of both engines, in one run.
    """

    manifest: Manifest
    quantized: Quantized
    rows: tuple[Row, Row]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        fp32, int8 = self.rows
        return {
            "blocks": list(self.quantized.blocks),
            "kept_fp32": list(self.quantized.kept),
            "parity": self.quantized.parity.as_dict(),
            "decisions_changed": len(self.quantized.parity.differing),
            "size": int8.size,
            "size_fp32": fp32.size,
            "times_faster": round(fp32.decision_ms / int8.decision_ms, 3),
        }


def engines(stored: StoredAgent) -> dict[str, bytes]:
    """Return an agent's ONNX engines for the CPU by the name of the variant."""
    found = {"fp32": stored.file("engine")}
    if stored.manifest.entries(VARIANTS["cpu"]):  # TensorRT's form would be slow here
        found["int8"] = stored.file(VARIANTS["cpu"])
    return found


def publish_int8(
    store: Store,
    reference: str,
    pictures: NDArray[np.uint8] | None = None,
    *,
    aliases: Sequence[str] = (),
    tell: Tell = lambda _: None,
    tensorrt: bool = False,
    timed: Callable[..., list[Row]] = bench,
) -> Int8:
    """Quantise an agent's engine, prove it, and publish the agent with it.

    Args:
        store: where the agent is, and its new version goes.
        reference: id, prefix or alias of the agent.
        pictures: uint8 (M, S, S, 3), to calibrate with; None takes the probe set, which is then no
            independent proof.
        aliases: names that point to the new version afterwards.
        tell: called with a sentence now and then.
        tensorrt: add the form that TensorRT takes (role ``engine-qdq``) as well.
        timed: measures both engines.

    Raises:
        UsageError: the engine is in INT8 already.
        GateFailed: decisions change, or nothing is gained; nothing was published.
    """
    stored = store.load(reference)
    check_unrounded(stored, "--int8")
    agent, inputs = fp32_agent(stored), probe_set(stored)
    given = inputs if pictures is None else pictures
    made = quantize(agent, stored.file("engine"), given, inputs, tell=tell)
    _check_synthetic(made, stored.manifest)
    models = {"fp32": stored.file("engine"), "int8": made.model}
    fp32, int8 = timed(agent, models, [Image.fromarray(one) for one in inputs[:16]])
    if fp32.decision_ms < WORTH * int8.decision_ms:
        raise GateFailed(
            f"INT8 is refused: {len(made.blocks)} of {len(made.blocks) + len(made.kept)} blocks "
            f"pass the gate (all of them: {made.whole.same_rung:.1%} of the pictures get the same "
            f"rung), but with them a decision takes {int8.decision_ms:.2f} ms, against "
            f"{fp32.decision_ms:.2f} ms in fp32. Nothing was published; the fp32 engine stays."
        )
    result = Int8(manifest=stored.manifest, quantized=made, rows=(fp32, int8))
    files = {VARIANTS["cpu"] + ".onnx": (VARIANTS["cpu"], made.model)}
    if tensorrt:
        graph = quantize(agent, stored.file("engine"), given, inputs, symmetric=True, tell=tell)
        files[VARIANTS[NATIVE] + ".onnx"] = (VARIANTS[NATIVE], graph.model)
    manifest = _published(store, stored, files, {"int8": result.as_dict()}, aliases)
    return replace(result, manifest=manifest)


def _check_synthetic(made: Quantized, manifest: Manifest) -> None:
    """Apply the check that a device makes when it loads the variant."""
    try:
        probe.check(OnnxEngine(made.model), manifest.probe)
    except EngineError as error:
        raise GateFailed(f"INT8 is refused: {error} Nothing was published.") from error


def _published(
    store: Store,
    stored: StoredAgent,
    files: dict[str, tuple[str, bytes]],
    facts: dict[str, Any],
    aliases: Sequence[str],
) -> Manifest:
    known = {item.name: getattr(stored.manifest, item.name) for item in fields(Draft)}
    metrics = dict(known["metrics"])
    metrics["variants"] = {**metrics.get("variants", {}), **facts}
    there = {entry.path: (entry.role, stored.read(entry.path)) for entry in stored.manifest.files}
    return store.publish(Draft(**{**known, "metrics": metrics}), there | files, aliases=aliases)
