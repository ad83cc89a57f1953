"""Which model answers: one from the start, perhaps another, or other names, from some answer on."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from model_store.errors import UsageError
from training.cloud.models import Model, codecs_of

__all__ = ["Lineup", "Renamed", "line_up"]

_RENAMED = " (renamed)"


class Renamed:
    """A model whose every label has another name: ``tabby`` becomes ``tabby (renamed)``."""

    def __init__(self, model: Model) -> None:
        self.name, self.boxes = model.name, model.boxes
        self.version = f"{model.version}+renamed"
        self.codecs = codecs_of(model)
        self._model = model

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the model's labels under their new names."""
        return _renamed(self._model.answer(jpeg))

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        """Return what ``answer`` would for each picture."""
        answers = self._model.answer_many(jpegs)
        return [each if isinstance(each, ImageError) else _renamed(each) for each in answers]


class Lineup:
    """The models of one server.

    Args:
        first: answers from the start.
        later: answers when ``after`` answers were billed.
        after: None for never.
    """

    def __init__(self, first: Model, later: Model, after: int | None) -> None:
        self._first, self._later, self._after = first, later, after

    def at(self, billed: int) -> Model:
        """Return the model that answers when ``billed`` answers were billed."""
        return self._first if self._after is None or billed < self._after else self._later


def line_up(
    model: Model,
    *,
    swap_to: Model | None = None,
    swap_after: int | None = None,
    rename_labels: bool = False,
) -> Lineup:
    """Return who answers when.

    Args:
        model: answers from the start.
        swap_to: answers when ``swap_after`` answers were billed; None for the same model.
        swap_after: None for never.
        rename_labels: labels get other names, with the swap if there is one, else from the start.

    Raises:
        UsageError: the swap changes nothing, or there is no swap to a model that is given.
    """
    if swap_after is None:
        if swap_to is not None:
            raise UsageError("There is a model to swap to, but no --swap-after N to say when.")
        only = Renamed(model) if rename_labels else model
        return Lineup(only, only, None)
    if swap_to is None and not rename_labels:
        raise UsageError(
            f"After {swap_after} answers nothing would change; add --swap-to MODEL, "
            "--rename-labels, or both."
        )
    later = swap_to or model
    return Lineup(model, Renamed(later) if rename_labels else later, swap_after)


def _renamed(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    return tuple(label._replace(name=label.name + _RENAMED) for label in labels)
