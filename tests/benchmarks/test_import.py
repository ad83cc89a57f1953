"""What imports and an agent's first decision cost next to numpy's import; ``make bench``.

Each gets a fresh process, all in turns in one run: read the ratios, not milliseconds and megabytes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_sdk.opening import BUILT_IN
from model_store import Store

ROUNDS = 5
STATEMENTS = {
    "numpy": "import numpy",
    "edge_sdk": "import edge_sdk",
    "EdgeClient": "from edge_sdk import EdgeClient",
    "onnxruntime": "import onnxruntime",
}

#: From nothing to a decision; only the last line of each step is new.
_LOADED = """
from edge_sdk.assembly import load_agent
from model_store import Store
agent = load_agent(Store({store!r}).load("current"), strict=True)
"""
_DECIDED = (
    _LOADED
    + """
from PIL import Image
for _ in range(10):
    agent.decide(Image.effect_noise((500, 375), 50).convert("RGB"))
"""
)
# Not the parent's peak, which getrusage hands down.
MEASURED = """
import time
t = time.perf_counter()
{}
print(time.perf_counter() - t, open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def _measured(statement: str) -> tuple[float, float]:
    code = MEASURED.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def test_imports(
    benchmark: Any, tmp_path: Path, tell: Callable[[dict[str, float], str], None]
) -> None:
    """The agent is the one that comes with the package, INT8, and the store is filled before."""
    store = Store(tmp_path / "store")
    store.unpack(BUILT_IN, aliases=["current"])
    steps = {f"import {name}": code for name, code in STATEMENTS.items()}
    steps["load the agent that comes along"] = _LOADED.format(store=str(store.root))
    steps["and decide on ten pictures"] = _DECIDED.format(store=str(store.root))
    rounds: list[dict[str, tuple[float, float]]] = []
    benchmark.pedantic(
        lambda: rounds.append({name: _measured(code) for name, code in steps.items()}),
        rounds=ROUNDS,
    )
    for what, column in enumerate(("time", "peak memory")):
        ratios = {
            name: statistics.median(one[name][what] / one["import numpy"][what] for one in rounds)
            for name in steps
        }
        tell(ratios, column)
        assert all(ratio > 0.0 for ratio in ratios.values())
