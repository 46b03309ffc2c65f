"""What one run writes down: every decision number is journalled or listed, whatever fails in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql.recording import journal, run_record, run_writer
from safe_support_ql.recording.files import JOURNAL, LEDGER
from safe_support_ql.recording.join import make_record
from safe_support_ql.recording.journal import TABLES, JournalReader
from safe_support_ql.recording.ledger import read_ledger
from safe_support_ql.recording.parts import OUTCOME_NAMES, Verdict
from safe_support_ql.recording.run_record import QUIET_S, RunRecord
from safe_support_ql.recording.run_writer import SLOW_SYNC_S
from safe_support_ql.safety.candidates import CandidateSet

K, D, A = 4, 3, 1
HEADER = {"observation": D, "candidates": K, "action": A, "robot": "x", "layout": "lattice", "safety_sha256": "5afe"}
WAIT_S = 0.5


class Said:
    """A logger and a receiver of error reports, which keep what they get."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.mistakes: list[Exception] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def error(self, message: str) -> None:
        self.lines.append(message)

    def report(self, what: str, mistake: Exception) -> None:
        self.lines.append(what)
        self.mistakes.append(mistake)


def start(folder: Path, said: Said | None = None) -> RunRecord:
    said = said or Said()
    record = RunRecord(folder, HEADER, 0.1, WAIT_S, said, said.report)
    record.begin("robot", "lockstep", 0)
    return record


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def record(tmp_path: Path, said: Said) -> Iterator[RunRecord]:
    record = start(tmp_path, said)
    yield record
    record.writer._lock.release()


def die(record: RunRecord) -> None:
    """Without a last word. The lock goes with the process."""
    record.writer._lock.release()


def outcome(**values: float) -> dict[str, float]:
    return dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": 1} | values


def verdict(sequence: int, **changes: object) -> Verdict:
    """Decision `sequence` of episode 1 on the state of stamp 100 * (sequence + 1)."""
    values: dict[str, object] = {
        "sequence": sequence, "id": sequence + 1, "episode": 1, "stamp_ns": 100 * (sequence + 1),
        "action": np.zeros(A, np.float32), "index": 0, "verdict": "certified", "reason": "request", "message": "",
        "state": "nominal", "intervention": False, "empty_support": False, "certified": True, "band": False,
        "margin": 0.5, "centre": 0, "certificate_us": 0,
    }  # fmt: skip
    return Verdict(**(values | changes))  # type: ignore[arg-type]


def decide(record: RunRecord, sequence: int, parts: bool = True, **changes: object) -> None:
    """A decision and its parts, as they arrive; nothing is written yet."""
    stamp_ns = 100 * (sequence + 1)
    if parts:
        margin, none = np.full(K, 0.5, np.float32), np.zeros(K, bool)
        record.join.candidates(
            CandidateSet(sequence + 1, stamp_ns, 1, np.zeros(D, np.float32), np.zeros((K, A), np.float32), margin > 0,
                         margin > 0, none, none, margin, np.zeros(K, np.uint8))
        )  # fmt: skip
        record.join.outcome(outcome(first=float(sequence == 0)), stamp_ns)
    skipped = record.join.decision(verdict(sequence, **changes), time.monotonic())
    if skipped is not None:
        record.writer.gap(*skipped, "not received")


def journalled(record: RunRecord) -> list[int]:
    return JournalReader(record.writer.folder / JOURNAL).read()["sequence"].tolist()


def events(record: RunRecord) -> list[str]:
    return [event["event"] for event in read_ledger(record.writer.folder / LEDGER)]


def listed(record: RunRecord) -> list[tuple[int, int]]:
    found = read_ledger(record.writer.folder / LEDGER)
    return [(event["first"], event["last"]) for event in found if event["event"] == "gap"]


