from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from model_store import Draft, FileEntry, Manifest, Store
from model_store.compat import OPSET, Runtime, check, check_runtime

READY = Runtime(
    versions={"onnxruntime": "1.20.0", "tensorrt": None},
    providers=("cpu",),
    opset_max=21,
    preprocessing_sha256="a" * 64,
)
ENGINE = FileEntry(path="engine.onnx", role="engine", sha256="0" * 64, size=10)


@pytest.fixture(scope="module")
def manifest(make_draft: Callable[..., Draft]) -> Manifest:
    draft = make_draft(versions={OPSET: "18"})
    return draft.complete(created="2031-01-01T00:00:00Z", files=[ENGINE])


def test_what_fits_runs(manifest: Manifest) -> None:
    assert check(manifest, READY) == (True, ())
    assert check_runtime(READY) == (True, ())
    on_gpu = replace(READY, wanted="cuda", providers=("cuda", "cpu"), gpu="A GPU")
    assert check(manifest, on_gpu) == (True, ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": {}}, r"adacompress\[cpu\]"),
        ({"versions": {"onnxruntime": None}}, "no engine runtime"),
        ({"providers": ()}, "cannot be imported"),
        ({"wanted": "cuda", "gpu": "A GPU"}, "only cpu is there"),
        ({"wanted": "cuda", "providers": ("cuda", "cpu")}, "no GPU is visible"),
        ({"opset_max": 17}, "needs operator set 18, the runtime reads 17"),
        ({"preprocessing_sha256": "b" * 64}, "here it is bbbbbbbbbbbb…"),
    ],
)
def test_each_misfit_is_a_reason(
    manifest: Manifest, changes: dict[str, object], reason: str
) -> None:
    ok, reasons = check(manifest, replace(READY, **changes))  # type: ignore[arg-type]
    assert not ok
    assert len(reasons) == 1
    assert re.search(reason, reasons[0])


def test_all_reasons_are_told_at_once(make_draft: Callable[..., Draft]) -> None:
    bare = make_draft().complete(created="2031-01-01T00:00:00Z", files=[])
    ok, reasons = check(bare, Runtime(wanted="tensorrt", preprocessing_sha256="c" * 64))
    assert (ok, len(reasons)) == (False, 4)


@pytest.mark.parametrize("claimed", [{}, {OPSET: "soon"}])
def test_what_is_not_known_is_no_reason(
    make_draft: Callable[..., Draft], claimed: dict[str, str]
) -> None:
    draft = make_draft(versions=claimed)
    old = draft.complete(created="2031-01-01T00:00:00Z", files=[ENGINE])
    assert check(old, replace(READY, opset_max=1)) == (True, ())


def test_publishing_measures_the_operator_set(store: Store, publish: Callable[..., str]) -> None:
    name = publish("a")
    assert store.manifest(name).versions == {"word": "a", OPSET: "17"}
    assert publish("a") == name
