"""Where a host may look in, or reach in: five calls, none of which can break the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_sdk.faults import Faults
from edge_sdk.ladder import Rung
from edge_sdk.states import State
from model_store.errors import UsageError

if TYPE_CHECKING:
    from edge_sdk.stats import Result

__all__ = ["Hooks", "Upload"]


@dataclass(frozen=True, slots=True)
class Upload:
    """What is about to leave the device.

    Attributes:
        jpeg: the file.
        rung: the encoder setting that made it.
        served: its answer goes to the caller; else it is compared with another upload's.
    """

    jpeg: bytes
    rung: Rung
    served: bool


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Calls into the host, from any thread; each is to return soon. What they raise is counted.

    Attributes:
        before_upload: sees each upload before it is sent; may return another one to send instead
            (its ``jpeg`` counts), or None to leave it as it is.
        on_result: called with the result of each picture, before its caller or future has it.
        on_drop: called with the reason and the picture's key ("" without one) when something is
            given up: a submitted picture, or a comparison.
        on_state_change: called with the old state, the new one and the reason.
        on_swap: called with the old agent's id, the new one's and the reason.
    """

    before_upload: Callable[[Upload], Upload | None] | None = None
    on_result: Callable[[Result], object] | None = None
    on_drop: Callable[[str, str], object] | None = None
    on_state_change: Callable[[State, State, str], None] | None = None
    on_swap: Callable[[str, str, str], None] | None = None

    def tell(self, faults: Faults, name: str, *arguments: Any) -> Any:
        """Call a hook if there is one; return what it returns, or None if it raised."""
        hook = getattr(self, name)
        if hook is None:
            return None
        try:
            return hook(*arguments)
        except Exception as error:  # the host's mistake must not cost it its answer
            faults.note("hook", error)
            return None

    def changed(self, faults: Faults, upload: Upload) -> Upload:
        """Return what is to be sent for ``upload``."""
        wanted = self.tell(faults, "before_upload", upload)
        if wanted is None:
            return upload
        if not isinstance(wanted, Upload) or not isinstance(wanted.jpeg, bytes):
            kind = type(wanted).__name__
            faults.note("hook", UsageError(f"before_upload returned {kind}; allowed are Upload."))
            return upload
        return wanted
