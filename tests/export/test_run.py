"""A training run survives the disk, and what is no run is refused in one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from edge_sdk.engine import Scores
from edge_sdk.ladder import FULL, PAPER, Ladder
from export.network import DQNHead, FactoredHead
from export.run import SCHEMA, TrainingRun, head_from_bytes, state_to_bytes
from model_store.errors import UsageError

PARTS = ["run.json", "prefix.onnx", "head.safetensors", "parity.npz"]


@pytest.fixture
def folder(run_of_training: TrainingRun, tmp_path: Path) -> Path:
    run_of_training.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_comes_back_as_it_was_saved(folder: Path, run_of_training: TrainingRun) -> None:
    loaded = TrainingRun.load(folder)
    assert loaded.prefix == run_of_training.prefix
    assert (loaded.ladder, loaded.facts) == (run_of_training.ladder, run_of_training.facts)
    assert loaded.operating_point == run_of_training.operating_point
    assert loaded.algorithm == "bandit"
    np.testing.assert_array_equal(loaded.inputs, run_of_training.inputs)
    for name in Scores.__dataclass_fields__:
        got, expected = getattr(loaded.expected, name), getattr(run_of_training.expected, name)
        np.testing.assert_array_equal(got, expected)
    assert state_to_bytes(loaded.head) == state_to_bytes(run_of_training.head)


def test_a_dqn_run_has_no_agreement(run_of_training: TrainingRun, tmp_path: Path) -> None:
    expected = replace(run_of_training.expected, agreement=None, size_ratio=None)
    replace(run_of_training, head=DQNHead(8, 10), expected=expected).save(tmp_path)
    loaded = TrainingRun.load(tmp_path)
    assert loaded.algorithm == "dqn"
    assert loaded.expected.agreement is None


def test_a_probe_and_further_points_come_back_too(probing_run: TrainingRun, tmp_path: Path) -> None:
    probing_run.save(tmp_path)
    loaded = TrainingRun.load(tmp_path)
    assert loaded.operating_point == probing_run.operating_point
    assert loaded.points == probing_run.points
    assert loaded.probe is not None
    assert probing_run.probe is not None
    assert not loaded.probe.training
    assert state_to_bytes(loaded.probe) == state_to_bytes(probing_run.probe)


def test_a_run_saved_over_a_probing_one_has_no_probe(
    run_of_training: TrainingRun, probing_run: TrainingRun, tmp_path: Path
) -> None:
    probing_run.save(tmp_path)
    run_of_training.save(tmp_path)
    loaded = TrainingRun.load(tmp_path)
    assert (loaded.probe, loaded.points) == (None, ())


def test_a_run_of_before_probes_has_none(folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    del document["probe"], document["points"]
    (folder / "run.json").write_text(json.dumps(document))
    loaded = TrainingRun.load(folder)
    assert (loaded.probe, loaded.points) == (None, ())


@pytest.mark.parametrize("content", [None, b"", save({}), save({"spread": torch.ones(8)})])
def test_a_run_whose_probe_is_gone_or_damaged_is_refused(
    content: bytes | None, probing_run: TrainingRun, tmp_path: Path
) -> None:
    probing_run.save(tmp_path)
    path = tmp_path / "probe.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=r"no complete training run") as caught:
        TrainingRun.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_probe_for_another_ladder_is_refused(probing_run: TrainingRun, tmp_path: Path) -> None:
    assert probing_run.probe is not None
    probing_run.save(tmp_path)
    state = probing_run.probe.state_dict()
    state["place"] = state["place"][:9]
    (tmp_path / "probe.safetensors").write_bytes(save(state))
    with pytest.raises(UsageError, match=r"no complete training run.*place"):
        TrainingRun.load(tmp_path)


def test_a_run_is_four_files_and_the_last_one_makes_it_whole(
    folder: Path, run_of_training: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(PARTS)
    written = []
    monkeypatch.setattr("export.run.write_atomic", lambda path, _: written.append(path.name))
    monkeypatch.setattr("export.run.write_json", lambda path, _: written.append(path.name))
    run_of_training.save(folder)
    assert written[-1] == "run.json"


@pytest.mark.parametrize(
    ("make", "ladder"),
    [
        (lambda: FactoredHead(6, FULL, alpha=2.0, beta=0.5), FULL),
        (lambda: FactoredHead(1, PAPER), PAPER),
        (lambda: DQNHead(6, len(FULL)), FULL),
        (lambda: DQNHead(6, len(FULL), ()), FULL),
        (lambda: DQNHead(6, 10, (9, 8, 7, 6, 5, 4, 3)), PAPER),  # "layers.10" sorts before "2"
    ],
)
def test_a_head_comes_back_from_its_parameters(
    make: Callable[[], DQNHead | FactoredHead], ladder: Ladder
) -> None:
    torch.manual_seed(0)
    head = make().eval()
    again = head_from_bytes(state_to_bytes(head), ladder)
    features = torch.randn(3, next(head.parameters()).shape[1])
    assert type(again) is type(head)
    assert not again.training
    for got, expected in zip(again(features), head(features), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_with_the_way_out(part: str, folder: Path) -> None:
    (folder / part).unlink()
    with pytest.raises(UsageError, match=rf"no complete training run.*{part}.*python -m training"):
        TrainingRun.load(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere' holds no complete training run"):
        TrainingRun.load(tmp_path / "nowhere")


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inputs.npy", b"no array")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("run.json", b""),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"[1, 2]"),
        ("head.safetensors", b""),
        ("head.safetensors", b"\xff" * 100),
        ("head.safetensors", save({})),
        ("head.safetensors", save({"agreement_logit.weight": torch.zeros(10, 8)})),
        ("head.safetensors", state_to_bytes(FactoredHead(8, FULL))),
        ("parity.npz", b""),
        ("parity.npz", b"PK\x03\x04 and then nothing"),
        ("parity.npz", _zip()),
        ("parity.npz", _npz(features=np.zeros(3))),
        ("parity.npz", _npz(inputs=np.zeros(3), colour=np.zeros(3))),
        ("parity.npz", _npz(inputs=np.array([{"an": "object"}], dtype=object))),
    ],
)
def test_a_damaged_part_is_refused_in_one_sentence(part: str, content: bytes, folder: Path) -> None:
    (folder / part).write_bytes(content)
    with pytest.raises(UsageError, match=r"no complete training run") as caught:
        TrainingRun.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "adacompress.training-run/9", rf"training-run/9'; this code reads '{SCHEMA}'"),
        ("ladder", [], "at least one rung"),
        ("ladder", None, "at least one rung"),
        ("ladder", [{"quality": 0}], "quality 0"),
        ("operating_point", {"target": 0.9}, "without 'trade_off'"),
        ("operating_point", 2.0, "no complete training run"),
    ],
)
def test_a_field_of_another_form_is_refused(
    field: str, value: object, message: str, folder: Path
) -> None:
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {field: value}))
    with pytest.raises(UsageError, match=message):
        TrainingRun.load(folder)


@pytest.mark.parametrize("field", ["schema", "ladder", "operating_point", "facts"])
def test_a_missing_field_is_refused(field: str, folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    del document[field]
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=field):
        TrainingRun.load(folder)
