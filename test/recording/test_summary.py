"""Progress, summary and missing records, read from the folder of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql import panel
from safe_support_ql.cli.ledger import print_report
from safe_support_ql.recording import chain, summary
from safe_support_ql.recording.files import JOURNAL, LEDGER, SUMMARY, write_json
from safe_support_ql.recording.journal import JournalWriter
from safe_support_ql.recording.ledger import LedgerWriter
from safe_support_ql.recording.verification import verify


def _counters(phase: str, ticks: int, at: float, **more: object) -> tuple[str, dict[str, object]]:
    verdicts = {"certified": ticks, "certified_band": 0, "plan_held": 0, "no_proof": 0}
    values = {"control_ticks": ticks, "physics_steps": 24 * ticks, "seconds": ticks / 10, "unsafe_visits": 0}
    values |= {"decisions": ticks, "interventions": 0, "empty_supports": 0, "sequence": ticks - 1}
    values |= {"session": 5, "seen": {}}
    return "counters", {"time": at, "phase": phase, "verdicts": verdicts, **values, **more}


def _episode(phase: str, number: int, seed: int, reached: bool) -> tuple[str, dict[str, object]]:
    end = {"reached": reached, "terminated": reached, "return": 2.0 * reached}
    return "episode", {"phase": phase, "episode": number, "seed": seed, **end}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The folder of a run that was stopped while it evaluated, after a collection of 100 ticks."""
    ledger = LedgerWriter(tmp_path / LEDGER)
    events = [
        ("run_start", {"time": 0.0}), ("phase", {"time": 1.0, "phase": "collection"}),
        _counters("collection", 40, 2.0), _episode("collection", 1, 5_000_000, True),
        _counters("collection", 100, 3.0), _counters("collection", 100, 60.0),
        ("gap", {"first": 98, "last": 99, "why": "blind"}), ("phase", {"time": 61.0, "phase": "evaluation_behavior"}),
        _episode("evaluation_behavior", 3, 900_000_000, True), _episode("evaluation_behavior", 4, 900_000_001, False),
        _counters("evaluation_behavior", 50, 63.0, interventions=5),
    ]  # fmt: skip
    for event, fields in events:
        ledger.append(event, fields)
    ledger.close()
    journal = JournalWriter(tmp_path / JOURNAL, {"observation": 1, "candidates": 2, "action": 1})
    records = np.zeros(98, journal.type)
    records["sequence"], records["episode"] = np.arange(98), 5
    journal.append(records)
    journal.close()
    return tmp_path


def test_a_resumed_run_repeats_no_number_and_no_arena(recorded: Path) -> None:
    where = summary.progress(recorded)
    assert (where.ticks, where.first_sequence, where.first_episode) == (100, 100, 7)
    assert where.training_seed == 5_000_002  # 5 000 001 was begun and cut off
    assert where.evaluated == {"evaluation_behavior": 2}
    assert where.collected_at == 3.0  # counters go on while the learner extracts


def test_a_number_that_was_counted_is_not_used_again(recorded: Path) -> None:
    """A power loss may take the end of the journal and leave that of the ledger."""
    ledger = LedgerWriter(recorded / LEDGER)
    ledger.append(*_counters("evaluation_behavior", 50, 64.0, sequence=120))
    ledger.close()
    assert summary.progress(recorded).first_sequence == 121


