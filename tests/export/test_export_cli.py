"""``python -m export``: exit codes, one sentence on stderr, JSON on stdout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load, save

from edge_sdk.engine import OnnxEngine
from edge_sdk.gpu import Gpu
from export import tensorrt
from export.__main__ import main
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store
from model_store.errors import EnvironmentMissing

GPU = Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)


@pytest.fixture
def folder(run_of_training: TrainingRun, tmp_path: Path) -> Path:
    run_of_training.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def filled(run_of_training: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store to copy: fusing takes its time."""
    store = Store(tmp_path_factory.mktemp("filled"))
    publish_run(run_of_training, store, aliases=["current"])
    return store


@pytest.fixture
def published(filled: Store, store: Store) -> str:
    shutil.copytree(filled.root, store.root)
    return store.resolve("current")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.engine_trt.visible_gpu", lambda: None)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.engine_trt.visible_gpu", lambda: GPU)
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))


def test_a_run_is_published_and_the_next_command_named(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--run", str(folder), "--store", str(store.root)]
    code = main([*arguments, "--onnx", "--alias", "current", "--alias", "scenery/day"])
    out, err = capsys.readouterr()
    (agent,) = store.ids()
    assert (code, err) == (0, "")
    assert store.resolve("current") == store.resolve("scenery/day") == agent
    assert "Parity: 100.0% of 64 pictures" in out
    assert f"python -m model_store show {agent} --store {store.root}" in out


def test_json_is_one_object_on_stdout(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(folder), "--store", str(store.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "adacompress.export/1"
    assert document["ok"] is True
    assert document["agent"] in store.ids()
    assert document["parity"]["same_rung"] == 1.0


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_agent_is_published_and_the_exit_code_is_4(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--run", str(folder), "--store", str(store.root), "--trt", "--json"])
    out, err = capsys.readouterr()
    (agent,) = store.ids()
    assert code == 4
    assert err.count("\n") == 1
    assert "no NVIDIA GPU is visible" in err
    assert f"`python -m export --trt --agent {agent} --store {store.root}`" in err
    document = json.loads(out)
    assert (document["ok"], document["agent"], document["tensorrt"]) == (False, agent, None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("choice", "code"), [("--trt=auto", 0), ("--trt=require", 4)])
def test_whether_a_missing_gpu_matters_is_the_users_choice(
    choice: str, code: int, published: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--agent", "current", "--store", str(store.root), choice]) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert f"Agent {published} is in" in out


@pytest.mark.usefixtures("with_gpu")
def test_with_a_gpu_the_engine_goes_to_this_machines_cache(
    published: str,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "11.4.0", raising=False)
    monkeypatch.setattr(tensorrt, "_plan", lambda model, *_: (b"plan of " + model[:4], b""))
    monkeypatch.setattr(tensorrt, "open_trt", lambda model, *_: OnnxEngine(model))
    arguments = ["--agent", published[:12], "--store", str(store.root), "--trt"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tensorrt"]
    assert told["parity"]["same_rung"] == 1.0
    path, several = map(Path, told["engines"])
    assert several.is_file()
    assert path.parent == store.root / "cache" / "tensorrt"
    assert path.read_bytes() == b"plan of " + store.load(published).file("engine")[:4]
    assert main(arguments) == 0
    assert f"TensorRT engine: {path}" in capsys.readouterr().out
    assert store.ids() == (published,)


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(("choice", "code"), [("--trt=auto", 0), ("--trt", 4)])
def test_a_build_that_fails_is_told_as_a_missing_gpu_is(
    choice: str,
    code: int,
    published: str,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise EnvironmentMissing("TensorRT 11 cannot parse the engine: why.")

    monkeypatch.setattr(tensorrt, "build_engines", fail)
    assert main(["--agent", published, "--store", str(store.root), choice, "--json"]) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "cannot parse the engine: why. The ONNX of" in err
    assert json.loads(out)["agent"] == published


def test_an_agent_gets_another_alias(
    published: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--agent", published, "--store", str(store.root), "--alias", "scenery/night"]
    assert main(arguments) == 0
    assert store.resolve("scenery/night") == published
    assert "Parity" not in capsys.readouterr().out


def test_a_missing_run_is_a_usage_error(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(tmp_path / "nowhere"), "--store", str(store.root)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "python -m export: " in err
    assert "holds no complete training run" in err


def test_a_failed_gate_ends_with_3_and_leaves_nothing(
    run_of_training: TrainingRun, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run_of_training.expected
    assert expected.agreement is not None
    wrong = replace(expected, agreement=expected.agreement[::-1].copy())
    replace(run_of_training, expected=wrong).save(tmp_path / "run")
    code = main(["--run", str(tmp_path / "run"), "--store", str(store.root), "--alias", "current"])
    err = capsys.readouterr().err
    assert code == 3
    assert err.count("\n") == 1
    assert "Nothing was published." in err
    assert store.ids() == ()


def test_a_perturbed_head_on_disk_ends_with_3(folder: Path, store: Store) -> None:
    path = folder / "head.safetensors"
    state = load(path.read_bytes())
    state["log_size.bias"] = torch.flip(state["log_size.bias"], dims=(0,))
    path.write_bytes(save(state))
    assert main(["--run", str(folder), "--store", str(store.root)]) == 3
    assert store.ids() == ()


def test_int8_is_a_new_version_and_the_alias_follows(
    published: str,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("export.variants.WORTH", 0.0)
    monkeypatch.setattr("export.gate.MIN_SAME", 0.9)
    assert main(["--agent", "current", "--store", str(store.root), "--int8"]) == 0
    out, err = capsys.readouterr()
    assert "All in INT8" in err
    assert "INT8: 1 of 1 blocks" in out
    assert store.resolve("current") != published
    assert store.load("current").manifest.entries("engine-int8")


def test_a_refused_variant_ends_with_3_and_the_rest_is_made(
    published: str,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("export.variants.WORTH", 1e9)
    monkeypatch.setattr("export.gate.MIN_SAME", 0.9)
    out = tmp_path / "out"
    arguments = ["--agent", "current", "--store", str(store.root), "--int8", "--json"]
    assert main([*arguments, "--mar", "--triton", "--card", "--out", str(out), "--bench"]) == 3
    document, err = capsys.readouterr()
    told = json.loads(document)
    assert "INT8 is refused" in err
    assert (told["ok"], told["int8"], told["agent"]) == (False, None, published)
    assert store.ids() == (published,)
    assert [Path(name).name for name in told["files"]] == [
        "day.mar",
        "model.onnx",
        "config.pbtxt",
        "MODEL_CARD.md",
    ]
    assert all(Path(name).is_file() for name in told["files"])
    assert [row["variant"] for row in told["bench"]] == ["fp32"]


def test_photos_to_calibrate_with_and_to_time_come_from_folders(
    published: str,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pictures: Callable[..., NDArray[np.uint8]],
) -> None:
    monkeypatch.setattr("export.variants.WORTH", 0.0)
    monkeypatch.setattr("export.gate.MIN_SAME", 0.9)
    for number, pixels in enumerate(pictures(12, side=40)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    arguments = ["--agent", published, "--store", str(store.root), "--int8"]
    assert main([*arguments, "--calibration", str(tmp_path), "--bench", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["variant", "fp32", "int8"]


def test_a_folder_that_cannot_be_written_is_named(
    published: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    arguments = ["--agent", published, "--store", str(store.root), "--card"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 4
    assert "name another with --out" in capsys.readouterr().err


def test_calibration_photos_are_for_int8(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--agent", "a", "--store", str(store.root), "--calibration", str(tmp_path)]
    assert main(arguments) == 2
    assert "--calibration is for --int8" in capsys.readouterr().err


def test_an_unknown_agent_ends_with_5(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agent", "nobody", "--store", str(store.root), "--trt"]) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "nobody" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--store", "x"],
        ["--run", "x", "--agent", "y", "--store", "z"],
        ["--run", "x", "--store", "z", "--trt=maybe"],
    ],
)
def test_wrong_options_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: python -m export" in capsys.readouterr().err


def test_a_run_needs_a_store_to_go_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", "x"]) == 2
    assert "--store DIR" in capsys.readouterr().err


def test_help_names_the_exit_codes_and_needs_no_torch() -> None:
    code = (
        "import sys; from export.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: print('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "3 quality or parity gate failed" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
