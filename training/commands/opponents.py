"""The opponents that ``evaluate --baselines`` asks about: their rungs first, then what they do."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from edge_sdk.ladder import Ladder
from training.labels.table import AnswerTable
from training.learn import deepn
from training.measure import perceptual
from training.measure.opponents import Opponent, by_similarity, fixed_settings
from training.photos import View
from training.progress import Stages

__all__ = ["BASELINES", "chosen_baselines", "ladders_of", "opponents"]

#: What may be asked for, and what it is.
BASELINES: Mapping[str, str] = {
    "deepn": "DeepN-JPEG's quantisation tables, in two variants",
    "perceptual": "the lowest quality that keeps an SSIM, for each picture",
}

_NAMES: Mapping[deepn.Variant, str] = {
    "faithful": "deepn_jpeg",
    "continuous": "deepn_jpeg_continuous",
}


def chosen_baselines(text: str) -> tuple[str, ...]:
    """Read a list as in ``deepn,perceptual``, for argparse."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in BASELINES]:
        raise argparse.ArgumentTypeError(
            f"the baseline {unknown[0]!r} is unknown; allowed are {', '.join(BASELINES)}"
        )
    return names


def ladders_of(names: Sequence[str], views: Sequence[View], stages: Stages) -> dict[str, Ladder]:
    """Return the rungs that must be asked about, by the report's name of the opponent.

    Args:
        names: of ``BASELINES``.
        views: the pictures of the comparison; DeepN-JPEG's tables come from them, without answers.
        stages: tells the progress.
    """
    ladders: dict[str, Ladder] = {}
    if "deepn" in names:
        with stages.stage("computing DeepN-JPEG tables", len(views)) as step:
            found = deepn.deepn_rungs(views, progress=step)
        # Where no coefficient varies so much that the variants differ, they are one method.
        ladders |= {
            _NAMES[variant]: ladder
            for variant, ladder in found.items()
            if variant == "faithful" or ladder != found["faithful"]
        }
    if "perceptual" in names:
        ladders["perceptual"] = perceptual.LADDER
    return ladders


def opponents(
    ladders: Mapping[str, Ladder], table: AnswerTable, views: Sequence[View], stages: Stages
) -> dict[str, Opponent]:
    """Return what every opponent does with the pictures.

    Args:
        ladders: from :func:`ladders_of`.
        table: answers on all of them.
        views: the table's pictures.
        stages: tells the progress.
    """
    found = {}
    for name, ladder in ladders.items():
        answers = table.on(ladder)
        if name == "perceptual":
            with stages.stage("comparing with the eye", len(views)) as step:
                similarity = perceptual.similarities(views, ladder, progress=step)
            found[name] = by_similarity(answers, similarity)
        else:
            found[name] = fixed_settings(answers)
    return found
