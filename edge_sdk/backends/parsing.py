"""Read a service's label list strictly: what is not of its dialect is an error, never a guess."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

from edge_sdk.backends.base import Box, Label
from edge_sdk.errors import BackendProtocol

__all__ = ["best_first", "box", "dialect", "score", "text"]

#: Services round: a percentage of 100.00001 is no reason to fail.
_SLACK = 1e-3


@contextlib.contextmanager
def dialect(service: str, expected: str) -> Iterator[None]:
    """Turn what goes wrong while reading an answer into one sentence.

    Args:
        service: the backend's name.
        expected: the answer's form in a few words, such as ``result[] with keyword and score``.

    Raises:
        BackendProtocol: a KeyError, IndexError, TypeError, AttributeError,
            ValueError or OverflowError inside.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BackendProtocol(
            f"{service} answered a label list of another form ({type(error).__name__}: "
            f"{str(error)[:80]}); expected {expected}."
        ) from error


def best_first(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return the labels by falling score; equal scores keep their order."""
    return tuple(sorted(labels, key=lambda label: -label.score))


def text(value: object) -> str:
    """Return a label's name.

    Raises:
        ValueError: it is empty or no text.
    """
    if not isinstance(value, str) or not value:
        raise ValueError("a label is not a text")
    return value


def score(value: Any, most: float = 1.0) -> float:
    """Return a score as a share of ``most``, in [0, 1].

    Raises:
        ValueError: it is no number in [0, most].
    """
    share = float(value) / most
    if not -_SLACK <= share <= 1.0 + _SLACK:
        raise ValueError(f"the score {value} is not in [0, {most:g}]")
    return min(max(share, 0.0), 1.0)


def box(left: Any, top: Any, width: Any, height: Any) -> Box:
    """Return a box in pixels.

    Raises:
        ValueError: a number is missing or not finite.
    """
    numbers = [float(value) for value in (left, top, width, height)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a box is not finite")
    return Box(*numbers)
