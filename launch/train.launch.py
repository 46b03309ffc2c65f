"""ros2 launch safe_support_ql train.launch.py: collect, extract and evaluate, with all nodes behind the gate."""

from __future__ import annotations

from launch import LaunchDescription
from safe_support_ql import launching


def generate_launch_description() -> LaunchDescription:
    """The arguments, then the graph of a new or resumed run."""
    return launching.describe(launching.TRAIN, launching.train)
