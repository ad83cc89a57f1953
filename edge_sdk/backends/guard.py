"""When to try, when to wait, when to stop: the one retry policy of every service's client.

A :class:`Guard` is shared by all threads that use one backend. Around each attempt it keeps

* a pace: unlimited until the service throttles, then halved, then slowly restored (AIMD),
* a circuit: after many failures in a row nothing is sent for a while,
* a quota of retries, so that a failing service is not asked many times more than a healthy one.

The count, the growth and the caps of the pauses are urllib3's ``Retry``, with full jitter. The loop
is ours and not urllib3's own, because one count and one deadline must also cover answers cut off
half-way and refusals inside an HTTP 200, which urllib3 never sees. The quota's numbers are
botocore's "standard" mode; full jitter is
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from urllib3.util import Retry

from edge_sdk.backends.pace import Circuit, Pace, RetryQuota
from edge_sdk.errors import BackendQuota, BackendThrottled, BackendUnavailable
from model_store.errors import BackendError, UsageError

__all__ = ["Guard", "HttpPolicy"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """How long and how often to try.

    Attributes:
        connect_s: seconds to get a connection.
        read_s: seconds of silence while waiting for the answer.
        deadline_s: seconds for one call with all its attempts and pauses.
        attempts: requests sent at most.
        backoff_s: the n-th pause is random up to ``backoff_s * 2**n`` (full jitter), n from 0.
        backoff_cap_s: longest such pause.
        retry_after_cap_s: longest pause that a service may ask for with ``Retry-After``.
        max_rate: requests a second that the account allows, or None.
        circuit_failures: failed attempts in a row after which the circuit opens.
        circuit_s: seconds that it stays open; then one attempt decides.
        quota_s: the same after the service said that the account's quota is spent.
    """

    connect_s: float = 3.0
    read_s: float = 10.0
    deadline_s: float = 90.0
    attempts: int = 3
    backoff_s: float = 0.5
    backoff_cap_s: float = 20.0
    retry_after_cap_s: float = 60.0
    max_rate: float | None = None
    circuit_failures: int = 10
    circuit_s: float = 30.0
    quota_s: float = 600.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.connect_s, self.read_s, self.deadline_s) <= 0:
            raise UsageError(
                f"An HTTP policy has {self.attempts} attempts and the limits {self.connect_s}, "
                f"{self.read_s} and {self.deadline_s} s; allowed are at least 1 attempt and limits "
                "above 0 s."
            )
        if self.max_rate is not None and not self.max_rate > 0:
            raise UsageError(
                f"An HTTP policy allows {self.max_rate} requests a second; allowed is more than 0, "
                "or None for no limit."
            )


class Guard:
    """Runs attempts under one policy; safe to share between threads.

    Args:
        service: the name that messages use.
        policy: limits.
        clock, sleep, jitter: monotonic seconds, the pause, and a random number in [0, 1).
    """

    def __init__(
        self,
        service: str,
        policy: HttpPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy or HttpPolicy()
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._pace = Pace(clock, self.policy.max_rate)
        self._circuit = Circuit(service, self.policy.circuit_failures, clock)
        self._quota = RetryQuota()

    def call(self, attempt: Callable[[float], T]) -> T:
        """Return the first attempt's value that is none of the errors worth another attempt.

        Args:
            attempt: called with the deadline on the clock; raises ``BackendError``.

        Raises:
            BackendError: the last attempt's, or that nothing may be sent now.
        """
        deadline = self._clock() + self.policy.deadline_s
        retry = _FullJitter.of(self.policy, self._jitter)
        cost = 0  # of the retry under way, given back if it succeeds
        while True:
            self._circuit.check()
            self._wait(self._pace.turn(), deadline)
            try:
                value = attempt(deadline)
            except BackendError as error:
                self._count(error)
                if not error.transient:
                    raise
                retry = self._again(retry, error, deadline)
                cost = RetryQuota.COST
            else:
                self._circuit.close()
                self._pace.restore()
                self._quota.give(cost or 1)
                return value

    def _count(self, error: BackendError) -> None:
        if isinstance(error, BackendQuota):
            self._circuit.open(error, self.policy.quota_s)
            return
        if isinstance(error, BackendUnavailable):
            self._circuit.fail(error, self.policy.circuit_s)
        else:  # a refusal is the answer of a service that works
            self._circuit.close()
        if isinstance(error, BackendThrottled):
            self._pace.halve()

    def _again(self, retry: _FullJitter, error: BackendError, deadline: float) -> _FullJitter:
        """Pause and return what is left to try, or raise what ``error`` is in the end."""
        made = len(retry.history) + 1
        if not retry.total:
            raise _tried(error, made) from None
        # Without the error, which knows the frame that knows the history: a ring.
        following = retry.increment()
        pause = following.get_backoff_time()
        if error.retry_after_s is not None:
            pause = min(error.retry_after_s, self.policy.retry_after_cap_s)
        if self._clock() + pause >= deadline or not self._quota.take():
            raise _tried(error, made) from None
        self._sleep(pause)
        return following

    def _wait(self, pause: float, deadline: float) -> None:
        if pause <= 0:
            return
        if self._clock() + pause >= deadline:
            raise BackendThrottled(
                f"The service's rate limit would hold this upload back for {pause:.0f} s, beyond "
                "its deadline. Send fewer pictures."
            )
        self._sleep(pause)


class _FullJitter(Retry):
    """urllib3's counting, with pauses random between zero and the exponential cap."""

    jitter: Callable[[], float] = staticmethod(random.random)

    @classmethod
    def of(cls, policy: HttpPolicy, jitter: Callable[[], float]) -> Self:
        retry = cls(
            total=policy.attempts - 1,
            allowed_methods=None,
            backoff_factor=policy.backoff_s,
            backoff_max=policy.backoff_cap_s,
        )
        retry.jitter = jitter
        return retry

    def new(self, **changes: Any) -> Self:
        copy = super().new(**changes)
        copy.jitter = self.jitter
        return copy

    def get_backoff_time(self) -> float:
        growth: float = self.backoff_factor * 2.0 ** (len(self.history) - 1)
        return self.jitter() * min(growth, self.backoff_max)


def _tried(error: BackendError, attempts: int) -> BackendError:
    """Return the error with the number of attempts, so that nobody wonders."""
    tried = "1 attempt was" if attempts == 1 else f"{attempts} attempts were"
    return type(error)(f"{error} ({tried} made.)", code=error.code, said=error.said)
