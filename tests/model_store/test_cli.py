from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from model_store import cli, errors

EXITS = [
    (errors.AdaCompressError("x"), 1),
    (errors.UsageError("x"), 2),
    (errors.GateFailed("x"), 3),
    (errors.EnvironmentMissing("x"), 4),
    (errors.CorruptAgent("x"), 5),
    (errors.AgentNotFound("x"), 5),
    (errors.BackendError("x"), 6),
    (errors.BudgetReached("x"), 7),
    (KeyboardInterrupt(), 130),
    (BrokenPipeError(), 0),
]


def commands(handler: Callable[..., Any]) -> argparse.ArgumentParser:
    parser = cli.parser("thing", "Does a thing.")
    parser.set_defaults(handler=handler)
    return parser


@pytest.mark.parametrize(("error", "code"), EXITS, ids=lambda value: type(value).__name__)
def test_what_a_handler_raises_becomes_the_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise error

    assert cli.run(commands(fail), []) == code
    told = capsys.readouterr().err
    assert told.startswith("python -m thing: ") or code == 0
    assert told.count("\n") == (code != 0)


def test_the_exit_code_of_a_handler_is_passed_on() -> None:
    assert cli.run(commands(lambda arguments: 3), []) == 3


def test_an_unexpected_error_is_not_hidden() -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(commands(fail), [])


def test_no_command_prints_the_help_and_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(cli.parser("thing", "Does a thing."), []) == 2
    assert "exit codes: 0 ok" in capsys.readouterr().err


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.run(cli.parser("thing", "Does a thing."), ["--no-such"])
    assert raised.value.code == 2
    assert "--no-such" in capsys.readouterr().err


def test_json_is_one_sorted_object(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_json({"b": 1, "a": [2]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": [2], "b": 1}
    assert printed.index('"a"') < printed.index('"b"')


@pytest.mark.skipif(os.name != "posix", reason="a closed pipe is told by EPIPE")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_went_away_is_no_failure(unbuffered: str) -> None:
    code = (
        "import sys; from model_store import cli\n"
        "parser = cli.parser('thing', 'x')\n"
        "parser.set_defaults(handler=lambda arguments: print('hello') or 0)\n"
        "sys.exit(cli.run(parser, []))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
