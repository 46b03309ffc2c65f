"""What the launch files share: their arguments (another one goes here), and the graph of bringup.py as launch actions.

The launch ends when the conductor or any node ends, except the learner, which is started again. The order of the nodes
is not defined here: the conductor activates a node when the previous one has answered.

`launch` comes with a ROS installation and not from PyPI, so it is imported only where it is used.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from safe_support_ql import DEFAULT_ROBOT, bringup, config, robots
from safe_support_ql.bringup import Run
from safe_support_ql.config import Config
from safe_support_ql.deployment.manifest import PolicyContract, load_manifest
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
    Argument("profile", "", "the shipped configuration of a base that can be bought", ("", *config.profiles())),
    Argument("runs_dir", "runs", "parent folder of new runs"),
    Argument("namespace", "", "namespace of all nodes and topics, for several robots"),
)
TRAIN = (
    *COMMON,
    Argument("ticks", "", "control ticks to collect; empty: as in the configuration"),
    Argument("evaluation_episodes", "", "held-out arenas per policy; empty: as in the configuration"),
    Argument("mode", "simulation", "hardware: the robot is there, and no simulator starts", ("simulation", "hardware")),
    Argument(
        "stamped_cmd", "true", "hardware: false where the drive takes a command without header", ("true", "false")
    ),
    Argument("teleop", "false", "hardware: a person steers in the place of the behavior policy", ("true", "false")),
    Argument(
        "remote_learner", "false", "hardware: another machine learns, see safe-support-ql learn", ("true", "false")
    ),
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
DEPLOY = (
    *COMMON,
    Argument("model", "", "a policy.onnx with a validation.json that passed, see safe-support-ql validate"),
    Argument("episodes", "0", "stop after this many episodes; 0: run until Ctrl-C"),
    Argument("shadow", "false", "the policy shows what it would do, the behavior policy drives", ("true", "false")),
    Argument("stamped_cmd", "true", "false where the drive takes a command without header", ("true", "false")),
)
VALIDATE = (
    *(item for item in COMMON if item.name in ("robot", "actions", "config", "profile")),
    Argument("model", "", "a policy.onnx; validation.json is written beside it"),
    Argument("workers", "2", "number of processes"),
)
SETTINGS = {"ticks": "run.ticks", "evaluation_episodes": "run.evaluation_episodes", "device": "learner.device"}

_locks: list[filelock.BaseFileLock] = []  # locks of ROS domains, kept as long as this process lives


def train(given: Mapping[str, str]) -> tuple[Run, Progress]:
    """The new or resumed run for the values of TRAIN, with its folder prepared. Raises ValueError."""
    texts = {key: given[name] for name, key in SETTINGS.items() if given[name]}
    changes = {key: int(text) if text.isdigit() else text for key, text in texts.items()}
    if given["resume"]:
        run, _, progress = bringup.open_run(Path(given["resume"]))
        kept = {item.name for item in TRAIN} - {"resume", "namespace", *SETTINGS}
        if said := [item.name for item in TRAIN if item.name in kept and given[item.name] != item.default]:
            raise ValueError(f"{', '.join(said)}: a resumed run keeps its own; leave it out, or start a new run")
        bringup.save_run(run, config.load(run.config_file, changes))
        return run, progress
    how = bringup.hardware(given["stamped_cmd"] == "true") if given["mode"] == "hardware" else {}
    if not how and given["stamped_cmd"] == "false":
        raise ValueError("stamped_cmd is for mode:=hardware; the simulator takes what the monitor sends")
    teleop = given["teleop"] == "true"
    if not how and teleop:
        raise ValueError("teleop is for mode:=hardware; a simulated robot waits for nobody")
    remote = given["remote_learner"] == "true"
    if not how and remote:
        raise ValueError("remote_learner is for mode:=hardware; a simulated run learns here")
    return _create(given, _settings(given, changes), teleop=teleop, remote_learner=remote, **how), Progress()


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


def deploy(given: Mapping[str, str]) -> tuple[Run, Progress]:
    """A new run of a validated policy on a robot for the values of DEPLOY, with its folder prepared.

    Raises ValueError where the policy or its report does not fit.
    """
    if not given["model"]:
        raise ValueError("model is empty, must be the path of a policy.onnx")
    model = Path(given["model"]).resolve()
    own, continuous = bringup.run_of(model)
    if own is not None and not given["config"] and not given["profile"]:
        given = {**given, "config": str(own)}
    if continuous is not None:
        given = {**given, "actions": "continuous" if continuous else "discrete"}
    settings, continuous = _settings(given), given["actions"] == "continuous"
    run = bringup.deploy_run(
        Path(given["runs_dir"]), settings, model, given["stamped_cmd"] == "true", episodes=int(given["episodes"]),
        continuous=continuous, seed=int(given["seed"]), shadow=given["shadow"] == "true",
    )  # fmt: skip
    return run, Progress()


def validate(given: Mapping[str, str]) -> list[str]:
    """The arguments of the command line that does the same for the values of VALIDATE. Raises ValueError."""
    if not given["model"]:
        raise ValueError("model is empty, must be the path of a policy.onnx")
    model = Path(given["model"]).resolve()
    if not model.exists():
        raise ValueError(f"{model}: no such policy; give the path of a policy.onnx")
    chosen = [part for name in ("config", "profile") if given[name] for part in (f"--{name}", given[name])]
    if bringup.run_of(model)[0] is None:  # else they are those of its run
        chosen += [] if chosen else ["--robot", given["robot"]]
        chosen += ["--actions", given["actions"]]
    return ["validate", str(model), *chosen, "--workers", given["workers"]]


def _settings(given: Mapping[str, str], changes: Mapping[str, Any] | None = None) -> Config:
    if given["profile"]:
        if given["config"]:
            raise ValueError("profile and config both name a configuration; give one")
        settings = config.load(config.profile(given["profile"]), changes)
    elif given["config"]:
        settings = config.load(Path(given["config"]), changes)
    else:
        return config.load_robot(given["robot"], changes)
    if given["robot"] not in (DEFAULT_ROBOT, settings.robot.name):
        raise ValueError(f"robot is '{given['robot']}', but this configuration is of '{settings.robot.name}'")
    return settings


def _create(given: Mapping[str, str], settings: Config, **choices: Any) -> Run:
    seed, continuous = int(given["seed"]), given["actions"] == "continuous"
    return bringup.create_run(Path(given["runs_dir"]), settings, seed=seed, continuous=continuous, **choices)


def describe(arguments: Iterable[Argument], prepare: Callable[[Mapping[str, str]], tuple[Run, Progress]]) -> Any:
    """The LaunchDescription: `arguments`, then the graph of the run that `prepare` creates from their values.

    If `prepare` refuses the input, the launch ends with a RuntimeError of one line.
    """
    return _described(tuple(arguments), lambda given: _graph(*prepare(given), given["namespace"]))


def describe_command(arguments: Iterable[Argument], command: Callable[[Mapping[str, str]], list[str]]) -> Any:
    """The LaunchDescription of one command of the command line, which `command` makes from the arguments' values."""

    def actions(given: Mapping[str, str]) -> list[Any]:
        from launch.actions import ExecuteProcess
        from launch_ros.substitutions import ExecutableInPackage

        # No Node: that of Jazzy adds --ros-args, which the command line does not take.
        name = ExecutableInPackage(package=bringup.PACKAGE, executable="safe-support-ql")
        program = ExecuteProcess(cmd=[name, *command(given)], output="screen")
        return [program, _end_with(program, "it is over")]

    return _described(tuple(arguments), actions)


