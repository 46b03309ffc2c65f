"""The monitor alone: what it keeps over its own transitions."""

from __future__ import annotations

import gc
import inspect
import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Bool, UInt64
from std_srvs.srv import SetBool, Trigger

from safe_support_ql import config
from safe_support_ql.nodes import tables, topics
from safe_support_ql.nodes.diagnosis import REMEDY
from safe_support_ql.nodes.executor import ShortPathExecutor
from safe_support_ql.nodes.safety_monitor import SafetyMonitor
from safe_support_ql.recording.summary import Progress
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import REASONS, State

SETTINGS = config.load_robot("diff_drive")
STATE = {"odom": [0, 0, 0, 1, 0, 0], "scan": full_circle(np.full(180, 3.0), 6.0).vector(), "goal_pose": [3, 0]}


@pytest.fixture
def drive(ros_domain) -> Iterator[Node]:
    """A node that listens to the command, in this participant: the graph shows it at once."""
    # A node that becomes active freezes what exists, and then the participants of earlier tests are never freed; on one
    # host, DDS looks for the first 32 only.
    gc.unfreeze()
    gc.collect()
    rclpy.init()
    node = rclpy.create_node("drive")
    node.create_subscription(TwistStamped, "cmd_vel", lambda _: None, 1)
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def monitor(drive: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SafetyMonitor]:
    monkeypatch.setattr("safe_support_ql.safety.gate.OPENING_STATES", 1)  # tests of the gate are elsewhere
    config.save(SETTINGS, tmp_path / "config.yaml")
    node = SafetyMonitor()
    node.set_parameters(
        [
            Parameter("config", value=str(tmp_path / "config.yaml")),
            Parameter("clock", value="lockstep"),
            Parameter("simulated", value=True),
            Parameter("recorder_required", value=False),
        ]
    )
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()


def round_trip(monitor: SafetyMonitor) -> None:
    """Through every state and back."""
    for change in (monitor.trigger_deactivate, monitor.trigger_cleanup, monitor.trigger_configure):
        change()
    assert monitor.gate is not None and monitor.get_state() == "inactive"
    monitor.trigger_activate()
    assert monitor.get_state() == "active"


def test_the_first_line_of_the_log_is_not_paid_for_at_the_first_fault(monitor: SafetyMonitor) -> None:
    """rclpy finds out who logs with inspect, which walks over all modules once: 40 ms, two ticks of a cart-pole."""
    assert inspect.modulesbyfile  # type: ignore[attr-defined]  # what that walk leaves behind


def feed(monitor: SafetyMonitor, stamp_ns: int) -> None:
    """One lock-step state."""
    for codec in monitor.codecs:
        monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp_ns))


def reset(monitor: SafetyMonitor) -> bool:
    response = Trigger.Response()
    monitor.on_reset(Trigger.Request(), response)
    return bool(response.success)


def test_a_latch_outlives_a_cleanup_until_it_is_reset(monitor: SafetyMonitor) -> None:
    monitor.gate.latch(Cause("the first cause"))
    monitor.gate.latch(Cause("a later one"))
    for _ in range(2):
        round_trip(monitor)
        assert (monitor.gate.state, monitor.gate.cause) == (State.LATCHED, Cause("the first cause"))
    feed(monitor, 10**9)
    assert reset(monitor)
    round_trip(monitor)
    assert monitor.gate.state is State.CLOSED


def test_a_failed_callback_stays_latched_over_a_cleanup(monitor: SafetyMonitor) -> None:
    monitor._guarded(lambda: 1 / 0)()
    round_trip(monitor)
    assert monitor.gate.state is State.LATCHED and "division by zero" in str(monitor.gate.cause)


def test_a_released_e_stop_stays_latched_over_a_cleanup(monitor: SafetyMonitor) -> None:
    for pressed in (True, False):
        monitor.e_stop.on_e_stop(pressed)
    round_trip(monitor)
    assert monitor.gate.state is State.LATCHED and "e-stop" in str(monitor.gate.cause)
    monitor.e_stop.on_e_stop(True)
    feed(monitor, 10**9)
    assert not reset(monitor)
    monitor.e_stop.on_e_stop(False)
    assert reset(monitor)


def test_an_e_stop_counts_before_the_monitor_is_configured(monitor: SafetyMonitor) -> None:
    monitor.trigger_deactivate()
    monitor.trigger_cleanup()
    assert [s.topic_name for s in monitor.subscriptions if s.topic_name.endswith("e_stop")]
    monitor.e_stop.on_e_stop(True)
    monitor.trigger_configure()
    monitor.trigger_activate()
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED


def unconfigured(monitor: SafetyMonitor, **values: Any) -> None:
    """Back to the beginning, with other parameters."""
    if monitor.active:
        monitor.trigger_deactivate()
    monitor.trigger_cleanup()
    monitor.set_parameters([Parameter(name, value=value) for name, value in values.items()])


def test_a_tap_on_the_e_stop_counts_before_the_monitor_is_configured(monitor: SafetyMonitor) -> None:
    unconfigured(monitor)
    for pressed in (True, False):
        monitor.e_stop.on_e_stop(pressed)
    monitor.trigger_configure()
    monitor.trigger_activate()
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED and "e-stop" in str(monitor.gate.cause)


