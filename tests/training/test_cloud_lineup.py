"""Which model answers when, and labels that change their names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge_sdk.backends.base import Box, Label
from edge_sdk.errors import ImageError
from model_store.errors import UsageError
from training.cloud.lineup import Renamed, line_up


class Stub:
    boxes = True

    def __init__(self, name: str = "stub") -> None:
        self.name, self.version = name, f"{name}@1"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        if not jpeg:
            raise ImageError("empty")
        return (Label("cat", 0.75, Box(1, 2, 3, 4)), Label("dog", 0.25))

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) if jpeg else ImageError("empty") for jpeg in jpegs]


OLD, NEW = Stub("old"), Stub("new")


def test_one_model_answers_for_ever() -> None:
    lineup = line_up(OLD)

    assert lineup.at(0) is lineup.at(10**9) is OLD


def test_another_model_answers_after_so_many_answers() -> None:
    lineup = line_up(OLD, swap_to=NEW, swap_after=3)

    assert [lineup.at(billed) for billed in (0, 2, 3, 4)] == [OLD, OLD, NEW, NEW]


def test_names_change_from_the_start_or_with_the_swap() -> None:
    assert line_up(OLD, rename_labels=True).at(0).version == "old@1+renamed"
    same = line_up(OLD, rename_labels=True, swap_after=1)
    both = line_up(OLD, rename_labels=True, swap_after=1, swap_to=NEW)

    assert [same.at(billed).version for billed in (0, 1)] == ["old@1", "old@1+renamed"]
    assert [both.at(billed).version for billed in (0, 1)] == ["old@1", "new@1+renamed"]


def test_every_name_changes_and_nothing_else() -> None:
    renamed = Renamed(OLD)
    cat, dog = renamed.answer(b"jpeg")

    assert (cat.name, dog.name) == ("cat (renamed)", "dog (renamed)")
    assert (cat.score, cat.box, dog.box) == (0.75, Box(1, 2, 3, 4), None)
    assert (renamed.name, renamed.boxes) == ("old", True)
    labels, error = renamed.answer_many([b"jpeg", b""])
    assert labels == (cat, dog)
    assert isinstance(error, ImageError)


def test_a_swap_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="After 5 answers nothing would change"):
        line_up(OLD, swap_after=5)


def test_a_model_to_swap_to_needs_a_moment() -> None:
    with pytest.raises(UsageError, match="no --swap-after"):
        line_up(OLD, swap_to=NEW)
