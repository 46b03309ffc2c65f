"""The doctor beside a stand-in, in this process: a robot that is well, and what is wrong with others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from safe_support_ql import config
from safe_support_ql.nodes.doctor import OK, WARN, WRONG, Doctor, Finding
from safe_support_ql.nodes.stand_in import StandIn
from safe_support_ql.simulation.drivers import DRIVERS


@pytest.fixture
def ros(ros_domain) -> Iterator[None]:  # type: ignore[no-untyped-def]
    rclpy.init()
    yield
    rclpy.shutdown()


def examined(
    folder: Path, robot: Node | None, stamped_cmd: bool = True, profile: str | None = None, **changes: Any
) -> list[Finding]:
    """What a doctor with these settings, or with this profile, finds beside `robot`."""
    settings = config.load_robot("diff_drive", {name.replace("__", "."): value for name, value in changes.items()})
    if profile is not None:
        settings = config.load(config.profile(profile))
    doctor, executor = Doctor(settings, stamped_cmd, folder), SingleThreadedExecutor()
    for node in filter(None, (doctor, robot)):
        executor.add_node(node)
    end = time.monotonic() + 30.0
    while robot is not None and any(
        len(doctor.heard[name].arrived) < 12 for name in ("odom", "scan")
    ):  # until enough was heard
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.05)
    found = doctor.findings()
    executor.shutdown()
    doctor.destroy_node()
    return found


def named(found: list[Finding], text: str) -> Finding:
    (finding,) = [one for one in found if text in one.what]
    return finding


@pytest.fixture
def robot(ros: None) -> Iterator[StandIn]:
    node = StandIn(config.load_robot("diff_drive").robot, 3, {}, True)
    node.start()
    yield node
    node.destroy_node()


def test_a_robot_that_is_well_only_lacks_a_goal(robot: StandIn, tmp_path: Path) -> None:
    found = examined(tmp_path, robot)
    assert named(found, "goal_pose").level == WARN and "run.goals" in named(found, "goal_pose").remedy
    assert named(found, "a drive listens").level == OK and named(found, "GB are free").level in (OK, WARN)
    assert not [one for one in found if one.level == WRONG and "old before the next one" not in one.what], found


@pytest.mark.parametrize("name", DRIVERS)
def test_a_profile_fits_its_own_base_and_what_another_lacks_is_named(name: str, ros: None, tmp_path: Path) -> None:
    robot = StandIn(config.load(config.profile(name)).robot, 3, {}, True, DRIVERS[name])
    robot.start()
    for profile in DRIVERS:
        found = examined(tmp_path, robot, profile=profile)
        wrong = [one.what for one in found if one.level == WRONG and "old before the next one" not in one.what]
        if profile == name:
            assert not wrong and named(found, "the state is complete").level == OK
        else:
            assert any("header.frame_id is" in text and "set frame of lidar 'scan'" in text for text in wrong)
            assert any("child_frame_id is" in text and "set base_frame" in text for text in wrong)
    robot.destroy_node()


def test_what_does_not_fit_is_named_with_its_setting(robot: StandIn, tmp_path: Path) -> None:
    found = examined(tmp_path, robot, stamped_cmd=False, parameters__base_frame="base_footprint")
    assert "set base_frame in the robot's configuration" in named(found, "messages are refused").what
    assert "set stamped_cmd: true" in named(found, "the monitor publishes geometry_msgs/msg/Twist").remedy
    assert named(found, "no state without odom").level == WRONG


@pytest.mark.parametrize("since_ns", [0, 5_000_000_000])
def test_a_stamp_of_no_clock_or_of_another_is_named_and_no_age_setting(
    since_ns: int, robot: StandIn, tmp_path: Path
) -> None:
    """Drivers that leave the stamp empty, or count from their own start."""
    robot.pace.start(since_ns)
    finding = named(examined(tmp_path, robot), "odom: stamped 1")
    assert finding.level == WRONG and "not since its own start" in finding.remedy


def test_goals_of_the_configuration_need_nobody_who_publishes_one(robot: StandIn, tmp_path: Path) -> None:
    found = examined(tmp_path, robot, run__goals=[[1.0, 2.0]])
    assert named(found, "goal_pose: 1 in run.goals").level == OK


def test_two_drivers_and_a_second_commander_are_named(robot: StandIn, tmp_path: Path) -> None:
    other = rclpy.create_node("second_driver")
    other.create_publisher(Odometry, "odom", 10)
    other.create_publisher(robot.commands.type, "cmd_vel", 10)
    found = examined(tmp_path, robot)
    assert named(found, "/second_driver and /stand_in both publish it").level == WRONG
    assert named(found, "cmd_vel: /second_driver publishes it").level == WRONG
    other.destroy_node()


def test_without_a_robot_every_topic_says_what_to_start(ros: None, tmp_path: Path) -> None:
    found = examined(tmp_path, None)
    for topic in ("odom", "scan"):
        assert named(found, f"{topic}: nobody publishes it").remedy.startswith("start the driver")
    assert named(found, "nobody listens on 'cmd_vel'").level == WRONG


def test_a_session_that_keeps_the_robot_from_driving_is_named(robot: StandIn, tmp_path: Path) -> None:
    """Its odometry begins at the place that the fence leaves out."""
    x, y = robot.sim.world.truth()[:2]
    fence = [[x + 3.0, y - 1.0], [x + 3.0, y + 1.0], [x + 1.0, y + 1.0], [x + 1.0, y - 1.0]]
    changes = {
        "session__geofence": fence, "session__dead_man": True, "session__battery": 0.2,
        "run__goals": [[x + 2.0, y], [x, y]],
    }  # fmt: skip
    found = examined(tmp_path, robot, **changes)
    stands = named(found, "nothing is certified there")
    assert stands.level == WRONG and "1.00 m outside session.geofence" in stands.what
    assert (
        named(found, "is never reached").what.startswith("goal [") and "0.22 m inside" in named(found, "never").remedy
    )
    assert "operator dead-man" in named(found, "session.dead_man waits").remedy
    assert named(found, "session.battery waits").level == WARN
