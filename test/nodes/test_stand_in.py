"""The stand-in for hardware, in this process: it is no second robot, obeys only commands, and judges by its truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import LaserScan

from safe_support_ql import config
from safe_support_ql.nodes.stand_in import StandIn
from safe_support_ql.simulation.drivers import DRIVERS


@pytest.fixture
def ros(ros_domain) -> Iterator[None]:  # type: ignore[no-untyped-def]
    rclpy.init()
    yield
    rclpy.shutdown()


def test_where_a_robot_is_it_is_no_second_one(ros: None) -> None:
    node = StandIn(config.load_robot("diff_drive").robot, 3, {}, True)
    assert not node.others()
    robot = rclpy.create_node("robot")
    robot.create_publisher(Odometry, "odom", 10)
    assert node.others() == ["odom"]
    robot.destroy_node()
    node.destroy_node()


@pytest.mark.parametrize("stamped", [True, False])
def test_it_drives_as_commanded_and_its_timeout_stops_it(stamped: bool, ros: None) -> None:
    node = StandIn(config.load_robot("diff_drive").robot, 3, {"lag": 0.1}, stamped)
    person = rclpy.create_node("person")
    output = person.create_publisher(TwistStamped if stamped else Twist, "cmd_vel", 1)
    heard: list[Odometry] = []
    person.create_subscription(Odometry, "odom", heard.append, qos_profile_sensor_data)
    node.start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(person)

    def until(condition: Callable[[], bool], command: float | None) -> None:
        end = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < end
            if command is not None:
                message = TwistStamped() if stamped else Twist()
                (message.twist if stamped else message).linear.x = command
                output.publish(message)
            executor.spin_once(timeout_sec=0.05)

    until(lambda: bool(heard) and heard[-1].twist.twist.linear.x > 0.1, 0.2)
    assert heard[-1].child_frame_id == "base_link" and heard[-1].header.stamp.sec > 1_700_000_000
    until(lambda: abs(heard[-1].twist.twist.linear.x) < 0.01, None)
    summary = node.summary()
    assert summary["unsafe_visits"] == 0 and summary["refused_commands"] == 0 and summary["seconds"] > 0.5
    executor.shutdown()
    person.destroy_node()
    node.destroy_node()


def test_with_a_driver_it_publishes_as_that_does(ros: None) -> None:
    """Quality of service, frames, and a twist that is none of the physics but the mean since the message before."""
    name = "turtlebot3_burger"
    node = StandIn(config.load(config.profile(name)).robot, 3, {}, True, DRIVERS[name])
    person = rclpy.create_node("person")
    odometry: list[Odometry] = []
    scans: list[LaserScan] = []
    person.create_subscription(Odometry, "odom", odometry.append, QoSProfile(depth=10))  # RELIABLE
    person.create_subscription(LaserScan, "scan", scans.append, qos_profile_sensor_data)
    node.start()
    executor = SingleThreadedExecutor()
    for one in (node, person):
        executor.add_node(one)
    end = time.monotonic() + 30.0
    while len(odometry) < 3 or len(scans) < 2:
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.05)
    assert odometry[0].child_frame_id == "base_footprint" and scans[0].header.frame_id == "base_scan"
    assert len(scans[0].ranges) == 360 and scans[0].angle_min == 0.0 and 0.0 in scans[0].ranges
    (info,) = person.get_publishers_info_by_topic("scan")
    assert info.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    stamps = [message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec for message in odometry]
    assert stamps[1] - stamps[0] == pytest.approx(0.05, abs=0.005)
    executor.shutdown()
    person.destroy_node()
    node.destroy_node()
