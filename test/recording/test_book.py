"""Counts per phase, from cumulative numbers that start again with each simulator."""

from __future__ import annotations

import pytest

from safe_support_ql.recording.book import Book
from safe_support_ql.recording.parts import OUTCOME_NAMES


def outcome(**values: float) -> dict[str, float]:
    return dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": 1} | values


def test_counts_follow_differences_over_phases_sessions_and_restarts() -> None:
    book = Book([])
    assert book.outcome("collection", outcome(control_ticks=10.0)) == 0
    assert book.outcome("collection", outcome(control_ticks=12.0, unsafe_visits=2.0)) == 2
    assert book.outcome("collection", outcome(control_ticks=12.0, unsafe_visits=2.0)) == 0
    assert book.outcome("evaluation_policy", outcome(control_ticks=15.0, unsafe_visits=2.0)) == 0
    events = [{"event": "counters", **book.event(phase, 0.1)} for phase in ("collection", "evaluation_policy")]
    again = Book(events)
    assert again.outcome("evaluation_policy", outcome(control_ticks=16.0, unsafe_visits=3.0)) == 1
    again.outcome("collection", outcome(session=6.0, control_ticks=4.0))
    assert again.totals("collection").control_ticks == 16
    assert again.totals("evaluation_policy").control_ticks == 4
    assert again.event("collection", 0.1)["seconds"] == pytest.approx(1.6)
