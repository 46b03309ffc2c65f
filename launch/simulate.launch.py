"""ros2 launch safe_support_ql simulate.launch.py: one policy drives in real time, behind the same gate."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription
from safe_support_ql import bringup, config
from safe_support_ql.deployment.manifest import load_manifest
from safe_support_ql.recording.summary import Progress

ARGUMENTS = {
    "robot": ("diff_drive", "a robot of this package: diff_drive, cart_pole"),
    "policy": ("behavior", "behavior, none (the backup plan only), or the path of a policy.onnx"),
    "episodes": ("0", "stop after this many; 0: until Ctrl-C"),
    "actions": ("discrete", "discrete or continuous"),
    "seed": ("0", "seed of arenas and draws"),
    "config": ("", "a configuration (YAML) instead of the robot's own"),
    "runs_dir": ("runs", "where the folder of the run is made"),
    "gui": ("false", "PyBullet's window: true or false"),
    "namespace": ("", "namespace of all nodes and topics, for several robots"),
}


def start(context: LaunchContext) -> list[Any]:
    """Prepare the run's folder. Raises RuntimeError with one line where the input is bad."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    graph = runpy.run_path(str(Path(__file__).with_name("train.launch.py")))["graph"]
    try:
        if given["actions"] not in ("discrete", "continuous"):
            raise ValueError(f"actions is '{given['actions']}', must be discrete or continuous")
        settings = config.load(Path(given["config"])) if given["config"] else config.load_robot(given["robot"])
        policy = given["policy"]
        if policy not in ("behavior", "none"):
            load_manifest(Path(policy), robot=settings.robot.name, safety_hash=settings.safety_hash)
            policy = str(Path(policy).resolve())
        run = bringup.create_run(
            Path(given["runs_dir"]), settings, kind="simulate", clock="realtime", policy=policy,
            episodes=int(given["episodes"]), gui=given["gui"] == "true", seed=int(given["seed"]),
            continuous=given["actions"] == "continuous",
        )  # fmt: skip
        actions: list[Any] = graph(run, Progress(), given["namespace"])
        return actions
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def generate_launch_description() -> LaunchDescription:
    """Arguments, then everything else when they are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
