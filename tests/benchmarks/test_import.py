"""What an import and a loaded client cost next to numpy's import; run with ``make bench``.

Each gets a fresh process, all in turns in one run: read the ratios, not milliseconds and megabytes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

import pytest

ROUNDS = 5
STATEMENTS = {
    "numpy": "import numpy",
    "edge_sdk": "import edge_sdk",
    "EdgeClient": "from edge_sdk import EdgeClient",
    "onnxruntime": "import onnxruntime",
}
# Not the parent's peak, which getrusage hands down.
MEASURED = (
    "import time; t = time.perf_counter(); {}; t = time.perf_counter() - t; "
    "print(t, open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
)


def _measured(statement: str) -> tuple[float, float]:
    code = MEASURED.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def test_imports(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rounds: list[dict[str, tuple[float, float]]] = []
    benchmark.pedantic(
        lambda: rounds.append({name: _measured(code) for name, code in STATEMENTS.items()}),
        rounds=ROUNDS,
    )
    ratios = {
        name: tuple(
            round(statistics.median(one[name][what] / one["numpy"][what] for one in rounds), 2)
            for what in (0, 1)
        )
        for name in STATEMENTS
    }
    benchmark.extra_info["ratios"] = ratios
    with capsys.disabled():
        for name, (seconds, memory) in ratios.items():
            print(f"\nimport of {name}: {seconds} of numpy's time, {memory} of its memory", end="")
        print()
