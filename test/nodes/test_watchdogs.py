"""Each watchdog alone: what it says, and when it falls silent again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy

from safe_support_ql import config
from safe_support_ql.nodes.native import ChannelCodec
from safe_support_ql.nodes.watchdogs import (
    LATELY_NS,
    ClockWatch,
    DelayWatch,
    ListenerWatch,
    PolicyWatch,
    PublisherWatch,
    RecorderWatch,
)
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.sent import TRANSPORT_NS

CODECS = [ChannelCodec(channel) for channel in config.load_robot("diff_drive").robot.channels]
S = 1_000_000_000  # ns


def test_a_clock_may_be_slow_but_not_jump() -> None:
    watch = ClockWatch()
    assert not watch.look(1_000 * S, 0), "nothing to compare with"
    assert not watch.look(1_001 * S + S // 4, S)
    assert watch.look(1_000 * S, 2 * S).what == "the clock jumped by -2.2 s"
    assert not watch.look(1_001 * S, 3 * S), "a jump is told once"


def test_a_command_that_left_late_makes_unsure_for_as_long_as_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safe_support_ql.nodes.watchdogs.time.monotonic_ns", lambda: 10 * S)
    watch = DelayWatch(S)
    watch.sent(10 * S - TRANSPORT_NS)
    assert not watch.unsure(10 * S)
    watch.sent(10 * S - TRANSPORT_NS - 1)
    assert watch.unsure(11 * S + TRANSPORT_NS - 1) and not watch.unsure(11 * S + TRANSPORT_NS)


def test_only_a_recorder_that_was_heard_can_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now, problem = [S], [Cause("the disk is full")]
    monkeypatch.setattr("safe_support_ql.nodes.watchdogs.time.monotonic_ns", lambda: now[0])
    gate: Any = SimpleNamespace(recorder_problem=lambda at: problem[0], config=SimpleNamespace(latch_after_s=2.0))
    watch = RecorderWatch()

    def look(seconds: float) -> Cause:
        now[0] += round(seconds * S)
        return watch.look(gate)

    assert not look(0.0) and not look(10.0)
    watch.on_heartbeat(gate)
    assert not look(0.0) and not look(2.0)
    assert look(0.1) == Cause("the disk is full", "call the reset service")
    problem[0] = NONE
    watch.on_heartbeat(gate)
    problem[0] = Cause("lost again")
    assert not look(10.0), "counted from the first look that finds it lost"
    watch.begin()
    assert watch.heard and not look(2.1)


def test_publishers_of_the_command_are_named_but_for_the_monitor_itself() -> None:
    infos = {
        "/cmd_vel": [("safety_monitor", "/"), ("teleop", "/"), ("safety_monitor", "/other")],
        "e_stop": ["std_msgs/msg/Bool", "std_msgs/msg/UInt8"],
        "odom": ["nav_msgs/msg/Odometry", "std_msgs/msg/Bool"],
    }

    def look(topic: str) -> list[Any]:
        if topic == "/cmd_vel":
            return [SimpleNamespace(node_name=name, node_namespace=space) for name, space in infos[topic]]
        return [
            SimpleNamespace(topic_type=kind, node_namespace="/", node_name=f"driver_{number}")
            for number, kind in enumerate(infos.get(topic, []))
        ]

    node: Any = SimpleNamespace(
        get_name=lambda: "safety_monitor", get_namespace=lambda: "/", get_publishers_info_by_topic=look
    )
    watch = PublisherWatch(node, "/cmd_vel", CODECS)
    assert watch.foreign() == "/other/safety_monitor, /teleop"
    assert watch.unheard_e_stops() == "std_msgs/msg/UInt8"
    assert list(watch.unheard_inputs()) == [
        ("odom", Cause("odom: a node publishes std_msgs/msg/Bool, expected nav_msgs/msg/Odometry"))
    ]
    assert watch.doubled_inputs() == [
        Cause("odom: /driver_0 and /driver_1 both publish it", "stop one, or give it another topic")
    ], "a goal may come from several"


def test_only_who_can_hear_the_command_counts_as_a_drive() -> None:
    """What the graph says of listeners that are hard to have here: recorders of bags, and readers of no ROS node."""
    stamped, plain = "geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist"
    quality = QoSProfile(depth=1)
    strict = QoSProfile(
        depth=1, deadline=Duration(seconds=0.5), liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        reliability=ReliabilityPolicy.BEST_EFFORT,
    )  # fmt: skip
    infos: list[Any] = []
    node: Any = SimpleNamespace(get_subscriptions_info_by_topic=lambda topic: infos)
    output: Any = SimpleNamespace(topic_name="/robot_1/cmd_vel", msg_type=TwistStamped)
    now = 0

    def look(*listeners: tuple[str, str, QoSProfile]) -> str:
        nonlocal now
        now += 2 * S
        infos[:] = [
            SimpleNamespace(node_name=name, node_namespace="/robot_1", topic_type=kind, qos_profile=asked)
            for name, kind, asked in listeners
        ]
        return str(watch.look(now))

    watch = ListenerWatch(node, output, config.load_robot("diff_drive").robot.command)
    nobody = "nobody listens on 'robot_1/cmd_vel'; start the drive, or look at its topic's name"
    assert look() == nobody
    assert look(("rosbag2_recorder", stamped, quality), ("_ros2cli_7", stamped, quality)) == nobody
    assert not watch.deaf
    assert not look(("_NODE_NAME_UNKNOWN_", stamped, quality)), "a microcontroller"
    deaf = f"robot_1/cmd_vel: 'robot_1/drive' listens for {plain}, the monitor publishes {stamped}"
    assert look(("rosbag2_recorder", stamped, quality), ("drive", plain, quality)) == (
        f"{deaf}; set stamped_cmd: false, or let it listen for {stamped}"
    )
    assert not look(("drive", plain, quality), ("relay", stamped, quality)) and watch.deaf[0].what == deaf
    assert "set stamped_cmd" not in look(("drive", "std_msgs/msg/Bool", quality))
    assert look(("drive", stamped, strict)) == (
        "robot_1/cmd_vel: 'robot_1/drive' asks for liveliness MANUAL_BY_TOPIC, deadline 0.5 s, the monitor offers "
        "liveliness AUTOMATIC, deadline none; let it subscribe with liveliness AUTOMATIC, deadline none"
    )
    infos.clear()
    assert "MANUAL" in str(watch.look(now + 1)), "the graph is not asked at every cycle"
    assert str(watch.look(now + S)) == nobody


def test_two_policies_are_found_by_the_set_that_both_answer() -> None:
    infos: list[Any] = []
    asked_of_the_graph = 0

    def publishers(topic: str) -> list[Any]:
        nonlocal asked_of_the_graph
        asked_of_the_graph += 1
        return infos

    node: Any = SimpleNamespace(get_publishers_info_by_topic=publishers)
    watch = PolicyWatch(node, "/request")
    one, other = np.zeros(2, np.float32), np.ones(2, np.float32)
    for id, source in ((1, "behavior_policy"), (2, "behavior_policy"), (3, "inference")):
        watch.asked(id, one, source, S)
    watch.asked(2, other, "behavior_policy", S)
    assert not watch.lately(S), "one after the other, and one that answers twice"
    watch.asked(2, one, "", 2 * S)
    assert "behavior_policy and a node that names none in header.frame_id" in str(watch.lately(2 * S))
    assert not watch.lately(2 * S + LATELY_NS)
    infos[:] = [SimpleNamespace(node_name="behavior_policy", node_namespace=space) for space in ("/", "/twin")]
    before = asked_of_the_graph
    for id in range(4, 100):
        watch.asked(id, one, "behavior_policy", 20 * S)
        watch.asked(id, other, "behavior_policy", 20 * S)
    assert "/behavior_policy and /twin/behavior_policy" in str(watch.lately(20 * S))
    assert asked_of_the_graph == before + 1, "a flood does not cost a look at the graph each"