@pytest.mark.parametrize("where", ["make_record", "join"])
def test_a_mistake_costs_one_decision_its_record_and_none_its_number(
    record: RunRecord, said: Said, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever fails in the middle of a list: those before and behind are journalled, and the robot stops."""
    make, put_together = make_record, record.join._join

    def make_record_but_two(dtype, item):
        return 1 / 0 if item.verdict.sequence == 2 else make(dtype, item)

    def join_but_two(verdict, late):
        return 1 / 0 if verdict.sequence == 2 else put_together(verdict, late)

    if where == "make_record":
        monkeypatch.setattr(run_record, "make_record", make_record_but_two)
    else:
        monkeypatch.setattr(record.join, "_join", join_but_two)
    assert record.confirm() == 0
    for sequence in range(5):
        decide(record, sequence)
    record.advance()
    record.each_second()
    assert journalled(record) == [0, 1, 3, 4] and listed(record) == [(2, 2)]
    assert record.confirm() is None, "what failed once confirms nothing more"
    assert said.lines == ["decision 2 is listed as a gap; heartbeats stop until the recorder is restarted"]
    assert isinstance(said.mistakes[0], ZeroDivisionError)
    decide(record, 5)
    record.end()
    assert journalled(record) == [0, 1, 3, 4, 5] and listed(record) == [(2, 2)]


def test_parts_that_contradict_each_other_are_listed_and_said_once_a_second(record: RunRecord, said: Said) -> None:
    for sequence in range(3):
        decide(record, sequence, action=np.ones(A, np.float32))
    decide(record, 3)
    assert record.confirm() == 4 and journalled(record) == [3]
    assert listed(record) == [(0, 0), (1, 1), (2, 2)]
    assert said.lines == ["decision 0: executed [1.0] is not candidate 0; it is listed as a gap"]


def test_what_is_written_or_listed_is_confirmed(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert record.confirm() == 0
    decide(record, 0)
    assert record.confirm() == 1 and journalled(record) == [0]
    decide(record, 1, id=0, reason="input_missing")
    assert record.confirm() == 2 and listed(record) == [(1, 1)], "listed before it is confirmed"
    decide(record, 2, parts=False)
    decide(record, 3)
    decide(record, 7)
    assert record.confirm() == 2 and listed(record) == [(1, 1), (4, 6)], "one that waits for its parts is not written"
    clock[0] = 1.1 * WAIT_S
    assert record.confirm() == 8
    assert journalled(record) == [0, 3, 7] and listed(record) == [(1, 1), (4, 6), (2, 2)]


def test_after_a_crash_every_number_is_accounted_for_and_interventions_are_counted_again(
    record: RunRecord, tmp_path: Path
) -> None:
    decide(record, 0)
    record.confirm()
    record.phase = "collection"
    record.each_second()  # the last counters before the crash
    for sequence, reason, intervention in (
        (1, "uncertified_request", True),
        (2, "latched", True),
        (3, "latched", False),  # the policy itself asked for the plan
        (4, "recorder_stale", True),
        (5, "no_request", False),
        (8, "request", False),
    ):
        decide(record, sequence, reason=reason, intervention=intervention)
    decide(record, 9, id=0, reason="input_missing")
    decide(record, 10)
    record.advance()
    assert listed(record) == [], "a crash before the next confirmation loses what it knew of the gaps"
    live = record.book.totals("collection")
    assert live.interventions == 3
    die(record)

    again = start(tmp_path)
    again.confirm()
    assert listed(again) == [(6, 7), (9, 9)]
    assert again.join.last == 10 and again.book.sequence == 10
    recounted = again.book.totals("collection")
    assert (recounted.interventions, recounted.empty_supports) == (live.interventions, live.empty_supports)
    assert recounted.decisions == live.decisions - live.gaps, "the verdict of a lost decision is unknown"
    decide(again, 13)
    again.end()
    die(again)

    once_more = start(tmp_path)
    once_more.confirm()
    assert listed(once_more) == [(6, 7), (9, 9), (11, 12)], "and none is listed twice"
    assert journalled(once_more) == [0, 1, 2, 3, 4, 5, 8, 10, 13]
    once_more.close()


def test_a_line_that_the_disk_refused_is_written_once(record: RunRecord, said: Said) -> None:
    """Its rest may still be in the buffer, which goes out when the file is closed to open it afresh."""

    class Full:
        def __init__(self, file) -> None:
            self.write, self.close = file.write, file.close

        def flush(self) -> None:
            raise OSError("no space left")

    record.writer.ledger._file = Full(record.writer.ledger._file)
    decide(record, 0, id=0)
    decide(record, 1)
    assert record.confirm() is None and record.writer.trouble
    folder = record.writer.folder
    assert said.lines == [f"cannot write in {folder}: no space left; the robot runs its backup plan until it can"]
    record.each_second()
    assert record.confirm() == 2 and listed(record) == [(0, 0)] and journalled(record) == [1]
    assert said.lines[1:] == [f"{folder} can be written again"]


def test_a_slow_disk_delays_no_confirmation(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at a latch nor at a visit nor each second; only a disk that needs SLOW_SYNC_S does."""
    begun, released, synced = threading.Event(), threading.Event(), []

    def slow(*files: object) -> None:
        begun.set()
        released.wait(30)
        synced.append(files)

    monkeypatch.setattr(run_writer, "_sync", slow)
    record.each_second()
    assert begun.wait(30)
    record.decision(verdict(0, id=0, state="latched", reason="input_missing", message="scan is old"))
    record.outcome(outcome(unsafe_visits=1.0), 100, "at x")
    assert record.confirm() == 1 and not synced
    assert "latch" in events(record) and "visit" in events(record), "appended all the same"
    record.each_second()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + SLOW_SYNC_S)
    assert record.confirm() is None
    released.set()
    record.writer.pool.shutdown()
    assert record.confirm() == 1
    assert len(synced) == 2, "what came later is synced by one that began later"


def test_what_a_power_loss_took_from_the_journal_is_listed(record: RunRecord, tmp_path: Path) -> None:
    for sequence in range(4):
        decide(record, sequence)
    decide(record, 4, id=0)
    record.phase = "collection"
    record.each_second()
    die(record)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[: -2 * record.writer.journal.type.itemsize])
    again = start(tmp_path)
    again.confirm()
    assert (journalled(again), listed(again)) == ([0, 1], [(4, 4), (2, 3)])
    assert again.join.last == 4
    again.close()


