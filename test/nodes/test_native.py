"""Vectors survive the journey through a robot's own messages, and what does not fit is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sensor_msgs.msg import JointState, LaserScan

from safe_support_ql import config
from safe_support_ql.nodes import native
from safe_support_ql.robots.scan import FIELDS, HEADER, Scan
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


JOINTS = Channel("joint_states", "sensor_msgs/msg/JointState", ("position[]", "velocity[]"), joints=("cart", "pole"))
nan = float("nan")


@pytest.mark.parametrize(
    ("names", "position", "velocity"),
    [
        (["cart", "pole"], [1.0, 2.0], [3.0, 4.0]),
        (["pole", "cart"], [2.0, 1.0], [4.0, 3.0]),
        (["wheel", "pole", "gripper", "cart"], [nan, 2.0, nan, 1.0], [nan, 4.0, nan, 3.0]),
        (["pole", "cart", "gripper"], [2.0, 1.0, 0.0], [4.0, 3.0]),  # what is shorter lacks none of ours
    ],
)
def test_joints_are_found_by_name(
    names: list[str], position: list[float], velocity: list[float], over_the_wire
) -> None:
    codec = native.ChannelCodec(JOINTS)
    for _ in range(2):
        message = over_the_wire(JointState(name=names, position=position, velocity=velocity))
        np.testing.assert_array_equal(codec.decode(message), [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("names", "position", "velocity", "why"),
    [
        (["cart", "gripper"], [1.0, 2.0], [3.0, 4.0], "joint 'pole' is missing, it holds cart, gripper"),
        ([], [], [], "joint 'cart' is missing, it holds none"),
        (["cart", "pole", "pole"], [1.0] * 3, [1.0] * 3, "joint 'pole' is named 2 times"),
        (["cart", "pole"], [1.0, nan], [3.0, 4.0], "holds a NaN or infinity: position of joint 'pole' is nan"),
        (["cart", "pole"], [1.0, 2.0], [], "velocity has length 0, but name has 2"),
        (["cart", "pole"], [1.0], [2.0, 3.0, 4.0], "position has length 1, but name has 2"),
        (["cart", "pole"], [1.0, 2.0], [2.0, 3.0, 4.0], "velocity has length 3, but name has 2"),
    ],
)
def test_what_concerns_a_joint_of_ours_is_refused_by_name(
    names: list[str], position: list[float], velocity: list[float], why: str, over_the_wire
) -> None:
    codec = native.ChannelCodec(JOINTS)
    codec.decode(JointState(name=["cart", "pole"], position=[0.0] * 2, velocity=[0.0] * 2))
    with pytest.raises(ValueError, match=f"^joint_states: {why}$"):
        codec.decode(over_the_wire(JointState(name=names, position=position, velocity=velocity)))


def test_a_channel_that_no_message_can_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        native.ChannelCodec(Channel("x", "sensor_msgs/msg/JointState", ("nothing",)))
    with pytest.raises(ValueError, match="'no_msgs/msg/None' is not installed"):
        native.ChannelCodec(Channel("x", "no_msgs/msg/None", ()))
    with pytest.raises(ValueError, match="every field must be an array"):
        native.ChannelCodec(Channel("x", "sensor_msgs/msg/JointState", ("header.stamp.sec",), joints=("cart",)))


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


# As echoed from an LDS-01 and an RPLidar A1; the values are those of 32 bit floats.
LDS_01 = Scan(0.0, 6.26573181152, 0.0174532923847, 2.98699997074e-05, 0.0, 0.119999997318, 3.5, np.zeros(360))
A1 = Scan(
    -3.1241390705108643, 3.1415927410125732, 0.01745329238474369, 0.0004118878860026598, 0.14786775410175323,
    0.15000000596046448, 12.0, np.full(360, np.inf),
)  # fmt: skip


@pytest.mark.parametrize("scan", [LDS_01, A1], ids=["LDS-01", "A1"])
def test_a_scan_of_a_real_driver_arrives_as_it_is(scan: Scan, over_the_wire) -> None:
    channel = Channel("scan", "sensor_msgs/msg/LaserScan", FIELDS, finite=False)
    sent = replace(scan, ranges=np.where(np.arange(360) % 7, np.linspace(0.2, 3.4, 360), scan.ranges))
    arrived = Scan.of(native.ChannelCodec(channel).decode(over_the_wire(driver_message(sent, "laser"))))
    for name in HEADER:
        assert getattr(arrived, name) == pytest.approx(getattr(sent, name), rel=1e-6)
    np.testing.assert_allclose(arrived.ranges, sent.ranges, rtol=1e-6)
    np.testing.assert_allclose(arrived.angles, sent.angles, atol=1e-4)


def driver_message(scan: Scan, frame: str) -> LaserScan:
    """What a driver publishes: also the intensities that nobody asked for."""
    message = LaserScan(**{name: getattr(scan, name) for name in HEADER})
    message.header.frame_id = frame
    message.ranges = scan.ranges.astype(np.float32).tolist()
    message.intensities = [47.0] * len(scan.ranges)
    return message


def test_scans_of_any_number_of_rays_come_back_one_after_the_other(over_the_wire) -> None:
    """The encoder reuses its message: a long scan leaves nothing behind in a short one."""
    codec = native.ChannelCodec(Channel("scan", "sensor_msgs/msg/LaserScan", FIELDS, finite=False))
    for rays in (180, 1440, 1, 0, 397):
        vector = Scan(-1.0, 1.0, 0.01, 1e-4, 0.1, 0.1, 8.0, np.where(np.arange(rays) % 3, 2.5, np.inf)).vector()
        np.testing.assert_allclose(codec.decode(over_the_wire(codec.encode(vector, 1))), vector, rtol=1e-6)


def test_a_scan_in_another_frame_is_refused(over_the_wire) -> None:
    channel = Channel("scan", "sensor_msgs/msg/LaserScan", FIELDS, constants={"header.frame_id": "base_scan"})
    codec = native.ChannelCodec(channel)
    codec.decode(over_the_wire(driver_message(LDS_01, "base_scan")))
    assert over_the_wire(codec.encode(LDS_01.vector(), 1)).header.frame_id == "base_scan"
    with pytest.raises(ValueError, match="scan: header.frame_id is 'laser', expected 'base_scan'"):
        codec.decode(over_the_wire(driver_message(LDS_01, "laser")))
