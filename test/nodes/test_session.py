"""Who may stop a session on a robot: the battery, the dead-man switch, the operator; and who may steer."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import BatteryState

from safe_support_ql import config
from safe_support_ql.nodes.battery import Battery
from safe_support_ql.nodes.dead_man import RELEASED, DeadMan
from safe_support_ql.nodes.teleoperation import OLDEST_S, Teleoperation
from safe_support_ql.recording.session import SessionConfig


@pytest.mark.parametrize(
    ("full", "percentage", "voltage", "share"),
    [
        (1.0, 0.42, 12.0, 0.42),
        (100.0, 42.0, 12.0, 0.42),
        (1.0, 0.0, 10.8, 0.0),  # really empty
        (1.0, 1.1, 12.4, 1.1),  # a turtlebot3 that was just charged
    ],
)
def test_a_charge_is_a_share_of_what_the_driver_writes_for_full(
    full: float, percentage: float, voltage: float, share: float
) -> None:
    battery = Battery(SessionConfig(battery=0.2, battery_full=full))
    message = BatteryState(percentage=percentage, voltage=voltage)
    assert battery.decode(message) == pytest.approx(share)


@pytest.mark.parametrize(
    ("percentage", "voltage", "named"),
    [
        (math.nan, 12.0, "set session.battery: 0"),
        (0.0, 0.0, "0 V; wait for its first reading"),  # a Create 3 before the first change
        (42.0, 12.0, "is session.battery_full 100?"),  # kobuki
        (2430.3, 12.0, "percentage is 2430.3 of 1"),  # a Create that is charged, empty
        (-1.0, 12.0, "percentage is -1"),
    ],
)
def test_a_charge_that_says_nothing_is_refused(percentage: float, voltage: float, named: str) -> None:
    battery = Battery(SessionConfig(battery=0.2))
    with pytest.raises(ValueError, match="battery_state: ") as refused:
        battery.decode(BatteryState(percentage=percentage, voltage=voltage))
    assert named in str(refused.value)


def test_a_low_or_silent_battery_pauses_and_what_was_refused_is_named() -> None:
    battery = Battery(SessionConfig(battery=0.2, battery_age=30.0))
    now = time.monotonic()
    battery.wait(now)
    assert not battery.problem(now + 29.0)
    assert battery.problem(now + 31.0).startswith("battery_state was not heard for 30 s: start its driver")
    battery.refused = "percentage is NaN"
    assert "percentage is NaN" in battery.problem(now + 31.0)
    battery.hear(0.19)
    assert battery.problem(time.monotonic()) == "the battery is at 19%; charge it, then resume"
    battery.hear(0.21)
    assert not battery.problem(time.monotonic())
    assert not Battery(SessionConfig()).problem(now + 1e6), "0: nobody asked"


class Node:
    """Takes a subscription as a node does."""

    def subscribe(self, kind: Any, topic: str, decode: Any, callback: Any, qos: Any) -> None:
        self.hear = callback


def test_silence_of_a_dead_man_switch_is_release() -> None:
    node, released = Node(), list[bool]()
    switch = DeadMan(node, 0.5, lambda: released.append(True))  # type: ignore[arg-type]
    assert switch.problem(time.monotonic_ns()) is RELEASED, "nobody has held it yet"
    node.hear(True)
    now = time.monotonic_ns()
    assert not switch.problem(now) and not released
    assert switch.problem(now + 600_000_000) is RELEASED, "a joystick whose battery is empty"
    node.hear(True)
    node.hear(False)
    assert switch.problem(time.monotonic_ns()) is RELEASED and released == [True]


def test_a_person_who_steers_gets_the_nearest_action_of_the_support(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = config.load_robot("diff_drive").robot
    node = Teleoperation.__new__(Teleoperation)
    node.range = robot.action_high - robot.action_low
    node.wanted, node.wanted_at = np.array([0.6, 0.1]), time.monotonic()
    sets = type("Set", (), {})()
    sets.actions = np.array([[0.0, 0.0], [0.3, 0.0], [0.6, 0.0]], np.float32)
    sets.support = np.array([True, True, False])
    np.testing.assert_array_equal(node.nearest(sets), sets.actions[1])
    node.wanted_at -= 2 * OLDEST_S
    assert node.nearest(sets) is None, "nobody steers: no request, and the plan stops the robot"
    node.wanted = None
    assert node.nearest(sets) is None
