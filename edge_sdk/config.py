"""Everything that can be chosen about a client, checked when it is written down."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Backend
from edge_sdk.engine import NATIVE, PROVIDERS
from edge_sdk.estimator import TABLE_1, LoopParameters
from edge_sdk.memory import MAX_TRANSITIONS
from edge_sdk.outbox import POLICIES
from edge_sdk.settings import PREFIX, read_settings
from model_store.errors import UsageError

if TYPE_CHECKING:
    from model_store import Manifest, StoredAgent

__all__ = ["AgentStore", "EdgeConfig"]


#: What may ring the alarm, see ``EdgeConfig.monitor``.
MONITORS = ("betting", "paper")
_COUNTS = (
    "retrain_after",
    "explore_rungs",
    "max_transitions",
    "upload_threads",
    "queue_images",
    "queue_bytes",
    "spool_bytes",
)


class AgentStore(Protocol):
    """What the loop asks of a store; ``model_store.Store`` is one."""

    @property
    def root(self) -> Path:
        """The store's folder."""

    def ids(self) -> Sequence[str]:
        """Return the ids of all agents."""

    def manifest(self, reference: str, /) -> Manifest:
        """Return an agent's manifest."""

    def load(self, reference: str, /) -> StoredAgent:
        """Return an agent's manifest and files."""

    def load_healthy(self, alias: str, /) -> tuple[StoredAgent, Sequence[str]]:
        """Return the newest whole agent of an alias, and the ids that were given up for it."""

    def promote(self, reference: str, /, alias: str, reason: str) -> object:
        """Point ``alias`` to an agent."""


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """The choices behind an ``EdgeClient``.

    Attributes:
        store: the folder of the agents, or an opened store.
        backend: a specification such as ``baidu://aip.baidubce.com``, or an opened service, which
            then stays the caller's to close.
        alias: the agent to begin with; it follows the loop, so that a restart resumes.
        cold_start: an empty store gets the agent that came with this package: learnt from open
            recognisers, not certified for any service, cautious, watched and re-trained like any.
        folder: where transitions are kept; default is beside the store, ``STORE-device``.
        min_score: labels below it do not count when two answers are compared.
        metric: which of ``edge_sdk.agreement.METRICS`` is A.
        loop: n, p_0, ω, A_0, r_th (Table 1).
        monitor: what rings the alarm: ``betting``, evidence that agreement fell below the target, a
            change of scenery seen without any label, or a change of the service's model; ``paper``,
            agreement alone as in section 3.5, without the caps on bytes and calls.
        alpha: weight of agreement in r = α·A − Δs + β.
        beta: offset of the reward.
        target_accuracy: agreement that a retrained agent's operating point has to promise.
        steering: how far one verified answer moves the trade-off, see ``edge_sdk.steering``; 0
            keeps it where it was certified.
        retrain_after: explored transitions before the retrainer is started; the paper's T_start.
        explore_rungs: rungs tried per picture while retraining; each is one more paid call.
        max_transitions: transitions kept, the oldest are dropped first.
        max_probes: looks at candidate encodings that this device can afford per picture, each about
            one engine run; None takes what the agent was certified with.
        gate: largest distance of features at which a frame counts as unchanged and gets the last
            uploaded one's answer, see ``edge_sdk.gate``; None looks at every frame by itself.
        link_aware: decide, and look at candidates, only where the bytes saved are worth the
            milliseconds on the measured uplink, see ``edge_sdk.link``; for who pays in time, not
            by the byte.
        lossless_pass: uploads go through mozjpeg's lossless pass, which needs the extra
            ``mozjpeg``: fewer bytes, the very same pixels, several times the encoding's
            milliseconds. For who pays by the byte. The reference that sizes are compared with
            stays Pillow's plain file, the paper's benchmark. Sources that are uploaded as they
            are stay so, see ``edge_sdk.lossless``.
        upload_threads: submitted pictures that are uploaded at once.
        queue_images: submitted pictures that may be in memory.
        queue_bytes: bytes that they may have.
        queue_full: what ``submit`` does then: ``block`` until there is place, ``drop-new`` or
            ``drop-oldest``.
        spool: submitted pictures wait on disk until they are answered, also while the link is
            down or the device restarts.
        spool_bytes: bytes that they may have there; beyond, ``queue_full`` holds.
        spool_age_s: seconds after which a picture on disk is given up.
        seed: of every random draw.
        provider: where the engine runs, one of ``edge_sdk.engine.PROVIDERS``, or ``trt``,
            TensorRT's own runtime with the engines that ``python -m export --trt`` built here.
        strict: raise what would otherwise be counted and answered at the reference; for tests.
        delta: a false alarm by answers comes once in 1/delta verified ones at most, in the mean.
        labels: share of the pictures that verifying and canaries may cost while all is well.
        max_extra_calls: calls beyond one per picture in any 1,000 pictures, adapting included.
        max_extra_bytes: share of the references' bytes that may be sent beyond them in any 1,000
            pictures, adapting included.
        canaries: uploads kept in this process and asked about again, to notice that the service
            changed; 0 keeps none.
        canary_every: pictures between two of them.
        load_wait_s: seconds that a picture waits for an agent that is being loaded, before the
            reference is served instead.

    Raises:
        UsageError: a value is not allowed.
    """

    store: str | Path | AgentStore
    backend: str | Backend
    alias: str = "current"
    cold_start: bool = True
    folder: str | Path | None = None
    min_score: float = 0.0
    metric: str = "any_hit"
    loop: LoopParameters = TABLE_1
    monitor: str = "betting"
    alpha: float = 1.0
    beta: float = 0.0
    target_accuracy: float = 0.95
    steering: float = 1.0
    retrain_after: int = 128
    explore_rungs: int = 1
    max_transitions: int = MAX_TRANSITIONS
    max_probes: int | None = None
    gate: float | None = None
    link_aware: bool = False
    lossless_pass: bool = False
    upload_threads: int = 2
    queue_images: int = 64
    queue_bytes: int = 64 * 1024 * 1024
    queue_full: str = "block"
    spool: bool = False
    spool_bytes: int = 256 * 1024 * 1024
    spool_age_s: float = 7 * 24 * 3600.0
    seed: int = 0
    provider: str = "cpu"
    strict: bool = False
    delta: float = 1e-3
    labels: float = 0.018
    max_extra_calls: int = 250
    max_extra_bytes: float = 0.02
    canaries: int = 8
    canary_every: int = 400
    load_wait_s: float = 0.05

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Self:
        """Return what arguments say, else ``ADACOMPRESS_*``, else a TOML file, else the defaults.

        Args:
            path: the file, see ``edge_sdk.settings``; default is ``ADACOMPRESS_CONFIG``'s.
            environ: default is this process's environment.
            arguments: attributes by name.

        Raises:
            UsageError: a value is not allowed, or ``store`` or ``backend`` is named nowhere.
        """
        environ = os.environ if environ is None else environ
        chosen = {**read_settings(cls, path, environ), **arguments}
        for name in ("store", "backend"):
            if chosen.get(name) in (None, ""):
                raise UsageError(
                    f"No {name} is chosen; give it as an argument, as {PREFIX}{name.upper()} or in "
                    "a file."
                )
        return cls(**chosen)

    def __post_init__(self) -> None:
        self._check_choice("metric", METRICS)
        self._check_choice("monitor", MONITORS)
        self._check_choice("provider", (*PROVIDERS, NATIVE))
        self._check_choice("queue_full", POLICIES)
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is 1 or more.")
        if self.gate is not None and not 0.0 < self.gate < 1.0:
            raise UsageError(f"gate is {self.gate}; allowed is between 0 and 1, or None.")
        if not 0.0 < self.spool_age_s < math.inf:
            raise UsageError(
                f"spool_age_s is {self.spool_age_s}; allowed is a finite number above 0."
            )
        if self.max_probes is not None and self.max_probes < 0:
            raise UsageError(f"max_probes is {self.max_probes}; allowed is 0 or more, or None.")
        if self.max_transitions < self.retrain_after:
            raise UsageError(
                f"max_transitions is {self.max_transitions}, less than the {self.retrain_after} "
                "of retrain_after; a retraining would never see them all."
            )
        if not 0.0 <= self.min_score <= 1.0:
            raise UsageError(f"min_score is {self.min_score}; allowed is 0 to 1.")
        if not 0.0 < self.target_accuracy < 1.0:
            raise UsageError(
                f"target_accuracy is {self.target_accuracy}; allowed is between 0 and 1."
            )
        if not 0.0 <= self.steering < math.inf:
            raise UsageError(f"steering is {self.steering}; allowed is a finite number from 0 up.")
        self._check_caps()
        for name in ("alpha", "beta"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is a finite number.")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; allowed is 0 or more.")

    def _check_caps(self) -> None:
        for name in ("delta", "labels"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is between 0 and 1.")
        for name in ("max_extra_calls", "max_extra_bytes", "canaries"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is 0 or more.")
        if not 0.0 <= self.load_wait_s < math.inf:
            raise UsageError(
                f"load_wait_s is {self.load_wait_s}; allowed is a finite number from 0 up."
            )
        if self.canary_every < 1:
            raise UsageError(f"canary_every is {self.canary_every}; allowed is 1 or more.")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise UsageError(
                f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}."
            )
