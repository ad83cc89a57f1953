from __future__ import annotations

import io

from training.progress import Stages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking() -> float:
    ticking.now += 1.5  # type: ignore[attr-defined]
    return float(ticking.now)  # type: ignore[attr-defined]


def test_a_stage_is_timed_and_told_in_one_line_where_there_is_no_terminal() -> None:
    ticking.now = 0.0  # type: ignore[attr-defined]
    stream = io.StringIO()
    stages = Stages(stream, ticking)
    with stages.stage("asking", total=3) as step:
        step(1)
        step(2)
    assert stages.seconds == {"asking": 1.5}
    assert stream.getvalue() == "asking: 1.5 s\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    stream = Terminal()
    with Stages(stream).stage("asking", total=2) as step:
        step(2)
    assert "asking" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_a_stage_that_comes_again_adds_up() -> None:
    ticking.now = 0.0  # type: ignore[attr-defined]
    stages = Stages(io.StringIO(), ticking)
    for _ in range(2):
        with stages.stage("asking"):
            pass
    assert stages.seconds == {"asking": 3.0}


def test_what_it_came_to_is_told_with_the_bar_and_at_the_end() -> None:
    terminal, stream = Terminal(), io.StringIO()
    for where in (terminal, stream):
        ticking.now = 0.0  # type: ignore[attr-defined]
        with Stages(where, ticking).stage("asking", total=3) as step:
            step(1, "2 calls for 0.02 USD")
            step(1, "4 calls for 0.04 USD")
            step(1)
    assert "3/3 00:00, 4 calls for 0.04 USD" in terminal.getvalue()
    assert stream.getvalue() == "asking: 1.5 s, 4 calls for 0.04 USD\n"
