"""An agent at work: what the store versions, loaded, verified and ready to decide."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import probe
from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import takes
from edge_sdk.climb import Look, climb
from edge_sdk.codec import Streams, framed
from edge_sdk.engine import NATIVE, Engine, OnnxEngine, Scores
from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.artefact import DOCUMENT, FILES
from edge_sdk.ladder import REFERENCE, Ladder, Rung, kinds_of, ladder_from_dicts
from edge_sdk.palette import palette_of
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from edge_sdk.scenery import Signature
from edge_sdk.second_look import OnnxProbe, Probe
from edge_sdk.view import View
from model_store.errors import EnvironmentMissing

if TYPE_CHECKING:
    from model_store import Manifest, StoredAgent

__all__ = ["VARIANTS", "Agent", "Decision", "Encode", "codec_of", "load_agent", "open_engine"]

_log = logging.getLogger("edge_sdk.agent")

#: Provider -> the role of the engine's variant that is made for it.
VARIANTS = {"cpu": "engine-int8", NATIVE: "engine-qdq", "tensorrt": "engine-qdq"}

#: Rung -> the file of the picture at hand, and its bytes over the reference's.
Encode = Callable[[Rung], tuple[bytes, float]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an agent says about one picture.

    Attributes:
        rung: index into the agent's ladder.
        scores: of this picture, N = 1.
        probed: rungs that were encoded and looked at before.
        palette: of the picture, see ``edge_sdk.palette``.
        agent: id of the agent that decided.
    """

    rung: int
    scores: Scores
    probed: tuple[int, ...] = ()
    palette: NDArray[np.float32] | None = None
    agent: str = ""

    @property
    def features(self) -> NDArray[np.float32]:
        """The picture's features, float32 (D,)."""
        return np.asarray(self.scores.features[0])


@dataclass(frozen=True, slots=True)
class Agent:
    """An engine with its ladder, operating point and scenery; immutable, hence thread-safe.

    Attributes:
        id: the store's id.
        engine: scores a picture's rungs.
        operating_point: the trade-off that meets the accuracy target.
        scenery: name of the scenery it was trained on.
        signature: what that scenery looks like to the features, or None.
        probe: compares encodings with their original, or None.
        plain: the trade-off certified for deciding without a look, where it is another one.
        fixed: the rung that may be sent without any decision, by a certificate; None for the
            reference.
        codec: makes the streams of rungs of features, or None.
        barred: rungs that are not chosen, see :meth:`on`.
    """

    id: str
    engine: Engine
    operating_point: OperatingPoint
    scenery: str = ""
    signature: Signature | None = None
    probe: Probe | None = None
    plain: OperatingPoint | None = None
    fixed: int | None = None
    codec: Streams | None = None
    barred: frozenset[int] = frozenset()

    def on(self, capabilities: Capabilities) -> Agent:
        """Return the same agent without the rungs that a service does not read.

        Without those, too, whose codec is not at hand. What was certified with them is not any
        more; the rule of deciding still holds.
        """
        barred = frozenset(
            index
            for index, rung in enumerate(self.ladder)
            if not takes(capabilities, rung) or not (rung.has_pixels or self.codec)
        )
        if barred == self.barred:
            return self
        _log.warning(
            "Agent %s does without %s: the service does not read them, or their codec is not here.",
            self.id,
            ", ".join(self.ladder[index].name for index in sorted(barred)),
        )
        return replace(
            self,
            barred=barred,
            operating_point=_without(self.operating_point, barred, self.ladder),
            plain=None,
            fixed=None if self.fixed in barred else self.fixed,
        )

    @property
    def ladder(self) -> Ladder:
        """The rungs that a decision indexes."""
        return self.engine.ladder

    def decide(
        self,
        image: Image.Image,
        encode: Encode | None = None,
        usable: Collection[int] | None = None,
        caution: float = 1.0,
    ) -> Decision:
        """Choose a rung for an RGB picture.

        Args:
            image: the picture.
            encode: returns the file of a rung and its size ratio; without it nothing is probed.
            usable: rungs that a probing agent may choose from; default all.
            caution: factor on the trade-off, see ``edge_sdk.steering``.
        """
        scores = self.engine.run(to_input(image, self.engine.side))
        point, palette = self.operating_point.times(caution), palette_of(image)
        if self.probe is None or encode is None or not point.max_probes or point.trade_off is None:
            chosen = int(choose(scores, point, self.barred)[0])
            return Decision(chosen, scores, (), palette, self.id)
        assert scores.agreement is not None  # load_agent has checked that
        assert scores.size_ratio is not None
        free = range(len(self.ladder)) if usable is None else usable
        rung, probed = climb(
            scores.agreement[0],
            scores.size_ratio[0],
            point.trade_off,
            partial(self._look, self.probe, _Original(self.engine, image, scores), encode),
            point.max_probes,
            [index for index in free if index not in self.barred],
            kinds_of(self.ladder),
            [index for index, one in enumerate(self.ladder) if not one.has_pixels],
        )
        return Decision(rung, scores, probed, palette, self.id)

    def _look(self, probe: Probe, original: _Original, encode: Encode, index: int) -> Look:
        rung = self.ladder[index]
        jpeg, size_ratio = encode(rung)
        candidate = self.engine.run(to_input(load(jpeg).image, self.engine.side)).features[0]
        before = original.seen(rung.view)
        return Look(probe.run(before, candidate, index, size_ratio), size_ratio)

    def rung(self, index: int) -> Rung:
        """Return the rung behind an index."""
        return self.ladder[index]


class _Original:
    """A picture's features as a whole and as views show it, each computed once.

    What a view leaves out says nothing about what an encoding of the view does.
    """

    def __init__(self, engine: Engine, image: Image.Image, scores: Scores) -> None:
        self._engine, self._image = engine, image
        self._known: dict[View | None, NDArray[np.float32]] = {None: scores.features[0]}

    def seen(self, view: View | None) -> NDArray[np.float32]:
        """Return the features, float32 (D,)."""
        if view is not None and view not in self._known:
            pixels = to_input(framed(self._image, view), self._engine.side)
            self._known[view] = self._engine.run(pixels).features[0]
        return self._known[view]


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


def _without(point: OperatingPoint, barred: Collection[int], ladder: Ladder) -> OperatingPoint:
    """Return a point for a ladder that lacks some rungs: the safest for a fixed one among them."""
    if point.rung in barred:
        safe = [index for index, rung in enumerate(ladder) if rung.pixels == REFERENCE.pixels]
        point = replace(point, rung=next((index for index in safe if index not in barred), None))
    note = f"{point.note} Not certified here: some of its rungs are not used.".strip()
    return replace(point, certified=False, note=note)


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