def test_a_run_of_other_codes_is_counted_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(TABLES, verdicts=TABLES.verdicts[::-1], phases=TABLES.phases[::-1])
    with monkeypatch.context() as before:
        before.setattr(journal, "TABLES", other)
        writer = journal.JournalWriter(tmp_path / JOURNAL, HEADER)
        rows = np.zeros(2, writer.type)
        rows["sequence"] = (0, 1)
        rows["verdict"] = [other.verdicts.index(name) for name in ("plan_held", "certified")]
        rows["phase"] = other.phases.index("evaluation_policy")
        writer.append(rows)
        writer.close()
    record = start(tmp_path)
    assert list(record.book.phases) == ["evaluation_policy"]
    verdicts = record.book.totals("evaluation_policy").verdicts
    assert {name: count for name, count in verdicts.items() if count} == {"plan_held": 1, "certified": 1}
    record.close()


def test_a_mistake_in_counting_costs_no_record(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record.book, "decision", lambda *arguments: 1 / 0)
    for sequence in range(3):
        decide(record, sequence)
    assert record.confirm() is None
    assert journalled(record) == [0, 1, 2] and record.failed


def test_what_the_disk_refused_for_too_long_is_listed_once(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "MOST_UNSAVED", 2)
    record.writer.trouble = "full"
    for sequence in range(6):
        decide(record, sequence, parts=sequence != 1, id=sequence + 1 if sequence != 1 else 0)
    record.advance()
    record.writer.trouble = ""
    record.each_second()
    numbers = [n for first, last in listed(record) for n in range(first, last + 1)] + journalled(record)
    assert sorted(numbers) == list(range(6))


def test_what_cannot_be_saved_at_the_end_is_logged(record: RunRecord, said: Said) -> None:
    record.writer.trouble = "full"
    decide(record, 0)
    record.end()
    assert said.lines == ["1 records and 1 events could not be saved"]


def test_a_signal_waits_for_what_lies_unread(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starved recorder has heard nothing for long when the signal comes; the last decisions still wait in DDS."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert record.busy(monitor_there=False)
    decide(record, 0, parts=False)
    now[0] += 2 * QUIET_S
    assert record.busy(monitor_there=False), "a decision waits for its parts"
    record.advance()
    assert not record.busy(monitor_there=False)


def test_a_signal_waits_for_a_monitor_that_was_held_up(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy host may stop it for longer than any silence, and then its last decisions come at once as it leaves."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert record.busy(monitor_there=True)
    now[0] += 4 * QUIET_S
    assert record.busy(monitor_there=True)
    now[0] += 0.5 * QUIET_S
    assert record.busy(monitor_there=False), "what it sent last may still be unread"
    now[0] += QUIET_S
    assert not record.busy(monitor_there=False)


def test_an_episode_and_its_phase_are_told_once(record: RunRecord) -> None:
    end = outcome(first=1.0, terminated=1.0, reached=1.0, seed=7.0, tick=3.0, episode_return=2.5)
    for table in (end, end, outcome(episode=2, phase=1.0)):
        record.outcome(table, 100, "")
    found = read_ledger(record.writer.folder / LEDGER)
    assert [event["event"] for event in found] == ["run_start", "phase", "episode", "counters", "phase"]
    told = found[2]
    assert (told["phase"], told["seed"], told["reached"], told["return"]) == ("collection", 7, True, 2.5)
    assert found[3]["episodes"] == 1 == found[3]["successes"]


def test_two_recorders_never_write_to_one_run(record: RunRecord, tmp_path: Path, said: Said) -> None:
    before = (tmp_path / LEDGER).read_bytes()
    with pytest.raises(ValueError, match="another recorder writes to"):
        start(tmp_path)
    assert (tmp_path / LEDGER).read_bytes() == before
    record.close()
    start(tmp_path).close()


@pytest.mark.parametrize("name", [JOURNAL, LEDGER])
def test_damaged_files_are_refused_as_they_are_and_let_go(record: RunRecord, tmp_path: Path, name: str) -> None:
    decide(record, 0)
    record.end()
    record.close()
    path = tmp_path / name
    whole = path.read_bytes()
    damaged = whole[:20] + b"#\n" + whole[22:]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=name):
        start(tmp_path)
    assert path.read_bytes() == damaged
    path.write_bytes(whole)
    start(tmp_path).close()


def test_a_file_that_cannot_be_closed_keeps_neither_the_other_nor_the_lock(record: RunRecord, tmp_path: Path) -> None:
    """Else what is left in its buffer would reach the file once it is open again."""
    closed = []

    def full() -> None:
        closed.append(True)
        raise OSError("no space left")

    record.writer.journal.close = record.writer.ledger.close = full
    with pytest.raises(OSError, match="no space left"):
        record.close()
    assert len(closed) == 2
    start(tmp_path).close()
