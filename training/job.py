"""What fit, evaluate and the demo have in common: a service, a ledger, labelled pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Label
from edge_sdk.codec import Streams, encode
from edge_sdk.ladder import CANDIDATES, REFERENCE, Ladder
from edge_sdk.view import View as Shown
from export.network import Prefix
from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.local import register_local
from training.labels.answers import Answers
from training.labels.budget import Budget, dollars
from training.labels.executors import open_executor
from training.labels.labelling import Labeller, label_grid
from training.labels.ledger import Ledger, picture_key
from training.labels.table import AnswerTable, Rejected
from training.learn import owner
from training.learn.deepn import deepn_rungs
from training.learn.feature_cache import FeatureCache
from training.learn.features import Features, extract, extract_framed, extract_looks
from training.learn.labelled import Labelled
from training.learn.prior import means, of_size
from training.learn.prune import prune
from training.photos import View
from training.progress import Stages

__all__ = ["Job", "Terms", "accepted", "open_run"]

#: Uploads under way at once: while one waits for its answer another one is encoded.
WORKERS = 2 * (os.cpu_count() or 1)

#: Pictures left out that are named, of those of one stage.
NAMED = 10

#: Views that tell which rungs are worth having; their references are asked about anyway.
LADDER_VIEWS = 60

_DAY_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a service is asked.

    Attributes:
        max_calls: answers that may be bought; None for no cap.
        max_cost_usd: dollars that may be spent; None for no cap.
        price_per_call: dollars that an answer costs; None takes the backend's list price.
        answer_ttl_days: older answers are deleted and bought anew; None keeps them for ever.
        max_failures: pictures that the service may fail on before the run stops.
        workers: uploads under way at once; None for twice the cores.
        executor: where pictures are encoded, see ``training.labels.executors``.
    """

    max_calls: int | None = None
    max_cost_usd: float | None = None
    price_per_call: float | None = None
    answer_ttl_days: float | None = None
    max_failures: int = 10
    workers: int | None = None
    executor: str = "threads"

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"The number of workers is {self.workers}; allowed is 1 or more.")
        if self.max_failures < 0:
            raise UsageError(f"--max-failures is {self.max_failures}; allowed is 0 or more.")
        if self.answer_ttl_days is not None and not self.answer_ttl_days > 0:
            raise UsageError(f"--answer-ttl is {self.answer_ttl_days}; allowed is above 0 days.")

    def budget(self, backend: Backend) -> Budget:
        """Return the budget for this service's price."""
        price = self.price_per_call
        if price is None:
            price = backend.capabilities.price_usd
        return Budget(self.max_calls, self.max_cost_usd, price)


