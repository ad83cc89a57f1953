"""The house's floors, read from the source: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("model_store", "edge_sdk", "export", "training")
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "tensorrt", "matplotlib", "scipy")
#: What extras bring, imported where it is needed alone.
EXTRAS = ("cryptography", "fsspec", "aiohttp", "constriction", "mozjpeg_lossless_optimization")
STANDARD = sys.stdlib_module_names


def _modules() -> dict[str, ast.Module]:
    found = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = _modules()


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports anywhere, in functions and for type checking too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def _floor(name: str) -> int:
    return FLOORS.index(name.split(".")[0])


@pytest.mark.parametrize("package", ["edge_sdk", "model_store"])
def test_importing_a_package_costs_nothing(package: str) -> None:
    loaded = _loaded_by(f"import {package}")
    assert not loaded & {*HEAVY, *EXTRAS, "requests", "numpy", "PIL"}


def test_no_module_of_the_device_loads_what_is_heavy() -> None:
    names = [name for name in MODULES if _floor(name) <= 1 and not name.endswith("__main__")]
    assert not _loaded_by(f"import {', '.join(names)}") & {*HEAVY, *EXTRAS}


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    upward = [
        other
        for other in _imports(MODULES[name])
        if other.split(".")[0] in FLOORS and _floor(other) > _floor(name)
    ]
    assert not upward


def test_no_module_imports_itself_on_a_detour() -> None:
    graph = {name: {*_imports(tree)} & {*MODULES} - {name} for name, tree in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("name", [name for name in MODULES if _floor(name) == 0])
def test_the_store_needs_the_standard_library_alone(name: str) -> None:
    foreign = {other.split(".")[0] for other in _imports(MODULES[name])} - STANDARD
    assert foreign <= {"model_store", *EXTRAS}


@pytest.mark.parametrize("name", [name for name in MODULES if _floor(name) == 1])
def test_the_device_knows_neither_torch_nor_onnx(name: str) -> None:
    foreign = {other.split(".")[0] for other in _imports(MODULES[name])}
    assert not foreign & {"torch", "torchvision", "onnx", "safetensors", "scipy"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_dangerous_is_done(name: str) -> None:
    tree = MODULES[name]
    imported = {other.split(".")[0] for other in _imports(tree)}
    assert not imported & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    found = [_danger(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not any(found), [reason for reason in found if reason]


def _danger(call: ast.Call) -> str:
    """Return why a call is dangerous, or an empty text."""
    called = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    where = f"line {call.lineno}: {ast.unparse(call)}"
    if called in ("eval", "exec", "os.system", "os.popen", "compile", "__import__"):
        return where
    if given.get("shell", "False") != "False" or given.get("verify") == "False":
        return where
    if given.get("allow_pickle", "False") != "False":
        return where
    unsafe = called.endswith("torch.load") and given.get("weights_only") != "True"
    return where if unsafe else ""


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "requests.get(url, verify=False)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_for_danger_finds_it(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert _danger(call)
