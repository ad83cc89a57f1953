"""What leaves the device: never more than the reference, whatever tables a rung brings."""

from __future__ import annotations

import pytest
from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE, Rung
from edge_sdk.parcel import Packer
from edge_sdk.reading import Picture

CAPABILITIES = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)


@pytest.mark.parametrize(("step", "sent"), [(1, False), (64, True)])
def test_tables_finer_than_the_references_are_not_sent(
    photo: Image.Image, step: int, sent: bool
) -> None:
    rung = Rung(50, tables=((step,) * 64, (step,) * 64))
    parcel = Packer(Picture(photo), CAPABILITIES).pack(rung)
    assert (parcel.rung == rung) is sent
    assert len(parcel.jpeg) <= len(encode(photo, REFERENCE))
