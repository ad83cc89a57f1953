"""Progress on stderr: a bar on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

__all__ = ["Stages", "Step"]


class Step(Protocol):
    """Tells that ``count`` more steps are done, and what they came to so far."""

    def __call__(self, count: int, note: str = "") -> object:
        """Move the bar."""


class Stages:
    """Tells what is going on, and remembers how long each stage took.

    Args:
        stream: where to; a bar is drawn only if it is a terminal.
        clock: seconds that only grow.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        #: Stage to seconds, in order.
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Step]:
        """Time a stage; the value is called with the number of steps done since its last call.

        Args:
            title: what is being done.
            total: steps, for the bar.
        """
        started, latest = self._clock(), ""
        with self._bar(title, total) as move:

            def step(count: int, note: str = "") -> None:
                nonlocal latest
                latest = note or latest
                move(count, note)

            yield step
        took = self._clock() - started
        self.seconds[title] = self.seconds.get(title, 0.0) + round(took, 3)
        if not self._stream.isatty():
            self.say(f"{title}: {took:.1f} s" + (f", {latest}" if latest else ""))

    def say(self, text: str) -> None:
        """Print one line without disturbing a bar."""
        from tqdm import tqdm

        tqdm.write(text, file=self._stream)

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Step]:
        from tqdm import tqdm

        shape = (
            "{desc} |{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
            if total
            else "{desc} {elapsed}{postfix}"
        )
        hidden = not self._stream.isatty()
        bar = tqdm(
            total=total, desc=title, file=self._stream, disable=hidden, bar_format=shape, leave=True
        )

        def move(count: int, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        with bar:
            yield move
