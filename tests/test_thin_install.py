"""What a device gets: ``pip install .[cpu]`` in a clean environment, and nothing of training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_sdk.engine import Scores
from edge_sdk.ladder import FULL
from edge_sdk.policy import OperatingPoint
from export.fuse import export_prefix
from export.network import FactoredHead
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store

ROOT = Path(__file__).parent.parent

# Runs inside the clean environment: no torch there, a photo goes through a real engine.
DEVICE = """
import json, os, sys
from importlib.util import find_spec
import numpy as np
from PIL import Image
from edge_sdk import EdgeClient, EdgeConfig, Label, Recognition
from edge_sdk.backends.base import Capabilities

def _resident():
    try:
        pages = int(open("/proc/self/statm").read().split()[1])
    except OSError:
        return 0.0  # nobody tells here
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

class Service:
    name, capabilities = "fake://", Capabilities(2**22, 1, 4096)
    def recognize(self, jpeg): return Recognition((Label("cat", 0.9),), len(jpeg))
    def wire_size(self, jpeg): return len(jpeg)
    def close(self): pass

y, x = np.mgrid[0:240, 0:320]
photo = np.stack([x * 255 // 319, y * 255 // 239, (x + y) % 256], axis=2).astype(np.uint8)
with EdgeClient(EdgeConfig(store=sys.argv[1], backend=Service(), strict=True)) as client:
    result = client.process(photo)
print(json.dumps({
    "torch": find_spec("torch") is not None,
    "agent": result.agent_id,
    "labels": [label.name for label in result.labels],
    "rung": result.rung.name,
    "bytes": result.bytes,
    "megabytes": _resident(),
}))
"""

# Distributions that ``pip install .[cpu]`` may bring, our own included.
MOST_PACKAGES = 12
#: Resident megabytes that a device may need before any picture of its own.
MOST_MEGABYTES = 90


class _Prefix(nn.Module):
    """The smallest thing that has a prefix's shape: colour means on a coarse grid."""

    cut, side, confidence, precision = 1, 32, False, "fp32"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return torch.nn.functional.avg_pool2d(pixels, 16).flatten(1)


@pytest.mark.slow
def test_a_device_runs_a_published_agent_without_torch(tmp_path: Path) -> None:
    agent = _publish(tmp_path / "store")
    python = _clean_environment(tmp_path / "venv")
    done = subprocess.run(
        [python, "-c", DEVICE, str(tmp_path / "store")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["torch"] is False
    assert said["agent"] == agent
    assert said["labels"] == ["cat"]
    assert said["rung"] in {rung.name for rung in FULL}
    assert said["bytes"] > 0
    assert said["megabytes"] < MOST_MEGABYTES
    assert len(_installed(python)) <= MOST_PACKAGES, _installed(python)


def _installed(python: str) -> list[str]:
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return sorted({*done.stdout.split()} - {"pip", "setuptools"})


def _clean_environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, f"{ROOT}[cpu]"], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("the package registry is not reachable from here")
    assert done.returncode == 0, done.stderr
    assert sys.executable != python
    return python


def _publish(store: Path) -> str:
    torch.manual_seed(0)
    prefix, head = _Prefix(), FactoredHead(12, FULL).eval()
    inputs = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        features = prefix(torch.from_numpy(inputs))
        outputs = [output.numpy() for output in head(features)]
    run = TrainingRun(
        prefix=export_prefix(prefix),
        head=head,
        ladder=FULL,
        operating_point=OperatingPoint(trade_off=2.0),
        inputs=inputs,
        expected=Scores(features.numpy(), *outputs),
        facts={
            "reward": {"alpha": 1.0, "beta": 0.0},
            "backend": {"name": "fake://", "model_version": None, "min_score": 0.0},
            "training": {
                "fingerprint": "0" * 64,
                "photos": 4,
                "images": 4,
                "labels_bought": 0,
                "seed": 0,
            },
        },
    )
    return publish_run(run, Store(store), aliases=["current"])[0].id
