"""Two sceneries at once: each picture goes to the agent whose scenery it looks like.

The last agent that fitted stays at hand. Where pictures of its scenery are mixed with the current
one's, or come back, it decides about them at once: no label is bought, no alarm rings. The current
agent's engine has made the features by then; the other engine runs only for the other's pictures.

    pair = Pair.of(current, other)
    pair.decide(image).agent  # the id of the one that decided
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Self

from PIL import Image

from edge_sdk.agent import Agent, Decision, Encode
from edge_sdk.palette import palette_of
from edge_sdk.scenery import Glimpse

__all__ = ["Pair", "fits_beside"]


def fits_beside(one: Agent, other: Agent) -> bool:
    """Tell whether two agents' decisions can be mixed: the same rungs, comparable sceneries."""
    return (
        one.id != other.id
        and one.ladder == other.ladder
        and one.signature is not None
        and other.signature is not None
        and one.signature.features.mean.shape == other.signature.features.mean.shape
    )


@dataclass(frozen=True, slots=True)
class Pair(Agent):
    """An agent that leaves another scenery's pictures to that scenery's agent.

    Attributes:
        other: the other agent; see :func:`fits_beside`.
    """

    other: Agent | None = None

    @classmethod
    def of(cls, agent: Agent, other: Agent) -> Self:
        """Put ``other`` beside ``agent``."""
        known = {entry.name: getattr(agent, entry.name) for entry in fields(Agent)}
        return cls(**known, other=other)

    def decide(
        self,
        image: Image.Image,
        encode: Encode | None = None,
        usable: Collection[int] | None = None,
        caution: float = 1.0,
    ) -> Decision:
        """Choose a rung, by the agent whose scenery fits; see ``Agent.decide``."""
        first = Agent.decide(self, image, encode, usable, caution)
        palette = palette_of(image)
        if self.other is None or not self._stranger(Glimpse(first.features, palette)):
            return replace(first, palette=palette)
        decided = self.other.decide(image, encode, usable, caution)
        # What is remembered stays in one space: the features of the agent that is current.
        return replace(decided, scores=first.scores, palette=palette)

    def _stranger(self, glimpse: Glimpse) -> bool:
        assert self.other is not None  # see fits_beside
        assert self.other.signature is not None
        assert self.signature is not None
        return self.other.signature.likelihood(glimpse) > self.signature.likelihood(glimpse)
