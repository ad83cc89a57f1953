"""Faults and delays are drawn: the same in every run, another for every retry."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import UsageError
from training.cloud.faults import FAULTS, MIXED, Draws, parse_faults
from training.cloud.settings import Settings, parse_latency

PICTURES = [f"{number:064x}" for number in range(50)]


@given(st.integers(), st.permutations(PICTURES[:6] * 3))
def test_a_fate_hangs_on_seed_picture_and_retry_not_on_the_order(
    seed: int, order: list[str]
) -> None:
    one, other = (Draws(seed, {"5xx": 0.3, "reset": 0.3}, 1.0, 0.5) for _ in range(2))
    wanted = {picture: [one.draw(picture) for _ in range(3)] for picture in PICTURES[:6]}

    seen: dict[str, list[object]] = {picture: [] for picture in PICTURES[:6]}
    for picture in order:
        seen[picture].append(other.draw(picture))

    assert seen == wanted


def test_every_fault_comes_in_its_share() -> None:
    draws = Draws(1, {"5xx": 0.2, "slow": 0.1})
    drawn = Counter(draws.draw(picture).fault for picture in PICTURES for _ in range(100))

    assert drawn["5xx"] / 5000 == pytest.approx(0.2, abs=0.03)
    assert drawn["slow"] / 5000 == pytest.approx(0.1, abs=0.03)
    assert set(drawn) == {"5xx", "slow", None}


def test_the_share_of_a_fault_that_cannot_be_goes_to_the_others() -> None:
    draws = Draws(1, {"5xx": 0.2, "token": 0.3, "slow": 0.1})
    drawn = Counter(draws.draw(one, {"token"}).fault for one in PICTURES for _ in range(100))

    assert drawn["5xx"] / 5000 == pytest.approx(0.4, abs=0.03)
    assert drawn["slow"] / 5000 == pytest.approx(0.2, abs=0.03)
    assert set(drawn) == {"5xx", "slow", None}
    assert Draws(1, {"token": 1.0}).draw(PICTURES[0], {"token"}).fault is None


def test_a_new_token_has_not_expired() -> None:
    draws = Draws(1, {"token": 1.0})

    assert [draws.draw(PICTURES[0]).fault for _ in range(3)] == ["token", None, None]
    mixed = Draws(1, {"token": 0.5, "5xx": 0.5})
    told = Counter(mixed.draw(PICTURES[0]).fault for _ in range(100))
    assert told == {"token": 1, "5xx": 99}


def test_another_seed_is_another_run() -> None:
    fates = [[Draws(seed, {"5xx": 0.5}).draw(one).fault for one in PICTURES] for seed in (1, 2)]

    assert fates[0] != fates[1]


def test_a_delay_stays_around_its_mean_and_never_below_nothing() -> None:
    around = [Draws(0, {}, 0.2, 0.05).draw(picture).latency_s for picture in PICTURES]
    low = [Draws(0, {}, 0.1, 1.0).draw(picture).latency_s for picture in PICTURES]

    assert 0.15 <= min(around) < 0.17 < 0.23 < max(around) <= 0.25
    assert min(low) == 0.0
    assert max(low) > 0.5


def test_without_trouble_nothing_is_remembered_of_pictures() -> None:
    draws = Draws(0, {}, 0.25)

    assert [draws.draw(picture) for picture in PICTURES] == [(None, 0.25)] * 50
    assert not draws._seen


def test_a_bare_share_is_divided_among_all_but_the_rate_limit() -> None:
    assert parse_faults("0.6") == pytest.approx(dict.fromkeys(MIXED, 0.1))
    assert set(FAULTS) - set(MIXED) == {"throttle"}


def test_no_fault_is_no_fault() -> None:
    assert parse_faults("0") == parse_faults("5xx=0") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("much", "not understood"),
        ("5xx=", "not understood"),
        ("5xx=0.1,reset", "not understood"),
        ("1.5", "allowed is 0 to 1"),
        ("nan", "allowed is 0 to 1"),
        ("5xx=-0.1", "allowed is 0 to 1"),
        ("5xx=0.6,reset=0.6", "allowed is 0 to 1"),
        ("5x=0.1", r"no fault '5x'.*Did you mean '5xx'"),
    ],
)
def test_shares_that_make_no_sense_are_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_faults(text)


def test_all_of_the_uploads_may_fail() -> None:
    assert sum(parse_faults("1").values()) == pytest.approx(1.0)
    assert Draws(0, {"reset": 1.0}).draw(PICTURES[0]).fault == "reset"


@given(st.text(max_size=20))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_faults, parse_latency):
        with contextlib.suppress(UsageError):
            assert parse(text) is not None


def test_a_latency_may_have_a_jitter() -> None:
    assert parse_latency("0.2") == (0.2, 0.0)
    assert parse_latency("0.2,0.05") == (0.2, 0.05)


@pytest.mark.parametrize("text", ["", "fast", "-1", "1,-1", "inf", "nan", "1,2,3"])
def test_a_latency_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--latency"):
        parse_latency(text)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="allowed is 0 or more"):
        Settings(latency_s=-1.0)
    with pytest.raises(UsageError, match="--qps is 0"):
        Settings(qps=0.0)
    with pytest.raises(UsageError, match="--swap-after is -1"):
        Settings(swap_after=-1)
    with pytest.raises(UsageError, match="There is no fault 'fire'"):
        Settings(faults={"fire": 0.5})
