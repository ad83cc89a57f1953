from __future__ import annotations

import json
import platform
from importlib import metadata

import numpy as np
import pytest

from training.versions import versions


def test_it_names_what_decides_results() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert {"pillow", "torch", "onnx", "onnxruntime", "libjpeg-turbo"} <= set(found)


def test_it_can_stand_in_a_manifest() -> None:
    found = versions()
    assert json.loads(json.dumps(found)) == found
    assert all(isinstance(value, str) and value for value in found.values())


def test_a_package_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nowhere)
    assert versions()["torch"] == "not installed"
