"""The recorder's joining and counting, without ROS in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter

from safe_support_ql import config
from safe_support_ql.nodes import recorder as module
from safe_support_ql.nodes.recorder import WAIT_S, Book, Join, Recorder, make_record
from safe_support_ql.nodes.tables import OUTCOME_NAMES, Verdict, encode_decision, encode_outcome
from safe_support_ql.safety.candidates import CandidateSet, candidate_layout
from safe_support_ql.safety.gate import Decision, State
from safe_support_ql.safety.journal import CERTIFIED, OFFERED, PLAN, USED, JournalReader, record_type
from safe_support_ql.safety.ledger import read_ledger

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


def joined(join: Join, now: float = 0.0):
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


def test_rewards_of_states_nobody_decided_on_are_added() -> None:
    """Real time: the monitor may skip a state, or see one twice."""
    join = Join()
    join.outcome(outcome(first=1.0), 100)
    for stamp, reward in ((200, 1.0), (300, 2.0)):
        join.outcome(outcome(reward=reward), stamp)
    for sequence, stamp in ((0, 100), (1, 300), (2, 300)):
        join.candidates(candidates(sequence + 1, stamp))
        join.decision(verdict(sequence, sequence + 1, stamp), 0.0)
    assert [(a.first, a.reward) for _, _, a in joined(join)] == [(True, 0.0), (False, 3.0), (True, 0.0)]


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


def test_the_layout_key_tells_action_spaces_apart() -> None:
    from safe_support_ql import config

    robot = config.load_robot("diff_drive").robot
    assert candidate_layout(robot, True) != candidate_layout(robot, False)


# --- the node, called directly ---------------------------------------------------------------------------------------


LATCHED = Decision(
    0, 0, 1, 100, np.zeros(2, np.float32), -1, "no_proof", "input_missing", "scan is old", State.LATCHED, False, None
)


@pytest.fixture
def node(ros_domain, tmp_path: Path) -> Iterator[Recorder]:
    rclpy.init()
    node = start(tmp_path)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def start(run_dir: Path) -> Recorder:
    """An active recorder of `run_dir`; what it would publish as heartbeat is appended to its `heard`."""
    config.save(config.load_robot("diff_drive"), run_dir / "config.yaml")
    node = Recorder()
    values = {"config": str(run_dir / "config.yaml"), "run_dir": str(run_dir)}
    node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    node.trigger_configure()
    node.trigger_activate()
    assert node.get_state() == "active"
    node.heard = []
    node.heartbeat.publish = lambda message: node.heard.append(message.data)
    return node


def die(node: Recorder) -> None:
    """Without a last word. The lock goes with the process."""
    node.destroy_node()
    assert node.lock is not None
    node.lock.release()


def decide(node: Recorder, sequence: int, parts: bool = True, **changes: object) -> None:
    """Decision `sequence` of episode 1, stamp 100 * (sequence + 1), as the recorder's callbacks take it."""
    id, stamp_ns = sequence + 1, 100 * (sequence + 1)
    if parts:
        k, d, a = node.codec.k, node.codec.d, node.codec.a
        margin, none = np.full(k, 0.5, np.float32), np.zeros(k, bool)
        node.join.candidates(
            CandidateSet(id, stamp_ns, 1, np.zeros(d, np.float32), np.zeros((k, a), np.float32), margin > 0,
                         margin > 0, none, none, margin, np.zeros(k, np.uint8))
        )  # fmt: skip
        node.join.outcome(outcome(first=float(sequence == 0)), stamp_ns)
    values = {"action": np.zeros(node.codec.a, np.float32), "margin": 0.5} | changes
    skipped = node.join.decision(replace(verdict(sequence, id, stamp_ns), **values), 0.0)
    if skipped is not None:
        node.gap(*skipped, "not received")


def journalled(node: Recorder) -> list[int]:
    return JournalReader(node.run_dir() / "journal.bin").read()["sequence"].tolist()


def listed(node: Recorder) -> list[tuple[int, int]]:
    events = read_ledger(node.run_dir() / "ledger.jsonl")
    return [(event["first"], event["last"]) for event in events if event["event"] == "gap"]


