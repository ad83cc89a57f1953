"""Takes one picture's parcels to the service: the same pixels once, each upload counted and timed.

sent, answer = courier.send(parcel, served=True)
courier.send(same_pixels, served=False)            # answered from memory
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge_sdk.backends.base import Backend, Recognition
from edge_sdk.codec import shown
from edge_sdk.faults import Faults
from edge_sdk.hooks import Hooks, Upload
from edge_sdk.parcel import Parcel
from edge_sdk.plan import Outcome

__all__ = ["Courier"]


class Courier:
    """Uploads for one picture.

    Args:
        backend: where to.
        outcome: takes what the uploads cost.
        hooks: the host's.
        faults: takes what must not reach the caller.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        backend: Backend,
        outcome: Outcome,
        *,
        hooks: Hooks,
        faults: Faults,
        clock: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._outcome = outcome
        self._hooks = hooks
        self._faults = faults
        self._clock = clock
        self._answers: dict[object, Recognition] = {}
        #: (width, height) of the picture, which the caller's boxes are in.
        self.size = (0, 0)

    def send(
        self, parcel: Parcel, *, served: bool, pixels: object = None
    ) -> tuple[Parcel, Recognition]:
        """Upload, unless an upload of the same pixels was answered already.

        Returns:
            What was sent, which the host may have changed, and the answer.
        """
        pixels = parcel.pixels if pixels is None else pixels
        known = self._answers.get(pixels)
        if known is not None:
            return parcel, known
        sent = self._hooks.changed(self._faults, Upload(parcel.jpeg, parcel.rung, served))
        self._outcome.calls += 1
        with self._outcome.timed("upload", self._clock):
            answer = self._backend.recognize(sent.jpeg)
        part = None if parcel.as_is else shown(self.size, sent.rung)
        answer = answer.at(self.size, part)
        self._outcome.uploaded_wire_bytes += answer.wire_bytes
        self._outcome.model_version = answer.model_version
        self._answers[pixels] = answer
        return replace(parcel, jpeg=sent.jpeg), answer

    def send_aside(
        self, parcel: Parcel, reason: str, pixels: object = None
    ) -> tuple[Parcel, Recognition] | None:
        """Upload for the labels alone; a failure is logged and counted as a drop of ``reason``."""
        try:
            return self.send(parcel, served=False, pixels=pixels)
        except Exception as error:  # labels are a by-product
            self._faults.log_once(reason, error)
            self._outcome.drops[reason] += 1
            return None
