"""Vectors survive the journey through a robot's own messages, and what does not fit is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.nodes import native
from safe_support_ql.robots.world import Channel, CommandTopic

ROBOT = config.load_robot("diff_drive").robot


@pytest.mark.parametrize("channel", ROBOT.channels, ids=lambda channel: channel.name)
def test_a_native_input_comes_back(channel: Channel, over_the_wire) -> None:
    codec = native.ChannelCodec(channel)
    vector = np.linspace(0.5, 2.0, channel.size)
    message = over_the_wire(codec.encode(vector, 12_345_678_901))
    np.testing.assert_allclose(codec.decode(message), vector, rtol=1e-6)  # a LaserScan holds float32
    assert native.nanoseconds(message.header.stamp) == 12_345_678_901


def test_an_input_of_another_robot_is_refused_by_name(over_the_wire) -> None:
    codec = native.ChannelCodec(ROBOT.channels[1])
    message = over_the_wire(codec.encode(np.ones(ROBOT.channels[1].size), 0))
    message.header.frame_id = "map"
    with pytest.raises(ValueError, match=r"scan: header.frame_id is 'map', expected 'base_link'"):
        codec.decode(message)
    message.header.frame_id = "base_link"
    message.ranges = message.ranges[:-1]
    with pytest.raises(ValueError, match=r"scan: ranges has length 179, expected 180"):
        codec.decode(message)


@pytest.mark.parametrize("range_min", [0.55, 0.2201, -0.1, float("nan"), float("inf")])
def test_a_lidar_that_cannot_see_what_it_may_hit_is_refused_by_name(range_min: float, over_the_wire) -> None:
    """Between footprint and range_min a post reads as what stands behind it, or as nothing."""
    codec = native.ChannelCodec(ROBOT.channels[1])
    message = codec.encode(np.ones(ROBOT.channels[1].size), 0)
    message.range_min = 0.22  # as 32 bits it is a little more
    codec.decode(over_the_wire(message))
    message.range_min = range_min
    with pytest.raises(ValueError, match=r"scan: range_min is \S+, must lie in \[0, 0.22\]: footprint"):
        codec.decode(over_the_wire(message))


def test_joint_names_and_arrays_of_any_topic(over_the_wire) -> None:
    channel = Channel(
        "joint_states",
        "sensor_msgs/msg/JointState",
        ("position[]", "velocity[]"),
        length=2,
        constants={"name": ["a", "b"]},
    )
    codec = native.ChannelCodec(channel)
    message = over_the_wire(codec.encode(np.array([1.0, 2.0, 3.0, 4.0]), 0))
    np.testing.assert_array_equal(codec.decode(message), [1.0, 2.0, 3.0, 4.0])
    message.position, message.velocity = [1.0], [2.0, 3.0, 4.0]  # the right number of numbers in all
    with pytest.raises(ValueError, match="joint_states: position has length 1, expected 2"):
        codec.decode(message)
    message.position, message.velocity = [1.0, 2.0], []
    with pytest.raises(ValueError, match="joint_states: velocity has length 0, expected 2"):
        codec.decode(message)
    message.name = ["b", "a"]
    with pytest.raises(ValueError, match="joint_states: name"):
        codec.decode(message)
    with pytest.raises(ValueError, match="nothing"):
        native.ChannelCodec(Channel("x", "sensor_msgs/msg/JointState", ("nothing",)))
    with pytest.raises(ValueError, match="'no_msgs/msg/None' is not installed"):
        native.ChannelCodec(Channel("x", "no_msgs/msg/None", ()))


@pytest.mark.parametrize("stamped", [True, False])
def test_a_command_comes_back_with_and_without_a_header(stamped: bool, over_the_wire) -> None:
    codec = native.CommandCodec(ROBOT.command, stamped)
    message = over_the_wire(codec.encode(np.array([0.3, -1.2], np.float32), 2_000_000_003))
    np.testing.assert_array_equal(codec.decode(message), np.array([0.3, -1.2], np.float32).astype(float))
    assert hasattr(message, "header") == stamped


def test_an_array_command_comes_back(over_the_wire) -> None:
    codec = native.CommandCodec(CommandTopic("effort", "std_msgs/msg/Float64MultiArray", ("data[]",)), True)
    message = over_the_wire(codec.encode(np.array([0.1, 0.2, 0.3], np.float32), 0))
    np.testing.assert_array_equal(codec.decode(message), np.array([0.1, 0.2, 0.3], np.float32).astype(float))


@pytest.mark.parametrize("radius", [0.12, 0.18, 0.23, 0.28])
def test_a_range_min_at_the_limit_is_accepted_as_32_bits(radius: float, over_the_wire) -> None:
    robot = config.load_robot("diff_drive", {"parameters.footprint_radius": radius}).robot
    codec = native.ChannelCodec(robot.channels[1])
    message = codec.encode(np.ones(robot.channels[1].size), 0)
    message.range_min = radius + 0.05
    codec.decode(over_the_wire(message))
