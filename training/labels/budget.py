"""Hard caps on what labelling may spend, checked before every upload."""

from __future__ import annotations

import threading

from model_store.errors import BudgetReached, UsageError

__all__ = ["Budget"]


class Budget:
    """What may be spent and what was. Safe to share between threads and between data sets.

    Args:
        max_calls: answers that may be bought; None for no cap.
        max_cost_usd: dollars that may be spent; None for no cap.
        price_per_call: dollars an answer costs.

    Raises:
        UsageError: a cap is negative, or dollars are capped and a call has no price.
    """

    def __init__(
        self,
        max_calls: int | None = None,
        max_cost_usd: float | None = None,
        price_per_call: float = 0.0,
    ) -> None:
        for name, cap in (("max_calls", max_calls), ("max_cost_usd", max_cost_usd)):
            if cap is not None and cap < 0:
                raise UsageError(f"{name} is {cap}; allowed is 0 or more.")
        if max_cost_usd is not None and not price_per_call > 0.0:
            raise UsageError(
                f"max_cost_usd is {max_cost_usd} and a call costs {price_per_call}; a cap on the "
                "cost needs a price above 0. Give the price, or cap the calls."
            )
        self._max_calls, self._max_cost, self._price = max_calls, max_cost_usd, price_per_call
        self._lock = threading.Lock()
        self.calls = 0  # guarded by _lock

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far."""
        return self.calls * self._price

    def spend(self) -> None:
        """Take one call from the budget.

        Raises:
            BudgetReached: there is none left.
        """
        with self._lock:
            if self._max_calls is not None and self.calls >= self._max_calls:
                raise BudgetReached(
                    f"All {self._max_calls} allowed calls are made; every answer is kept. Raise "
                    "--max-calls and run again: only what is missing will be bought."
                )
            cost = (self.calls + 1) * self._price
            if self._max_cost is not None and cost > self._max_cost * (1.0 + 1e-9):
                raise BudgetReached(
                    f"The next call would bring the cost to {cost:.4f} USD, over the allowed "
                    f"{self._max_cost:g}; every answer is kept. Raise --max-cost and run again."
                )
            self.calls += 1
