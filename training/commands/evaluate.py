"""``python -m training evaluate``: an agent against every baseline, on pictures it never saw."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.agent import Agent, load_agent
from edge_sdk.codec import encode
from edge_sdk.engine import Scores
from edge_sdk.estimator import TABLE_1
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import PAPER, REFERENCE
from model_store import Manifest, Store
from model_store.cli import print_json
from training.commands.options import add_service, open_job
from training.job import Job, accepted, open_run
from training.labels.table import AnswerTable
from training.learn.fit import fingerprint
from training.measure.comparison import Answers, Comparison, compare_with_baselines
from training.measure.report import PhotoSet, Report, print_table, rung_shares
from training.photos import View, readable, views
from training.progress import Stages
from training.versions import versions

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training evaluate``."""
    parser = commands.add_parser("evaluate", help="measure an agent on pictures it never saw")
    parser.add_argument("--agent", required=True, metavar="ID", help="id, prefix of it, or alias")
    add_service(parser)
    parser.set_defaults(handler=_command)


@dataclass(frozen=True)
class _Measured:
    """An agent's answers to the pictures, and what it took."""

    scores: Scores
    chosen: np.ndarray
    decision_ms: float
    encode_ms: float


def _command(arguments: argparse.Namespace) -> int:
    stages, run, store = Stages(), open_run(arguments.run), Store(arguments.store)
    manifest = store.manifest(arguments.agent)
    agent = load_agent(store.load(manifest.id))
    paths = readable(find_pictures(arguments.images), stages.say)
    pictures = views(paths, 1, long_side=None, seed=arguments.seed)
    min_score = manifest.backend.get("min_score") or 0.0
    with open_job(arguments, run, stages, min_score) as job:
        # Both ladders in one table: a picture is left out of both or of neither.
        both = tuple(dict.fromkeys((*agent.ladder, *PAPER)))
        table = job.label(pictures, both, "asking about every rung")
        own, paper = table.on(agent.ladder), table.on(PAPER)
        measured = _decide(agent, accepted(pictures, table), job)
        # The fixed rungs are chosen in hindsight, on these very pictures: that favours them.
        found = compare_with_baselines(
            Answers(own, own),
            Answers(paper, paper),
            measured.chosen,
            scores=measured.scores,
            target=agent.operating_point.target or 0.95,
            loop=TABLE_1,
            rng=np.random.default_rng(arguments.seed),
        )
        report = _report(arguments, manifest, agent, own, measured, found, job)
    document, page = report.write(run)
    if arguments.json:
        print_json(report.to_json())
        return 0
    print(print_table(found.policies))
    print()
    print(found.quality_verdict.sentence)
    print(found.verdict.sentence)
    print("The best fixed rungs are chosen in hindsight on the same pictures, which favours them.")
    print(f"Report: {page} ({document.name} beside it)")
    return 0


def _decide(agent: Agent, pictures: Sequence[View], job: Job) -> _Measured:
    decisions, decide_s, encode_s = [], [], []
    with job.stages.stage("deciding", len(pictures)) as step:
        for view in pictures:
            image = view.open()
            begun = time.perf_counter()
            decisions.append(agent.decide(image))
            decided = time.perf_counter()
            encode(image, REFERENCE)
            decide_s.append(decided - begun)
            encode_s.append(time.perf_counter() - decided)
            step(1)
    return _Measured(
        _stacked([one.scores for one in decisions]),
        np.array([one.rung for one in decisions]),
        1000.0 * float(np.median(decide_s)),
        1000.0 * float(np.median(encode_s)),
    )


def _stacked(rows: Sequence[Scores]) -> Scores:
    known = [name for name in Scores.__dataclass_fields__ if getattr(rows[0], name) is not None]
    return Scores(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in known})


def _report(
    arguments: argparse.Namespace,
    manifest: Manifest,
    agent: Agent,
    own: AnswerTable,
    measured: _Measured,
    found: Comparison,
    job: Job,
) -> Report:
    trained = manifest.training
    seen = PhotoSet(
        photos=trained["photos"], views=trained["images"], fingerprint=trained["fingerprint"]
    )
    return Report(
        command=f"python -m training {shlex.join(sys.argv[1:])}",
        seed=arguments.seed,
        photos={
            "train": seen,
            "calibration": PhotoSet(photos=0, views=0, fingerprint=""),
            "test": PhotoSet(
                photos=len(set(own.groups)), views=len(own), fingerprint=fingerprint([own])
            ),
        },
        backend={
            "name": job.backend.name,
            "model_version": job.labeller.model_version,
            "min_score": job.min_score,
        },
        ladder=agent.ladder,
        operating_point=agent.operating_point,
        policies=found.policies,
        gap_closed=found.gap_closed,
        verdict=found.verdict,
        quality_verdict=found.quality_verdict,
        labels_bought=own.calls + own.from_ledger,
        cost_usd=job.labeller.cost_usd,
        decision_ms=measured.decision_ms,
        encode_ms=measured.encode_ms,
        curve=found.curve,
        sceneries={
            agent.scenery or "pictures": rung_shares(
                agent.ladder[index].name for index in measured.chosen
            )
        },
        versions=versions(),
        timings_s=job.stages.seconds,
    )
