"""AdaCompress on a device: upload pictures to a cloud vision service for fewer bytes.

    from edge_sdk import EdgeClient, EdgeConfig
    with EdgeClient(EdgeConfig(store="agents", backend="baidu://aip.baidubce.com")) as client:
        print(client.process("photo.jpg").labels)

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.agent import Agent
    from edge_sdk.agreement import compare
    from edge_sdk.assembly import load_agent
    from edge_sdk.backends import open_backend
    from edge_sdk.backends.base import Backend, Box, Capabilities, Label, Recognition
    from edge_sdk.behind import Inline
    from edge_sdk.client import EdgeClient
    from edge_sdk.config import EdgeConfig
    from edge_sdk.errors import (
        BackendAuth,
        BackendProtocol,
        BackendQuota,
        BackendRejected,
        BackendThrottled,
        BackendTooLarge,
        BackendUnavailable,
        ClosedError,
        DroppedError,
        EngineError,
        FeatureStreamError,
        ImageError,
        ProviderMissing,
    )
    from edge_sdk.estimator import LoopParameters
    from edge_sdk.featurecodec import FeatureCodec
    from edge_sdk.fleet import HttpRetrainer
    from edge_sdk.hooks import Upload
    from edge_sdk.ladder import FULL, PAPER, REFERENCE, Ladder, Rung
    from edge_sdk.metrics import LoggingSink, MetricsSink, PrometheusSink
    from edge_sdk.retrain import ChildProcessRetrainer, Retrainer, RetrainRequest, RetrainResult
    from edge_sdk.scenery import Signature
    from edge_sdk.states import State
    from edge_sdk.stats import Result, Stats
    from model_store.errors import AdaCompressError, BackendError, EnvironmentMissing, UsageError

__all__ = [
    "FULL",
    "PAPER",
    "REFERENCE",
    "AdaCompressError",
    "Agent",
    "Backend",
    "BackendAuth",
    "BackendError",
    "BackendProtocol",
    "BackendQuota",
    "BackendRejected",
    "BackendThrottled",
    "BackendTooLarge",
    "BackendUnavailable",
    "Box",
    "Capabilities",
    "ChildProcessRetrainer",
    "ClosedError",
    "DroppedError",
    "EdgeClient",
    "EdgeConfig",
    "EngineError",
    "EnvironmentMissing",
    "FeatureCodec",
    "FeatureStreamError",
    "HttpRetrainer",
    "ImageError",
    "Inline",
    "Label",
    "Ladder",
    "LoggingSink",
    "LoopParameters",
    "MetricsSink",
    "PrometheusSink",
    "ProviderMissing",
    "Recognition",
    "Result",
    "RetrainRequest",
    "RetrainResult",
    "Retrainer",
    "Rung",
    "Signature",
    "State",
    "Stats",
    "Upload",
    "UsageError",
    "compare",
    "load_agent",
    "open_backend",
]

_HOMES = {
    "edge_sdk.agent": ("Agent",),
    "edge_sdk.agreement": ("compare",),
    "edge_sdk.assembly": ("load_agent",),
    "edge_sdk.backends": ("open_backend",),
    "edge_sdk.backends.base": ("Backend", "Box", "Capabilities", "Label", "Recognition"),
    "edge_sdk.behind": ("Inline",),
    "edge_sdk.client": ("EdgeClient",),
    "edge_sdk.config": ("EdgeConfig",),
    "edge_sdk.errors": (
        "BackendAuth",
        "BackendProtocol",
        "BackendQuota",
        "BackendRejected",
        "BackendThrottled",
        "BackendTooLarge",
        "BackendUnavailable",
        "ClosedError",
        "DroppedError",
        "EngineError",
        "FeatureStreamError",
        "ImageError",
        "ProviderMissing",
    ),
    "edge_sdk.estimator": ("LoopParameters",),
    "edge_sdk.featurecodec": ("FeatureCodec",),
    "edge_sdk.fleet": ("HttpRetrainer",),
    "edge_sdk.hooks": ("Upload",),
    "edge_sdk.ladder": ("FULL", "PAPER", "REFERENCE", "Ladder", "Rung"),
    "edge_sdk.metrics": ("LoggingSink", "MetricsSink", "PrometheusSink"),
    "edge_sdk.retrain": ("ChildProcessRetrainer", "RetrainRequest", "RetrainResult", "Retrainer"),
    "edge_sdk.scenery": ("Signature",),
    "edge_sdk.states": ("State",),
    "edge_sdk.stats": ("Result", "Stats"),
    "model_store.errors": ("AdaCompressError", "BackendError", "EnvironmentMissing", "UsageError"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# Without it, the host's first warning from here would be written to its stderr.
logging.getLogger("edge_sdk").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edge_sdk' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
