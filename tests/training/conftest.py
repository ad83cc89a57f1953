"""What the tests of the learners share."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import assets


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder of the real weights and photos; the test is skipped where they are missing."""
    if absent := assets.missing():
        pytest.skip(f"{', '.join(absent)} not installed; run `{assets.COMMAND}`")
    return assets.folder()
