"""``python -m training study``: how good, steady and honest agents are, over many splits."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_sdk.agreement import ANY_HIT
from edge_sdk.estimator import TABLE_1
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import LADDERS, PAPER
from export.network import Prefix
from model_store.cli import print_json
from model_store.errors import UsageError
from training.commands.fit import DOUBTFUL_CALLS, SAMPLED_CALLS, TRAIN_SHARE
from training.commands.options import add_failures, add_service, open_job
from training.job import Job, accepted, open_run
from training.labels.table import AnswerTable, concatenate
from training.learn.decisions import choices, policy_of
from training.learn.goal import MAX_PROBES, Goal, goals_of
from training.learn.labelled import Labelled
from training.learn.sizes import DEFAULT, load_sized
from training.learn.start import built_in
from training.measure.comparison import Answers, compare_with_baselines
from training.measure.confidence import by_confidence
from training.measure.cost import Prices
from training.measure.failures import worst_failures
from training.measure.report import Report, photo_set, print_table, rung_shares
from training.measure.study import Study
from training.measure.trial import TEST_SHARE, Plan, Trained, learnable, run_trial
from training.measure.validity import Validity, validity
from training.photos import View, readable, views
from training.progress import Stages
from training.versions import versions

__all__ = ["add_parser"]

#: Numbers of photos to learn from, where there are as many.
PHOTOS = (50, 100, 200, 500)

#: Sets of photos that the certificate is tested on.
SPLITS = 200


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training study``."""
    parser = commands.add_parser(
        "study", help="learn many agents from one set of answers: learning curve, spread, validity"
    )
    add_service(parser, store=False)
    parser.add_argument("--target-accuracy", type=float, default=0.95, metavar="T")
    parser.add_argument("--ladder", choices=tuple(LADDERS), default="full")
    parser.add_argument(
        "--photos",
        type=_counts,
        metavar="LIST",
        help="numbers of photos to learn from, separated by commas (default: those of "
        f"{', '.join(map(str, PHOTOS))} that leave {TEST_SHARE:.0%} for measuring, and all the "
        "others)",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="splits of each (default: %(default)s)"
    )
    parser.add_argument(
        "--splits",
        type=int,
        default=SPLITS,
        metavar="N",
        help="calibration sets that test the certificate; 0 for none (default: %(default)s)",
    )
    parser.add_argument("--max-probes", type=int, default=MAX_PROBES, metavar="N")
    add_failures(parser)
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.seeds < 1 or arguments.splits < 0:
        raise UsageError(
            f"--seeds is {arguments.seeds} and --splits {arguments.splits}; allowed are at least "
            "1 and at least 0."
        )
    stages, run = Stages(), open_run(arguments.run)
    paths = readable(find_pictures(arguments.images), stages.say)
    pictures = views(paths, 1, long_side=None, seed=arguments.seed)
    _sizes(arguments.photos, len(pictures))  # before anything is paid
    with open_job(arguments, run, stages) as job:
        prefixes = load_sized(DEFAULT), load_sized(DEFAULT, confidence=False)
        plan = _plan(arguments, prefixes[0])
        everything = _everything(job, prefixes[0], pictures, plan)
        counts = _sizes(arguments.photos, len(everything.table))
        plan = replace(plan, goal=replace(plan.goal, model_version=job.labeller.model_version))
        trained = _trials(prefixes, everything, plan, counts, arguments, stages)
        last = next(one for one in trained if one.trial.photos == counts[-1])
        kept = _validity(last, plan, arguments, stages) if arguments.splits else None
        study = Study(tuple(one.trial for one in trained), kept)
        report = _report(arguments, last, study, plan, everything.table, pictures, job)
    document, page = report.write(run)
    if arguments.json:
        print_json(report.to_json(pictures=False))
        return 0
    print(print_table(report.policies, metric=report.metric))
    print(f"The table is of one agent, learnt from {counts[-1]} photos (seed {last.trial.seed}).\n")
    print("\n".join(study.sentences(plan.goal)))
    print(f"Report: {page} ({document.name} beside it)")
    return 0


def _counts(text: str) -> tuple[int, ...]:
    """Read a list as in ``50,100``, for argparse."""
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None


def _sizes(asked: tuple[int, ...] | None, pictures: int) -> tuple[int, ...]:
    """Return the numbers of photos to learn from."""
    least, most = learnable(pictures)
    if most < least:
        raise UsageError(f"{pictures} picture(s) cannot be studied; give a hundred or more.")
    if asked is None:
        return (*(count for count in PHOTOS if count < most), most)
    wrong = [count for count in asked if not least <= count <= most]
    if wrong:
        raise UsageError(
            f"--photos names {wrong[0]}; allowed is {least} to {most}, because {pictures - most} "
            f"of {pictures} only measure."
        )
    return asked