def _described(arguments: tuple[Argument, ...], actions: Callable[[Mapping[str, str]], list[Any]]) -> Any:
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_description import LaunchDescription
    from launch.substitutions import LaunchConfiguration

    def start(context: Any) -> list[Any]:
        given = {item.name: LaunchConfiguration(item.name).perform(context) for item in arguments}
        try:
            return actions(given)
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

    wanted, unwanted, lock = bringup.environment_of(run, os.environ)
    if lock is not None:
        _locks.append(lock)
    actions: list[Any] = [UnsetEnvironmentVariable(name) for name in unwanted]
    actions += [SetEnvironmentVariable(name, value) for name, value in wanted.items()]
    domain = wanted.get("ROS_DOMAIN_ID", os.environ.get("ROS_DOMAIN_ID", "0"))
    actions.append(LogInfo(msg=f"run {run.folder}; from another terminal: export ROS_DOMAIN_ID={domain}"))
    outlived = {bringup.PARENT: str(os.getpid())}
    for name in run.nodes:
        restarts = bringup.SPECS[name].restarts
        node = LifecycleNode(
            package=bringup.PACKAGE,
            executable=name,
            name=name,
            namespace=namespace,
            parameters=[bringup.parameters(name, run, progress)],
            ros_arguments=["--enclave", bringup.enclave(name)],
            additional_env=bringup.node_environment(name) | outlived,
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
        ros_arguments=["--enclave", bringup.enclave("conductor")],
        additional_env=outlived,
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
