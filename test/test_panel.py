"""What is shown of a run comes from its ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safe_support_ql import panel
from safe_support_ql.panel import LedgerView, Status


def write(folder: Path, time: float, phase: str, ticks: int, episodes: int) -> None:
    event = {
        "event": "counters", "time": time, "phase": phase, "control_ticks": ticks, "episodes": episodes,
        "unsafe_visits": 0, "interventions": 0, "decisions": ticks, "empty_supports": 0, "verdicts": {},
    }  # fmt: skip
    with open(folder / "ledger.jsonl", "a") as file:
        file.write(json.dumps(event) + "\n")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "LEDGER_S", -1.0)


def test_collection_shows_its_ticks_their_rate_and_the_time_left(tmp_path: Path) -> None:
    status = Status()
    view = LedgerView(tmp_path, status, ticks=1000, episodes=5)
    view.begin("collection")
    for second in (0, 1):
        write(tmp_path, float(second), "collection", 100 + 100 * second, 2 + 2 * second)
        view.refresh()
    assert (status.phase, status.done, status.ticks_per_s) == ("collection", 200.0, 100.0)
    assert status.left_s == pytest.approx((800 + 2 * 5 * 50) / 100), "50 ticks an episode so far"


def test_an_evaluation_that_goes_on_counts_what_was_done_before(tmp_path: Path) -> None:
    write(tmp_path, 0.0, "evaluation_policy", 100, 2)
    status = Status()
    view = LedgerView(tmp_path, status)
    view.begin("evaluation_policy", before=1)
    write(tmp_path, 1.0, "evaluation_policy", 200, 3)
    view.refresh()
    assert status.done == 2.0 and status.left_s is None, "a simulation has no end to estimate"
