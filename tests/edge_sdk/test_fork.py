"""A client in a forked child: begins anew, and spoils nothing of its parent's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys, threading, warnings
warnings.simplefilter("ignore")  # of forking with threads, which is the point
import numpy as np
from edge_sdk import EdgeClient, EdgeConfig, Label, Recognition
from edge_sdk.backends.base import Capabilities

class Service:
    name, capabilities = "fake://", Capabilities(2**22, 1, 4096)
    def recognize(self, jpeg): return Recognition((Label("cat", 0.9),), len(jpeg))
    def wire_size(self, jpeg): return len(jpeg)
    def close(self): pass

photo = np.zeros((48, 64, 3), np.uint8)
# Without an engine: ONNX Runtime waits at a forked child's exit for threads that it lost.
config = EdgeConfig(store=sys.argv[1], backend=Service(), spool=True, cold_start=False)
client = EdgeClient(config)
client.process(photo)
client.submit(photo, "a").result(20)
sender, counters = client._sender, client._tally.counters
with client._turns._lock, sender._lock, counters._lock, sender._spool._lock:
    child = os.fork()  # at the worst moment
if child == 0:
    threads = threading.active_count()
    client.process(photo)
    submitted = client.submit(photo, "b").result(20)
    stats = client.stats()
    client.close()
    print(json.dumps({
        "threads": threads, "images": stats.images, "key": submitted.key,
        "waiting": stats.waiting, "left": threading.active_count(),
    }), flush=True)
    sys.exit(0)  # with everything that an interpreter does at its end
assert os.waitpid(child, 0)[1] == 0
again = client.submit(photo, "a").result(0)  # the spool still knows it
client.submit(photo, "c").result(20)
client.close()
print(json.dumps({"images": client.stats().images, "again": again.key,
                  "failures": dict(client.stats().failures)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_anew(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    child, parent = (json.loads(line) for line in done.stdout.splitlines())
    assert child == {"threads": 1, "images": 2, "key": "b", "waiting": 0, "left": 1}
    assert parent == {"images": 3, "again": "a", "failures": {"store": 1}}