def test_a_button_that_is_not_reliable_keeps_its_own_word(monitor: SafetyMonitor) -> None:
    feed(monitor, 10**9)
    monitor.e_stop.on_lossy_e_stop(True)
    monitor.e_stop.on_e_stop(False)
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED and not reset(monitor)
    monitor.e_stop.on_lossy_e_stop(False)
    assert reset(monitor)


@pytest.mark.parametrize("words", [[True] + [False] * 300, [False] * 900 + [True]], ids=["tap", "flood"])
def test_while_the_monitor_is_busy_no_press_is_lost_and_the_newest_word_is_heard_first(
    monitor: SafetyMonitor, words: list[bool]
) -> None:
    button = rclpy.create_node("button")
    publisher = button.create_publisher(Bool, topics.E_STOP, topics.RECORDED)
    executor = ShortPathExecutor()
    executor.add_node(monitor)
    try:
        end = time.monotonic() + 10.0
        while publisher.get_subscription_count() < 2 and time.monotonic() < end:  # it suits all but the TRANSIENT_LOCAL
            executor.spin_once(0.05)
        for word in words:
            publisher.publish(Bool(data=word))
        assert monitor.gate is not None
        spins, end = 0, time.monotonic() + 20.0
        while monitor.gate.state is not State.LATCHED and time.monotonic() < end:
            executor.spin_once(0.05)
            spins += 1
        assert monitor.gate.state is State.LATCHED and spins < 100
    finally:
        executor.shutdown()
        button.destroy_node()


