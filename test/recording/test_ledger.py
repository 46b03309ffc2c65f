"""The ledger: events are numbered, and damage is noticed."""

from pathlib import Path

import pytest

from safe_support_ql.recording.ledger import LedgerWriter, read_ledger


def test_ledger_survives_a_torn_line_and_continues_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerWriter(path)
    ledger.append("visit", {"margin": -0.1})
    ledger.append("counters", {"ticks": 3})
    ledger.close()
    path.write_bytes(path.read_bytes()[:-4])
    assert [event["event"] for event in read_ledger(path)] == ["visit"]
    again = LedgerWriter(path)
    again.append("run_end", {})
    assert [event["seq"] for event in read_ledger(path)] == [0, 1]


def test_a_missing_line_inside_the_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerWriter(path)
    for _ in range(3):
        ledger.append("counters", {})
    ledger.close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(ValueError, match="event 1 is missing"):
        read_ledger(path)
    path.write_text(lines[0] + "garbage\n" + lines[2])
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read_ledger(path)