def test_a_ledger_that_grows_while_it_is_read_is_not_damaged(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole, writes = recorded / LEDGER, Path.read_bytes, [1]

    def read_bytes(self: Path) -> bytes:
        content = whole(self)
        if self == path and writes[0]:
            writes[0] -= 1
            newest = json.loads(content.splitlines()[-1])
            with open(path, "ab") as file:
                before = newest.pop("hash")
                line, _ = chain.seal(b"", before, json.dumps({**newest, "seq": newest["seq"] + 1}).encode())
                file.write(line + b"\n")
        return content

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert summary.progress(recorded).ticks == 100
    assert not writes[0]
    monkeypatch.undo()
    with open(path, "ab") as file:
        file.write(b"no event\n")
    with pytest.raises(ValueError, match="is damaged"):
        summary.progress(recorded)


def test_a_ledger_that_lost_its_beginning_is_damaged(recorded: Path) -> None:
    path = recorded / LEDGER
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    with pytest.raises(ValueError, match="begins with event 1; those before it are missing"):
        verify(recorded, "r", 5, True)


def test_a_policy_trained_on_more_is_evaluated_anew(recorded: Path) -> None:
    ledger = LedgerWriter(recorded / LEDGER)
    ledger.append("phase", {"time": 70.0, "phase": "collection"})
    ledger.close()
    assert summary.progress(recorded).evaluated == {}
    assert summary.summarise(recorded, "r", 5, True)["evaluation"] == {}


def test_the_summary_counts_what_the_ledger_says(recorded: Path) -> None:
    found = summary.summarise(recorded, "r", 5, must_reach=True)
    assert found["control_ticks"] == 150 and found["unsafe_visits"] == 0 and found["gaps"] == 2
    row = found["evaluation"]["behavior"]
    assert (row["episodes"], row["success_rate"], row["mean_return"], row["intervention_rate"]) == (2, 0.5, 1.0, 0.1)
    assert found["wall_s"] == 63.0 and found["ticks_per_s"] == pytest.approx(100 / 2.0)
    assert found["unsafe_rate_upper95_per_hour"] == pytest.approx(2.9957 / (15 / 3600), rel=1e-4)
    assert summary.summarise(recorded, "r", 5, must_reach=False)["evaluation"]["behavior"]["success_rate"] == 0.5


def test_unsafe_episodes_are_bounded_beside_the_rate(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trial is an episode: two visits in one are one, and one that a stop cut off counts if it was unsafe."""
    safe = summary.summarise(recorded, "r", 5, True)
    assert safe["clock"] is None and safe["phases"]["evaluation_behavior"]["unsafe_episodes"] == 0
    assert safe["phases"]["evaluation_behavior"]["unsafe_episode_upper95"] == pytest.approx(1 - 0.05**0.5)
    ledger = LedgerWriter(recorded / LEDGER)
    visit = ("visit", {"phase": "evaluation_behavior", "visits": 1, "time": 64.0, "what": "clearance"})
    for event, fields in (
        ("run_start", {"time": 63.5, "clock": "realtime"}), visit, visit,
        _episode("evaluation_behavior", 5, 900_000_002, False), _episode("evaluation_behavior", 6, 900_000_003, True),
        visit, _counters("evaluation_behavior", 80, 66.0, unsafe_visits=3),
    ):  # fmt: skip
        ledger.append(event, fields)
    ledger.close()
    report = verify(recorded, "r", 5, True)
    row = report.summary["phases"]["evaluation_behavior"]
    assert (row["episodes"], row["unsafe_episodes"], row["unsafe_visits"]) == (5, 2, 3)
    # The bound is where at most 2 of 5 have a chance of 5 %.
    p = row["unsafe_episode_upper95"]
    assert sum(math.comb(5, k) * p**k * (1 - p) ** (5 - k) for k in range(3)) == pytest.approx(0.05)
    print_report(report, recorded)
    printed = capsys.readouterr().out
    assert "clock: real time" in printed and max(map(len, printed.splitlines()[2:])) <= 80
    assert ["evaluation_behavior", "5", "2", f"{p:.2g}"] in [line.split() for line in printed.splitlines()]


def test_an_unsafe_episode_that_a_stop_cut_off_is_another_than_the_next(recorded: Path) -> None:
    ledger = LedgerWriter(recorded / LEDGER)
    visit = ("visit", {"phase": "evaluation_behavior", "visits": 1, "time": 64.0, "what": "clearance"})
    for event, fields in (
        ("run_start", {"time": 63.5}), visit, ("run_start", {"time": 65.0}), visit,
        _episode("evaluation_behavior", 5, 900_000_002, False),
    ):  # fmt: skip
        ledger.append(event, fields)
    ledger.close()
    row = summary.summarise(recorded, "r", 5, True)["phases"]["evaluation_behavior"]
    assert (row["episodes"], row["unsafe_episodes"]) == (4, 2)


def test_another_row_can_be_added(recorded: Path) -> None:
    with pytest.raises(ValueError, match="summary.json"):
        summary.add_evaluation(recorded, "reference", {})
    write_json(recorded / SUMMARY, summary.summarise(recorded, "r", 5, True))
    row = {"episodes": 200, "success_rate": 0.995, "mean_return": 9.0, "unsafe_visits": 0}
    found = summary.add_evaluation(recorded, "reference", row)
    assert "0.995  [0.972, 1.000]" in panel.table(found)
    assert json.loads((recorded / SUMMARY).read_text())["evaluation"]["reference"] == row


def test_a_number_that_is_nowhere_is_missing(recorded: Path) -> None:
    assert verify(recorded, "r", 5, True).missing == []
    ledger = LedgerWriter(recorded / LEDGER)
    name, fields = _counters("evaluation_behavior", 50, 64.0, sequence=101)
    ledger.append(name, fields)
    ledger.close()
    assert verify(recorded, "r", 5, True).missing == [(100, 101)]
