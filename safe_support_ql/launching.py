"""What the launch files share: their arguments (another one goes here), and the graph of bringup.py as launch actions.

The launch ends when the conductor or any node ends, except the learner, which is started again. The order of the nodes
is not defined here: the conductor activates a node when the previous one has answered.

`launch` comes with a ROS installation and not from PyPI, so it is imported only where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from safe_support_ql import DEFAULT_ROBOT, bringup, config, robots
from safe_support_ql.bringup import Run
from safe_support_ql.config import Config
from safe_support_ql.deployment.contract import PolicyContract
from safe_support_ql.deployment.manifest import load_manifest
from safe_support_ql.recording.summary import Progress


@dataclass(frozen=True)
class Argument:
    """One argument of a launch file. Its value is text, and one of `choices` if there are any."""

    name: str
    default: str
    doc: str
    choices: tuple[str, ...] = ()


COMMON = (
    Argument("robot", DEFAULT_ROBOT, "a robot of this package, or an installed one", tuple(robots.names())),
    Argument("actions", "discrete", "the action space", ("discrete", "continuous")),
    Argument("seed", "0", "seed of arenas, draws and networks"),
    Argument("config", "", "a configuration (YAML) instead of the robot's own"),
    Argument("runs_dir", "runs", "parent folder of new runs"),
    Argument("namespace", "", "namespace of all nodes and topics, for several robots"),
)
TRAIN = (
    *COMMON,
    Argument("ticks", "", "control ticks to collect; empty: as in the configuration"),
    Argument("evaluation_episodes", "", "held-out arenas per policy; empty: as in the configuration"),
    Argument("device", "", "where the learner computes; empty: as in the configuration", ("", "auto", "cpu", "cuda")),
    Argument(
        "resume", "", "folder of a run to continue; only ticks, evaluation_episodes and device can then be changed"
    ),
)
SIMULATE = (
    *COMMON,
    Argument("policy", "behavior", "behavior, none (the backup plan only), or the path of a policy.onnx"),
    Argument("episodes", "0", "stop after this many episodes; 0: run until Ctrl-C"),
    Argument("gui", "false", "open PyBullet's window", ("true", "false")),
)
SETTINGS = {"ticks": "run.ticks", "evaluation_episodes": "run.evaluation_episodes", "device": "learner.device"}

_locks: list[filelock.BaseFileLock] = []  # locks of ROS domains, kept as long as this process lives


def train(given: Mapping[str, str]) -> tuple[Run, Progress]:
    """The new or resumed run for the values of TRAIN, with its folder prepared. Raises ValueError."""
    changes = {key: _number(given[name]) for name, key in SETTINGS.items() if given[name]}
    if given["resume"]:
        run, _, progress = bringup.open_run(Path(given["resume"]))
        bringup.save_run(run, config.load(run.config_file, changes))
        return run, progress
    return _create(given, _settings(given, changes)), Progress()


def simulate(given: Mapping[str, str]) -> tuple[Run, Progress]:
    """A new run of one policy in real time for the values of SIMULATE, with its folder prepared. Raises ValueError."""
    settings, policy = _settings(given), given["policy"]
    if policy not in ("behavior", "none"):
        continuous = given["actions"] == "continuous"
        load_manifest(Path(policy), PolicyContract.of(settings.robot, continuous, settings.safety_hash))
        policy = str(Path(policy).resolve())
    episodes, gui = int(given["episodes"]), given["gui"] == "true"
    run = _create(given, settings, kind="simulate", clock="realtime", policy=policy, episodes=episodes, gui=gui)
    return run, Progress()


def _settings(given: Mapping[str, str], changes: Mapping[str, Any] | None = None) -> Config:
    if given["config"]:
        return config.load(Path(given["config"]), changes)
    return config.load_robot(given["robot"], changes)


def _create(given: Mapping[str, str], settings: Config, **choices: Any) -> Run:
    seed, continuous = int(given["seed"]), given["actions"] == "continuous"
    return bringup.create_run(Path(given["runs_dir"]), settings, seed=seed, continuous=continuous, **choices)


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def describe(arguments: Iterable[Argument], prepare: Callable[[Mapping[str, str]], tuple[Run, Progress]]) -> Any:
    """The LaunchDescription: `arguments`, then the graph of the run that `prepare` creates from their values.

    If `prepare` refuses the input, the launch ends with a RuntimeError of one line.
    """
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_description import LaunchDescription
    from launch.substitutions import LaunchConfiguration

    arguments = tuple(arguments)

    def start(context: Any) -> list[Any]:
        given = {item.name: LaunchConfiguration(item.name).perform(context) for item in arguments}
        try:
            return _graph(*prepare(given), given["namespace"])
        except ValueError as error:
            raise RuntimeError(str(error)) from None

    declared = [
        DeclareLaunchArgument(
            item.name, default_value=item.default, description=item.doc, choices=list(item.choices) or None
        )
        for item in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _graph(run: Run, progress: Progress, namespace: str) -> list[Any]:
    """Launch actions for the nodes of `run` and the conductor."""
    from launch.actions import LogInfo, SetEnvironmentVariable, UnsetEnvironmentVariable
    from launch_ros.actions import LifecycleNode, Node

    domain = None
    if "ROS_DOMAIN_ID" not in os.environ:
        domain, lock = bringup.claim_domain()
        _locks.append(lock)
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
        sigterm_timeout="60",  # it first stops the nodes in order
    )
    return [*actions, conductor, _end_with(conductor, "the run is over")]


def _end_with(node: Any, reason: str) -> Any:
    """An action that ends the launch when `node` ends."""
    from launch.actions import EmitEvent, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown

    def end(event: Any, context: Any) -> list[Any]:
        return [] if context.is_shutdown else [EmitEvent(event=Shutdown(reason=reason))]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end))
