"""Where torch computes, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, in a ``with`` block or a decorated function.

    For matrices as small as ours a pool costs more than it gives: its threads wait for each other
    by spinning, and where other work leaves fewer cores than they count, four fifths of the time is
    that.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
