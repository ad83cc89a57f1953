"""Feature rungs: what a device sends to its owner's own service instead of a picture.

The device runs the first blocks of a network and a bottleneck; the quantised features are coded and
sent, and the service's tail answers without a picture ever being there. See
:class:`edge_sdk.featurecodec.codec.FeatureCodec`.
"""

from __future__ import annotations

from edge_sdk.featurecodec.artefact import Artefact
from edge_sdk.featurecodec.bitstream import MEDIA_TYPE, is_stream
from edge_sdk.featurecodec.codec import FeatureCodec, Wire
from edge_sdk.featurecodec.entropy import Entropy

__all__ = ["MEDIA_TYPE", "Artefact", "Entropy", "FeatureCodec", "Wire", "is_stream"]
