"""ros2 launch safe_support_ql validate.launch.py model:=policy.onnx: what a policy has to show before a robot obeys."""

from __future__ import annotations

from launch import LaunchDescription
from safe_support_ql import launching


def generate_launch_description() -> LaunchDescription:
    """The arguments, then `safe-support-ql validate`."""
    return launching.describe_command(launching.VALIDATE, launching.validate)
