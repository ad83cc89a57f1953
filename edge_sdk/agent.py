"""An agent at work: what the store versions, loaded, verified and ready to decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import probe
from edge_sdk.engine import Engine, OnnxEngine, Scores
from edge_sdk.errors import EngineError
from edge_sdk.ladder import Ladder, Rung, ladder_from_dicts
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import to_input
from edge_sdk.scenery import Signature

if TYPE_CHECKING:
    from model_store import StoredAgent

__all__ = ["Agent", "Decision", "load_agent"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an agent says about one picture.

    Attributes:
        rung: index into the agent's ladder.
        scores: of this picture, N = 1.
    """

    rung: int
    scores: Scores

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
    """

    id: str
    engine: Engine
    operating_point: OperatingPoint
    scenery: str = ""
    signature: Signature | None = None

    @property
    def ladder(self) -> Ladder:
        """The rungs that a decision indexes."""
        return self.engine.ladder

    def decide(self, image: Image.Image) -> Decision:
        """Choose a rung for an RGB picture."""
        scores = self.engine.run(to_input(image, self.engine.side))
        return Decision(int(choose(scores, self.operating_point)[0]), scores)

    def rung(self, index: int) -> Rung:
        """Return the rung behind an index."""
        return self.ladder[index]


def load_agent(stored: StoredAgent, *, provider: str = "cpu", strict: bool = False) -> Agent:
    """Build an agent from the store: hashes verified, contract checked, probe passed.

    Raises:
        CorruptAgent: a file is not what the manifest says.
        EngineError: the engine does not keep its contract or fails its probe.
        EnvironmentMissing: no engine runtime, or (``strict``) another provider than asked for.
    """
    manifest = stored.manifest
    engine = OnnxEngine(stored.file("engine"), provider=provider, strict=strict)
    if engine.ladder != ladder_from_dicts(manifest.ladder):
        raise EngineError(
            f"The engine of agent {manifest.id} has another ladder than its manifest."
        )
    if not manifest.operating_points:
        raise EngineError(f"Agent {manifest.id} has no operating point; publish it again.")
    point = OperatingPoint.from_dict(manifest.operating_points[0])
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
    )
