from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edge_sdk.retrain import ChildProcessRetrainer, RetrainRequest, RetrainResult

LIMIT_S = 30.0


def request(folder: Path) -> RetrainRequest:
    return RetrainRequest(
        store=str(folder / "store"),
        parent="day-0123456789ab",
        memory=str(folder / "memory.sqlite"),
        scenery="scenery-1",
        alpha=1.0,
        beta=0.25,
        target_accuracy=0.95,
        seed=7,
    )


def child(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(script))


def outcome(retrainer: ChildProcessRetrainer) -> RetrainResult:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        result = retrainer.poll()
        if result is not None:
            return result
    raise AssertionError("the child did not end")


def run(script: str, folder: Path) -> RetrainResult:
    retrainer = ChildProcessRetrainer(child(script))
    retrainer.start(request(folder))
    return outcome(retrainer)


def test_the_child_gets_the_request_and_its_last_line_is_the_result(tmp_path: Path) -> None:
    script = """
        import json, sys
        request = json.load(open(sys.argv[sys.argv.index("--request") + 1]))
        print("talk before the result")
        print(json.dumps({"agent": request["scenery"] + "-0123456789ab"}))
    """
    assert run(script, tmp_path) == RetrainResult("scenery-1-0123456789ab")


def test_the_request_document_is_versioned_and_complete(tmp_path: Path) -> None:
    run("", tmp_path)
    document = json.loads((tmp_path / "retrain.json").read_text())
    assert document == {
        "schema": "adacompress.retrain/1",
        "store": str(tmp_path / "store"),
        "parent": "day-0123456789ab",
        "memory": str(tmp_path / "memory.sqlite"),
        "scenery": "scenery-1",
        "alpha": 1.0,
        "beta": 0.25,
        "target_accuracy": 0.95,
        "seed": 7,
    }


def test_the_child_is_told_its_limit_of_memory(tmp_path: Path) -> None:
    script = """
        import json, sys
        print(json.dumps({"agent": sys.argv[sys.argv.index("--max-memory") + 1]}))
    """
    retrainer = ChildProcessRetrainer(child(script), max_memory_mib=512)
    retrainer.start(request(tmp_path))
    assert outcome(retrainer) == RetrainResult("512")


def test_a_result_is_told_once(tmp_path: Path) -> None:
    retrainer = ChildProcessRetrainer(child("""print('{"agent": "a"}')"""))
    assert retrainer.poll() is None
    retrainer.start(request(tmp_path))
    assert outcome(retrainer) == RetrainResult("a")
    assert retrainer.poll() is None


def test_a_failing_child_is_reported_with_its_code_and_last_words(tmp_path: Path) -> None:
    result = run(
        "import sys; print('first\\nthe disk is full', file=sys.stderr); sys.exit(3)", tmp_path
    )
    assert result.agent is None
    assert "exit code 3" in result.reason
    assert "the disk is full" in result.reason
    assert "first" not in result.reason


def test_a_missing_training_package_is_named_with_the_remedy(tmp_path: Path) -> None:
    retrainer = ChildProcessRetrainer((sys.executable, "-m", "training_that_is_not_there"))
    retrainer.start(request(tmp_path))
    result = outcome(retrainer)
    assert result.agent is None
    assert "No module named" in result.reason
    assert "adacompress[train]" in result.reason


@pytest.mark.parametrize(
    "answer", ["", "done", "[]", "{}", '{"agent": 3}', '{"agent": ""}', "null"]
)
def test_an_answer_that_names_no_agent_is_a_failure(answer: str, tmp_path: Path) -> None:
    result = run(f"print({answer!r})", tmp_path)
    assert result.agent is None
    assert "one line of JSON" in result.reason


def test_a_child_past_its_deadline_is_ended(tmp_path: Path) -> None:
    now = [0.0]
    retrainer = ChildProcessRetrainer(
        child("import sys; sys.stdin.read()"), deadline_s=60.0, clock=lambda: now[0]
    )
    retrainer.start(request(tmp_path))
    assert retrainer.poll() is None
    now[0] = 61.0
    assert retrainer.poll() == RetrainResult(None, "the retrainer took more than 60 s")


def waiting_child(folder: Path) -> tuple[str, ...]:
    """Return a child that writes its process id, then waits until its standard input ends."""
    return child(f"""
        import os, pathlib, sys
        pathlib.Path({str(folder / "new")!r}).write_text(str(os.getpid()))
        os.replace({str(folder / "new")!r}, {str(folder / "pid")!r})
        sys.stdin.read()
    """)


def process_id(folder: Path) -> int:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if (folder / "pid").exists():
            return int((folder / "pid").read_text())
    raise AssertionError("the child did not start")


def test_close_ends_the_child_and_twice_is_fine(tmp_path: Path) -> None:
    retrainer = ChildProcessRetrainer(waiting_child(tmp_path))
    retrainer.start(request(tmp_path))
    pid = process_id(tmp_path)
    retrainer.close()
    retrainer.close()
    assert retrainer.poll() is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_second_start_gives_the_first_child_up(tmp_path: Path) -> None:
    retrainer = ChildProcessRetrainer(waiting_child(tmp_path))
    retrainer.start(request(tmp_path))
    pid = process_id(tmp_path)
    retrainer.start(request(tmp_path))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    retrainer.close()


def test_a_command_that_cannot_be_run_raises_at_once(tmp_path: Path) -> None:
    retrainer = ChildProcessRetrainer((str(tmp_path / "no-such-program"),))
    with pytest.raises(OSError, match="no-such-program"):
        retrainer.start(request(tmp_path))
    assert retrainer.poll() is None


def test_much_output_does_not_block_the_child(tmp_path: Path) -> None:
    script = """
        import sys
        for stream in (sys.stdout, sys.stderr):
            stream.write("x" * 1_000_000 + "\\n")
        print('{"agent": "a"}')
    """
    assert run(script, tmp_path) == RetrainResult("a")