class Job:
    """A run's service and ledger, open until the ``with`` block ends.

    Args:
        backend: a specification such as ``baidu://HOST`` or ``local:MODEL``.
        run: the run's folder; the ledger is in it, so that a second run pays for nothing twice, and
            the features of every picture and encoding, so that none is computed twice.
        stages: tells the progress.
        min_score: labels below it do not count.
        terms: what may be spent, by how many at once.
        model_version: what the service runs, if that is known.
        codec: of rungs of features.
        seed: chooses the parity pictures.
        device: computes the features, see ``training.learn.compute.provider_of``.
    """

    def __init__(
        self,
        backend: str,
        run: Path,
        stages: Stages,
        *,
        min_score: float = 0.0,
        terms: Terms | None = None,
        model_version: str | None = None,
        codec: Streams | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        register_local()
        if not 0.0 <= min_score <= 1.0:
            raise UsageError(f"The minimum score is {min_score}; allowed is 0 to 1.")
        self.min_score, self.stages, self._seed, self._device = min_score, stages, seed, device
        self._terms = terms = terms or Terms()
        self.codec = codec
        if codec is not None and not terms.executor.startswith("threads"):
            raise UsageError(
                f"The executor {terms.executor!r} cannot run a codec; with --codec, or an agent "
                "that brings one, allowed are threads and threads:N."
            )
        with contextlib.ExitStack() as opening:
            self.backend: Backend = open_backend(backend)
            opening.callback(self.backend.close)
            budget = terms.budget(self.backend)
            days = terms.answer_ttl_days
            self.ledger = Ledger(
                run / "ledger.sqlite", ttl_s=None if days is None else days * _DAY_S
            )
            opening.callback(self.ledger.close)
            self._candidates: Answers | None = None  # about the same training pictures
            self._seen = FeatureCache(run / "features.sqlite")
            opening.callback(self._seen.close)
            self.labeller = Labeller(self.backend, self.ledger, budget, model_version)
            self._encoders = opening.enter_context(open_executor(terms.executor))
            self._open = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def label(self, views: Sequence[View], ladder: Ladder, title: str) -> AnswerTable:
        """Ask the service about every view at every rung; the ledger's answers are free."""
        before = self.labeller.bought, self.labeller.cost_usd
        with self.stages.stage(title, len(views)) as step:
            table = label_grid(
                views,
                ladder,
                self.labeller,
                wire_size=self.backend.wire_size,
                min_score=self.min_score,
                workers=self._terms.workers or WORKERS,
                executor=self._encoders.executor,
                ahead=self._encoders.ahead,
                max_failures=self._terms.max_failures,
                progress=lambda count: step(count, self._spent(*before)),
                codec=self.codec,
            )
        self._name(table.rejected)
        return table

    def _spent(self, calls_before: int, cost_before: float) -> str:
        """Return what a stage has spent, for its bar."""
        calls = self.labeller.bought - calls_before
        cost = self.labeller.cost_usd - cost_before
        return f"{calls} calls for {dollars(cost)}" if cost else f"{calls} calls"

    def _name(self, rejected: Sequence[Rejected]) -> None:
        for one in rejected[:NAMED]:
            self.stages.say(f"left out {one.photo}: {one.reason}")
        if len(rejected) > NAMED:
            self.stages.say(f"left out besides: {len(rejected) - NAMED} pictures")

    def reference_labels(self, image: Image.Image) -> tuple[Label, ...]:
        """Return the service's answer to a picture's reference, through the ledger."""
        return self.labeller.ask(picture_key(image), REFERENCE, encode(image, REFERENCE))

    def features(self, prefix: Prefix, views: Sequence[View], title: str) -> Features:
        """Compute the features of every view."""
        rng = np.random.default_rng(self._seed)
        with self.stages.stage(title, len(views)) as step:
            return extract(
                prefix, views, rng=rng, cache=self._seen, progress=step, device=self._device
            )

    def looks(
        self, prefix: Prefix, views: Sequence[View], ladder: Ladder, title: str
    ) -> NDArray[np.float32]:
        """Compute the features of every view's encodings."""
        with self.stages.stage(title, len(views)) as step:
            return extract_looks(
                prefix, views, ladder, cache=self._seen, progress=step, device=self._device
            )

    def labelled(
        self,
        prefix: Prefix,
        views: Sequence[View],
        ladder: Ladder,
        part: str,
        *,
        look_at: Ladder = (),
    ) -> Labelled:
        """Label views at every rung, compute their features, and look at some rungs' encodings."""
        table = self.label(views, ladder, f"asking about {part}")
        kept = accepted(views, table)
        features = self.features(prefix, kept, f"features of {part}")
        if not look_at:
            return Labelled(features, table)
        looks = np.full((len(kept), len(ladder), features.values.shape[1]), np.nan, np.float32)
        columns = [ladder.index(rung) for rung in look_at]
        looks[:, columns] = self.looks(prefix, kept, look_at, f"encodings of {part}")
        return Labelled(features, table, looks, framed=self._framed(prefix, kept, look_at, part))

    def answered(
        self,
        prefix: Prefix,
        views: Sequence[View],
        ladder: Ladder,
        part: str,
        calls: int,
        *,
        look: bool = True,
    ) -> Labelled:
        """Ask about each view's reference and ``calls`` of its rungs; ``look`` at all rungs."""
        answers = self._sampled(views, ladder, f"asking about {part}", calls)
        if self._candidates is not None:
            answers.adopt(self._candidates)
        kept = [views[position] for position in answers.positions]
        return Labelled(
            self.features(prefix, kept, f"features of {part}"),
            answers.table(),
            self.looks(prefix, kept, ladder, f"encodings of {part}") if look else None,
            answers,
            self._framed(prefix, kept, ladder, part) if look else {},
        )

    def _framed(
        self, prefix: Prefix, views: Sequence[View], ladder: Ladder, part: str
    ) -> dict[Shown, NDArray[np.float32]]:
        """Compute the features of what the ladder's views show, if there are any."""
        if not any(rung.view for rung in ladder):
            return {}
        with self.stages.stage(f"views of {part}", len(views)) as step:
            return extract_framed(
                prefix, views, ladder, cache=self._seen, progress=step, device=self._device
            )

    def learned_ladder(self, views: Sequence[View], calls: int) -> Ladder:
        """Ask about ``calls`` candidates of some of the views, and keep the rungs worth having.

        The candidates are ``CANDIDATES`` and DeepN-JPEG's rungs for these pictures, in both of its
        variants. The metric is ``any_hit``.
        """
        some = _some(views)
        with self.stages.stage("computing DeepN-JPEG tables", len(some)) as step:
            found = deepn_rungs(some, progress=step)
        tables = tuple(dict.fromkeys(rung for ladder in found.values() for rung in ladder))
        candidates = (*tables, *CANDIDATES)
        table = self._sampled(some, candidates, "asking about candidate rungs", calls).table()
        prior = _prior(table.size_ratio.mean(axis=0), len(tables))
        ladder = prune(table.agreement["any_hit"], table.size_ratio, candidates, prior)
        self._tell_ladder(ladder)
        return ladder

    def owner_ladder(self, views: Sequence[View], candidates: Ladder, calls: int) -> Ladder:
        """Ask about ``calls`` candidates of some of the views, and keep the rungs worth having.

        The metric is ``any_hit``; see ``training.learn.owner``. What is asked here is known to
        :meth:`answered` as well.
        """
        some = _some(views)
        self._candidates = self._sampled(some, candidates, "asking about candidate rungs", calls)
        table = self._candidates.table()
        ladder = owner.chosen(table.agreement["any_hit"], table.size_ratio, candidates)
        self._tell_ladder(ladder)
        return ladder

    def _tell_ladder(self, ladder: Ladder) -> None:
        self.stages.say(f"kept {len(ladder)} rungs: {', '.join(rung.name for rung in ladder)}")

    def _sampled(self, views: Sequence[View], ladder: Ladder, title: str, calls: int) -> Answers:
        before = self.labeller.bought, self.labeller.cost_usd
        with self.stages.stage(title, len(views) * (2 if calls else 1)) as step:

            def told(count: int) -> None:
                step(count, self._spent(*before))

            answers = Answers(
                views,
                ladder,
                self.labeller,
                wire_size=self.backend.wire_size,
                min_score=self.min_score,
                workers=self._terms.workers or WORKERS,
                max_failures=self._terms.max_failures,
                progress=told,
                codec=self.codec,
            )
            if calls:
                answers.sample(calls, np.random.default_rng(self._seed), progress=told)
        self._name(answers.rejected)
        return answers


def _some(views: Sequence[View]) -> Sequence[View]:
    """Return views spread over all, few enough to ask which rungs are worth having."""
    return views[:: -(-len(views) // LADDER_VIEWS)]


def _prior(sizes: NDArray[np.float64], tables: int) -> NDArray[np.float64]:
    """Return the mean agreement to start from, of ``tables`` rungs and then of ``CANDIDATES``."""
    known = means(CANDIDATES)
    whole = np.array([rung.scale == 1.0 for rung in CANDIDATES])
    unknown = of_size(sizes[:tables], sizes[tables:][whole], known[whole])
    return np.concatenate([unknown, known])


def accepted(views: Sequence[View], table: AnswerTable) -> list[View]:
    """Return the views that have a row in ``table``: the others were left out."""
    refused = {one.position for one in table.rejected}
    return [view for position, view in enumerate(views) if position not in refused]


def open_run(folder: Path) -> Path:
    """Make a run's folder and return it.

    Raises:
        EnvironmentMissing: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EnvironmentMissing(
            f"The folder {str(folder)!r} cannot be written: {reason}. Give another one."
        ) from error
    return folder