def test_a_button_of_another_type_is_no_button(monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["std_msgs/msg/Bool", "std_msgs/msg/UInt8"]
    feed(monitor, 10**9)
    monkeypatch.setattr(
        monitor,
        "get_publishers_info_by_topic",
        lambda topic: [SimpleNamespace(topic_type=kind) for kind in kinds] if topic == topics.E_STOP else [],
    )
    monitor.on_second()
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED and "UInt8" in str(monitor.gate.cause)
    assert not reset(monitor)
    monitor.trigger_deactivate()
    monitor.trigger_activate()
    assert monitor.get_state() == "inactive", "activation is refused, too"
    kinds.pop()
    monitor.trigger_activate()
    feed(monitor, 2 * 10**9)
    assert reset(monitor)


def test_a_button_that_repeats_itself_costs_one_decision(realtime: tuple[SafetyMonitor, list[Any]]) -> None:
    monitor, sent = realtime
    for _ in range(10):
        monitor.e_stop.on_e_stop(True)
    assert monitor.gate is not None and monitor.gate.counters.decisions == 1 and len(sent) == 1


def test_what_nobody_says_is_what_a_robot_needs(ros_domain) -> None:
    """In lock-step nothing is ever late, on a robot nobody may say where it stands, and nothing moves unrecorded."""
    rclpy.init()
    node = SafetyMonitor()
    assert (node.param("clock"), node.param("simulated"), node.param("recorder_required")) == ("realtime", False, True)
    node.destroy_node()
    rclpy.shutdown()


def test_numbers_go_on_after_those_that_the_run_has_recorded(
    monitor: SafetyMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.progress", lambda folder: Progress(first_sequence=42))
    unconfigured(monitor, run_dir=str(tmp_path))
    monitor.trigger_configure()
    assert monitor.gate is not None and monitor.gate.sequence == 42


def test_on_a_robot_nobody_can_say_that_it_stands_somewhere_else(monitor: SafetyMonitor) -> None:
    for simulated in (True, False):
        unconfigured(monitor, simulated=simulated)
        monitor.trigger_configure()
        heard = [s for s in monitor.subscriptions if s.topic_name == f"/{topics.EPISODE}"]
        assert bool(heard) is simulated


def test_a_recorder_that_is_lost_stays_required_over_a_cleanup(monitor: SafetyMonitor) -> None:
    monitor.on_heartbeat(0)
    assert monitor.gate is not None
    monitor.gate.latch(Cause("the recorder is lost"))
    round_trip(monitor)
    feed(monitor, 10**9)
    response = Trigger.Response()
    monitor.on_reset(Trigger.Request(), response)
    assert not response.success and "recorder" in response.message


def test_a_mismatch_outlives_a_cleanup_as_a_latch_under_which_nothing_starts(monitor: SafetyMonitor) -> None:
    assert monitor.gate is not None
    monitor.gate.latch(Cause("mismatch"))
    round_trip(monitor)
    for tick in range(2, 20):
        feed(monitor, tick * 10**8 + 10**9)
        monitor.run_plan()
        assert monitor.gate.state is State.LATCHED and not monitor.gate.opened
    assert reset(monitor) and monitor.gate.state is State.CLOSED


CAUSES = ("e-stop", "e-stop by service", "stranger", "recorder", "mismatch", "input")
CREEP = [0.04, 0.0]  # slower than the drive's dead zone: a command other than the plan, under which a base stands
EVENTS = st.tuples(
    st.sampled_from([*CAUSES, *(f"no {cause}" for cause in CAUSES), "reset", "nothing"]),
    st.booleans(),  # whether it happens in the middle of a cycle
    st.sampled_from([1, 2, 4, 15, 25]),  # ticks until the next: silence takes eleven to latch, a recorder twenty-one
    st.booleans(),  # whether a reset is tried then
)


def test_no_reset_succeeds_while_a_cause_lives_and_no_latched_gate_passes_a_request(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any sequence of causes that come and go, of resets and of requests, in the middle of a cycle, too."""
    gate, steady, tick = monitor.gate, [10**15], 10
    assert gate is not None
    strangers: list[str] = []
    sent: list[Any] = []
    alive = dict.fromkeys(CAUSES, False)
    x, heard_ns, seen = 0.0, 0, False
    gate.recorder.required = True
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: strangers)
    monkeypatch.setattr(monitor.command_output, "publish", sent.append)
    monkeypatch.setattr(monitor.get_logger(), "error", lambda *text, **options: None)

    def heartbeat() -> None:
        nonlocal heard_ns
        monitor.on_heartbeat(gate.sequence)
        heard_ns = steady[0]

    def living() -> list[str]:
        """Causes that a reset has to ask about; a jump of the odometry is one until enough states agree again."""
        now = alive | {
            "input": not seen,
            "recorder": steady[0] - heard_ns > 1e9 * SETTINGS.gate.recorder_timeout_s,
            "mismatch": gate.opened and gate.mismatch.level >= 1.0,
        }
        return [cause for cause, lives in now.items() if lives]

    def happen(event: str) -> None:
        nonlocal x
        cause, comes = event.removeprefix("no "), not event.startswith("no ")
        if cause == "reset":
            latched, causes = gate.state is State.LATCHED, living()
            if latched:
                assert reset(monitor) == (not causes), (causes, gate.cause)
                assert (gate.state is State.LATCHED) == bool(causes)
        elif cause == "mismatch":
            x += 3.0 * comes  # [m] in a tick: there is no other base like that
        elif cause in CAUSES:
            alive[cause] = comes
            if cause == "e-stop":
                monitor.e_stop.on_e_stop(comes)
                alive["e-stop by service"] = False  # there is but one button
            elif cause == "e-stop by service":
                monitor.e_stop.on_e_stop_service(SetBool.Request(data=comes), SetBool.Response())
                alive["e-stop"] = False
            elif cause == "stranger":
                strangers[:] = ["/teleop"] * comes
                monitor.on_second()
            elif cause == "recorder" and not comes:
                heartbeat()
        if any(alive[cause] for cause in CAUSES[:3]):
            assert gate.state is State.LATCHED

    def cycle(midway: str) -> None:
        """A state, `midway`, and a request for what is no plan; what goes out."""
        nonlocal tick, seen
        tick += 1
        steady[0] += 100_000_000
        seen = not alive["input"]
        if not alive["recorder"]:
            heartbeat()
        sent.clear()
        for codec in monitor.codecs:
            vector = np.array(STATE[codec.channel.name], float)
            if codec.channel.name == "odom":
                vector[0] = x if seen else np.nan
            elif codec.channel.name == "scan":
                vector[-1] += 1e-3 * (
                    tick % 2
                )  # a lidar has noise; one that repeats its scan as the base moves is dead
            monitor.on_channel(codec, (vector, tick * 100_000_000))
        happen(midway)
        latched = gate.state is State.LATCHED
        monitor.on_request((gate.id, np.array(CREEP, np.float32), "policy"))
        assert len(sent) == 1, "a cycle has one command"
        command = monitor.commands.decode(sent[0])
        np.testing.assert_allclose(command, CREEP if command.any() else 0.0, atol=1e-6)
        assert not (latched and command.any()), gate.cause

    def play(events: list[tuple[str, bool, int, bool]]) -> None:
        for event, midway, ticks, resets in events:
            if not midway:
                happen(event)
            for _ in range(ticks):
                cycle(event if midway else "nothing")
                midway = False
            if resets:
                happen("reset")
        for cause in CAUSES:
            happen(f"no {cause}")
        for _ in range(20):  # states that agree
            cycle("nothing")
        assert not living()
        happen("reset")
        cycle("nothing")
        assert gate.state is State.NOMINAL and monitor.commands.decode(sent[0]).any()

    for cause, midway, ticks in product(CAUSES, (False, True), (2, 25)):
        play([(cause, midway, ticks, True), (f"no {cause}", midway, 2, True)])
    # Carried on, unseen, for so long that it might have driven: its lidar shows something else there.
    play([("input", False, 25, False), ("mismatch", False, 15, False), ("no input", False, 25, True)])
    given(st.lists(EVENTS, min_size=2, max_size=10))(settings(max_examples=40, deadline=None)(play))()


def hear(monitor: SafetyMonitor, topic: str, message: Any) -> None:
    """A message as the executor hands it over."""
    (entity,) = [s for s in monitor.subscriptions if s.topic_name == f"/{topic}"]
    entity.callback(message)


@pytest.mark.parametrize(
    ("topic", "message", "why"),
    [
        ("episode", DiagnosticArray(), "episode: status is empty"),
        ("episode", tables.encode_status("x", 0, "", "ok", {"key": -1}), "'key' is '-1', must lie in"),
        ("request", JointState(name=["id"], position=[1.0]), "request lacks speed, turn_rate"),
        ("request", JointState(name=["id", "speed", "turn_rate"], position=[math.nan] * 3), "id is nan"),
        ("recorder/heartbeat", UInt64(data=2**64 - 1), "confirms decisions up to 18446744073709551615, but 1 is"),
        ("odom", Odometry(), "odom: header.frame_id is ''"),
        ("scan", LaserScan(), "scan: "),
        ("goal_pose", PoseStamped(), "goal_pose: header.frame_id is ''"),
    ],
)
def test_a_malformed_message_is_refused_counted_and_named_and_the_gate_goes_on(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch, topic: str, message: Any, why: str
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(monitor._refusal_output, "publish", shown.append)
    feed(monitor, 10**9)
    monitor.run_plan()
    for _ in range(1000):
        hear(monitor, topic, message)
    monitor._show_refusals()
    assert tables.decode_status(shown[-1]) == {topic: "1000"} and shown[-1].status[0].name.startswith("safety_monitor")
    assert why in shown[-1].status[0].message
    assert monitor.gate is not None and monitor.gate.state is State.BACKUP, monitor.gate.cause
    refused = monitor.gate.counters.refused_inputs, monitor.gate.counters.refused_requests
    of_the_gate = {"request": (0, 1000)} | dict.fromkeys(("odom", "scan", "goal_pose"), (1000, 0))
    assert refused == of_the_gate.get(topic, (0, 0))
    feed(monitor, 10**9 + 10**8)
    monitor.on_request(moving_request(monitor))
    assert monitor.gate.state is State.NOMINAL


def test_a_heartbeat_of_another_run_is_the_cause_once_no_good_one_is_left(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, steady = monitor.gate, [10**15]
    assert gate is not None
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    monitor.on_heartbeat(1)
    assert not gate.recorder.required, "what cannot be makes no recorder required"
    monitor.on_heartbeat(0)
    monitor.on_heartbeat(1)
    assert not gate.recorder_problem(steady[0]) and monitor.refusals.counts["recorder/heartbeat"] == 2
    steady[0] += round(1e9 * SETTINGS.gate.recorder_timeout_s) + 1
    assert "old" in str(gate.recorder_problem(steady[0]))
    monitor.on_heartbeat(1)
    assert "confirms decisions up to 1, but 0 is the next" in str(gate.recorder_problem(steady[0]))
    monitor.on_heartbeat(0)
    assert not gate.recorder_problem(steady[0])


def test_a_programming_error_behind_a_decoder_is_still_a_failure_of_the_monitor(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor.gate, "request", lambda *arguments: int("a bug"))
    hear(monitor, "request", JointState(name=["id", "speed", "turn_rate"], position=[1.0, 0.0, 0.0]))
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED
    assert "the monitor failed: invalid literal" in str(monitor.gate.cause) and not monitor.refusals.counts


@pytest.fixture
def stranger(ros_domain) -> Iterator[Any]:
    """A node of another participant: one participant cannot have two types of a topic."""
    elsewhere = rclpy.Context()
    elsewhere.init()
    node = rclpy.create_node("stranger", context=elsewhere)
    yield node
    node.destroy_node()
    elsewhere.try_shutdown()


def look_until(monitor: SafetyMonitor, done: Callable[[], bool]) -> None:
    """Real-time cycles, while the graph becomes known."""
    end = time.monotonic() + 30.0
    while not done():
        assert time.monotonic() < end, monitor.gate.cause  # type: ignore[union-attr]
        time.sleep(0.05)
        monitor.on_second()
        monitor.on_timer()
        stamp_ns = monitor.get_clock().now().nanoseconds
        for codec in monitor.codecs:
            monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp_ns))


def test_a_drive_that_cannot_hear_is_named_before_anything_is_asked_for(
    monitor: SafetyMonitor, drive: Node, stranger: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real graph; one that can hear opens the gate without a restart."""
    (hearing,) = [s for s in drive.subscriptions if s.topic_name == "/cmd_vel"]
    drive.destroy_subscription(hearing)
    in_real_time(monitor)
    gate = monitor.gate
    assert gate is not None
    asked: list[Any] = []
    sent: list[Any] = []
    monkeypatch.setattr(monitor.candidate_output, "publish", asked.append)
    monkeypatch.setattr(monitor.command_output, "publish", sent.append)

    def says(text: str) -> Callable[[], bool]:
        return lambda: text in str(gate.cause)

    look_until(monitor, says("nobody listens on 'cmd_vel'; start the drive"))
    deaf = stranger.create_subscription(Twist, "cmd_vel", lambda _: None, 1)
    types = "'stranger' listens for geometry_msgs/msg/Twist, the monitor publishes geometry_msgs/msg/TwistStamped"
    look_until(monitor, says(f"cmd_vel: {types}; set stamped_cmd: false, or let it listen for"))
    stranger.destroy_subscription(deaf)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    drive.create_subscription(TwistStamped, "cmd_vel", lambda _: None, latched)
    look_until(monitor, says("'drive' asks for durability TRANSIENT_LOCAL, the monitor offers durability VOLATILE"))
    assert gate.state is State.CLOSED and not asked and not sent and not gate.counters.decisions

    drive.create_subscription(TwistStamped, "cmd_vel", lambda _: None, 1)
    look_until(monitor, lambda: bool(asked))
    told: list[Any] = []
    monkeypatch.setattr(monitor.diagnostics, "publish", told.append)
    monitor.on_second()
    assert "TRANSIENT_LOCAL" in tables.decode_status(told[-1])["warning 1"], "it is still there, and named"


def test_a_drive_that_goes_deaf_in_motion_gets_the_plan_and_is_named(
    realtime: tuple[SafetyMonitor, list[Any]], drive: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    gate = monitor.gate
    assert gate is not None
    monitor.on_request(moving_request(monitor))
    assert gate.state is State.NOMINAL
    (hearing,) = [s for s in drive.subscriptions if s.topic_name == "/cmd_vel"]
    drive.destroy_subscription(hearing)
    look_until(monitor, lambda: gate.cause.what == "nobody listens on 'cmd_vel'")
    assert gate.state is State.BACKUP and not monitor.open
    np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)
    drive.create_subscription(TwistStamped, "cmd_vel", lambda _: None, 1)
    look_until(monitor, lambda: monitor.open)


def test_two_policies_that_answer_at_once_are_named_and_the_first_one_is_executed(
    monitor: SafetyMonitor, drive: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(monitor.diagnostics, "publish", told.append)
    drive.create_publisher(JointState, topics.REQUEST, 1)
    feed(monitor, 10**9)
    id, action, _ = moving_request(monitor)
    for _ in range(2):
        monitor.on_request((id, action, "drive"))
    monitor.on_second()
    assert "warning 1" not in tables.decode_status(told[-1]), "one policy may answer twice"
    monitor.on_request((id, np.zeros(2, np.float32), "inference"))
    monitor.on_second()
    told_of = tables.decode_status(told[-1])["warning 1"]
    assert told_of == "two policies answer the same candidates: /drive and inference; stop one"
    assert monitor.gate is not None and monitor.gate.state is State.NOMINAL and monitor.gate.counters.decisions == 1


def test_a_heartbeat_that_confirms_too_little_keeps_the_gate_in_backup(monitor: SafetyMonitor) -> None:
    long_ago = time.monotonic_ns() - 10**10
    for _ in range(3):
        monitor.gate.expire(long_ago)
    monitor.on_heartbeat(2)
    assert "decision 2 is not written" in str(monitor.gate.recorder_problem(time.monotonic_ns()))
    monitor.on_heartbeat(3)
    assert not monitor.gate.recorder_problem(time.monotonic_ns())


@pytest.fixture
def realtime(monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch) -> tuple[SafetyMonitor, list[Any]]:
    """The monitor on the real-time clock with a complete state, and the commands that it sends from then on."""
    monitor.trigger_deactivate()
    monitor.trigger_cleanup()
    monitor.set_parameters([Parameter("clock", value="realtime")])
    monitor.trigger_configure()
    monitor.trigger_activate()
    assert monitor.get_state() == "active"
    stamp_ns = monitor.get_clock().now().nanoseconds
    for codec in monitor.codecs:
        monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp_ns))
    sent: list[Any] = []
    monkeypatch.setattr(monitor.command_output, "publish", sent.append)
    return monitor, sent


@pytest.mark.parametrize("ways", [["deactivate"], ["shutdown"], ["deactivate", "cleanup"], ["deactivate", "shutdown"]])
def test_every_way_out_sends_the_plan(realtime: tuple[SafetyMonitor, list[Any]], ways: list[str]) -> None:
    monitor, sent = realtime
    for way in ways:
        before = len(sent)
        getattr(monitor, f"trigger_{way}")()
        assert len(sent) > before, f"no command on {way}"
        np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)


def test_a_deactivated_monitor_goes_on_with_the_plan_until_the_robot_stands(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    monitor.trigger_deactivate()
    before, until = len(sent), monitor.stopping_until
    monitor.next_cycle = 0
    monitor.on_timer()
    assert len(sent) > before
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: until + 1)
    before = len(sent)
    monitor.on_timer()
    assert len(sent) == before, "the stop is over"


def test_what_would_cut_a_stop_short_must_wait(realtime: tuple[SafetyMonitor, list[Any]]) -> None:
    monitor, sent = realtime
    assert "before 'deactivate'" in monitor.objection("shutdown")
    monitor.trigger_deactivate()
    assert monitor.objection("cleanup").startswith("before the plan has run for 1.")
    assert not monitor.objection("activate")
    monitor.stopping_until = 0
    assert not monitor.objection("cleanup") and not monitor.objection("shutdown")


def test_nobody_waits_for_a_ghost_while_a_stop_goes_on(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: ["/safety_monitor"])
    monitor.trigger_deactivate()
    before = time.monotonic()
    monitor.trigger_activate()
    assert monitor.get_state() == "inactive" and time.monotonic() - before < 1.0 < monitor.linger() + 1.0


def moving_request(monitor: SafetyMonitor) -> tuple[int, Any, str]:
    """An answer to the open cycle that is certified and no plan."""
    assert monitor.gate is not None and monitor.open and monitor.gate.cycle is not None
    candidates = monitor.gate.cycle.candidates
    moving = int(np.flatnonzero(candidates.certified & ~candidates.is_plan)[0])
    return candidates.id, candidates.actions[moving], "policy"


@pytest.mark.parametrize("where", ["request", "encode"])
def test_a_request_whose_certificate_ends_before_its_command_leaves_runs_the_plan(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The process is stopped in the middle: what it certified before that was certified for an earlier instant."""
    monitor, sent = realtime
    request, steady = moving_request(monitor), [time.monotonic_ns()]
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    owner = {"request": monitor.gate, "encode": monitor.commands}[where]
    whole, stops = getattr(owner, where), [10**9]

    def slowly(*arguments: Any) -> Any:
        done = whole(*arguments)
        steady[0] += stops.pop() if stops else 0
        return done

    monkeypatch.setattr(owner, where, slowly)
    monitor.on_request(request)
    assert len(sent) == 1
    np.testing.assert_array_equal(monitor.commands.decode(sent[0]), 0.0)
    assert monitor.gate is not None and "stopped in the middle" in str(monitor.gate.cause)


def test_after_a_command_that_left_late_nobody_is_asked_until_states_are_newer(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted for when it was decided: what acted until it left would be missing from the next certificates."""
    monitor, sent = realtime
    gate, request = monitor.gate, moving_request(monitor)
    assert gate is not None
    steady, stamp = [time.monotonic_ns()], [monitor.get_clock().now().nanoseconds]
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])

    def leaves_late(command: Any) -> None:
        sent.append(command)
        steady[0] += 6_000_000

    monkeypatch.setattr(monitor.command_output, "publish", leaves_late)
    monitor.on_request(request)
    assert monitor.commands.decode(sent[-1]).any(), "within its certificate"
    monkeypatch.setattr(monitor.command_output, "publish", sent.append)

    def cycle() -> None:
        steady[0] += monitor.period_ns
        stamp[0] += monitor.period_ns
        monkeypatch.setattr(monitor, "get_clock", lambda: SimpleNamespace(now=lambda: Time(nanoseconds=stamp[0])))
        for codec in monitor.codecs:
            monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp[0]))

    for _ in range(2):  # 0.2 s of the 0.25 s that a state may be old
        cycle()
        assert not monitor.open and gate.state is State.BACKUP and "stopped in the middle" in str(gate.cause)
        np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)
    cycle()
    assert monitor.open, "asked again"


