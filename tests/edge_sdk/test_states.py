from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.estimator import TABLE_1, LoopParameters
from edge_sdk.events import (
    Action,
    Arrived,
    Changed,
    Compared,
    Do,
    Event,
    Explored,
    LoadFailed,
    Ranked,
    Retrained,
    RetrainFailed,
    Returned,
    Strayed,
)
from edge_sdk.evidence import Betting
from edge_sdk.states import LoopState, State, Task, advance

N = TABLE_1.n
AFTER = 6


def started(agent: str = "day") -> LoopState:
    return LoopState.start(agent, TABLE_1, AFTER)


def play(now: LoopState, *events: Event) -> tuple[LoopState, list[Action]]:
    wanted: list[Action] = []
    for event in events:
        now, actions = advance(now, event)
        wanted += actions
    return now, wanted


def compared(agent: str, *agreements: float, reward: float = 0.9) -> list[Compared]:
    return [Compared(agent, agreement, reward) for agreement in agreements]


def alarmed() -> LoopState:
    """Return the state when cached agents are to be ranked after an alarm."""
    now, _ = play(started(), Arrived(0.0), *compared("day", *[0.0] * N))
    now, _ = play(now, *[Arrived(0.5)] * (N + 1))
    return now


def retraining() -> LoopState:
    now, _ = play(alarmed(), Ranked(()))
    return now


def on_trial(agent: str = "new") -> LoopState:
    """Return the state in which a retrained agent is on trial."""
    now, _ = play(retraining(), Explored(AFTER), Retrained(agent))
    return now


# The arrows of Fig. 4.


def test_inference_to_estimation_if_the_draw_is_at_most_p_est() -> None:
    now, actions = play(started(), Arrived(xi=0.2))
    assert now.state is State.ESTIMATION
    assert now.task is Task.COMPRESSED_AND_REFERENCE
    assert actions == []


def test_inference_stays_if_the_draw_is_above_p_est() -> None:
    now, _ = play(started(), Arrived(xi=0.2000001))
    assert now.state is State.INFERENCE
    assert now.task is Task.COMPRESSED


def test_estimation_to_inference_if_the_draw_is_above_p_est() -> None:
    now, _ = play(started(), Arrived(0.0), Compared("day", 1.0, 0.9), Arrived(0.9))
    assert now.state is State.INFERENCE


def test_estimation_stays_with_p_est() -> None:
    now, _ = play(started(), Arrived(0.0), Compared("day", 1.0, 0.9), Arrived(0.1))
    assert now.state is State.ESTIMATION


def test_estimation_to_querying_when_a_full_window_falls_below_the_threshold() -> None:
    now, actions = play(started(), Arrived(0.0), *compared("day", *[1.0] * 7, 0.0, 0.0))
    assert now.state is State.ESTIMATION
    assert actions == []
    now, actions = play(now, Compared("day", 0.0, 0.0))
    assert now.state is State.QUERYING
    assert actions == [Action(Do.TRIM)]


@pytest.mark.parametrize("state", [State.INFERENCE, State.ESTIMATION])
def test_inference_and_estimation_to_querying_when_the_features_stray(state: State) -> None:
    now, actions = advance(replace(started(), state=state), Strayed())
    assert now.state is State.QUERYING
    assert now.task is Task.REFERENCE
    assert [action.do for action in actions] == [Do.TRIM]


def test_straying_features_change_nothing_while_an_agent_is_looked_for() -> None:
    looking, _ = advance(started(), Strayed())
    assert advance(looking, Strayed()) == (looking, ())


def test_querying_looks_at_n_pictures_of_the_new_scenery_before_it_ranks() -> None:
    now, _ = play(started(), Arrived(0.0), *compared("day", *[0.0] * N))
    now, actions = play(now, *[Arrived(0.5)] * N)
    assert actions == []
    assert now.task is Task.REFERENCE
    now, actions = play(now, Arrived(0.5))
    assert now.state is State.QUERYING
    assert actions == [Action(Do.RANK)]


def test_querying_loads_the_best_candidate_and_serves_the_reference_while_testing() -> None:
    now, actions = play(alarmed(), Ranked(("night", "fog")))
    assert actions == [Action(Do.LOAD, "night")]
    assert now.task is Task.REFERENCE_AND_TRIAL


