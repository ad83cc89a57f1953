"""A child that watches its standard input, seen from the outside."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import os, threading
from training.parent import when_parent_ends
told = threading.Event()
when_parent_ends(told.set)
print("ready", flush=True)
print("told" if told.wait({wait}) else "not told", flush=True)
"""


def run(wait: float, stdin: int) -> tuple[str, str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(wait=wait)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    ready = child.stdout.readline().strip()
    if child.stdin is not None:
        child.stdin.close()
    said = child.stdout.readline().strip()
    child.stdout.close()
    assert child.wait(10) == 0
    return ready, said


def test_the_end_of_a_pipe_is_told() -> None:
    assert run(30.0, subprocess.PIPE) == ("ready", "told")


def test_a_null_device_says_nothing() -> None:
    assert run(0.2, subprocess.DEVNULL) == ("ready", "not told")
