"""The recorder as a node, called directly: it carries messages to the record of the run, and numbers back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter

from safe_support_ql import config
from safe_support_ql.nodes.recorder import HEARTBEAT_S, Recorder
from safe_support_ql.nodes.tables import encode_decision, encode_outcome
from safe_support_ql.recording.files import CONFIG, JOURNAL, LEDGER
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import read_ledger
from safe_support_ql.recording.parts import OUTCOME_NAMES
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Decision, State

ROBOT = config.load_robot("diff_drive")


@pytest.fixture
def node(ros_domain, tmp_path: Path) -> Iterator[Recorder]:
    rclpy.init()
    node = start(tmp_path)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def start(run_dir: Path) -> Recorder:
    """An active recorder of `run_dir`; what it would publish as heartbeat is appended to its `heard`."""
    config.save(ROBOT, run_dir / CONFIG)
    node = Recorder()
    values = {"config": str(run_dir / CONFIG), "run_dir": str(run_dir)}
    node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    node.trigger_configure()
    node.trigger_activate()
    assert node.get_state() == "active"
    node.heard = []
    node.heartbeat.publish = lambda message: node.heard.append(message.data)
    return node


def decision(node: Recorder, sequence: int) -> Decision:
    """Decision `sequence` of episode 1 on the state of stamp 100 * (sequence + 1)."""
    k, d, a = node.codec.k, node.codec.d, node.codec.a
    margin, none = np.full(k, 0.5, np.float32), np.zeros(k, bool)
    candidates = CandidateSet(
        sequence + 1, 100 * (sequence + 1), 1, np.zeros(d, np.float32), np.zeros((k, a), np.float32), margin > 0,
        margin > 0, none, none, margin, np.zeros(k, np.uint8),
    )  # fmt: skip
    return Decision(
        sequence, candidates.id, 1, candidates.stamp_ns, np.zeros(a, np.float32), 0, "certified", "request", "",
        State.NOMINAL, False, candidates,
    )  # fmt: skip


def outcome(stamp_ns: int, **values: float):
    table = dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": 1} | values
    return encode_outcome(table, stamp_ns, "at x" if values.get("unsafe_visits") else "")


def journalled(run_dir: Path) -> list[int]:
    return JournalReader(run_dir / JOURNAL).read()["sequence"].tolist()


def test_what_three_topics_bring_is_journalled_and_then_confirmed(node: Recorder, tmp_path: Path) -> None:
    node.on_heartbeat()
    assert node.heard == [0]
    for sequence in range(3):
        made = decision(node, sequence)
        node.on_decision(encode_decision(made))
        node.on_outcome(outcome(made.stamp_ns, first=float(sequence == 0), reward=float(sequence)))
        node.on_candidates(node.codec.encode(made.candidates))
    node.on_heartbeat()
    assert node.heard == [0, 3]
    records = JournalReader(tmp_path / JOURNAL).read()
    assert records["reward"].tolist() == [0.0, 1.0, 2.0] and records["first"].tolist() == [1, 0, 0]
    node.trigger_deactivate()
    node.on_heartbeat()
    assert node.heard == [0, 3]


def test_a_lost_part_is_listed_before_the_gate_takes_it_for_a_lag(
    node: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    node.on_decision(encode_decision(decision(node, 0)))
    node.on_heartbeat()
    assert node.heard == [0]
    clock[0] = ROBOT.gate.recorder_timeout_s - 2 * HEARTBEAT_S
    node.on_heartbeat()
    assert node.heard == [0, 1] and journalled(tmp_path) == []


def test_a_latch_and_a_visit_are_in_the_ledger_at_once(node: Recorder, tmp_path: Path) -> None:
    latched = replace(
        decision(node, 0), id=0, verdict="no_proof", reason="input_missing", message="scan is old",
        state=State.LATCHED, candidates=None, index=-1,
    )  # fmt: skip
    node.on_decision(encode_decision(latched))
    node.on_outcome(outcome(100, unsafe_visits=1.0))
    events = {event["event"]: event for event in read_ledger(tmp_path / LEDGER)}
    assert events["latch"]["cause"] == "scan is old" and events["visit"]["what"] == "at x"


def test_a_callback_that_failed_stops_the_heartbeats_and_loses_nothing(node: Recorder, tmp_path: Path) -> None:
    node.fail(ValueError("a message of something else"))
    node.on_heartbeat()
    assert not node.heard
    made = decision(node, 0)
    node.on_candidates(node.codec.encode(made.candidates))
    node.on_outcome(outcome(made.stamp_ns, first=1.0))
    node.on_decision(encode_decision(made))
    node.trigger_deactivate()
    assert journalled(tmp_path) == [0]


def test_a_signal_waits_while_the_monitor_may_still_speak(node: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert node.busy()
    now[0] += 1.0
    assert not node.busy()
    node.trigger_deactivate()
    now[0] = 100.0
    assert not node.busy()


def test_two_recorders_never_write_to_one_run(node: Recorder, tmp_path: Path) -> None:
    before = (tmp_path / LEDGER).read_bytes()
    second = Recorder()
    for name in ("config", "run_dir"):
        second.set_parameters([Parameter(name, value=node.param(name))])
    second.trigger_configure()
    assert second.get_state() == "unconfigured" and (tmp_path / LEDGER).read_bytes() == before
    node.trigger_deactivate()
    node.trigger_cleanup()
    second.trigger_configure()
    assert second.get_state() == "inactive"
    second.destroy_node()


def test_a_file_that_cannot_be_closed_does_not_keep_the_node(node: Recorder) -> None:
    def full() -> None:
        raise OSError("no space left")

    record = node.record
    assert record is not None
    node.trigger_deactivate()
    record.writer.journal.close = record.writer.ledger.close = full
    node.trigger_cleanup()
    assert node.record is None and node.get_state() == "unconfigured"
    node.trigger_configure()
    assert node.get_state() == "inactive", "the lock is free"
