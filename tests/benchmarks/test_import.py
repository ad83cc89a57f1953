"""What an import costs next to numpy's; run with ``make bench``.

Each import gets a fresh process, all in one run: read the ratios, not the milliseconds.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

ROUNDS = 7
STATEMENTS = {
    "numpy": "import numpy",
    "edge_sdk": "import edge_sdk",
    "EdgeClient": "from edge_sdk import EdgeClient",
}
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def _seconds(statement: str) -> float:
    code = TIMED.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_imports(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    best = {name: min(_seconds(code) for _ in range(ROUNDS)) for name, code in STATEMENTS.items()}
    benchmark.pedantic(_seconds, args=(STATEMENTS["edge_sdk"],), rounds=1)
    ratios = {name: round(seconds / best["numpy"], 2) for name, seconds in best.items()}
    benchmark.extra_info.update(ratios)
    with capsys.disabled():
        for name, seconds in best.items():
            print(f"\n{name}: {1000 * seconds:.0f} ms, {ratios[name]} of numpy", end="")
        print()
