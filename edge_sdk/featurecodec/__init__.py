"""Feature rungs: what a device sends to a service of its owner's instead of a picture."""

from __future__ import annotations

from edge_sdk.featurecodec.entropy import Entropy

__all__ = ["Entropy"]
