"""``python -m training evaluate``: an agent against every baseline, on pictures it never saw."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from edge_sdk.agent import Agent
from edge_sdk.agreement import ANY_HIT
from edge_sdk.assembly import load_agent
from edge_sdk.codec import encode
from edge_sdk.estimator import TABLE_1
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.parcel import Packer
from edge_sdk.reading import Picture
from model_store import Manifest, Store
from model_store.cli import print_json
from training.commands.opponents import BASELINES, chosen_baselines, ladders_of, opponents
from training.commands.options import add_failures, add_noise, add_service, open_job
from training.job import Job, accepted, open_run
from training.labels.table import AnswerTable
from training.learn.policies import Policy
from training.measure.agents import policy_of
from training.measure.comparison import Answers, Comparison, compare_with_baselines
from training.measure.confidence import by_confidence
from training.measure.cost import Cost, Prices, cost_of
from training.measure.failures import Failures, worst_failures
from training.measure.noise import NEIGHBOURS, Noise, measure_noise, sample
from training.measure.report import PhotoSet, Report, photo_set, print_table, rung_shares
from training.photos import View, readable, views
from training.progress import Stages
from training.versions import versions

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training evaluate``."""
    parser = commands.add_parser("evaluate", help="measure an agent on pictures it never saw")
    parser.add_argument("--agent", required=True, metavar="ID", help="id, prefix of it, or alias")
    add_service(parser)
    choices = ", ".join(f"{name} ({meaning})" for name, meaning in BASELINES.items())
    parser.add_argument(
        "--baselines",
        type=chosen_baselines,
        default=(),
        metavar="LIST",
        help=f"compare with these too, separated by commas: {choices}. Each costs calls for every "
        "picture (default: none)",
    )
    add_noise(parser)
    add_failures(parser)
    money = parser.add_argument_group("what the agent is worth, for the report")
    money.add_argument("--price-per-gb", type=float, metavar="USD", help="of the uplink's data")
    money.add_argument("--uplink", type=float, metavar="MBIT", help="its speed in Mbit/s")
    money.add_argument("--images-per-day", type=float, metavar="N", help="that a device takes")
    parser.set_defaults(handler=_command)


@dataclass(frozen=True)
class _Measured:
    """An agent's answers to the pictures, and what it took."""

    policy: Policy
    chosen: np.ndarray
    decision_ms: float
    encode_ms: float


@dataclass(frozen=True)
class _Extras:
    """What was found besides, with the answers that it took."""

    noise: Noise | None
    cost: Cost | None
    prices: Prices
    failures: Failures
    answers: int

    @property
    def sentences(self) -> list[str]:
        return [one.sentence for one in (self.noise, self.cost) if one]


def _command(arguments: argparse.Namespace) -> int:
    stages, run, store = Stages(), open_run(arguments.run), Store(arguments.store)
    manifest = store.manifest(arguments.agent)
    agent = load_agent(store.load(manifest.id))
    paths = readable(find_pictures(arguments.images), stages.say)
    pictures = views(paths, 1, long_side=None, seed=arguments.seed)
    min_score = manifest.backend.get("min_score") or 0.0
    metric = arguments.metric or manifest.backend.get("metric") or ANY_HIT
    with open_job(arguments, run, stages, min_score, agent.codec) as job:
        agent = agent.on(job.backend.capabilities)
        prices = _prices(arguments, job)
        ladders = ladders_of(arguments.baselines, pictures, stages)
        # All ladders in one table: a picture is left out of all or of none.
        every = tuple(dict.fromkeys(chain(agent.ladder, PAPER, *ladders.values())))
        table = job.label(pictures, every, "asking about every rung")
        kept = accepted(pictures, table)
        own, paper = table.on(agent.ladder), table.on(PAPER)
        measured = _decide(agent, kept, job)
        # The fixed rungs are chosen in hindsight, on these very pictures: that favours them.
        found = compare_with_baselines(
            Answers(own, own),
            Answers(paper, paper),
            measured.chosen,
            policy=measured.policy,
            target=_target(agent),
            loop=TABLE_1,
            metric=metric,
            rng=np.random.default_rng(arguments.seed),
            opponents=opponents(ladders, table, kept, stages),
        )
        extras = _extras(arguments, job, kept, agent, own, measured, found, prices, metric)
        report = _report(arguments, manifest, agent, own, measured, found, extras, job, metric)
    document, page = report.write(run)
    if arguments.json:
        print_json(report.to_json(pictures=False))
        return 0
    print(print_table(found.policies, metric=metric))
    print()
    for sentence in (found.quality_verdict.sentence, found.verdict.sentence, *extras.sentences):
        print(sentence)
    who = "best fixed rungs" + (" and the other methods" if ladders else "")
    print(f"The {who} are chosen in hindsight on the same pictures, which favours them.")
    print(f"Report: {page} ({document.name} beside it)")
    return 0