def test_querying_to_inference_when_the_loaded_agent_passes() -> None:
    now, _ = play(alarmed(), Ranked(("night",)))
    now, actions = play(now, *compared("night", *[1.0] * 8, 0.0, 0.0))
    assert now.state is State.INFERENCE
    assert now.agent == "night"
    assert now.p_est == TABLE_1.p_0
    assert actions == [Action(Do.ADOPT, "night")]


def test_querying_to_the_next_candidate_when_one_fails() -> None:
    now, _ = play(alarmed(), Ranked(("night", "fog")))
    now, actions = play(now, *compared("night", 0.0, 0.0))
    assert now.trial is not None
    assert now.trial.agent == "night"
    now, actions = play(now, Compared("night", 0.0, 0.0))  # 7 of 10 at best from here
    assert now.state is State.QUERYING
    assert actions == [Action(Do.LOAD, "fog")]


def test_querying_to_retraining_when_no_candidate_passes() -> None:
    now, _ = play(alarmed(), Ranked(("night",)))
    now, actions = play(now, *compared("night", 0.0, 0.0, 0.0))
    assert now.state is State.RETRAINING
    assert now.task is Task.REFERENCE_AND_EXPLORED
    assert actions == [Action(Do.COLLECT)]


def test_querying_to_retraining_when_there_is_no_candidate() -> None:
    now, actions = play(alarmed(), Ranked(()))
    assert now.state is State.RETRAINING
    assert actions == [Action(Do.COLLECT)]


def test_retraining_to_inference_when_reward_and_agreement_pass() -> None:
    now, actions = play(on_trial(), *compared("new", *[1.0] * N, reward=0.46))
    assert now.state is State.INFERENCE
    assert now.agent == "new"
    assert actions == [Action(Do.ADOPT, "new"), Action(Do.FLUSH)]


def test_retraining_stays_when_the_reward_only_equals_the_threshold() -> None:
    now, actions = play(on_trial(), *compared("new", *[1.0] * N, reward=TABLE_1.r_th))
    assert now.state is State.RETRAINING
    assert actions == []


