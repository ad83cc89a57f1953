"""Where torch computes, and with how many threads."""

from __future__ import annotations

import pytest
import torch

from training.learn.compute import one_thread


def test_one_thread_is_for_the_block_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="mine"), one_thread():
            raise ValueError("mine")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_it_decorates_functions() -> None:
    @one_thread()
    def threads() -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    assert [threads(), threads()] == [1, 1]
    assert torch.get_num_threads() == before
