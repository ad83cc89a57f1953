"""Drafts and stores for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store import Draft, Store


def _draft(**changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "algorithm": "bandit",
        "ladder": ({"quality": 5}, {"quality": 75}),
        "signature": {
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 224, 224, 3]}],
            "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, 2]}],
        },
        "preprocessing": {"spec": {"resize": "bilinear"}, "sha256": "a" * 64},
        "reward": {"alpha": 1.0, "beta": 0.0},
        "operating_points": ({"trade_off": 2.0, "target": 0.95},),
        "backend": {"name": "local:lite0", "model_version": "1", "min_score": 0.2},
        "training": {
            "fingerprint": "f" * 8,
            "photos": 3,
            "images": 12,
            "labels_bought": 40,
            "seed": 7,
        },
        "probe": {"rungs": [0, 1], "q_values": [[0.5, 0.1], [0.2, 0.4]]},
    }
    return Draft(**(fields | changes))


@pytest.fixture(scope="session")
def make_draft() -> Callable[..., Draft]:
    """Make a valid draft, with changes by field name."""
    return _draft


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make an empty store whose clock ticks a second at every look."""
    times = iter(range(2_000_000_000, 2_000_001_000))
    return Store(tmp_path / "store", clock=lambda: next(times))


@pytest.fixture
def publish(store: Store) -> Callable[..., str]:
    """Publish an agent that a word tells from others, and return its id."""

    def publish(word: str, *aliases: str, **changes: Any) -> str:
        draft = _draft(versions={"word": word}, **changes)
        files = {
            "engine.onnx": ("engine", b"engine " + word.encode()),
            "extra/card.md": ("card", b"the same in all"),
        }
        return store.publish(draft, files, aliases=aliases).id

    return publish