@pytest.mark.parametrize("where", ["make_record", "join"])
def test_a_mistake_costs_one_decision_its_record_and_none_its_number(
    node: Recorder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever fails in the middle of a list: those before and behind are journalled, and the robot stops."""
    make, put_together = make_record, node.join._join

    def make_record_but_two(dtype, item):
        return 1 / 0 if item.verdict.sequence == 2 else make(dtype, item)

    def join_but_two(verdict, late):
        return 1 / 0 if verdict.sequence == 2 else put_together(verdict, late)

    if where == "make_record":
        monkeypatch.setattr(module, "make_record", make_record_but_two)
    else:
        monkeypatch.setattr(node.join, "_join", join_but_two)
    node.on_heartbeat()
    assert node.heard
    for sequence in range(5):
        decide(node, sequence)
    node.advance()
    node.on_second()
    assert journalled(node) == [0, 1, 3, 4] and listed(node) == [(2, 2)]
    node.heard.clear()
    node.on_heartbeat()
    assert not node.heard, "a recorder that failed once confirms nothing more"
    decide(node, 5)
    node.trigger_deactivate()
    assert journalled(node) == [0, 1, 3, 4, 5] and listed(node) == [(2, 2)]


def test_the_heartbeat_confirms_what_is_written_or_listed(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def confirmed() -> int:
        node.on_heartbeat()
        return node.heard[-1]

    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    assert confirmed() == 0
    decide(node, 0)
    assert confirmed() == 1 and journalled(node) == [0]
    decide(node, 1, id=0, reason="input_missing")
    assert confirmed() == 2 and listed(node) == [(1, 1)], "listed before it is confirmed"
    decide(node, 2, parts=False)
    decide(node, 3)
    decide(node, 7)
    assert confirmed() == 2 and listed(node) == [(1, 1), (4, 6)], "one that waits for its parts is not written"
    clock[0] = config.load_robot("diff_drive").gate.recorder_timeout_s - 2 * module.HEARTBEAT_S
    assert confirmed() == 8, "a lost part is listed before the gate would take it for a lag"
    assert journalled(node) == [0, 3, 7] and listed(node) == [(1, 1), (4, 6), (2, 2)]


def test_after_a_crash_every_number_is_accounted_for_and_interventions_are_counted_again(
    node: Recorder, tmp_path: Path
) -> None:
    decide(node, 0)
    node.on_heartbeat()
    node.phase = "collection"
    node.on_second()  # the last counters before the crash
    for sequence, reason, intervention in (
        (1, "uncertified_request", True),
        (2, "latched", True),
        (3, "latched", False),  # the policy itself asked for the plan
        (4, "recorder_stale", True),
        (5, "no_request", False),
        (8, "request", False),
    ):
        decide(node, sequence, reason=reason, intervention=intervention)
    decide(node, 9, id=0, reason="input_missing")
    decide(node, 10)
    node.advance()
    assert listed(node) == [], "a crash before the next heartbeat loses what it knew of the gaps"
    live = node.book.totals("collection")
    assert live.interventions == 3
    die(node)

    again = start(tmp_path)
    assert listed(again) == [(6, 7), (9, 9)]
    assert again.join.last == 10 and again.book.sequence == 10
    recounted = again.book.totals("collection")
    assert (recounted.interventions, recounted.empty_supports) == (live.interventions, live.empty_supports)
    assert recounted.decisions == live.decisions - live.gaps, "of a lost one nobody knows how it was decided"
    decide(again, 13)
    again.trigger_deactivate()
    die(again)

    once_more = start(tmp_path)
    assert listed(once_more) == [(6, 7), (9, 9), (11, 12)], "and none is listed twice"
    assert journalled(once_more) == [0, 1, 2, 3, 4, 5, 8, 10, 13]
    die(once_more)


def test_a_line_that_the_disk_refused_is_written_once(node: Recorder) -> None:
    """Its rest may still be in the buffer, which goes out when the file is closed to open it afresh."""

    class Full:
        def __init__(self, file) -> None:
            self.write, self.close = file.write, file.close

        def flush(self) -> None:
            raise OSError("no space left")

    node.ledger._file = Full(node.ledger._file)
    decide(node, 0, id=0)
    decide(node, 1)
    node.on_heartbeat()
    assert node.trouble and not node.heard
    node.on_second()
    node.on_heartbeat()
    assert node.heard == [2] and listed(node) == [(0, 0)] and journalled(node) == [1]


def test_a_slow_disk_delays_no_heartbeat(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at a latch nor at a visit nor each second; only a disk that needs SLOW_SYNC_S does."""
    released, synced = threading.Event(), []
    monkeypatch.setattr(module, "_sync", lambda *files: released.wait(30) and synced.append(files))
    node.on_second()
    while not node.syncing[0][1].running():
        time.sleep(0.001)
    node.on_decision(encode_decision(LATCHED))
    node.on_outcome(encode_outcome(outcome(unsafe_visits=1.0), 100, "at x"))
    node.on_heartbeat()
    assert len(node.heard) == 1 and not synced
    events = [event["event"] for event in read_ledger(node.run_dir() / "ledger.jsonl")]
    assert "latch" in events and "visit" in events, "appended all the same"
    node.on_second()
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + module.SLOW_SYNC_S)
    node.on_heartbeat()
    assert len(node.heard) == 1
    released.set()
    node.pool.shutdown()
    node.on_heartbeat()
    assert len(node.heard) == 2 and len(synced) == 2, "what came later is synced by one that began later"


