"""Put an agent together from what the store has of it: verified, checked, ready to decide."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk import probe
from edge_sdk.agent import Agent
from edge_sdk.codec import Streams
from edge_sdk.engine import NATIVE, Engine, OnnxEngine
from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.artefact import DOCUMENT, FILES
from edge_sdk.ladder import Ladder, ladder_from_dicts
from edge_sdk.policy import OperatingPoint
from edge_sdk.scenery import Signature
from edge_sdk.second_look import OnnxProbe, Probe
from model_store.errors import EnvironmentMissing

if TYPE_CHECKING:
    from model_store import Manifest, StoredAgent

__all__ = ["VARIANTS", "codec_of", "load_agent", "open_engine"]

_log = logging.getLogger("edge_sdk.agent")

#: Provider -> the role of the engine's variant that is made for it.
VARIANTS = {"cpu": "engine-int8", NATIVE: "engine-qdq", "tensorrt": "engine-qdq"}


def load_agent(
    stored: StoredAgent,
    *,
    provider: str = "cpu",
    strict: bool = False,
    max_probes: int | None = None,
    cache: Path | None = None,
) -> Agent:
    """Build an agent from the store: hashes verified, contract checked, probe passed.

    Args:
        stored: the agent's files.
        provider: of the engine, see ``OnnxEngine``; ``trt`` is TensorRT's own runtime.
        strict: likewise.
        max_probes: looks that this device can afford; the first operating point that needs no more
            is used, so that its certificate holds. None takes the agent's default.
        cache: this machine's folder of TensorRT engines.

    Raises:
        CorruptAgent: a file is not what the manifest says.
        EngineError: the engine does not keep its contract or fails its probe.
        EnvironmentMissing: no engine runtime, or (``strict``) another provider than asked for.
    """
    manifest = stored.manifest
    engine = open_engine(stored, provider=provider, strict=strict, cache=cache)
    if engine.ladder != ladder_from_dicts(manifest.ladder):
        raise EngineError(
            f"The engine of agent {manifest.id} has another ladder than its manifest."
        )
    point = _point(manifest, max_probes)
    if point.trade_off is not None and not engine.factored:
        raise EngineError(
            f"Agent {manifest.id} has a trade-off, but its engine predicts no agreement and size."
        )
    if manifest.probe:
        probe.check(engine, manifest.probe)
    scenery = manifest.scenery or {}
    signature = scenery.get("signature")
    return Agent(
        id=manifest.id,
        engine=engine,
        operating_point=point,
        scenery=str(scenery.get("name", "")),
        signature=Signature.from_dict(signature) if signature else None,
        probe=_probe(stored, engine.ladder) if point.max_probes else None,
        plain=_certified(manifest, lambda one: not one.max_probes and one.trade_off is not None),
        fixed=getattr(_certified(manifest, lambda one: one.rung is not None), "rung", None),
        codec=_codec(stored, engine.ladder),
    )


def codec_of(stored: StoredAgent) -> dict[str, bytes]:
    """Return the files of an agent's codec by their roles; none if it has no codec."""
    return {role: stored.file(role) for role in FILES if stored.manifest.entries(role)}


def open_engine(
    stored: StoredAgent,
    *,
    provider: str = "cpu",
    strict: bool = False,
    cache: Path | None = None,
) -> Engine:
    """Open the variant of an agent's engine that is made for ``provider``.

    Whole numbers (role ``engine-int8``, for TensorRT ``engine-qdq``), if the agent has them: they
    were published because they decide as ``engine`` does.

    Raises:
        CorruptAgent, EngineError, EnvironmentMissing: see :func:`load_agent`.
    """
    role = VARIANTS.get(provider, "engine")
    model = stored.file(role if stored.manifest.entries(role) else "engine")
    if provider != NATIVE:
        return OnnxEngine(model, provider=provider, strict=strict, cache=cache)
    from edge_sdk.engine_trt import open_trt  # the driver and TensorRT: only when asked for

    try:
        if cache is None:
            raise EnvironmentMissing("no folder of engines was named.")
        return open_trt(model, cache)
    except (EnvironmentMissing, EngineError) as error:
        if strict:
            raise ProviderMissing(f"TensorRT was asked for, but {error}") from error
        _log.warning("TensorRT was asked for, but %s The CPU is used.", error)
        return open_engine(stored)


def _point(manifest: Manifest, max_probes: int | None) -> OperatingPoint:
    points = [OperatingPoint.from_dict(point) for point in manifest.operating_points]
    if max_probes is None:
        return points[0]
    for point in points:
        if point.max_probes <= max_probes:
            return point
    # Nothing is certified for fewer looks; the decision rule itself still holds.
    return replace(points[0], max_probes=max_probes, certified=False)


def _certified(manifest: Manifest, fits: Callable[[OperatingPoint], bool]) -> OperatingPoint | None:
    points = (OperatingPoint.from_dict(point) for point in manifest.operating_points)
    return next((point for point in points if point.certified and fits(point)), None)


def _codec(stored: StoredAgent, ladder: Ladder) -> Streams | None:
    """Return what makes the streams of the ladder's rungs of features, or None if there are none.

    Where it cannot run the agent goes on without those rungs.
    """
    wanted = {rung.codec for rung in ladder if rung.codec is not None}
    if not wanted:
        return None
    name, files = stored.manifest.id, codec_of(stored)
    if DOCUMENT not in files:
        raise EngineError(f"Agent {name} has rungs of features, but no codec; publish it again.")
    try:
        codec = FeatureCodec.open(files)
    except EnvironmentMissing as error:
        _log.warning("Agent %s does without its codec: %s", name, error)
        return None
    if {codec.id} != wanted:
        raise EngineError(
            f"Agent {name} has rungs of the codec {', '.join(sorted(wanted))}, but brings "
            f"{codec.id}; publish it again."
        )
    return codec


def _probe(stored: StoredAgent, ladder: Ladder) -> Probe:
    if not stored.manifest.entries("probe"):
        raise EngineError(
            f"The operating point of agent {stored.manifest.id} needs a probe, but the agent has "
            "none; publish it again, or load it with max_probes=0."
        )
    probe = OnnxProbe(stored.file("probe"))
    if probe.ladder != ladder:
        raise EngineError(f"The probe of agent {stored.manifest.id} has another ladder.")
    return probe