def test_an_activation_during_a_stop_goes_on_from_what_is_known(realtime: tuple[SafetyMonitor, list[Any]]) -> None:
    monitor, sent = realtime
    assert monitor.gate is not None
    monitor.trigger_deactivate()
    inputs = dict(monitor.gate.inputs._received)
    assert monitor.gate.state is not State.CLOSED and len(inputs) == len(monitor.codecs)
    monitor.trigger_activate()
    assert monitor.get_state() == "active" and not monitor.linger()
    assert monitor.gate.state is not State.CLOSED and monitor.gate.inputs._received == inputs, "the goal comes once"


def test_decisions_of_one_process_have_one_numbering(monitor: SafetyMonitor) -> None:
    assert monitor.gate is not None
    monitor.run_plan()
    following = monitor.gate.sequence
    round_trip(monitor)
    assert monitor.gate.sequence >= following > 0


def test_a_latch_is_named_whatever_input_is_missing_too(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    told: list[str] = []
    monkeypatch.setattr(
        monitor.decision_output, "publish", lambda message: told.append(tables.decode_decision(message).message)
    )
    assert monitor.gate is not None
    monitor.gate.new_episode(1)
    monitor.open = False
    monitor.e_stop.on_e_stop(True)
    assert told and told[-1].startswith("e-stop")


def test_a_stranger_that_commands_gets_the_plan_at_once(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: ["/teleop"])
    monitor.on_second()
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED and "/teleop" in str(monitor.gate.cause)
    np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)


