from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="the system has no such limits")


@pytest.mark.parametrize(("mebibytes", "code"), [(64, 7), (4000, 0)])
def test_what_needs_more_memory_than_allowed_fails(mebibytes: int, code: int) -> None:
    script = (
        "import sys; from training.limits import limit_memory\n"
        f"limit_memory({mebibytes})\n"
        "try:\n    bytearray(300 * 2**20)\nexcept MemoryError:\n    sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code
