"""The options of ``python -m training cloud``, without starting anything."""

from __future__ import annotations

import argparse

import pytest

from model_store import cli
from training.cloud import command
from training.cloud.dialects import DIALECTS
from training.cloud.faults import FAULTS
from training.cloud.zoo import MODELS


def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    parser = cli.parser("training", "test")
    command.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["cloud", "--help"])
    return capsys.readouterr().out


def test_the_help_names_every_model_dialect_and_fault(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(help_text(capsys).split())  # lines are broken within names

    for name in (*MODELS, *DIALECTS, *FAULTS):
        assert name in text


@pytest.mark.parametrize("model", MODELS)
def test_a_swap_goes_to_another_model_that_answers_alike_if_there_is_one(model: str) -> None:
    other = command.another(model)
    alike = [name for name in MODELS if name != model and MODELS[name].boxes == MODELS[model].boxes]

    assert other != model
    assert other in (alike or MODELS)


def test_without_options_there_is_no_trouble() -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["cloud"])

    assert (arguments.model, arguments.codec) == (None, None)
    assert (arguments.faults, arguments.latency, arguments.qps) == ("0", "0", None)
    assert (arguments.swap_after, arguments.rename_labels, arguments.silent) == (None, False, False)
