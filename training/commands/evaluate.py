"""``python -m training evaluate``: an agent of the store against every baseline, on new pictures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.agent import Agent, load_agent
from edge_sdk.ladder import PAPER
from edge_sdk.preprocess import to_input
from model_store import Manifest, Store
from model_store.cli import print_json
from training.commands.options import add_service, open_job
from training.job import open_run
from training.labels.table import AnswerTable
from training.measure.evaluate import print_table
from training.photos import View, find_photos, readable, views
from training.progress import Stages

__all__ = ["add_parser"]