def _plan(arguments: argparse.Namespace, prefix: Prefix) -> Plan:
    doubtful = DOUBTFUL_CALLS if arguments.max_probes else 0
    return Plan(
        goal=Goal(
            backend=arguments.backend,
            target=arguments.target_accuracy,
            metric=arguments.metric or ANY_HIT,
            min_score=arguments.min_score or 0.0,
            max_probes=arguments.max_probes,
            seed=arguments.seed,
        ),
        ladder=LADDERS[arguments.ladder],
        calls=(SAMPLED_CALLS - doubtful, doubtful),
        train_share=TRAIN_SHARE,
        start=built_in(prefix, LADDERS[arguments.ladder]),
    )


def _everything(job: Job, prefix: Prefix, pictures: Sequence[View], plan: Plan) -> Labelled:
    both = tuple(dict.fromkeys((*plan.ladder, *PAPER)))
    look_at = plan.ladder if plan.goal.max_probes else ()
    return job.labelled(prefix, pictures, both, "photos", look_at=look_at)


def _trials(
    prefixes: tuple[Prefix, Prefix],
    everything: Labelled,
    plan: Plan,
    counts: Sequence[int],
    arguments: argparse.Namespace,
    stages: Stages,
) -> list[Trained]:
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    trained = []
    with stages.stage("learning agents", len(counts) * arguments.seeds) as step:
        for photos in counts:
            # The paper's agent takes as long as ours; it is compared where it has most photos.
            one = replace(plan, opponent=photos == counts[-1])
            for seed in seeds:
                trained.append(run_trial(prefixes, everything, one, photos=photos, seed=seed))
                step(1)
    return trained


def _validity(
    trained: Trained, plan: Plan, arguments: argparse.Namespace, stages: Stages
) -> Validity:
    """Certify the last agent anew on many sets drawn from all photos that it was not fitted to."""
    goal, parts, rng = plan.goal, trained.parts, np.random.default_rng(arguments.seed)
    held, test = parts.held.on(plan.ladder), parts.test.on(plan.ladder)
    policies, tables = trained.policies(goal.max_probes), concatenate([held.table, test.table])
    with stages.stage("testing the certificate", arguments.splits) as step:
        return validity(
            policies,
            trained.contest,
            tables.agreement[goal.metric],
            tables.size_ratio,
            goals_of(goal, thrifty=True),
            pictures=len(held.table),
            splits=arguments.splits,
            rng=rng,
            progress=step,
        )


def _report(
    arguments: argparse.Namespace,
    trained: Trained,
    study: Study,
    plan: Plan,
    whole: AnswerTable,
    pictures: Sequence[View],
    job: Job,
) -> Report:
    goal, parts, ladder = plan.goal, trained.parts, plan.ladder
    own = parts.test.on(ladder)
    known = concatenate([parts.train.table, parts.held.table])
    chosen, rng = choices(trained.run, own), np.random.default_rng(arguments.seed)
    by_key = dict(zip(whole.keys, accepted(pictures, whole), strict=True))
    found = compare_with_baselines(
        Answers(own.table, known.on(ladder)),
        Answers(parts.test.table.on(PAPER), known.on(PAPER)),
        chosen,
        policy=policy_of(trained.run, own),
        target=goal.target,
        loop=TABLE_1,
        rng=rng,
        dqn=trained.paper_choices(),
        metric=goal.metric,
    )
    return Report(
        command=f"python -m training {shlex.join(sys.argv[1:])}",
        seed=arguments.seed,
        photos={
            name: photo_set(part.table)
            for name, part in (
                ("train", parts.train),
                ("calibration", parts.held),
                ("test", parts.test),
            )
        },
        backend={
            "name": job.backend.name,
            "model_version": job.labeller.model_version,
            "min_score": job.min_score,
        },
        ladder=ladder,
        operating_point=trained.run.operating_point,
        policies=found.policies,
        gap_closed=found.gap_closed,
        verdict=found.verdict,
        quality_verdict=found.quality_verdict,
        labels_bought=whole.calls + whole.from_ledger,
        cost_usd=job.labeller.cost_usd,
        curve=found.curve,
        sceneries={"pictures": rung_shares(ladder[index].name for index in chosen)},
        versions=versions(),
        timings_s=job.stages.seconds,
        metric=goal.metric,
        confidence=by_confidence(own.table, chosen, rng=rng),
        study=study,
        uploads=found.uploads,
        prices=Prices(usd_per_call=job.backend.capabilities.price_usd),
        failures=worst_failures(
            [by_key[key] for key in own.table.keys],
            own.table,
            chosen,
            job.labeller.known,
            job.backend.capabilities,
            metric=goal.metric,
            min_score=job.min_score,
            most=arguments.failures,
        ),
    )
