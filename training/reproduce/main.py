"""One run of ``python -m training reproduce``: gather once, draw every figure asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_store.files import write_atomic
from training.job import Job, Terms
from training.learn.features import load_prefix
from training.learn.goal import MAX_PROBES
from training.progress import Stages
from training.reproduce import (
    encodings,
    extractors,
    figure7,
    histograms,
    latency,
    overhead,
    services,
)
from training.reproduce.cases import Case, Request
from training.reproduce.exhibit import Exhibit
from training.reproduce.gather import gather
from training.reproduce.headline import compared
from training.reproduce.page import page
from training.reproduce.sceneries import DAY, QUICK_PHOTOS, sceneries

__all__ = ["FIGURES", "PAGE", "Pictures", "gathered", "reproduce"]

#: Where everything is seen at once.
PAGE = "reproduction.html"

Figure = Callable[[Sequence[Case], Request], Exhibit]

#: What is drawn from the gathered cases, in order.
FIGURES: Mapping[str, Figure] = {
    "1": encodings.fragile_and_robust,
    "5": lambda cases, request: histograms.by_service(_of(cases, DAY), request),
    "6": lambda cases, request: histograms.by_scenery(_first(cases), request),
    "7": figure7.figure_7,
    "8": overhead.overhead,
    "9": services.by_service,
    "10": services.against_deepn,
    "11": encodings.against_deepn,
    "table2": latency.table_2,
    "extractors": extractors.compare_extractors,
}


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where pictures come from.

    Attributes:
        images: day photos, None for the built-in ones.
        night: night frames, None for day photos seen by a thermal camera's model.
        quick: no more than ``QUICK_PHOTOS`` of each, and no agent that looks twice.
    """

    images: Path | None
    night: Path | None
    quick: bool


@contextlib.contextmanager
def gathered(
    backends: Sequence[str],
    pictures: Pictures,
    run: Path,
    request: Request,
    stages: Stages,
    terms: Terms,
) -> Iterator[list[Case]]:
    """Ask every service about every scenery and learn the agents; services close at the end."""
    most = QUICK_PHOTOS if pictures.quick else None
    found = sceneries(pictures.images, pictures.night, stages, most=most, seed=request.seed)
    prefixes = load_prefix(confidence=True), load_prefix()
    with contextlib.ExitStack() as opened:
        cases = []
        for backend in backends:
            job = opened.enter_context(Job(backend, run, stages, terms=terms, seed=request.seed))
            for scenery, views in found.items():
                cases.append(
                    gather(
                        job,
                        scenery,
                        views,
                        prefixes,
                        run,
                        request,
                        probes=0 if pictures.quick else MAX_PROBES,
                    )
                )
        yield cases


def reproduce(
    names: Sequence[str],
    cases: Sequence[Case],
    run: Path,
    request: Request,
    stages: Stages,
    stream: Mapping[str, Any] | None = None,
) -> list[Exhibit]:
    """Draw the named figures, compare with the paper, and write all of it to the run's folder.

    The comparison is the first of what is returned.

    Args:
        names: of ``FIGURES``.
        cases: gathered.
        run: the folder.
        request: what was asked for.
        stages: tells the progress.
        stream: Fig. 12's figures, if the device's stream was run.
    """
    exhibits = []
    for name in names:
        with stages.stage(f"figure {name}"):
            exhibits.append(_signed(FIGURES[name](cases, request), request))
    exhibits.insert(0, _signed(compared(exhibits, cases, stream), request))
    for exhibit in exhibits:
        exhibit.write(run)
    drawings = sorted(run.glob("figure12-*.svg")) if stream else []
    titles = [f"Fig. 12: the stream, by the {one.stem.split('-')[1]} monitor" for one in drawings]
    texts = [one.read_text(encoding="utf-8") for one in drawings]
    write_atomic(run / PAGE, page(exhibits, zip(titles, texts, strict=True)).encode())
    return exhibits


def _signed(exhibit: Exhibit, request: Request) -> Exhibit:
    """Add to the caption how the figure came about."""
    said = f"{exhibit.caption} Seed {request.seed}; made by: {request.command}"
    return replace(exhibit, caption=said)


def _of(cases: Sequence[Case], scenery: str) -> list[Case]:
    return [case for case in cases if case.scenery == scenery]


def _first(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.backend == cases[0].backend]
