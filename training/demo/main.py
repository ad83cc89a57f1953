"""The demo's main line: every step is the product's own code, nothing is staged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edge_sdk import EdgeConfig
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.retrain import ChildProcessRetrainer
from export.network import CONFIDENCE
from export.publish import publish_run
from model_store import Store, UsageError
from model_store.files import write_json
from training.cloud.process import CloudProcess
from training.demo import story
from training.demo.pictures import DAY, Photos, choose_photos
from training.demo.plan import Plan
from training.demo.stream import Stream, WaitingRetrainer, run_stream
from training.job import Job, accepted, open_run
from training.learn.dqn import PaperParameters
from training.learn.features import Features
from training.learn.fit import fit_bandit, fit_dqn
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.sizes import DEFAULT, load_sized
from training.measure.recognition import with_metrics
from training.progress import Stages

__all__ = ["run_demo"]

#: Says that a folder is the demo's own, so that its agents may be replaced by the next run's.
MARKER = "demo.json"

#: Seconds that a picture waits for an agent: so long that two runs tell the same.
_PATIENCE_S = 600.0


def run_demo(plan: Plan, *, command: str) -> story.Told:
    """Run the whole job and write its report.

    Args:
        plan: what to do.
        command: what the user typed, for the report.

    Raises:
        AdaCompressError: whatever a part of it says; paid answers are kept in the run's ledger.
    """
    stages = Stages()
    goal = Goal(
        backend="", target=plan.target, min_score=plan.min_score, scenery=DAY, seed=plan.seed
    )
    run = _fresh_run(plan)
    photos = choose_photos(plan, stages)
    try:
        stages.say("Starting a local cloud.")
        with CloudProcess(plan.model, plan.port) as cloud, _job(plan, cloud, stages) as job:
            # Without the port, which is another one every time: the agent's id hangs on it.
            goal = replace(goal, backend="baidu://127.0.0.1", model_version=cloud.model)
            return _main_line(plan, goal, photos, job, stages, command)
    except KeyboardInterrupt:
        stages.say(
            f"Stopped; nothing is left running. The answers so far are in {run / 'ledger.sqlite'}: "
            "the same command goes on from there."
        )
        raise


def _job(plan: Plan, cloud: CloudProcess, stages: Stages) -> Job:
    return Job(
        cloud.spec,
        plan.run,
        stages,
        min_score=plan.min_score,
        model_version=cloud.model,
        seed=plan.seed,
    )


def _main_line(
    plan: Plan, goal: Goal, photos: Photos, job: Job, stages: Stages, command: str
) -> story.Told:
    with stages.stage("loading MobileNetV2"):
        prefix, plain = load_sized(DEFAULT), load_sized(DEFAULT, confidence=False)
    both = tuple(dict.fromkeys((*FULL, *PAPER)))
    train, held, test = (
        job.labelled(prefix, views, both, f"{name} photos", look_at=FULL)
        for views, name in (
            (photos.train, "training"),
            (photos.calibration, "calibration"),
            (photos.test, "test"),
        )
    )
    with stages.stage("learning our agent"):
        agent, _ = fit_bandit(prefix, train.on(FULL), held.on(FULL), goal)
    with stages.stage("learning the paper's agent", PaperParameters().K) as step:
        pooled = _without_confidence(train.on(PAPER))
        dqn, _ = fit_dqn(plain, pooled, goal, progress=step)
    store = Store(plan.run / "store")
    with stages.stage("exporting, proving parity, publishing"):
        aliases = ["current", f"scenery/{DAY}"]
        agent = with_metrics(agent, held.on(FULL))
        agent.save(plan.run / "training")
        _, parity = publish_run(agent, store, aliases=aliases)
        held_by_paper = _without_confidence(held.on(PAPER))
        publish_run(with_metrics(dqn, held_by_paper), store, aliases=["paper-dqn"])
    stream = _drive(plan, job, photos, stages)
    seen = story.Evidence(
        job=job,
        agent=agent,
        dqn=dqn,
        train=train,
        held=held,
        test=test,
        parity=parity,
        photographed=accepted(photos.test, test.table),
        pooled=_without_confidence(test.on(PAPER)),
        stream=stream,
        night=photos.night_test,
        synthetic=photos.synthetic,
        labels_bought=sum(
            part.table.calls + part.table.from_ledger for part in (train, held, test)
        ),
    )
    with stages.stage("measuring and drawing"):
        return story.tell(plan, goal, seen, store, stages, command)


def _without_confidence(labelled: Labelled) -> Labelled:
    """Return the pooled activations alone: the state of the paper's agent."""
    features = labelled.features
    return Labelled(
        Features(features.values[:, :-CONFIDENCE], features.inputs, features.rows), labelled.table
    )


def _drive(plan: Plan, job: Job, photos: Photos, stages: Stages) -> Stream:
    """Run the device over day, night and day."""
    config = EdgeConfig(
        store=plan.run / "store",
        backend=job.backend,
        folder=plan.run / "device",
        min_score=plan.min_score,
        target_accuracy=plan.target,
        retrain_after=plan.sizes.retrain_after,
        loop=plan.loop,
        load_wait_s=_PATIENCE_S,
        seed=plan.seed,
    )

    total = sum(len(segment.views) for segment in photos.segments)
    with stages.stage("running the device: day, night, day", total) as step:
        return run_stream(
            config,
            WaitingRetrainer(ChildProcessRetrainer()),
            job.backend,
            photos.segments,
            reference=job.reference_labels,
            step=step,
        )


def _fresh_run(plan: Plan) -> Path:
    """Open the run's folder; agents of an earlier demo there go, its ledger of answers stays."""
    run = open_run(plan.run)
    left = [run / "store", run / "device"]
    taken = [path.name for path in left if path.exists()]
    if taken and not (run / MARKER).is_file():
        raise UsageError(
            f"The folder {str(run)!r} holds {' and '.join(taken)} that no demo made; give another "
            "one with --run DIR."
        )
    for path in left:
        if path.exists():
            shutil.rmtree(path)
    write_json(run / MARKER, {"schema": "adacompress.demo/1", "seed": plan.seed})
    return run
