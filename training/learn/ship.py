"""The agent that comes with the package, for devices whose store has none yet.

A cold-start agent (``training.learn.coldstart``) of the ladder ``safe`` that looks at a picture
once, without what only training and the gates of variants read. After a change of that ladder or of
the prefix, make it again:

    python -m training coldstart --ladder safe --max-probes 0 --store STORE --run RUN
    python -m training.learn.ship STORE
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from edge_sdk.opening import BUILT_IN
from model_store import Draft, Manifest, Store

__all__ = ["ship"]

#: A device decides with the engine; its retrainer starts from the head.
_KEPT = ("engine", "head")


def ship(store: Store, path: Path, agent: str = "current") -> Manifest:
    """Write an agent of a store, stripped, as a bundle."""
    stored = store.load(agent)
    draft = Draft(**{field.name: getattr(stored.manifest, field.name) for field in fields(Draft)})
    files = {
        entry.path: (entry.role, stored.read(entry.path))
        for entry in stored.manifest.files
        if entry.role in _KEPT
    }
    with tempfile.TemporaryDirectory() as folder:
        bare = Store(folder)
        manifest = bare.publish(draft, files)
        bare.pack(manifest.id, path)
    return manifest


if __name__ == "__main__":
    ship(Store(sys.argv[1]), BUILT_IN)
