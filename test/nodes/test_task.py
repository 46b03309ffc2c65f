"""The task node alone: messages that no simulator makes, and what an outcome needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from sensor_msgs.msg import LaserScan

from safe_support_ql import config
from safe_support_ql.nodes import tables
from safe_support_ql.nodes.native import ChannelCodec
from safe_support_ql.nodes.task import Task
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.scan import full_circle

ROBOT = config.load_robot("diff_drive").robot
CODECS = {channel.name: ChannelCodec(channel) for channel in ROBOT.channels}
VECTORS = {
    "odom": np.array([0.0, 0, 0, 1, 0, 0]), "scan": full_circle(np.full(180, 2.0), 6.0).vector(),
    "goal_pose": np.array([1.0, 0.0]),
}  # fmt: skip
NS = 100_000_000  # a control period
BEGIN = 1_800_000_000_000_000_000


class Person:
    """Hands messages to a task node as the executor would, and keeps what it publishes."""

    def __init__(self, node: Task) -> None:
        self.node, self.outcomes = node, list[dict[str, float]]()
        self.now, self.sequence = BEGIN, 0

    def hears(self, channel: str, message: Any = None) -> None:
        topic = f"/{channel}"
        (entity,) = [one for one in self.node.subscriptions if one.topic_name == topic]
        if message is None:
            message = CODECS[channel].encode(VECTORS[channel], self.now)
        entity.callback(message)

    def decides(self, state: str = "nominal") -> None:
        self.sequence += 1
        self.node.on_decision(
            Verdict(self.sequence, 1, 0, self.now, np.zeros(2, np.float32), 0, "certified", "request", "", state,
                    False, False, True, False, 0.5, 0, 0)
        )  # fmt: skip

    def ticks(self, times: int = 1) -> None:
        """So many control periods of a base that stands in a room."""
        for _ in range(times):
            self.now += NS
            for channel in ("odom", "scan"):
                self.hears(channel)
            self.decides()


@pytest.fixture
def person(ros_domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:  # type: ignore[no-untyped-def]
    rclpy.init()
    config.save(config.load_robot("diff_drive"), tmp_path / "config.yaml")
    node = Task()
    node.set_parameters([Parameter("config", value=str(tmp_path / "config.yaml"))])
    node.trigger_configure()
    made = Person(node)
    monkeypatch.setattr(
        node.outcomes, "publish", lambda message: made.outcomes.append(tables.decode_outcome(message)[0])
    )
    node.trigger_activate()
    made.hears("goal_pose")
    yield made
    node.destroy_node()
    rclpy.shutdown()


def spoilt(channel: str, vector: Any) -> Any:
    return CODECS[channel].encode(vector, BEGIN + 10**9)


def millimetres() -> LaserScan:
    message = CODECS["scan"].encode(full_circle(np.full(180, 2000.0), 6000.0).vector(), BEGIN + 10**9)
    assert isinstance(message, LaserScan)
    return message


def contradictory() -> LaserScan:
    message = CODECS["scan"].encode(full_circle(np.full(180, 0.18), 6.0).vector(), BEGIN + 10**9)
    message.angle_max = 0.5
    return message


@pytest.mark.parametrize(
    ("channel", "make"),
    [
        ("odom", lambda: spoilt("odom", [math.nan, 0, 0, 1, 0, 0])),
        ("odom", lambda: spoilt("odom", [0, 0, 0, 1, math.inf, 0])),
        ("odom", Odometry),
        ("scan", millimetres),
        ("scan", contradictory),
        ("scan", LaserScan),
        ("goal_pose", lambda: spoilt("goal_pose", [math.nan, 0.0])),
        ("goal_pose", PoseStamped),
    ],
)
def test_what_the_gate_would_refuse_counts_for_no_outcome(channel: str, make: Any, person: Person) -> None:
    person.ticks(6)
    goal = person.node.episodes.goal  # type: ignore[union-attr]
    person.hears(channel, make())
    assert sum(person.node.refusals.counts.values()) == 1
    person.now += 10**9
    person.ticks(3)
    assert len(person.outcomes) == 9 and all(math.isfinite(one["reward"]) for one in person.outcomes)
    assert person.outcomes[-1]["unsafe_visits"] == 0 and person.node.episodes.goal is goal  # type: ignore[union-attr]


def test_an_outcome_waits_for_the_odometry_of_its_state(person: Person) -> None:
    person.ticks(5)
    person.now += NS
    person.decides()
    assert len(person.outcomes) == 5
    person.hears("odom")
    assert len(person.outcomes) == 6


def test_outcomes_go_on_after_a_clock_that_steps_back(person: Person) -> None:
    person.ticks(6)
    person.now -= 10**10
    person.ticks(6)
    assert len(person.outcomes) == 12


def test_a_state_that_is_decided_on_twice_has_one_outcome(person: Person) -> None:
    person.ticks(5)
    person.decides()
    person.ticks()
    assert len(person.outcomes) == 6


def test_its_own_goal_is_none_of_somebody_else(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears what it publishes, also the goal of before, after it has chosen another one."""
    sent: list[Any] = []
    monkeypatch.setattr(person.node.goals["goal_pose"], "publish", lambda m: sent.append((m.header.stamp, m)))
    person.node.on_second()
    episodes = person.node.episodes
    assert episodes is not None and len(sent) == 1
    echo = CODECS["goal_pose"].encode(np.array([1.0, 0.0]), 0)
    echo.header.stamp = sent[0][0]
    episodes.take(np.array([2.0, 0.0]))
    person.hears("goal_pose", echo)
    assert episodes.goal is not None and episodes.goal[0] == 2.0


def test_a_robot_whose_sensors_show_no_visit_is_refused(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(ROBOT), "sensed", Robot.sensed)
    with pytest.raises(ValueError, match="does not say how its sensors show an unsafe visit"):
        person.node.configure()


def test_a_pause_outlives_a_cleanup_and_what_was_driven_goes_on(person: Person) -> None:
    node = person.node
    node.on_pause(None, type("Response", (), {})())  # type: ignore[arg-type]
    assert node.episodes is not None
    node.episodes.limits.drove(7.0, 1.0)
    for change in (node.trigger_deactivate, node.trigger_cleanup, node.trigger_configure, node.trigger_activate):
        change()
    assert node.episodes.waiting == "paused: by a person" and node.episodes.limits._time == 7.0


def test_a_goal_in_another_frame_is_taken_where_tf2_knows_it_and_named_where_not(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicked, brought = PoseStamped(), PoseStamped()
    clicked.header.frame_id, brought.header.frame_id, brought.pose.position.x = "map", "odom", 3.0
    episodes = person.node.episodes
    assert episodes is not None
    before = episodes.goal
    person.hears("goal_pose", clicked)
    assert episodes.goal is before and sum(person.node.refusals.counts.values()) == 1
    monkeypatch.setattr(person.node.frames, "brought", lambda message, wanted: brought)
    person.hears("goal_pose", clicked)
    assert episodes.goal is not None and episodes.goal.tolist() == [3.0, 0.0]