def _target(agent: Agent) -> float:
    return agent.operating_point.target or 0.95


def _prices(arguments: argparse.Namespace, job: Job) -> Prices:
    """Read the prices before anything is paid for."""
    per_call = arguments.price_per_call
    return Prices(
        usd_per_call=job.backend.capabilities.price_usd if per_call is None else per_call,
        usd_per_gb=arguments.price_per_gb,
        uplink_mbit_s=arguments.uplink,
        images_per_day=arguments.images_per_day,
    )


def _extras(
    arguments: argparse.Namespace,
    job: Job,
    pictures: Sequence[View],
    agent: Agent,
    own: AnswerTable,
    measured: _Measured,
    found: Comparison,
    prices: Prices,
    metric: str,
) -> _Extras:
    rng, noise, cost, answers = np.random.default_rng(arguments.seed), None, None, 0
    if arguments.noise:
        rows = sample(len(pictures), arguments.noise, rng)
        asked = [pictures[row] for row in rows]
        table = job.label(asked, NEIGHBOURS, "asking about the service's own noise")
        agreement = found.policies["agent"].agreement[metric]
        noise = measure_noise(
            table, agreement=agreement, target=_target(agent), rng=rng, metric=metric
        )
        answers = len(NEIGHBOURS) * len(table)
    if prices.asked:
        cost = cost_of(
            own, measured.chosen, found.calls, prices, decision_ms=measured.decision_ms, rng=rng
        )
    failures = worst_failures(
        pictures,
        own,
        measured.chosen,
        job.labeller.known,
        job.backend.capabilities,
        metric=metric,
        min_score=job.min_score,
        most=arguments.failures,
        codec=agent.codec,
    )
    return _Extras(noise, cost, prices, failures, answers)


def _decide(agent: Agent, pictures: Sequence[View], job: Job) -> _Measured:
    """Let the agent decide as on a device, and see what it would do at other trade-offs."""
    rungs, decide_s, encode_s = [], [], []
    with job.stages.stage("deciding", len(pictures)) as step:
        for view in pictures:
            picture = Picture(view.open())
            packer = Packer(picture, job.backend.capabilities, codec=agent.codec)
            begun = time.perf_counter()
            rungs.append(agent.decide(picture.image, packer.candidate).rung)
            decided = time.perf_counter()
            encode(picture.image, REFERENCE)
            decide_s.append(decided - begun)
            encode_s.append(time.perf_counter() - decided)
            step(1)
    with job.stages.stage("looking at every rung", len(pictures)) as step:
        policy = policy_of(agent, pictures, progress=step)
    return _Measured(
        policy,
        np.array(rungs),
        1000.0 * float(np.median(decide_s)),
        1000.0 * float(np.median(encode_s)),
    )


def _report(
    arguments: argparse.Namespace,
    manifest: Manifest,
    agent: Agent,
    own: AnswerTable,
    measured: _Measured,
    found: Comparison,
    extras: _Extras,
    job: Job,
    metric: str,
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
            "test": photo_set(own),
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
        labels_bought=own.calls + own.from_ledger + extras.answers,
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
        metric=metric,
        confidence=by_confidence(own, measured.chosen, rng=np.random.default_rng(arguments.seed)),
        noise=extras.noise,
        cost=extras.cost,
        uploads=found.uploads,
        prices=extras.prices,
        failures=extras.failures,
    )
