"""ros2 launch safe_support_ql simulate.launch.py: one policy drives in real time, behind the same gate."""

from __future__ import annotations

from launch import LaunchDescription
from safe_support_ql import launching


def generate_launch_description() -> LaunchDescription:
    """The arguments, then the graph of a new run."""
    return launching.describe(launching.SIMULATE, launching.simulate)