def test_an_exception_sends_the_plan_and_latches(realtime: tuple[SafetyMonitor, list[Any]]) -> None:
    monitor, sent = realtime
    monitor._guarded(lambda: 1 / 0)()
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED
    np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)


def test_an_exception_in_the_plan_itself_sends_zero(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    monkeypatch.setattr(monitor.gate, "expire", lambda now: 1 / 0)
    monitor._guarded(lambda: 1 / 0)()
    np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)


def test_a_recorder_that_is_lost_for_too_long_latches(monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert monitor.gate is not None
    monitor.gate.recorder.required = True
    steady = [10**15]
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])

    def decide(seconds: float) -> str:
        steady[0] += round(1e9 * seconds)
        monitor.run_plan()
        return str(monitor.gate.state.value)  # type: ignore[union-attr]

    assert decide(10.0) != "latched" and decide(10.0) != "latched", "none was heard yet: it may still start"
    monitor.on_heartbeat(monitor.gate.sequence)
    assert decide(0.1) != "latched"
    lost_s = SETTINGS.gate.recorder_timeout_s + 0.1
    assert decide(lost_s) != "latched" and decide(0.5 * SETTINGS.gate.latch_after_s) != "latched"
    monitor.on_heartbeat(monitor.gate.sequence)
    assert decide(lost_s) != "latched" and decide(0.5 * SETTINGS.gate.latch_after_s) != "latched", "it was back"
    assert decide(SETTINGS.gate.latch_after_s) == "latched" and "recorder" in str(monitor.gate.cause)
    assert not reset(monitor)


