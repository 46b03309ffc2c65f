"""Frames of tf2, where a ROS installation has it. PyPI does not, so nothing else depends on this."""

from __future__ import annotations

import copy
import importlib
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node

MISSING = "install ros-jazzy-tf2-ros-py and ros-jazzy-tf2-geometry-msgs beside this package"


class Frames:
    """Brings a goal that somebody clicked in `map` to the frame that the robot is driven in."""

    def __init__(self, node: Node) -> None:
        self._tf2: Any = None
        try:
            tf2 = importlib.import_module("tf2_ros")
            importlib.import_module("tf2_geometry_msgs")  # tells the buffer how to transform a pose
        except ImportError:
            return
        self._tf2, self._buffer = tf2, tf2.Buffer()
        self._listener = tf2.TransformListener(self._buffer, node)

    def brought(self, message: Any, wanted: str) -> Any:
        """A stamped `message` in the frame `wanted`, by the newest transform.

        Once: a map that is corrected later does not move the goal. Raises ValueError with the remedy where no transform
        is known.
        """
        given = message.header.frame_id
        if given == wanted:
            return message
        if self._tf2 is None:
            raise ValueError(f"a goal in '{given}' cannot be brought to '{wanted}' without tf2; {MISSING}")
        moved = copy.deepcopy(message)
        moved.header.stamp = Time()  # the newest: the map may be some tenths of a second behind
        try:
            moved = self._buffer.transform(moved, wanted)
        except self._tf2.TransformException as error:
            remedy = "start what localizes the robot, or send goals in that frame"
            raise ValueError(f"a goal in '{given}' cannot be brought to '{wanted}': {error}; {remedy}") from None
        moved.header.stamp = message.header.stamp
        return moved


class Transforms:
    """Publishes /tf for a simulated base, from its odometry, as a driver does."""

    def __init__(self, node: Node) -> None:
        self._publisher: Any = None
        try:
            self._type: Any = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            return
        self._publisher = node.create_publisher(self._type, "/tf", 100)

    def follow(self, message: Any) -> None:
        """Any message; those that are no odometry say nothing about frames."""
        if self._publisher is None or not isinstance(message, Odometry):
            return
        made = TransformStamped(header=message.header, child_frame_id=message.child_frame_id)
        position, made.transform.rotation = message.pose.pose.position, message.pose.pose.orientation
        made.transform.translation.x, made.transform.translation.y = position.x, position.y
        self._publisher.publish(self._type(transforms=[made]))
