"""Each watchdog alone: what it says, and when it falls silent again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from safe_support_ql import config
from safe_support_ql.nodes.native import ChannelCodec
from safe_support_ql.nodes.watchdogs import ClockWatch, DelayWatch, PublisherWatch, RecorderWatch
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
        return [SimpleNamespace(topic_type=kind) for kind in infos.get(topic, [])]

    node: Any = SimpleNamespace(
        get_name=lambda: "safety_monitor", get_namespace=lambda: "/", get_publishers_info_by_topic=look
    )
    watch = PublisherWatch(node, "/cmd_vel", CODECS)
    assert watch.foreign() == "/other/safety_monitor, /teleop"
    assert watch.unheard_e_stops() == "std_msgs/msg/UInt8"
    assert list(watch.unheard_inputs()) == [
        ("odom", Cause("odom: a node publishes std_msgs/msg/Bool, expected nav_msgs/msg/Odometry"))
    ]
