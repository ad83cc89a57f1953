from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import Store
from model_store.__main__ import main

Publish = Callable[..., str]


@pytest.fixture
def where(store: Store) -> list[str]:
    return ["--store", str(store.root)]


def test_ls_shows_what_matters_of_each_agent(
    publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {
        "size_ratio": {"mean": 0.3125, "lo": 0.3, "hi": 0.33},
        "agreement": {"any_hit": {"mean": 0.961, "lo": 0.95, "hi": 0.97}},
    }
    plain = publish("a", "current")
    night = publish(
        "b", "scenery/night", metrics=metrics, scenery={"name": "night", "signature": None}
    )
    assert main(["ls", *where]) == 0
    heading, first, second, then = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        *("id", "scenery", "algorithm", "target", "size", "ratio", "agreement", "created"),
        "aliases",
    ]
    assert first.split() == [plain, "-", "bandit", "0.95", "-", "-", first.split()[6], "current"]
    assert second.split()[:6] == [night, "night", "bandit", "0.95", "0.312", "0.961"]
    assert second.endswith("scenery/night")
    assert then == f"next: python -m model_store show {night} --store {where[1]}"


def test_ls_as_json(publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name = publish("a", "current", metrics={"size_ratio": 0.4})
    assert main(["ls", *where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "adacompress.store/1"
    assert document["ok"] is True
    assert document["aliases"] == {"current": name}
    [agent] = document["agents"]
    assert (agent["id"], agent["size_ratio"], agent["agreement"]) == (name, 0.4, None)
    assert agent["aliases"] == ["current"]


def test_ls_of_an_empty_folder_names_the_way_to_an_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: python -m training fit")


def test_ls_shows_a_damaged_agent_too(
    store: Store, publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = publish("a")
    (store.root / "agents" / name / "manifest.json").write_text("{")
    assert main(["ls", *where]) == 0
    assert f"{name}  -        unreadable" in capsys.readouterr().out
    assert main(["ls", *where, "--json"]) == 0
    assert "is not JSON" in json.loads(capsys.readouterr().out)["agents"][0]["problem"]


def test_show_prints_the_manifest(
    store: Store, publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    signature = {"mean": [0.0] * 64, "std": [1.0] * 64, "radius": 1.0, "window": 1, "n": 9}
    name = publish("a", "current", scenery={"name": "day", "signature": signature})
    assert main(["show", "current", *where]) == 0
    printed = capsys.readouterr().out
    assert "engine.onnx    engine  " in printed
    assert '{"target": 0.95, "trade_off": 2.0}' in printed
    assert max(map(len, printed.splitlines()[:-1])) < 170
    assert printed.endswith(f"next: python -m model_store verify {name} --store {where[1]}\n")
    assert main(["show", name, *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == store.manifest(name).to_json()


def test_verify_ends_with_5_when_anything_is_damaged(
    store: Store, publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = publish("a", "current"), publish("b", "current")
    assert main(["verify", *where]) == 0
    assert "BAD" not in capsys.readouterr().out
    [entry] = store.manifest(bad).entries("engine")
    (store.root / "blobs" / "sha256" / entry.sha256[:2] / entry.sha256).write_bytes(
        b"?" * entry.size
    )
    assert main(["verify", *where]) == 5
    printed = capsys.readouterr().out
    assert f"{bad}  BAD\n    engine.onnx: wrong hash, expected {entry.sha256}" in printed
    assert printed.splitlines()[-1].startswith("next: python -m model_store rollback --store")
    assert main(["verify", good, *where]) == 0
    capsys.readouterr()
    assert main(["verify", *where, "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["problems"][good] == []
    assert document["problems"][bad][0]["kind"] == "wrong hash"


def test_promote_and_rollback_move_an_alias(
    store: Store, publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = publish("a", "current"), publish("b")
    assert main(["promote", second, *where, "--reason", "sharper"]) == 0
    assert f"current -> {second}\nnext: python -m model_store rollback" in capsys.readouterr().out
    assert store.history("current")[-1].reason == "sharper"
    assert main(["rollback", *where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["alias"], document["id"]) == ("current", first)
    assert main(["rollback", *where]) == 5
    assert "nothing to roll back to" in capsys.readouterr().err
    assert main(["promote", second, "--alias", "scenery/day", *where]) == 0
    assert store.resolve("scenery/day") == second


def test_publish_takes_a_manifest_and_files(
    store: Store,
    publish: Publish,
    where: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, engine = tmp_path / "manifest.json", tmp_path / "engine.onnx"
    manifest.write_text(json.dumps(store.manifest(publish("a")).to_json()))
    engine.write_bytes(store.load(store.ids()[0]).file("engine"))
    files = ["--file", f"engine={engine}"]
    new = ["--store", str(tmp_path / "new")]
    assert main(["publish", str(manifest), *files, *new, "--alias", "current", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["id"]
    made = Store(tmp_path / "new").load("current")
    assert (made.id, made.read("engine.onnx")) == (name, engine.read_bytes())
    assert main(["publish", str(manifest), *files, *files, *new]) == 2
    assert main(["publish", str(manifest), "--file", "engine.onnx", *new]) == 2
    assert main(["publish", str(tmp_path / "none.json"), *new]) == 2
    manifest.write_text('{"schema": "adacompress.agent/1"}')
    assert main(["publish", str(manifest), *new]) == 5
    assert "field algorithm is missing" in capsys.readouterr().err
    assert main(["publish", str(manifest), "--trusted-keys", str(tmp_path / "none"), *new]) == 2


def test_gc_lists_what_it_does(
    store: Store, publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lost, kept = publish("a"), publish("b", "current")
    assert main(["gc", *where, "--dry-run", "--grace-hours", "0"]) == 0
    printed = capsys.readouterr().out
    assert f"retired      1      {lost}\n" in printed
    assert "Nothing was done.\nnext: python -m model_store gc" in printed
    assert lost in store.ids()
    assert main(["gc", *where, "--json", "--grace-hours", "0", "--keep", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["dry_run"]) == (True, False)
    assert (document["retired"], document["kept"], len(document["contents"])) == ([lost], [kept], 1)
    assert store.ids() == (kept,)
    (store.root / "agents" / kept / "manifest.json").write_text("{")
    assert main(["gc", *where]) == 0
    assert "nobody knows which are those of the unreadable" in capsys.readouterr().out
    assert main(["gc", *where, "--keep", "0"]) == 2


def test_an_agent_travels_signed_in_a_bundle_and_through_a_remote_store(
    store: Store,
    publish: Publish,
    where: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, key = publish("a", "current"), tmp_path / "fleet.pem"
    bundle, share = tmp_path / "a.zip", (tmp_path / "share").as_uri()
    trust = ["--trusted-keys", f"{key}.pub"]
    assert main(["keygen", str(key), "--json"]) == 0
    public = json.loads(capsys.readouterr().out)["key"]
    assert main(["keygen", str(key)]) == 2
    assert main(["ls", *where, *trust]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert main(["show", "current", *where, *trust]) == 5
    assert "it is not signed" in capsys.readouterr().err
    assert main(["sign", "current", "--key", str(key), *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == public
    assert main(["pack", "current", str(bundle), *where, *trust, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == bundle.stat().st_size
    first = ["--store", str(tmp_path / "first"), *trust]
    assert main(["unpack", str(bundle), *first, "--alias", "current"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} as current\nnext: ")
    assert main(["push", "current", share, *first, "--alias", "scenery/day"]) == 0
    second = ["--store", str(tmp_path / "second"), *trust]
    assert main(["pull", share, "scenery/day", *second, "--json", "--alias", "current"]) == 0
    assert Store(tmp_path / "second").resolve("current") == name
    assert main(["verify", *second]) == 0
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert main(["unpack", str(bundle), *second]) == 5
    assert main(["pull", share, "nobody", *second]) == 5
    assert main(["pull", "gopher://x", "nobody", *second]) == 2


@pytest.mark.parametrize("command", ["show", "verify", "promote"])
def test_an_unknown_agent_ends_with_5_and_lists_what_there_is(
    publish: Publish, where: list[str], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    name = publish("a", "current")
    assert main([command, "nobody", *where]) == 5
    assert f"'nobody' in the store; it holds current, {name}." in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_a_usage_error_and_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--store", str(tmp_path / "typo")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("arguments", [["ls"], ["bogus"], ["show", "--store", "x"]])
def test_wrong_arguments_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: python -m model_store" in capsys.readouterr().err


def test_it_runs_as_a_module(publish: Publish, where: list[str]) -> None:
    name = publish("a")
    arguments = [sys.executable, "-m", "model_store", "show", name, *where, "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["id"] == name
    helped = subprocess.run(
        [*arguments[:3], "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "exit codes: 0 ok" in helped
