"""The caps hold to the call and to the cent, whatever fails and however many threads ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BudgetReached, UsageError
from training.labels.budget import Budget

UNBILLED = (
    BackendAuth("no"),
    BackendQuota("no"),
    BackendRejected("no"),
    BackendThrottled("no"),
    BackendTooLarge("no"),
    BackendUnavailable("no"),
)
BILLED = (None, BackendProtocol("what?"), ZeroDivisionError(), KeyboardInterrupt())


def make(budget: Budget, outcome: BaseException | None) -> None:
    with budget.call():
        if outcome is not None:
            raise outcome


@given(st.lists(st.sampled_from([*UNBILLED, *BILLED])), st.integers(0, 6))
def test_what_may_have_been_billed_counts_and_nothing_else(
    outcomes: list[BaseException | None], cap: int
) -> None:
    budget, billed = Budget(max_calls=cap, price_per_call=0.5), 0
    for outcome in outcomes:
        try:
            make(budget, outcome)
        except BudgetReached:
            assert billed == cap
            continue
        except BaseException as error:  # it comes out as it was
            assert error is outcome  # noqa: PT017
        billed += outcome in BILLED
        assert budget.calls == billed <= cap
    assert budget.cost_usd == billed * 0.5


def test_threads_spend_the_budget_exactly_and_a_failure_leaves_its_call_to_another() -> None:
    budget, lock, billed = Budget(max_calls=50), threading.Lock(), 0
    together = threading.Barrier(8)

    def spend(number: int) -> None:
        nonlocal billed
        together.wait()
        for attempt in range(1000):
            fails = (attempt + number) % 3 == 0
            try:
                with budget.call():
                    if fails:
                        raise BackendUnavailable("gone")
                    with lock:
                        billed += 1
                        assert billed <= 50
            except BackendUnavailable:
                continue
            except BudgetReached:
                return
        raise AssertionError("the budget never ended")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(spend, range(8)))
    assert budget.calls == billed == 50


def test_the_last_call_is_not_given_up_while_it_may_come_back() -> None:
    budget, waits, fail = Budget(max_calls=1), threading.Event(), threading.Event()

    def first() -> None:
        with budget.call():
            waits.set()
            fail.wait(10)
            raise BackendUnavailable("gone")

    def second() -> str:
        fail.set()
        with budget.call():
            return "bought"

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(first)
        assert waits.wait(10)
        assert pool.submit(second).result(10) == "bought"
        assert isinstance(failing.exception(10), BackendUnavailable)
    assert budget.calls == 1


def test_a_budget_of_dollars_holds_to_the_cent() -> None:
    budget = Budget(max_cost_usd=0.3, price_per_call=0.1)
    for _ in range(3):
        make(budget, None)
    with pytest.raises(BudgetReached, match=r"to 0\.4000 USD, over the allowed 0\.3; .*--max-cost"):
        make(budget, None)
    assert budget.cost_usd == pytest.approx(0.3)


def test_what_costs_nothing_reaches_no_cap_of_dollars() -> None:
    budget = Budget(max_cost_usd=0.0, price_per_call=0.0)
    make(budget, None)
    assert budget.cost_usd == 0.0


@pytest.mark.parametrize(
    ("calls", "dollars", "price", "said"),
    [
        (-1, None, None, "--max-calls is -1"),
        (None, -1.0, 1.0, r"--max-cost is -1\.0"),
        (None, 1.0, -1.0, r"--price-per-call is -1\.0"),
        (None, float("nan"), 1.0, "--max-cost is nan"),
        (None, 5.0, None, "--max-cost needs to know what a call costs.*--price-per-call"),
    ],
)
def test_a_budget_without_sense_is_refused(
    calls: int | None, dollars: float | None, price: float | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Budget(calls, dollars, price)