def test_what_a_power_loss_took_from_the_journal_is_listed(node: Recorder, tmp_path: Path) -> None:
    for sequence in range(4):
        decide(node, sequence)
    decide(node, 4, id=0)
    node.phase = "collection"
    node.on_second()
    die(node)
    path = tmp_path / "journal.bin"
    path.write_bytes(path.read_bytes()[: -2 * node.journal.type.itemsize])
    again = start(tmp_path)
    assert (journalled(again), listed(again)) == ([0, 1], [(4, 4), (2, 3)])
    assert again.join.last == 4
    die(again)


def test_a_mistake_in_counting_costs_no_record(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.book, "decision", lambda *arguments: 1 / 0)
    for sequence in range(3):
        decide(node, sequence)
    node.advance()
    node.on_heartbeat()
    assert journalled(node) == [0, 1, 2] and node.failed and not node.heard


def test_what_the_disk_refused_for_too_long_is_listed_once(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNSAVED", 2)
    node.trouble = "full"
    for sequence in range(6):
        decide(node, sequence, parts=sequence != 1, id=sequence + 1 if sequence != 1 else 0)
    node.advance()
    node.trouble = ""
    node.on_second()
    numbers = [n for first, last in listed(node) for n in range(first, last + 1)] + journalled(node)
    assert sorted(numbers) == list(range(6))


def test_a_signal_waits_for_what_lies_unread(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starved recorder has heard nothing for long when the signal comes; the last decisions still wait in DDS."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    assert node.busy()
    decide(node, 0, parts=False)
    now[0] += 2 * module.QUIET_S
    assert node.busy(), "a decision waits for its parts"
    node.finish(node.join.take(now[0]))
    assert not node.busy()


def test_two_recorders_never_write_to_one_run(node: Recorder, tmp_path: Path) -> None:
    before = (tmp_path / "ledger.jsonl").read_bytes()
    second = Recorder()
    for name in ("config", "run_dir"):
        second.set_parameters([Parameter(name, value=node.param(name))])
    second.trigger_configure()
    assert second.get_state() == "unconfigured" and (tmp_path / "ledger.jsonl").read_bytes() == before
    node.trigger_deactivate()
    node.trigger_cleanup()
    second.trigger_configure()
    assert second.get_state() == "inactive"
    second.destroy_node()


def test_a_file_that_cannot_be_closed_keeps_neither_the_other_nor_the_lock(node: Recorder, tmp_path: Path) -> None:
    """Else what is left in its buffer would reach the file once it is open again."""

    def full() -> None:
        raise OSError("no space left")

    journal, ledger = node.journal, node.ledger
    assert journal is not None and ledger is not None
    node.trigger_deactivate()
    journal.close = ledger.close = full
    node.trigger_cleanup()
    assert node.journal is None and node.ledger is None and node.get_state() == "unconfigured"
    node.trigger_configure()
    assert node.get_state() == "inactive", "the lock is free"
