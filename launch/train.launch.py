"""ros2 launch safe_support_ql train.launch.py: the graph of bringup.py as lifecycle nodes, driven by the conductor.

The conductor's exit ends the launch, and so does the monitor's or any other node's but the learner's, which is started
again. Nothing here orders or times anything: the conductor activates a node when the one before has answered.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    UnsetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from safe_support_ql import bringup, config
from safe_support_ql.recording.summary import Progress

ARGUMENTS = {
    "robot": ("diff_drive", "a robot of this package: diff_drive, cart_pole"),
    "actions": ("discrete", "discrete or continuous"),
    "seed": ("0", "seed of arenas, draws and networks"),
    "ticks": ("", "control ticks to collect; empty: as the configuration says"),
    "evaluation_episodes": ("", "held-out arenas per policy; empty: as the configuration says"),
    "device": ("", "where the learner computes: auto, cpu, cuda; empty: as the configuration says"),
    "config": ("", "a configuration (YAML) instead of the robot's own"),
    "runs_dir": ("runs", "where the folder of the run is made"),
    "resume": ("", "folder of a run to go on with; all but ticks and evaluation_episodes is as it was"),
    "namespace": ("", "namespace of all nodes and topics, for several robots"),
}
SETTINGS = {"ticks": "run.ticks", "evaluation_episodes": "run.evaluation_episodes", "device": "learner.device"}


def graph(run: bringup.Run, progress: Progress, namespace: str) -> list[Any]:
    """The nodes of `run` and the conductor; simulate.launch.py takes it from here."""
    domain, lock = (None, None) if "ROS_DOMAIN_ID" in os.environ else bringup.claim_domain()
    graph.lock = lock  # type: ignore[attr-defined]  # held for as long as this process lives
    wanted, unwanted = bringup.ros_environment(os.environ, domain)
    actions: list[Any] = [UnsetEnvironmentVariable(name) for name in unwanted]
    actions += [SetEnvironmentVariable(name, value) for name, value in wanted.items()]
    domain_text = wanted.get("ROS_DOMAIN_ID", os.environ.get("ROS_DOMAIN_ID", ""))
    actions.append(LogInfo(msg=f"run {run.folder}; from another terminal: export ROS_DOMAIN_ID={domain_text}"))
    for name in run.nodes:
        restarts = bringup.SPECS[name].restarts
        node = LifecycleNode(
            package=bringup.PACKAGE,
            executable=name,
            name=name,
            namespace=namespace,
            parameters=[bringup.parameters(name, run, progress)],
            additional_env=bringup.node_environment(name),
            output="both",
            respawn=restarts,
            respawn_delay=1.0,
        )
        actions.append(node)
        if not restarts:
            actions.append(_end_with(node, f"{name} ended"))
    conductor = Node(
        package=bringup.PACKAGE,
        executable="conductor",
        name="conductor",
        namespace=namespace,
        parameters=[{"run_dir": str(run.folder)}],
        output="screen",
        emulate_tty=False,
        sigterm_timeout="60",  # it stops the nodes in order first
    )
    return [*actions, conductor, _end_with(conductor, "the run is over")]


def _end_with(node: Any, reason: str) -> RegisterEventHandler:
    def end(event: Any, context: LaunchContext) -> list[Any]:
        return [] if context.is_shutdown else [EmitEvent(event=Shutdown(reason=reason))]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end))


def start(context: LaunchContext) -> list[Any]:
    """Prepare the run's folder. Raises RuntimeError with one line where the input is bad."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    try:
        changes = {key: _number(given[name]) for name, key in SETTINGS.items() if given[name]}
        if given["resume"]:
            run, settings, progress = bringup.open_run(Path(given["resume"]))
            bringup.save_run(run, config.load(run.config_file, changes))
            return graph(run, progress, given["namespace"])
        if given["actions"] not in ("discrete", "continuous"):
            raise ValueError(f"actions is '{given['actions']}', must be discrete or continuous")
        path = Path(given["config"]) if given["config"] else config.default_path(given["robot"])
        settings = config.load(path, changes) if given["config"] else config.load_robot(given["robot"], changes)
        run = bringup.create_run(
            Path(given["runs_dir"]), settings, seed=int(given["seed"]), continuous=given["actions"] == "continuous"
        )
        return graph(run, Progress(), given["namespace"])
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def generate_launch_description() -> LaunchDescription:
    """Arguments, then everything else when they are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