def test_retraining_stays_when_agreement_fails_and_half_as_many_transitions_are_collected() -> None:
    now, _ = play(on_trial(), *compared("new", 0.0, 0.0, 0.0))
    assert now.state is State.RETRAINING
    assert now.agent == "day"
    assert now.missing == AFTER // 2
    now, actions = play(now, Explored(AFTER // 2))
    assert actions == [Action(Do.START)]


# What happens around the arrows.


def test_the_retrainer_starts_once_when_enough_is_collected() -> None:
    now, actions = play(retraining(), *[Explored(1)] * (AFTER - 1))
    assert actions == []
    now, actions = play(now, Explored(1), Explored(1))
    assert actions == [Action(Do.START)]
    assert now.running
    assert now.task is Task.REFERENCE_AND_EXPLORED


def test_an_agent_that_cannot_be_loaded_is_passed_over() -> None:
    now, _ = play(alarmed(), Ranked(("night", "fog")))
    now, actions = play(now, LoadFailed("night"))
    assert actions == [Action(Do.LOAD, "fog")]
    now, actions = play(now, LoadFailed("fog"))
    assert now.state is State.RETRAINING


def test_a_failed_retraining_rests_at_the_reference_then_looks_for_an_agent_again() -> None:
    now, actions = play(retraining(), RetrainFailed())
    assert now.task is Task.REFERENCE
    assert actions == []
    now, actions = play(now, *[Arrived(0.5)] * (AFTER - 1))
    assert now.task is Task.REFERENCE
    now, actions = play(now, Arrived(0.5))
    assert now.state is State.QUERYING
    assert actions == [Action(Do.RANK)]  # what was collected is kept


def test_rests_double_until_an_agent_is_adopted() -> None:
    now = retraining()
    rests = []
    for _ in range(9):
        now, _ = play(now, RetrainFailed())
        rests.append(now.rest)
        now, _ = play(now, *[Arrived(0.5)] * now.rest, Ranked(()))
    assert rests == [AFTER * 2 ** min(power, 6) for power in range(9)]
    now, _ = play(now, Explored(AFTER), Retrained("new"), *compared("new", *[1.0] * N))
    assert now.failures == 0


def test_answers_about_an_agent_that_was_swapped_meanwhile_are_ignored() -> None:
    now, _ = play(alarmed(), Ranked(("night",)))
    assert play(now, Compared("day", 0.0, 0.0))[0] == now
    adopted, _ = play(now, *compared("night", *[1.0] * N))
    assert play(adopted, Compared("day", 0.0, 0.0))[0] == adopted


def test_a_late_answer_counts_in_inference() -> None:
    now, _ = play(started(), Arrived(0.0), Arrived(0.9), Compared("day", 1.0, 0.9))
    assert now.state is State.INFERENCE
    assert now.estimator.average == 1.0


# The default monitor: the same arrows, other evidence.


def betting(agent: str = "day") -> LoopState:
    return LoopState.start(agent, Betting(n=4), AFTER)


def adopted() -> LoopState:
    """Return the state after a retraining that followed a change of scenery."""
    now, _ = play(betting(), Strayed(), Arrived(0.5), Ranked(()), Explored(AFTER), Retrained("new"))
    now, actions = play(now, *compared("new", *[1.0] * 5))
    assert actions == [Action(Do.ADOPT, "new"), Action(Do.FLUSH)]
    return now


def test_estimation_to_querying_when_the_evidence_reaches_one_over_delta() -> None:
    now, actions = play(betting(), *compared("day", 1.0, 0.0, 1.0, 0.0, 1.0))
    assert (now.state, actions) == (State.INFERENCE, [])
    now, actions = play(now, *compared("day", 0.0, 0.0, 0.0))
    assert now.state is State.QUERYING
    assert actions == [Action(Do.TRIM)]


@pytest.mark.parametrize("event", [Strayed(), Changed("another model")])
def test_a_certain_alarm_ranks_the_cached_agents_with_the_next_picture(event: Event) -> None:
    now, _ = play(betting(), event)
    assert now.task is Task.REFERENCE
    now, actions = play(now, Arrived(0.5))
    assert actions == [Action(Do.RANK)]


def test_querying_to_inference_after_five_agreements_in_a_row() -> None:
    now, _ = play(betting(), Strayed(), Arrived(0.5), Ranked(("night",)))
    now, _ = play(now, *compared("night", *[1.0] * 4))
    assert now.state is State.QUERYING
    now, _ = play(now, *compared("night", 1.0))
    assert (now.state, now.agent) == (State.INFERENCE, "night")


def test_an_agent_that_misses_twice_at_once_is_rejected() -> None:
    now, _ = play(betting(), Strayed(), Arrived(0.5), Ranked(("night",)))
    now, _ = play(now, *compared("night", 0.0, 0.0))
    assert now.state is State.RETRAINING


def test_a_test_is_decided_by_ten_answers_at_most() -> None:
    now, _ = play(betting(), Strayed(), Arrived(0.5), Ranked(("night",)))
    now, _ = play(now, *compared("night", 1.0, 1.0, 0.0, *[1.0] * 7))
    assert now.agent == "night"


def test_a_new_agent_is_looked_at_more_often_at_first() -> None:
    now = adopted()
    assert now.p_est == Betting().probation
    now, _ = play(now, *compared("new", *[1.0] * 4))
    assert now.p_est == Betting().share


def test_inference_to_querying_and_back_to_the_old_agent_when_the_new_one_is_worse() -> None:
    now, actions = play(adopted(), *compared("new", 1.0, 0.0, 1.0, 1.0))
    assert now.state is State.QUERYING
    assert now.agent == "day"
    assert actions == [Action(Do.ROLL_BACK, "day"), Action(Do.TRIM)]


def test_a_new_agent_as_good_as_the_old_one_stays() -> None:
    now, actions = play(adopted(), *compared("new", *[1.0] * 12))
    assert (now.agent, now.state, actions) == ("new", State.INFERENCE, [])


def test_the_old_agent_sets_the_bar_if_its_answers_rang_the_alarm() -> None:
    now, _ = play(betting(), *compared("day", *[0.0] * 4))
    now, _ = play(now, Arrived(0.5), Ranked(()), Explored(AFTER), Retrained("new"))
    now, _ = play(now, *compared("new", *[1.0] * 5))
    now, _ = play(now, *compared("new", 1.0, 0.0, 1.0, 1.0))
    assert now.agent == "new"


def test_pictures_of_the_other_scenery_return_to_its_agent() -> None:
    now, actions = play(adopted(), Returned("day"))
    assert (now.agent, now.state, actions) == ("day", State.INFERENCE, [])
    looking, _ = play(betting(), Strayed())
    assert play(looking, Returned("night"))[0] == looking


# Whatever happens in whatever order.

names = st.sampled_from(["day", "night", "fog", "new"])
fractions = st.sampled_from([0.0, 0.5, 1.0])
events = st.one_of(
    st.builds(Arrived, st.floats(0.0, 1.0)),
    st.builds(Strayed),
    st.builds(Changed),
    st.builds(Returned, names),
    st.builds(Compared, names, fractions, st.sampled_from([-1.0, 0.4, 0.9])),
    st.builds(Explored, st.integers(1, 4)),
    st.builds(Ranked, st.lists(names, max_size=3, unique=True).map(tuple)),
    st.builds(LoadFailed, names),
    st.builds(Retrained, names),
    st.builds(RetrainFailed),
)
SMALL = LoopParameters(n=2, p_0=0.5)


def check(before: LoopState, event: Event, after: LoopState, actions: tuple[Action, ...]) -> None:
    wanted = [action.do for action in actions]
    entered = after.state if after.state is not before.state else None
    lowest, highest = 0.01, 0.5
    if isinstance(after.parameters, LoopParameters):
        lowest, highest = after.parameters.p_min, after.parameters.p_max
    assert lowest <= after.p_est <= highest
    assert len(after.estimator.window) <= after.parameters.n
    if entered is State.RETRAINING:  # never without a failed querying
        assert before.state is State.QUERYING
        assert after.candidates == ()
    if before.state is State.RETRAINING and entered is State.INFERENCE:
        assert Do.FLUSH in wanted
    if Do.FLUSH in wanted:
        assert before.state is State.RETRAINING
    if after.state in (State.QUERYING, State.RETRAINING):  # the caller gets the reference's answer
        assert after.task.value.startswith("reference")
        assert after.agent == before.agent or Do.ROLL_BACK in wanted
    else:
        assert after.trial is None
        assert not after.running
        assert after.rest == 0
    if Do.ROLL_BACK in wanted:  # to the agent before, and the reference is served
        assert (before.predecessor, after.predecessor) == (after.agent, "")
    elif isinstance(event, Returned):
        assert wanted == []
    elif after.agent != before.agent:  # adopted only after a passed test
        assert before.trial is not None
        assert after.agent == before.trial.agent
        assert Do.ADOPT in wanted
        average = after.estimator.average
        assert isinstance(after.parameters, Betting) or (average or 0.0) >= after.parameters.A_0
    if Do.START in wanted:
        assert after.running
    if after == before:
        assert actions == ()
    assert advance(before, event) == (after, actions)  # nothing is hidden


MONITORS = st.sampled_from([SMALL, Betting(n=2, delta=0.1)])


@given(MONITORS, st.lists(events, max_size=80))
def test_the_invariants_hold_for_any_sequence_of_events(
    monitor: LoopParameters | Betting, sequence: list[Event]
) -> None:
    now = LoopState.start("day", monitor, retrain_after=3)
    for event in sequence:
        after, actions = advance(now, event)
        check(now, event, after, actions)
        now = after


@given(MONITORS, st.lists(events, max_size=30))
def test_from_anywhere_good_answers_lead_back_to_inference(
    monitor: LoopParameters | Betting, sequence: list[Event]
) -> None:
    now = LoopState.start("day", monitor, retrain_after=3)
    for event in sequence:
        now, _actions = advance(now, event)
    for _step in range(2000):
        if now.state is State.INFERENCE:
            break
        now, _actions = advance(now, Arrived(1.0))
        if now.task is Task.REFERENCE_AND_TRIAL and now.trial is not None:
            now, _actions = advance(now, Compared(now.trial.agent, 1.0, 0.9))
        elif now.running:
            now, _actions = advance(now, Retrained("new"))
        elif now.task is Task.REFERENCE_AND_EXPLORED:
            now, _actions = advance(now, Explored(1))
        elif now.ranking:
            now, _actions = advance(now, Ranked(()))
    assert now.state is State.INFERENCE
