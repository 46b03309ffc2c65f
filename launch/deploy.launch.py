"""ros2 launch safe_support_ql deploy.launch.py model:=policy.onnx: a validated policy drives a robot."""

from __future__ import annotations

from launch import LaunchDescription
from safe_support_ql import launching


def generate_launch_description() -> LaunchDescription:
    """The arguments, then the graph of a new run."""
    return launching.describe(launching.DEPLOY, launching.deploy)
