"""Where choices come from: arguments > environment > file > defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.config import EdgeConfig
from model_store.errors import UsageError

FILE = """
store = "from-file"
backend = "baidu://host"
min_score = 0.5
max_probes = 4
spool = true
seed = 3
[loop]
n = 12
p_0 = 0.1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(FILE)
    return path


def test_each_source_overrides_the_next(file: Path) -> None:
    environ = {
        "ADACOMPRESS_STORE": "from-environment",
        "ADACOMPRESS_MIN_SCORE": "0.75",
        "ADACOMPRESS_MAX_PROBES": "none",
        "ADACOMPRESS_LOOP_P_0": "0.3",
        "ADACOMPRESS_SPOOL": "off",
        "ADACOMPRESS_BAIDU_API_KEY": "no choice",
    }
    config = EdgeConfig.load(file, environ=environ, min_score=1.0)
    assert (config.store, config.backend) == ("from-environment", "baidu://host")
    assert (config.min_score, config.max_probes, config.spool) == (1.0, None, False)
    assert (config.loop.n, config.loop.p_0, config.loop.omega) == (12, 0.3, -3.0)
    assert (config.seed, config.alias) == (3, "current")


def test_the_environment_may_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACOMPRESS_CONFIG", str(file))
    assert EdgeConfig.load().store == "from-file"
    assert EdgeConfig(store="agents", backend="baidu://").min_score == 0.0  # explicit stays so


def test_every_choice_can_be_made_in_the_environment() -> None:
    default = EdgeConfig(store="agents", backend="baidu://")
    environ = {}
    for field in dataclasses.fields(EdgeConfig):
        value: Any = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                name = f"ADACOMPRESS_{field.name}_{inner.name}".upper()
                environ[name] = str(getattr(value, inner.name))
        else:
            environ[f"ADACOMPRESS_{field.name}".upper()] = str(value)
    assert EdgeConfig.load(environ=environ) == default


def test_a_configuration_is_frozen() -> None:
    config = EdgeConfig(store="agents", backend="baidu://")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_scor = 1", r"'min_scor', which is no choice; did you mean 'min_score'"),
        ("zzz = 1", "known are store, backend"),
        ("[loop]\nq = 1", r"table \[loop\], has 'q'"),
        ("loop = 3", r"allowed is a table \[loop\]"),
        ("seed = 1.5", r"seed = 1.5; allowed is a whole number"),
        ("seed = true", "allowed is a whole number"),
        ("strict = 1", "allowed is true or false"),
        ("store = 3", "allowed is a text"),
        ("seed = -1", "seed is -1; allowed is 0 or more"),
        ("= 3", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        EdgeConfig.load(path, environ={"ADACOMPRESS_BACKEND": "baidu://"}, **_unless("store", text))


def _unless(name: str, text: str) -> dict[str, Any]:
    return {} if text.startswith(name) else {name: "agents"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SEED", "many", "ADACOMPRESS_SEED is 'many'; allowed is a whole number"),
        ("SPOOL", "perhaps", "allowed is true or false"),
        ("MIN_SCORE", "", "allowed is a number"),
        ("QUEUE_FULL", "explode", "queue_full is 'explode'; allowed are block, drop-new"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str, said: str) -> None:
    environ = {f"ADACOMPRESS_{name}": value}
    with pytest.raises(UsageError, match=said):
        EdgeConfig.load(environ=environ, store="agents", backend="baidu://")


@pytest.mark.parametrize("missing", ["store", "backend"])
def test_what_is_needed_is_asked_for(missing: str) -> None:
    given = {"store": "agents", "backend": "baidu://"}
    del given[missing]
    with pytest.raises(UsageError, match=f"No {missing} is chosen.*ADACOMPRESS_{missing.upper()}"):
        EdgeConfig.load(environ={}, **given)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml' cannot be read: No such file"):
        EdgeConfig.load(tmp_path / "nowhere.toml", environ={})
