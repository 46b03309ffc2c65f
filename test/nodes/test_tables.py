"""Decisions, episodes and outcomes survive the journey, and what lacks a value is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql.nodes import tables
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Decision, State


def decision(candidates: CandidateSet | None, index: int = 4, **changes) -> Decision:
    action = candidates.actions[index] if candidates else np.zeros(2, np.float32)
    values = {
        "sequence": 11,
        "id": candidates.id if candidates else 0,
        "episode": 3,
        "stamp_ns": 1_500_000_001,
        "action": action,
        "index": index if candidates else -1,
        "verdict": "certified",
        "reason": "request",
        "message": "why: a 'text'",
        "state": State.NOMINAL,
        "intervention": False,
        "candidates": candidates,
    }
    return Decision(**(values | changes))


def test_a_decision_comes_back(over_the_wire, candidate_set: CandidateSet) -> None:
    got = tables.decode_decision(over_the_wire(tables.encode_decision(decision(candidate_set), 1234)))
    np.testing.assert_array_equal(got.action, candidate_set.actions[4])
    assert (got.sequence, got.id, got.episode, got.stamp_ns, got.index) == (11, 7, 3, 1_500_000_001, 4)
    assert (got.verdict, got.reason, got.message, got.state) == ("certified", "request", "why: a 'text'", "nominal")
    assert got.certificate_us == 1234 and not got.intervention
    assert got.margin == pytest.approx(float(candidate_set.margin[4]))


def test_a_blind_decision_comes_back(over_the_wire) -> None:
    sent = decision(None, verdict="no_proof", reason="input_missing", state=State.BACKUP)
    message = over_the_wire(tables.encode_decision(sent))
    got = tables.decode_decision(message)
    assert got.id == 0 and got.index == -1 and message.status[0].level == tables.LEVELS["error"]


@pytest.mark.parametrize("key", ["sequence", "action", "verdict", "candidate"])
def test_a_decision_without_a_value_is_refused(key: str, candidate_set: CandidateSet) -> None:
    message = tables.encode_decision(decision(candidate_set))
    message.status[0].values = [item for item in message.status[0].values if item.key != key]
    with pytest.raises(ValueError, match=key):
        tables.decode_decision(message)


def test_episode_and_outcome_come_back(over_the_wire) -> None:
    episode = tables.Episode(2**61 + 5, 9, "collection", 123, "robot_a", 10**18)
    assert tables.decode_episode(over_the_wire(tables.encode_episode(episode))) == episode
    values = {name: float(i % 2) for i, name in enumerate(tables.OUTCOME_NAMES)}
    table, stamp_ns, visit = tables.decode_outcome(over_the_wire(tables.encode_outcome(values, 5, "at x")))
    assert (table, stamp_ns, visit) == (values, 5, "at x")
