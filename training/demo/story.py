"""What the demo tells: the table on held-out photos, the device's day in words, the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_sdk.assembly import load_agent
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.policy import OperatingPoint
from edge_sdk.states import State
from export.gate import ParityReport
from export.run import TrainingRun
from model_store import Store
from training.demo.pictures import DAY, NIGHT
from training.demo.plan import Plan
from training.demo.stream import Stream
from training.job import Job
from training.labels.table import concatenate
from training.learn.decisions import choices, policy_of
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.measure.comparison import Answers, compare_with_baselines
from training.measure.confidence import by_confidence
from training.measure.failures import worst_failures
from training.measure.report import Report, photo_set, print_table, rung_shares
from training.photos import View
from training.progress import Stages
from training.versions import versions

__all__ = ["Evidence", "Told", "tell"]


@dataclass(frozen=True)
class Told:
    """What a demo leaves: the text for the terminal and the report's files."""

    text: str
    json: Path
    html: Path


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was learnt and seen.

    Attributes:
        job: the service, and the answers that were bought.
        agent, dqn: the trained agents.
        train, held, test: answers on both ladders and features, by part.
        parity: what the gate measured of our agent's engine.
        photographed: the test's pictures, in the order of their answers.
        pooled: the test photos as the paper's agent sees them.
        stream: the device's day.
        night: held-out pictures of the night, for its histogram.
        synthetic: sentences about what was made up.
        labels_bought: answers that learning and measuring rest on, whenever they were bought.
    """

    job: Job
    agent: TrainingRun
    dqn: TrainingRun
    train: Labelled
    held: Labelled
    test: Labelled
    parity: ParityReport
    photographed: Sequence[View]
    pooled: Labelled
    stream: Stream
    night: Sequence[View]
    synthetic: Sequence[str]
    labels_bought: int


def tell(
    plan: Plan, goal: Goal, seen: Evidence, store: Store, stages: Stages, command: str
) -> Told:
    """Measure, write the report and return what to print."""
    rng = np.random.default_rng(plan.seed)
    table, pictures = seen.test.table, seen.test.on(FULL)
    known = concatenate([seen.train.table, seen.held.table])
    chosen = choices(seen.agent, pictures)
    found = compare_with_baselines(
        Answers(table.on(FULL), known.on(FULL)),
        Answers(table.on(PAPER), known.on(PAPER)),
        chosen,
        policy=policy_of(seen.agent, pictures),
        target=plan.target,
        loop=plan.loop,
        rng=rng,
        dqn=choices(seen.dqn, seen.pooled),
        metric=goal.metric,
    )
    decision_ms, encode_ms = seen.stream.median_ms()
    report = Report(
        command=command,
        seed=plan.seed,
        photos={
            "train": photo_set(seen.train.table),
            "calibration": photo_set(seen.held.table),
            "test": photo_set(table),
        },
        backend={
            "name": goal.backend,
            "model_version": goal.model_version,
            "min_score": plan.min_score,
        },
        ladder=seen.agent.ladder,
        operating_point=seen.agent.operating_point,
        policies=found.policies,
        gap_closed=found.gap_closed,
        verdict=found.verdict,
        quality_verdict=found.quality_verdict,
        labels_bought=seen.labels_bought,
        cost_usd=0.0,
        decision_ms=decision_ms,
        encode_ms=encode_ms,
        curve=found.curve,
        sceneries=_sceneries(seen, store, chosen),
        timeline=seen.stream.timeline(),
        versions=versions(),
        timings_s=stages.seconds,
        synthetic=seen.synthetic,
        metric=goal.metric,
        confidence=by_confidence(table.on(FULL), chosen, rng=rng),
        uploads=found.uploads,
        failures=worst_failures(
            seen.photographed,
            table.on(FULL),
            chosen,
            seen.job.labeller.known,
            seen.job.backend.capabilities,
            metric=goal.metric,
            min_score=plan.min_score,
        ),
    )
    document, page = report.write(plan.run)
    text = "\n".join(
        [
            print_table(found.policies, metric=goal.metric),
            "",
            found.quality_verdict.sentence,
            found.verdict.sentence,
            _certificate(seen.agent.operating_point),
            f"Parity: the engine gives {seen.parity.same_rung:.1%} of {seen.parity.pictures} "
            "pictures the rung that the torch network gives them.",
            *_device(seen.stream),
            *seen.synthetic,
            "",
            f"Report: {page}",
            f"Next: python -m model_store ls --store {plan.run / 'store'}",
        ]
    )
    return Told(text, document, page)


def _sceneries(seen: Evidence, store: Store, chosen: np.ndarray) -> dict[str, dict[str, float]]:
    """Rungs for held-out pictures of each scenery, chosen by the agent that served it last."""
    shares = {DAY: rung_shares(seen.agent.ladder[index].name for index in chosen)}
    by_night = [
        result.agent_id
        for scenery, result in zip(seen.stream.sceneries, seen.stream.results, strict=True)
        if scenery == NIGHT and result.state in (State.INFERENCE, State.ESTIMATION)
    ]
    if by_night and by_night[-1]:
        agent = load_agent(store.load(by_night[-1]))
        rungs = [agent.ladder[agent.decide(view.open()).rung].name for view in seen.night]
        shares[NIGHT] = rung_shares(rungs)
    return shares


def _certificate(point: OperatingPoint) -> str:
    if not point.certified:
        return point.note
    return (
        f"Certificate: with probability {1 - (point.delta or 0):.0%} agreement is at least "
        f"{point.target:g} (n = {point.n}, worth {point.n_effective:g} independent pictures; "
        f"{point.test})."
    )


def _device(stream: Stream) -> list[str]:
    """The device's day in words, and what it cost against uploading every reference."""
    lines = ["The device's day:"]
    lines += [f"  image {one.image:4d}  {one.what}" for one in stream.happenings if one.important]
    states = Counter(result.state.value for result in stream.results)
    sent = sum(result.uploaded_wire_bytes for result in stream.results)
    share = sent / sum(stream.reference_wire_bytes)
    calls = sum(result.calls for result in stream.results) / len(stream.results)
    lines.append(
        f"  {len(stream.results)} images ({', '.join(f'{n} in {s}' for s, n in states.items())}): "
        f"{share:.2f} of the reference's wire bytes and {calls:.2f} calls an image, learning the "
        f"night included; agreement {np.mean(stream.accuracy):.3f}."
    )
    return lines
