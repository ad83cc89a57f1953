"""The demo's story, told top to bottom: every step is the product's own code, nothing is staged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk import EdgeConfig
from edge_sdk.agent import Agent, load_agent
from edge_sdk.backends import open_backend
from edge_sdk.ladder import FULL, PAPER, REFERENCE
from edge_sdk.retrain import ChildProcessRetrainer
from export.publish import publish_run
from model_store import Store, UsageError
from model_store.files import read_json, write_json
from training import assets
from training.cameras import thermal_camera
from training.cloud.process import CloudProcess
from training.demo import story
from training.demo.plan import Plan
from training.demo.stream import Segment, Stream, WaitingRetrainer, run_stream
from training.job import Job, open_run
from training.learn.features import Features, load_prefix
from training.learn.fit import Goal, Labelled, fit_bandit, fit_dqn
from training.photos import View, find_photos, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["Told", "run_demo"]

DAY, NIGHT = "day", "night"
MARKER = "demo.json"


@dataclass(frozen=True)
class Told:
    """What a demo leaves: the text for the terminal and the report's files."""

    text: str
    json: Path
    html: Path


def run_demo(plan: Plan, *, command: str) -> Told:
    """Run the whole job and write its report.

    Args:
        plan: what to do.
        command: what the user typed, for the report.

    Raises:
        AdaCompressError: whatever a part of it says; paid answers are kept in the run's ledger.
    """
    stages = Stages()
    goal = _goal(plan)
    run = _fresh_run(plan.run)
    try:
        with stages.stage("starting the local cloud"):
            cloud = CloudProcess(plan.model, plan.port)
            cloud.__enter__()
        try:
            with Job(cloud.spec, run, stages, min_score=plan.min_score, seed=plan.seed) as job:
                return _story(plan, goal(cloud), job, stages, command)
        finally:
            cloud.__exit__(None, None, None)
    except KeyboardInterrupt:
        stages.say(
            f"Stopped. Nothing is left running; paid answers are kept in {run / 'ledger.sqlite'}, "
            "and the same command goes on from there."
        )
        raise
