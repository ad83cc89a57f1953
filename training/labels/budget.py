"""Hard caps on what labelling may spend, checked before every upload."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge_sdk.errors import BackendAuth, BackendRejected, BackendThrottled, BackendUnavailable
from model_store.errors import BudgetReached, UsageError

__all__ = ["Budget", "dollars"]

#: Failures that no service bills: it refused before its model looked, or never answered.
NOT_BILLED = (BackendThrottled, BackendAuth, BackendRejected, BackendUnavailable)


def dollars(usd: float) -> str:
    """Return an amount as people read it; a call costs a fraction of a cent."""
    return f"{usd:.2f} USD" if usd >= 1.0 else f"{usd:.3f} USD"


class Budget:
    """What may be spent and what was. Safe to share between threads and between data sets.

    Args:
        max_calls: answers that may be bought; None for no cap.
        max_cost_usd: dollars that may be spent; None for no cap.
        price_per_call: dollars that an answer costs; None where nobody knows.

    Raises:
        UsageError: a figure is negative, or dollars are capped and a call has no price.
    """

    def __init__(
        self,
        max_calls: int | None = None,
        max_cost_usd: float | None = None,
        price_per_call: float | None = None,
    ) -> None:
        for name, figure in (
            ("--max-calls", max_calls),
            ("--max-cost", max_cost_usd),
            ("--price-per-call", price_per_call),
        ):
            if figure is not None and not figure >= 0:
                raise UsageError(f"{name} is {figure}; allowed is 0 or more.")
        if max_cost_usd is not None and price_per_call is None:
            raise UsageError(
                "--max-cost needs to know what a call costs, and nobody knows it for this service; "
                "add --price-per-call USD, for example 0.001."
            )
        self.price_per_call = price_per_call
        self._max_calls, self._max_cost = max_calls, max_cost_usd
        self._settled = threading.Condition()
        self._under_way = 0  # guarded by _settled
        self.calls = 0  # guarded by _settled; those under way included

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far, as far as the price is known."""
        return self.calls * (self.price_per_call or 0.0)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Take one call from the budget for the block; it comes back if it was surely not billed.

        Whatever else ends the block, such as an answer that nobody can read, stays counted.

        Raises:
            BudgetReached: there is none left.
        """
        self._reserve()
        billed = True
        try:
            yield
        except NOT_BILLED:
            billed = False
            raise
        finally:
            with self._settled:
                self._under_way -= 1
                self.calls -= not billed
                self._settled.notify_all()

    def _reserve(self) -> None:
        with self._settled:
            # A call under way may come back unbilled: only when all are settled it is too late.
            self._settled.wait_for(lambda: self._refusal() is None or not self._under_way)
            if refusal := self._refusal():
                raise BudgetReached(refusal)
            self.calls += 1
            self._under_way += 1

    def _refusal(self) -> str | None:
        """Return why the next call may not be made, None if it may."""
        if self._max_calls is not None and self.calls >= self._max_calls:
            return (
                f"All {self._max_calls} allowed calls are made; every answer is kept. Raise "
                "--max-calls and run again: only what is missing will be bought."
            )
        cost = (self.calls + 1) * (self.price_per_call or 0.0)
        if self._max_cost is not None and cost > self._max_cost * (1.0 + 1e-9):
            return (
                f"The next call would bring the cost to {cost:.4f} USD, over the allowed "
                f"{self._max_cost:g}; every answer is kept. Raise --max-cost and run again."
            )
        return None