def test_diagnostics_come_with_reason_and_remedy_whenever_one_changes(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, str]] = []
    monkeypatch.setattr(monitor.diagnostics, "publish", lambda message: sent.append(tables.decode_status(message)))
    assert monitor.gate is not None
    feed(monitor, 10**9)
    monitor.run_plan()
    assert (sent[-1]["reason"], sent[-1]["state"]) == ("no_request", "backup") and "policy" in sent[-1]["remedy"]
    told = len(sent)
    feed(monitor, 10**9 + 10**8)
    monitor.run_plan()
    assert len(sent) == told, "nothing new"
    monitor.run_plan()  # blind: no state of this tick
    assert (sent[-1]["reason"], sent[-1]["state"]) == ("input_missing", "backup") and "sensor" in sent[-1]["remedy"]
    monitor.e_stop.on_e_stop(True)
    assert sent[-1]["state"] == "latched" and "send false" in sent[-1]["remedy"]
    told = len(sent)
    monitor.gate.counters.mismatches, monitor.gate.mismatch.largest = 3, 1.25
    monitor.on_second()
    assert len(sent) == told + 1, "once a second, too"
    assert (sent[-1]["mismatches"], sent[-1]["largest residual, in W"]) == ("3", "1.25")
    assert int(sent[-1]["verdict no_proof"]) == monitor.gate.counters.verdicts["no_proof"] > 0
    assert set(REASONS) == set(REMEDY)
    for reason in REASONS:
        assert REMEDY[reason] or reason == "request"


