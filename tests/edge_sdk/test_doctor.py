"""One table and a verdict: on this machine, and on machines that lack something."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_sdk import doctor
from edge_sdk.__main__ import main
from edge_sdk.featurecodec import rangecoder
from edge_sdk.gpu import Gpu
from edge_sdk.preprocess import spec_sha256
from model_store import Draft, Store

GPU = Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)


def test_it_prints_one_table_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    table = {line[:22].strip(): line[22:] for line in said.out.splitlines()}
    assert table["provider wanted"] == table["provider got"] == "cpu"
    assert table["would be used"] == "ONNX Runtime on cpu"
    assert table["verdict"] == "Ready: engines run on cpu."
    assert list(table)[-1] == "verdict"
    assert {"python", "numpy", "onnxruntime", "tensorrt", "GPU", "providers offered"} <= {*table}
    assert said.err == ""


def test_as_json_it_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "adacompress.doctor/1"
    assert (report["ok"], report["got"], report["reasons"]) == (True, "cpu", [])
    assert "cpu" in report["providers"]
    assert {"python", "numpy", "pillow", "libjpeg-turbo", "requests", "onnxruntime"} <= set(
        report["versions"]
    )


def test_the_operator_set_is_found_by_trying() -> None:
    model = onnx.load_model_from_string(doctor._GRAPH + bytes([13]))
    onnx.checker.check_model(model)
    assert doctor.examine()["opset_max"] >= 21  # ONNX Runtime 1.20's


def test_without_a_runtime_it_exits_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["doctor"]) == 4
    printed = capsys.readouterr().out
    assert "adacompress[cpu]" in printed
    assert "would be used         nothing: the reference is sent" in printed
    assert "ONNX Runtime cannot be imported" in printed


def test_a_provider_that_is_not_offered_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "visible_gpu", lambda: GPU)
    monkeypatch.setattr(doctor, "_providers", lambda: (("cpu",), []))
    assert main(["doctor", "--provider", "cuda", "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["wanted"], report["got"], report["ok"]) == ("cuda", "cpu", False)
    assert report["gpu"] == "NVIDIA Imaginary 1000, compute capability 9.0"
    assert "only cpu is there" in report["verdict"]
    assert main(["doctor", "--provider", "abacus"]) == 2


def test_a_provider_that_is_offered_but_falls_back_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "visible_gpu", lambda: GPU)
    monkeypatch.setattr(doctor, "_providers", lambda: (("cpu", "cuda"), []))
    monkeypatch.setattr(doctor, "_opset_max", lambda: 21)

    class Session:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(doctor, "open_session", lambda model, provider: Session())
    report = doctor.examine("cuda")
    assert not report["ok"]
    assert report["reasons"] == ["a session for cuda runs on cpu instead"]


def test_no_gpu_is_a_reason_where_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "visible_gpu", lambda: None)
    assert any("no GPU is visible" in reason for reason in doctor.examine("cuda")["reasons"])


def test_it_warns_of_two_runtimes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "1.0")
    assert any("both installed" in warning for warning in doctor.examine()["warnings"])


def test_tensorrt_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "10" if name == "tensorrt" else None)
    monkeypatch.setattr(doctor, "_providers", lambda: ((), []))
    report = doctor.examine()
    assert not report["ok"]
    assert any("ONNX Runtime" in warning for warning in report["warnings"])


def test_it_tells_the_encoder_and_the_lossless_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mozjpeg_lossless_optimization")
    report = doctor.examine()
    assert report["encoder"].startswith(f"Pillow {report['versions']['pillow']}, libjpeg")
    assert report["lossless_pass"].startswith("mozjpeg-lossless-optimization 1")
    assert report["codecs"] == []
    monkeypatch.setitem(sys.modules, "mozjpeg_lossless_optimization", None)
    assert main(["doctor"]) == 0  # it is an extra
    printed = capsys.readouterr().out
    assert "lossless pass         none; `pip install 'adacompress[mozjpeg]'`\n" in printed
    assert f"JPEG encoder          {report['encoder']}\n" in printed
    assert "codec" not in printed


@pytest.mark.parametrize("library", [True, False])
def test_it_tells_the_codec_of_an_agent_and_what_codes_for_it(
    publish: Callable[..., str],
    tmp_path: Path,
    library: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rangecoder, "_library", lambda: object() if library else None)
    rungs = [{"format": "features", "codec": "1a2b3c4d5e6f7a8b", "rate": rate} for rate in (0, 1)]
    publish(ladder=[*rungs, {"quality": 75}])
    main(["doctor", "--store", str(tmp_path / "agents")])
    told = f"runtime {'constriction' if library else 'pure Python'}"
    printed = capsys.readouterr().out
    assert f"codec                 1a2b3c4d5e6f7a8b, {told}\n" in printed
    assert printed.count("1a2b3c4d5e6f7a8b") == 1


@pytest.fixture
def publish(tmp_path: Path, make_engine: Callable[..., bytes]) -> Callable[..., str]:
    """Publish an agent as ``current`` in ``agents``; changes by manifest field."""

    def publish(**changes: Any) -> str:
        fields: dict[str, Any] = {
            "algorithm": "bandit",
            "ladder": [{}],
            "signature": {
                "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
                "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, 10]}],
            },
            "preprocessing": {"spec": {}, "sha256": spec_sha256()},
            "reward": {"alpha": 1.0, "beta": 0.0},
            "operating_points": [{}],
            "backend": {"name": "fake://", "model_version": None, "min_score": 0.0},
            "training": {
                "fingerprint": "f",
                "photos": 1,
                "images": 1,
                "labels_bought": 1,
                "seed": 0,
            },
            "probe": {"rungs": [], "q_values": []},
        }
        files: Any = {"engine.onnx": ("engine", make_engine())}
        store = Store(tmp_path / "agents")
        return store.publish(Draft(**fields | changes), files, aliases=["current"]).id

    return publish


def test_an_agent_is_judged_too(
    publish: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "agents")]
    name = publish()
    assert main(["doctor", *where]) == 0
    assert f"agent                 {name}\n" in capsys.readouterr().out
    publish(preprocessing={"spec": {}, "sha256": "0" * 64})
    assert main(["doctor", *where, "--json"]) == 4
    [reason] = json.loads(capsys.readouterr().out)["reasons"]
    assert "made for the pre-processing 000000000000…" in reason
    assert main(["doctor", *where, "--agent", name]) == 0
    assert main(["doctor", *where, "--agent", "nobody"]) == 5
