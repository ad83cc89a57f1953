"""What a diary tells in figures: when the loop noticed, how soon it was back, what that took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.allowance import WINDOW
from training.demo.replay import Diary

__all__ = ["measured", "noticed_after", "returned_after", "steady"]

#: What a segment is measured in once the loop has settled.
_STEADY = 500
#: Of so many pictures in a row, this many by the right agent: it is back.
_BACK, _OF = 9, 10


def measured(diary: Diary, segments: Sequence[int], night: str, target: float) -> dict[str, Any]:
    """Return the figures of one stream."""
    change, back = segments[0], segments[0] + segments[1]
    wire, reference = np.array(diary.wire_bytes), np.array(diary.reference_wire_bytes)
    calls, accuracy = np.array(diary.calls), np.array(diary.accuracy)
    noticed = noticed_after(diary, change)
    adapted = _adapted(diary, change, back)
    lost = accuracy[change + noticed : adapted] if noticed is not None else accuracy[:0]
    settled = slice(max(0, change - _STEADY), change)
    extra = np.array(wire[settled] - _served(diary, settled))
    return {
        "noticed_after": noticed,
        "noticed_return_after": noticed_after(diary, back),
        "returned_after": returned_after(diary, back, night),
        "labels_on_return": int((calls[back : back + 100] - 1).sum()),
        "day_agent_after": adapted - change,
        "labels": int((calls - 1).sum()),
        "calls_per_image": float(calls.mean()),
        "steady_calls_per_image": float(calls[settled].mean()),
        "steady_monitoring_bytes": float(extra.sum() / reference[settled].sum()),
        "bytes": float(wire.sum() / reference.sum()),
        "bytes_most_in_1000": _most(wire, reference),
        "agreement": float(accuracy.mean()),
        "agreement_while_adapting": float(lost.mean()) if len(lost) else None,
        "agreement_by_segment": [
            float(accuracy[start:end].mean())
            for start, end in ((0, change), (change, back), (back, len(accuracy)))
        ],
        "bytes_by_segment": [
            float(wire[start:end].sum() / reference[start:end].sum())
            for start, end in ((0, change), (change, back), (back, len(wire)))
        ],
        "in_state": {
            state: diary.state.count(state) for state in dict.fromkeys(sorted(diary.state))
        },
        "alarms": diary.alarms,
    }


def steady(diary: Diary, pictures: int) -> dict[str, Any]:
    """Return the figures of a stream without any change."""
    wire, reference = np.array(diary.wire_bytes), np.array(diary.reference_wire_bytes)
    served = _served(diary, slice(None))
    return {
        "pictures": pictures,
        "alarms": diary.alarms,
        "alarms_per_10000": 10_000 * sum(diary.alarms.values()) / pictures,
        "calls_per_image": float(np.mean(diary.calls)),
        "monitoring_bytes": float((wire - served).sum() / reference.sum()),
        "bytes": float(wire.sum() / reference.sum()),
        "bytes_most_in_1000": _most(wire, reference),
        "agreement": float(np.mean(diary.accuracy)),
    }


def _served(diary: Diary, part: slice) -> NDArray[np.int64]:
    return np.array(diary.served_bytes[part])


def _most(wire: NDArray[np.int64], reference: NDArray[np.int64]) -> float:
    """Return the largest share of the references' bytes in any 1,000 pictures in a row."""
    size = min(WINDOW, len(wire))
    ours, theirs = (np.concatenate([[0], np.cumsum(values)]) for values in (wire, reference))
    return float(np.max((ours[size:] - ours[:-size]) / (theirs[size:] - theirs[:-size])))


def noticed_after(diary: Diary, change: int) -> int | None:
    """Return after how many pictures of a new scenery the loop did otherwise than before."""
    before = diary.agent_id[change - 1]
    for place in range(change, len(diary.state)):
        if diary.state[place] in ("querying", "retraining"):
            return place - change
        if diary.agent_id[place] != before and before:
            return place - change
    return None


def _adapted(diary: Diary, change: int, end: int) -> int:
    """Return the picture from which an agent serves the new scenery again."""
    looking = [
        place for place in range(change, end) if diary.state[place] in ("querying", "retraining")
    ]
    return (looking[-1] + 1) if looking else change


def returned_after(diary: Diary, back: int, agent: str) -> int | None:
    """Return after how many pictures the known scenery's agent decides again."""
    right = [name == agent for name in diary.agent_id[back:]]
    for place in range(len(right) - _OF + 1):
        if right[place] and sum(right[place : place + _OF]) >= _BACK:
            return place
    return None
