"""Frames of tf2. It is not on PyPI, so a module with its names stands in for it, and /tf has no type of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import LaserScan

from safe_support_ql.nodes.frames import Frames, Transforms


class Unknown(Exception):
    """As tf2's LookupException."""


class Buffer:
    """Knows where `map` is, a metre to the left, and refuses what is not the newest transform."""

    def transform(self, pose: Any, wanted: str) -> Any:
        if (pose.header.frame_id, wanted) != ("map", "odom"):
            raise Unknown(f'"{pose.header.frame_id}" passed to lookupTransform argument source_frame does not exist.')
        assert pose.header.stamp.sec == 0
        pose.header.frame_id, pose.pose.position.y = wanted, pose.pose.position.y + 1.0
        return pose


@dataclass
class Transformed:
    transforms: list[Any] = field(default_factory=list)


@pytest.fixture
def node(ros_domain) -> Iterator[Node]:  # type: ignore[no-untyped-def]
    rclpy.init()
    made = rclpy.create_node("frames")
    yield made
    made.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def tf2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (
        ("tf2_ros", {"Buffer": Buffer, "TransformListener": SimpleNamespace, "TransformException": Unknown}),
        ("tf2_geometry_msgs", {}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("safe_support_ql.nodes.frames.importlib.import_module", lambda name: sys.modules[name])
    monkeypatch.setattr(sys.modules["tf2_ros"], "TransformListener", lambda buffer, node: None)


def goal(frame: str) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id, message.header.stamp.sec = frame, 1_800_000_000
    message.pose.position.x = 2.0
    return message


def test_a_goal_in_the_map_is_brought_to_the_odometry_with_its_stamp(node: Node, tf2: None) -> None:
    clicked = goal("map")
    brought = Frames(node).brought(clicked, "odom")
    assert (brought.header.frame_id, brought.header.stamp.sec) == ("odom", 1_800_000_000)
    assert (brought.pose.position.x, brought.pose.position.y) == (2.0, 1.0)
    assert clicked.pose.position.y == 0.0, "others hold this message, too"


def test_a_frame_that_nobody_knows_is_named_with_the_remedy(node: Node, tf2: None) -> None:
    with pytest.raises(ValueError, match="a goal in 'world' cannot be brought to 'odom': .*start what localizes"):
        Frames(node).brought(goal("world"), "odom")


def test_without_tf2_only_the_right_frame_is_taken(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)  # also on a machine that has it
    frames = Frames(node)
    assert frames.brought(goal("odom"), "odom") == goal("odom")
    with pytest.raises(ValueError, match="a goal in 'map' cannot be brought to 'odom' without tf2; install ros-jazzy"):
        frames.brought(goal("map"), "odom")


def test_a_simulated_base_publishes_where_it_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setitem(sys.modules, "tf2_msgs", ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", ModuleType("tf2_msgs.msg"))
    monkeypatch.setattr(sys.modules["tf2_msgs.msg"], "TFMessage", Transformed, raising=False)
    monkeypatch.setattr(node, "create_publisher", lambda kind, topic, qos: SimpleNamespace(publish=said.append))
    transforms, odometry = Transforms(node), Odometry(child_frame_id="base_footprint")
    odometry.header.frame_id, odometry.header.stamp.sec = "odom", 7
    odometry.pose.pose.position.x, odometry.pose.pose.orientation.z = 1.5, 1.0
    transforms.follow(LaserScan())
    transforms.follow(odometry)
    ((made,),) = [message.transforms for message in said]
    assert (made.header.frame_id, made.child_frame_id, made.header.stamp.sec) == ("odom", "base_footprint", 7)
    assert (made.transform.translation.x, made.transform.rotation.z) == (1.5, 1.0)


def test_without_its_type_nothing_is_published(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    Transforms(node).follow(Odometry())
    assert not node.count_publishers("/tf")
