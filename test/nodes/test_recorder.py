"""The recorder as a node, called directly: it carries messages to the record of the run, and numbers back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2

from safe_support_ql import config
from safe_support_ql.deployment.news import News
from safe_support_ql.nodes import topics
from safe_support_ql.nodes.executor import ShortPathExecutor
from safe_support_ql.nodes.recorder import HEARTBEAT_S, Recorder
from safe_support_ql.nodes.tables import decode_decision, decode_outcome, encode_decision, encode_outcome
from safe_support_ql.recording.files import CONFIG, INPUTS, JOURNAL, LEDGER
from safe_support_ql.recording.inputs import MARK, InputsReader
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import newest_head, read_ledger
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
    margin, none, plan = np.full(k, 0.5, np.float32), np.zeros(k, bool), np.arange(k) == 1
    candidates = CandidateSet(
        sequence + 1, 100 * (sequence + 1), 1, np.zeros(d, np.float32), np.zeros((k, a), np.float32), margin > 0,
        margin > 0, none, plan, margin, np.zeros(k, np.uint8),
    )  # fmt: skip
    return Decision(
        sequence, candidates.id, 1, candidates.stamp_ns, np.zeros(a, np.float32), 0, "certified", "request", "",
        State.NOMINAL, False, candidates,
    )  # fmt: skip


def outcome(stamp_ns: int, **values: float):
    table = dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": 1} | values
    return decode_outcome(encode_outcome(table, stamp_ns, "at x" if values.get("unsafe_visits") else ""))


def journalled(run_dir: Path) -> list[int]:
    return JournalReader(run_dir / JOURNAL).read()["sequence"].tolist()


def test_what_three_topics_bring_is_journalled_and_then_confirmed(node: Recorder, tmp_path: Path) -> None:
    node.on_heartbeat()
    assert node.heard == [0]
    for sequence in range(3):
        made = decision(node, sequence)
        node.on_decision(decode_decision(encode_decision(made)))
        node.on_outcome(outcome(made.stamp_ns, first=float(sequence == 0), reward=float(sequence)))
        node.on_candidates(node.codec.decode(node.codec.encode(made.candidates)))
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
    node.on_decision(decode_decision(encode_decision(decision(node, 0))))
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
    node.on_decision(decode_decision(encode_decision(latched)))
    node.on_outcome(outcome(100, unsafe_visits=1.0))
    events = {event["event"]: event for event in read_ledger(tmp_path / LEDGER)}
    assert events["latch"]["cause"] == "scan is old" and events["visit"]["what"] == "at x"


def test_a_callback_that_failed_stops_the_heartbeats_and_loses_nothing(node: Recorder, tmp_path: Path) -> None:
    node.fail(ValueError("a message of something else"))
    node.on_heartbeat()
    assert not node.heard
    made = decision(node, 0)
    node.on_candidates(node.codec.decode(node.codec.encode(made.candidates)))
    node.on_outcome(outcome(made.stamp_ns, first=1.0))
    node.on_decision(decode_decision(encode_decision(made)))
    node.trigger_deactivate()
    assert journalled(tmp_path) == [0]


def hear(node: Recorder, topic: str, message: Any) -> None:
    """A message as the executor hands it over."""
    (entity,) = [s for s in node.subscriptions if s.topic_name == f"/{topic}"]
    entity.callback(message)


def test_a_malformed_part_is_refused_and_its_decision_is_listed_as_a_gap(
    node: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    spoilt, whole = decision(node, 0), decision(node, 1)
    for made in (spoilt, whole):
        hear(node, "candidates", node.codec.encode(made.candidates))
        hear(node, "decision", encode_decision(made))
    message = encode_outcome(dict.fromkeys(OUTCOME_NAMES, 0.0) | {"phase": math.nan}, spoilt.stamp_ns, "")
    hear(node, "outcome", message)
    hear(node, "candidates", PointCloud2())
    hear(node, "decision", DiagnosticArray())
    node.on_outcome(outcome(whole.stamp_ns, first=1.0))
    clock[0] = 2.0
    node.on_heartbeat()
    assert node.refusals.counts == {"outcome": 1, "candidates": 1, "decision": 1}
    assert node.heard[-1] == 2 and journalled(tmp_path) == [1]
    node.trigger_deactivate()
    gaps = [event for event in read_ledger(tmp_path / LEDGER) if event["event"] == "gap"]
    assert [(gap["first"], gap["last"], gap["why"]) for gap in gaps] == [(0, 0, "lost: its outcome")]


def test_a_decision_whose_number_cannot_be_is_refused_and_the_record_goes_on(node: Recorder, tmp_path: Path) -> None:
    for sequence in (0, 10**12, 1):
        made = decision(node, sequence)
        hear(node, "candidates", node.codec.encode(made.candidates))
        hear(node, "outcome", encode_outcome(
            dict.fromkeys(OUTCOME_NAMES, 0.0) | {"session": 5.0, "episode": 1.0, "first": 1.0}, made.stamp_ns, ""
        ))  # fmt: skip
        hear(node, "decision", encode_decision(made))
    hear(node, "decision", encode_decision(replace(decision(node, 0), episode=9)))  # another run's, from a bag
    node.on_heartbeat()
    assert node.heard[-1] == 2 and journalled(tmp_path) == [0, 1] and node.refusals.counts == {"decision": 2}


def test_the_head_of_the_ledger_is_published_each_second_and_at_the_end(node: Recorder, tmp_path: Path) -> None:
    told: list[str] = []
    node.head.publish = lambda message: told.append(message.data)
    node.on_second()
    assert told == [newest_head(tmp_path / LEDGER)]
    node.trigger_deactivate()
    assert told[1:] == [newest_head(tmp_path / LEDGER)] and told[0] != told[1]
    events = read_ledger(tmp_path / LEDGER)
    assert [event["event"] for event in events] == ["run_start", "journal", "run_end"]
    assert set(events[0]["files"]) == {CONFIG}


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


def test_what_a_sensor_sends_is_kept(node: Recorder, tmp_path: Path) -> None:
    """Over DDS, through the executor that all nodes run in."""
    sensor = rclpy.create_node("sensor")
    odometry = Odometry()
    odometry.header.stamp.nanosec, odometry.child_frame_id = 77, "base_link"
    output = sensor.create_publisher(Odometry, "odom", topics.SENSOR)
    executor = ShortPathExecutor()
    executor.add_node(node)
    deadline = time.monotonic() + 10.0
    while len(kept := heard(node, tmp_path)) < 2 and time.monotonic() < deadline:
        output.publish(odometry)
        executor.spin_once()
    sensor.destroy_node()
    assert all(topic == "odom" and deserialize_message(data, Odometry) == odometry for _, topic, data in kept) and kept
    assert abs(kept[0][0] - time.time_ns()) < 60e9  # in real time; in lock-step it is the stamp
    node.lockstep = True
    node.on_decision(decode_decision(encode_decision(decision(node, 0))))
    assert heard(node, tmp_path)[-1] == (100, "decision", (0).to_bytes(8, "little"))


def test_a_disk_that_refuses_the_inputs_costs_nothing_else(node: Recorder, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert node.inputs is not None
    node.inputs.message = refuse  # type: ignore[method-assign]
    for sequence in range(2):
        made = decision(node, sequence)
        node.on_decision(decode_decision(encode_decision(made)))
        node.on_outcome(outcome(made.stamp_ns, first=float(sequence == 0)))
        node.on_candidates(node.codec.decode(node.codec.encode(made.candidates)))
    node.on_heartbeat()
    assert node.inputs is None and node.heard == [2] and journalled(tmp_path) == [0, 1]


def heard(node: Recorder, run_dir: Path) -> list[tuple[int, str, bytes]]:
    assert node.inputs is not None
    node.inputs.flush()
    reader = InputsReader(run_dir / INPUTS)
    return [(at, "decision" if n == MARK else reader.topics[n][0], data) for at, n, data in reader]


def test_the_ledger_says_which_policy_drove(node: Recorder, tmp_path: Path) -> None:
    node.on_news(News(2, "/models/b/policy.onnx", "f" * 64, "swapped", "/models/b/policy.onnx"))
    node.trigger_deactivate()
    (event,) = [event for event in read_ledger(tmp_path / LEDGER) if event["event"] == "policy"]
    assert (event["epoch"], event["sha256"], event["what"]) == (2, "f" * 64, "swapped /models/b/policy.onnx")
