"""The join: three topics in any order, one record per decision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from safe_support_ql.recording.join import CLOSED, IDLE, WAIT_S, Arrived, Join, make_record
from safe_support_ql.recording.journal import CERTIFIED, OFFERED, PLAN, USED, record_type
from safe_support_ql.recording.parts import OUTCOME_NAMES, Verdict
from safe_support_ql.safety.candidates import CandidateSet

K, D = 4, 3
DTYPE = record_type(D, K, 1)


def candidates(id: int, stamp_ns: int, episode: int = 1) -> CandidateSet:
    margin = np.array([0.5, 0.2, -0.1, -np.inf], np.float32)
    actions = np.array([[0.1], [0.2], [0.3], [0.0]], np.float32)
    is_plan = np.array([False, True, False, False])
    zeros = np.zeros(K, np.uint8)
    return CandidateSet(
        id,
        stamp_ns,
        episode,
        np.ones(D, np.float32),
        actions,
        margin > 0,
        margin > 0,
        margin > 1,
        is_plan,
        margin,
        zeros,
    )


def verdict(sequence: int, id: int, stamp_ns: int, episode: int = 1, index: int = 0, action: float = 0.1) -> Verdict:
    return Verdict(
        sequence, id, episode, stamp_ns, np.array([action], np.float32), index, "certified", "request", "", "nominal",
        False, False, True, False, 0.5, 0, 0,
    )  # fmt: skip


def outcome(episode: int = 1, **values: float) -> dict[str, float]:
    return dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": episode} | values


def joined(join: Join, now: float = 0.0) -> list[tuple[int, str, Arrived]]:
    return [(item.verdict.sequence, item.gap, item.arrived) for item in join.take(now)]


@pytest.mark.parametrize("order", ["cdo", "odc", "dco", "ocd"])
def test_parts_may_come_in_any_order(order: str) -> None:
    join = Join()
    for part in order:
        assert not join.take(0.0)
        if part == "c":
            join.candidates(candidates(1, 100))
        elif part == "d":
            join.decision(verdict(0, 1, 100), 0.0)
        else:
            join.outcome(outcome(first=1.0), 100)
    [item] = join.take(0.0)
    assert not item.gap and item.arrived.first


def test_decisions_wait_for_the_one_before_and_a_lost_part_becomes_a_gap() -> None:
    join = Join()
    for sequence, id, stamp in ((0, 1, 100), (1, 2, 200)):
        join.decision(verdict(sequence, id, stamp), 0.0)
        join.outcome(outcome(first=float(sequence == 0), reward=2.0), stamp)
    join.candidates(candidates(2, 200))
    assert not join.take(WAIT_S / 2)
    assert [(s, gap) for s, gap, _ in joined(join, WAIT_S * 1.1)] == [(0, "lost: its candidates"), (1, "")]


def test_repetitions_change_nothing_and_skipped_numbers_show() -> None:
    join = Join(last_sequence=3)
    assert join.decision(verdict(6, 1, 100), 0.0) == (4, 5)
    assert join.decision(verdict(6, 1, 100), 0.0) is None
    join.candidates(candidates(1, 100))
    join.outcome(outcome(), 100)
    join.outcome(outcome(), 100)
    assert [s for s, _, _ in joined(join)] == [6]
    with pytest.raises(ValueError, match="went back from 6 to 2; start safety_monitor with first_sequence 7"):
        join.decision(verdict(2, 1, 500), 0.0)
    join.decision(verdict(7, 2, 200), 0.0)
    # A monitor that begins with a used number, or decides on the same state anew, does not repeat: it would be lost.
    for other in (verdict(7, 1, 300), verdict(7, 2, 200, action=0.2), verdict(6, 1, 100, action=0.2)):
        with pytest.raises(ValueError, match="went back from 7"):
            join.decision(other, 0.0)
    assert join.decision(verdict(7, 2, 200), 0.0) is None
    assert Join(last_sequence=7).decision(verdict(7, 2, 200), 0.0) is None, "what came before a restart is not known"


def test_a_blind_decision_is_a_gap_with_its_reason() -> None:
    join = Join()
    join.decision(replace(verdict(0, 0, 100), reason="input_missing"), 0.0)
    assert [gap for _, gap, _ in joined(join)] == ["blind: input_missing"]


def test_nothing_is_learnt_before_the_gate_opens_and_the_first_decision_after_that_begins_the_episode() -> None:
    join = Join()
    for sequence, stamp in enumerate((100, 200, 300)):
        join.outcome(outcome(first=float(stamp == 100), reward=1.0), stamp)
        join.candidates(candidates(sequence + 1, stamp))
        silent = replace(verdict(sequence, 0, stamp), reason="closed")
        join.decision(verdict(sequence, sequence + 1, stamp) if stamp == 300 else silent, 0.0)
    items = join.take(0.0)
    assert [item.gap for item in items] == [CLOSED, CLOSED, ""] and items[-1].arrived.first


def test_rewards_of_states_without_a_decision_are_added() -> None:
    """Real time: the monitor may skip a state, or see one twice."""
    join = Join()
    join.outcome(outcome(first=1.0), 100)
    for stamp, reward in ((200, 1.0), (300, 2.0)):
        join.outcome(outcome(reward=reward), stamp)
    for sequence, stamp in ((0, 100), (1, 300), (2, 300)):
        join.candidates(candidates(sequence + 1, stamp))
        join.decision(verdict(sequence, sequence + 1, stamp), 0.0)
    assert [(a.first, a.reward) for _, _, a in joined(join)] == [(True, 0.0), (False, 3.0), (True, 0.0)]


def test_the_gate_of_a_robot_knows_no_episodes_and_its_task_does() -> None:
    """Outcomes find their decisions by time, whatever their episode, and by that alone where the clock steps back."""
    join = Join()
    stamps = (100, 200, 300, 50, 150)
    for sequence, (stamp, episode, reward) in enumerate(
        zip(stamps, (1, 1, 2, 2, 2), (0.0, 1.0, 0.0, 2.0, 3.0), strict=True)
    ):
        join.candidates(candidates(sequence + 1, stamp, 0))
        join.decision(verdict(sequence, sequence + 1, stamp, 0), 0.0)
        assert len(joined(join)) == (sequence == 0), "before anybody speaks of outcomes, there are none to wait for"
        join.outcome(outcome(episode, reward=reward, first=float(stamp == 300)), stamp)
        found = joined(join)
        assert not sequence or [(gap, a.first, a.reward) for _, gap, a in found] == [("", stamp == 300, reward)]


def test_states_between_the_episodes_of_a_robot_are_listed_and_not_journalled() -> None:
    join = Join()
    for sequence, (stamp, idle) in enumerate(((100, 0.0), (200, 1.0), (200, 1.0), (300, 0.0))):
        join.candidates(candidates(sequence + 1, stamp, 0))
        join.outcome(outcome(1, first=1.0, idle=idle), stamp)
        join.decision(verdict(sequence, sequence + 1, stamp, 0), 0.0)
    assert [gap for _, gap, _ in joined(join)] == ["", IDLE, IDLE, ""]


def test_no_transition_leads_over_an_end() -> None:
    join = Join()
    join.outcome(outcome(first=1.0), 100)
    join.outcome(outcome(reward=1.0, truncated=1.0), 200)
    join.outcome(outcome(episode=2, first=1.0), 300)
    for sequence, (stamp, episode) in enumerate(((100, 1), (200, 1), (200, 1), (300, 2))):
        join.candidates(candidates(sequence + 1, stamp, episode))
        join.decision(verdict(sequence, sequence + 1, stamp, episode), 0.0)
    found = [(a.first, a.truncated) for _, _, a in joined(join)]
    assert found == [(True, False), (False, True), (True, False), (True, False)]


def test_a_real_robot_has_no_outcomes() -> None:
    join = Join()
    for sequence, stamp in enumerate((100, 200)):
        join.candidates(candidates(sequence + 1, stamp, 0))
        join.decision(verdict(sequence, sequence + 1, stamp, 0), 0.0)
    assert [(gap, a.first) for _, gap, a in joined(join)] == [("", True), ("", False)]


def test_a_record_holds_what_was_executed() -> None:
    join = Join()
    join.candidates(candidates(1, 100))
    join.outcome(outcome(first=1.0), 100)
    join.decision(verdict(0, 1, 100), 0.0)
    [item] = join.take(0.0)
    [row] = make_record(DTYPE, item)
    assert row["executed"] == 0 and row["first"] and row["flags"].tolist() == [
        CERTIFIED | OFFERED | USED, CERTIFIED | OFFERED | PLAN | USED, USED, 0,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="is not candidate 0"):
        make_record(DTYPE, replace(item, verdict=verdict(0, 1, 100, action=0.7)))
    [row] = make_record(DTYPE, replace(item, verdict=verdict(0, 1, 100, index=3, action=0.7)))
    assert row["actions"][3, 0] == np.float32(0.7) and row["flags"][3] == CERTIFIED | USED
