"""Journal and ledger: nothing recorded is lost, and damage is noticed."""

from pathlib import Path

import numpy as np
import pytest

from safe_support_ql.safety.journal import JournalReader, JournalWriter, record_type, unaccounted
from safe_support_ql.safety.ledger import LedgerWriter, proportion_interval, rate_upper_bound, read_ledger

HEADER = {"observation": 3, "candidates": 4, "action": 2, "robot": "x"}


def records(start: int, count: int) -> np.ndarray:
    rows = np.zeros(count, record_type(3, 4, 2))
    rows["sequence"] = np.arange(start, start + count)
    rows["observation"] = np.random.default_rng(start).random((count, 3))
    return rows


def test_what_was_appended_is_read_as_it_grows(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "journal.bin", HEADER)
    reader = JournalReader(tmp_path / "journal.bin")
    for start in (0, 5, 10):
        writer.append(records(start, 5))
        got = reader.read()
        np.testing.assert_array_equal(got["sequence"], np.arange(start, start + 5))
        np.testing.assert_array_equal(got["observation"], records(start, 5)["observation"])
    assert len(reader.read()) == 0


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_record_is_cut_off_and_writing_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.bin"
    writer = JournalWriter(path, HEADER)
    writer.append(records(0, 3))
    writer.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = JournalWriter(path, HEADER)
    assert again.last_sequence == 1
    again.append(records(2, 1))
    np.testing.assert_array_equal(JournalReader(path).read()["sequence"], [0, 1, 2])


def test_a_flipped_bit_ends_what_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    writer = JournalWriter(path, HEADER)
    writer.append(records(0, 4))
    writer.close()
    data = bytearray(path.read_bytes())
    data[4096 + 2 * writer.type.itemsize + 40] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(JournalReader(path).read()["sequence"], [0, 1])


def test_another_run_is_refused(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "journal.bin", HEADER).close()
    with pytest.raises(ValueError, match="other settings"):
        JournalWriter(tmp_path / "journal.bin", {**HEADER, "robot": "y"})
    (tmp_path / "other").write_text("hello")
    with pytest.raises(ValueError, match="is not a journal"):
        JournalReader(tmp_path / "other")


@pytest.mark.parametrize(
    ("journalled", "listed", "last", "expected"),
    [
        ([1, 2, 5, 6, 9], [], 9, [(0, 0), (3, 4), (7, 8)]),
        ([1, 2, 5, 6, 9], [(7, 8), (0, 0), (3, 3)], 12, [(4, 4), (10, 12)]),
        ([0, 9], [(3, 4), (4, 6), (12, 15)], 15, [(1, 2), (7, 8), (10, 11)]),
        ([], [(0, 10**15)], 10**15 + 1, [(10**15 + 1, 10**15 + 1)]),
        ([], [], -1, []),
        ([0, 1, 2], [], 1, []),
    ],
)
def test_numbers_that_are_nowhere_are_found(
    journalled: list[int], listed: list[tuple[int, int]], last: int, expected: list[tuple[int, int]]
) -> None:
    assert unaccounted(np.array(journalled, np.uint64), listed, last) == expected


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


def test_bounds_match_known_values() -> None:
    assert rate_upper_bound(0, 2.0) == pytest.approx(2.9957 / 2, rel=1e-4)
    low, high = proportion_interval(0, 100)
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-6)