def test_a_clock_that_jumps_latches_and_says_so(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, sent = realtime
    monitor.on_timer()
    monitor.on_timer()
    assert monitor.gate is not None and monitor.gate.state is not State.LATCHED
    true, ahead_s = monitor.get_clock(), 0
    clock = SimpleNamespace(now=lambda: true.now() + Duration(seconds=ahead_s))
    monkeypatch.setattr(monitor, "get_clock", lambda: clock)
    monitor.gate.state, ahead_s = State.CLOSED, 5
    monitor.on_timer()
    assert monitor.gate.state is not State.LATCHED, "a simulated clock begins with a jump"
    monitor.gate.state, ahead_s = State.NOMINAL, 10
    monitor.on_timer()
    assert monitor.gate.state is State.LATCHED and "the clock jumped by +5.0 s" in str(monitor.gate.cause)


def test_after_a_clock_that_stepped_back_new_states_begin_cycles_again(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's clock, by which the sensors stamp, too, as an NTP step or a bag that begins again makes it."""
    monitor, sent = realtime
    gate = monitor.gate
    assert gate is not None
    steady, stamp = [time.monotonic_ns()], [monitor.get_clock().now().nanoseconds]
    monitor.start_ns = stamp[0]  # an episode began just now
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    monkeypatch.setattr(monitor, "get_clock", lambda: SimpleNamespace(now=lambda: Time(nanoseconds=stamp[0])))

    def tick() -> None:
        steady[0] += monitor.period_ns
        stamp[0] += monitor.period_ns
        monitor.on_timer()
        for codec in monitor.codecs:
            monitor.on_channel(codec, codec.read(codec.encode(np.array(STATE[codec.channel.name], float), stamp[0])))
        if monitor.open:
            monitor.run_plan()

    for _ in range(3):
        tick()
    assert gate.opened and gate.state is not State.LATCHED
    stamp[0] -= 5 * 10**9
    for _ in range(6):
        tick()
    assert gate.state is State.LATCHED and "the clock jumped by -5.0 s" in str(gate.cause)
    assert reset(monitor) and gate.state is State.BACKUP
    decided = gate.counters.decisions
    for number in range(1, 6):
        tick()
        assert gate.counters.decisions == decided + number and gate.state is not State.LATCHED


def test_a_publisher_of_another_type_is_named(
    realtime: tuple[SafetyMonitor, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign has one in the graph ("wrong type"); here only what is made of it."""
    monitor, sent = realtime
    types = {"odom": ["nav_msgs/msg/Odometry", "std_msgs/msg/Bool"], "scan": ["sensor_msgs/msg/LaserScan"]}
    monkeypatch.setattr(
        monitor,
        "get_publishers_info_by_topic",
        lambda topic: [SimpleNamespace(topic_type=kind) for kind in types.get(topic, [])],
    )
    assert monitor.gate is not None
    monitor._refuse_unheard()
    assert monitor.gate.inputs.problems == {
        "odom": Cause("odom: a node publishes std_msgs/msg/Bool, expected nav_msgs/msg/Odometry")
    }


def test_the_e_stop_service_does_what_the_topic_does(monitor: SafetyMonitor) -> None:
    feed(monitor, 10**9)
    monitor.e_stop.on_e_stop_service(SetBool.Request(data=True), SetBool.Response())
    assert monitor.gate is not None and monitor.gate.state is State.LATCHED and not reset(monitor)
    monitor.e_stop.on_e_stop_service(SetBool.Request(data=False), response := SetBool.Response())
    assert response.success and monitor.gate.state is State.LATCHED and reset(monitor)


def test_activation_waits_for_a_namesake_and_for_nobody_else(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor.trigger_deactivate()
    answers = [["/safety_monitor"], ["/safety_monitor"], []]
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: answers.pop(0))
    monitor.trigger_activate()
    assert monitor.get_state() == "active" and not answers
    monitor.trigger_deactivate()
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: ["/safety_monitor", "/teleop"])
    monitor.trigger_activate()
    assert monitor.get_state() == "inactive"
    monkeypatch.setattr("safe_support_ql.nodes.watchdogs.GHOST_S", 0.3)
    monkeypatch.setattr(monitor.publisher_watch, "strangers", lambda: ["/safety_monitor"])
    monitor.trigger_activate()
    assert monitor.get_state() == "inactive", "a namesake that stays is no ghost"


def test_the_longest_request_deadline_certifies_no_longer_delay_than_reach_allows_for(
    monitor: SafetyMonitor, tmp_path: Path
) -> None:
    """Points beyond the robot's reach are left out for delays up to 1.2 periods; a longer deadline is refused."""
    period = SETTINGS.robot.period
    config.save(config.load_robot("diff_drive", {"gate.request_deadline_s": period}), tmp_path / "config.yaml")
    monitor.trigger_deactivate()
    monitor.trigger_cleanup()
    monitor.set_parameters([Parameter("clock", value="realtime")])
    monitor.trigger_configure()
    assert monitor.get_state() == "inactive" and max(monitor.latency) <= 1.2 * period


def in_real_time(monitor: SafetyMonitor, **values: Any) -> None:
    unconfigured(monitor, clock="realtime", **values)
    monitor.trigger_configure()
    monitor.trigger_activate()
    assert monitor.get_state() == "active"
    monitor.latency = (0.0, 0.06)


def test_in_real_time_a_cycle_begins_with_a_complete_state_or_a_quarter_of_a_period_late(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_real_time(monitor)
    begun: list[int] = []
    monkeypatch.setattr(monitor.candidate_output, "publish", lambda message: begun.append(message.header.stamp.nanosec))
    steady, period = [10**15], monitor.period_ns
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    start = monitor.get_clock().now().nanoseconds - period  # stamps must not lie in the future

    def arrive(stamp_ns: int, *names: str) -> None:
        for codec in monitor.codecs:
            if codec.channel.name in names:
                monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp_ns))

    monitor.next_cycle = steady[0] + period
    arrive(start, "goal_pose", "odom")
    assert not begun, "a state without its scan is none"
    arrive(start, "scan")
    assert len(begun) == 1
    monitor.run_plan()
    steady[0] += period // 2
    arrive(start + period // 2, "odom", "scan")
    assert len(begun) == 1, "sensors may be faster than control"
    steady[0] += period // 2
    monitor.on_timer()
    assert len(begun) == 1, "the next state may still come"
    steady[0] += period // 4
    monitor.on_timer()
    assert len(begun) == 2, "and without one the cycle begins all the same"


def test_a_plan_that_goes_out_after_its_certificate_is_noted_for_when_it_went_out(
    monitor: SafetyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latched, nobody is asked; but the certificate takes its time, or the process is stopped meanwhile."""
    in_real_time(monitor)
    gate = monitor.gate
    assert gate is not None
    steady = [10**15]
    monkeypatch.setattr("safe_support_ql.nodes.safety_monitor.time.monotonic_ns", lambda: steady[0])
    begin = gate.begin

    def slowly(*arguments: Any) -> Any:
        candidates = begin(*arguments)
        steady[0] += 70_000_000
        return candidates

    monkeypatch.setattr(gate, "begin", slowly)
    gate.latch(Cause("a cause"))
    stamp_ns = monitor.get_clock().now().nanoseconds
    for codec in monitor.codecs:
        monitor.on_channel(codec, (np.array(STATE[codec.channel.name], float), stamp_ns))
    assert gate.counters.decisions == 1
    assert gate.sent._commands[-1][1] == 10**15 + 70_000_000
    assert gate.counters.verdicts["certified"] == 0, "later than it was certified for"


def test_a_released_dead_man_switch_runs_the_plan_at_once_and_latches_nothing(
    monitor: SafetyMonitor, drive: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.save(config.load_robot("diff_drive", {"session.dead_man": True}), tmp_path / "config.yaml")
    in_real_time(monitor, simulated=False)
    gate, sent = monitor.gate, list[Any]()
    assert gate is not None and monitor.dead_man is not None
    monkeypatch.setattr(monitor.command_output, "publish", sent.append)
    look_until(monitor, lambda: "nobody holds the dead-man switch" in str(gate.cause))
    assert not monitor.open, "nothing is asked for"
    monitor.dead_man._on_switch(True)
    look_until(monitor, lambda: monitor.open)
    monitor.dead_man._on_switch(False)
    assert not monitor.open and gate.state is State.BACKUP
    np.testing.assert_array_equal(monitor.commands.decode(sent[-1]), 0.0)


def test_the_operator_raises_the_cap_while_the_robot_drives(monitor: SafetyMonitor, tmp_path: Path) -> None:
    config.save(config.load_robot("diff_drive", {"session.speed_cap": 0.3}), tmp_path / "config.yaml")
    in_real_time(monitor, simulated=False)
    gate = monitor.gate
    assert gate is not None
    look_until(monitor, lambda: monitor.open)
    assert gate.support.cap == 0.3
    (result,) = monitor.set_parameters([Parameter("speed_cap", value=0.6)])
    assert result.successful
    monitor.run_plan()
    look_until(monitor, lambda: monitor.open)
    assert gate.support.cap == 0.6
    (result,) = monitor.set_parameters([Parameter("speed_cap", value=1.5)])
    assert not result.successful and "must lie in [-1, 1]" in result.reason
