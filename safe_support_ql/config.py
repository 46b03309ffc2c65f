"""Reads, merges and validates a configuration (YAML, one file per robot): another section goes here."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorConfig
from safe_support_ql.deployment.validation import ValidationConfig
from safe_support_ql.deployment.watch import DeploymentConfig
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.parameters import build, param
from safe_support_ql.recording.files import write_atomically
from safe_support_ql.recording.session import SessionConfig
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety import rest
from safe_support_ql.safety.gate import GateConfig


@dataclass(frozen=True)
class RunConfig:
    """The length of a run of `safe-support-ql train`."""

    ticks: int = param(40000, "ticks", 1, 100_000_000, "control ticks to collect")
    evaluation_episodes: int = param(50, "1", 0, 100_000, "held-out episodes per policy, over DDS")
    goals: tuple[tuple[float, ...], ...] = param(
        (),
        "as the goal",
        doc="on a robot, those that episodes draw from; []: each waits for one that is published",
    )


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    robot: Robot
    behavior: BehaviorConfig
    gate: GateConfig
    run: RunConfig
    learner: LearnerConfig
    validation: ValidationConfig
    session: SessionConfig
    deployment: DeploymentConfig
    raw: Mapping[str, Any]

    @property
    def safety_hash(self) -> str:
        """sha256 of all that the certificate and the gate depend on."""
        safety = {"robot": self.robot.name, "parameters": asdict(self.robot.parameters), "gate": asdict(self.gate)}
        if provenance := robots.provenance(self.robot.name):  # of an installed robot
            safety["provenance"] = provenance
        return hashlib.sha256(json.dumps(safety, sort_keys=True).encode()).hexdigest()


PARTS: dict[str, Any] = {
    "behavior": BehaviorConfig, "gate": GateConfig, "run": RunConfig, "learner": LearnerConfig,
    "validation": ValidationConfig, "session": SessionConfig, "deployment": DeploymentConfig,
}  # fmt: skip
SECTIONS = ("robot", "parameters", *PARTS)


def default_path(robot: str) -> Path:
    """The configuration file of `robot`: in its own package, or one that is shipped."""
    if (folder := robots.folder(robot)) is not None:
        return folder / f"{robot}.yaml"
    return shipped(f"{robot}.yaml")


def shipped(name: str) -> Path:
    """A file of config/, in the source tree or in the installed share folder; it may be missing."""
    source = Path(__file__).resolve().parent.parent / "config" / name
    if source.exists():
        return source
    try:  # needed only by an installed package
        from ament_index_python.packages import get_package_share_directory

        share = Path(get_package_share_directory("safe_support_ql"))
    except (ImportError, LookupError, OSError):  # pip installed it, and no ROS is there or active
        share = Path(sys.prefix) / "share" / "safe_support_ql"
    return share / "config" / name


def profiles() -> list[str]:
    """Names of the shipped profiles: configurations for bases that can be bought."""
    return sorted(path.stem for path in shipped("profiles").glob("*.yaml"))


def profile(name: str) -> Path:
    """The configuration of a shipped profile. Raises ValueError for an unknown one."""
    if name not in profiles():
        raise ValueError(f"profile is '{name}', must be one of: {', '.join(profiles())}")
    return shipped("profiles") / f"{name}.yaml"


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read `path` and override it with `overrides` ('section.key' -> value).

    Raises ValueError, one line naming the file, the key and what would be right.
    """
    try:
        return parse_text(path.read_text(), str(path), overrides)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def parse_text(text: str, where: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration that is written in `text`; see `load`."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected sections {', '.join(SECTIONS)}")
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        if section not in SECTIONS[1:] or not key:
            raise ValueError(f"--set {name}: expected section.key=value, sections: {', '.join(SECTIONS[1:])}")
        if not isinstance(values := raw.get(section) or {}, dict):
            raise ValueError(f"{where}: {section}: expected one 'key: value' per line")
        raw[section] = {**values, key: value}
    # Name both, because the mistake may be in either.
    changes = ", ".join(f"{name}={value}" for name, value in (overrides or {}).items())
    return parse(raw, f"{where} with {changes}" if changes else where)


def load_robot(robot: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The shipped configuration of `robot`. Raises ValueError for an unknown robot."""
    if robot not in robots.names():
        raise ValueError(f"unknown robot '{robot}'; known robots: {', '.join(robots.names())}")
    config = load(path := default_path(robot), overrides)
    if config.robot.name != robot:
        raise ValueError(f"{path}: robot is '{config.robot.name}', must be '{robot}'")
    return config


def parse(raw: Mapping[str, Any], where: str) -> Config:
    """Validate every section; what a section leaves out is as in the robot's own configuration. Raises ValueError."""
    for section in raw:
        if section not in SECTIONS:
            raise ValueError(f"{where}: unknown section '{section}'; known sections: {', '.join(SECTIONS)}")
    if not isinstance(raw.get("robot"), str):
        raise ValueError(f"{where}: key 'robot' is missing; known robots: {', '.join(robots.names())}")
    robot = robots.make(raw["robot"], raw.get("parameters") or {}, f"{where}: parameters")
    if objection := robot.objection() or rest.objection(robot):
        raise ValueError(f"{where}: parameters: {objection}")
    own = _sections_of(raw["robot"])
    parts: dict[str, Any] = {}
    for name, part in PARTS.items():
        values: Any = raw.get(name) or {}
        if isinstance(values, Mapping):  # a file may hold differences only; else `build` says what is wrong with it
            values = {**own.get(name, {}), **values}
        parts[name] = build(part, values, f"{where}: {name}")
    config = Config(robot=robot, raw=dict(raw), **parts)
    if objection := config.gate.objection(robot.period):
        raise ValueError(f"{where}: gate: {objection}")
    if config.session.geofence:
        try:
            robot.perception().fence(config.session.geofence)
        except ValueError as error:
            raise ValueError(f"{where}: session: geofence: {error}") from None
    goals = [channel for channel in robot.channels if channel.latched]
    for goal in config.run.goals:
        if not goals or len(goal) != goals[0].size:
            wanted = (
                f"each must have {goals[0].size} numbers, as '{goals[0].name}' has" if goals else "this robot has none"
            )
            raise ValueError(f"{where}: run: goals has {list(goal)}; {wanted}")
    return config


@lru_cache
def _sections_of(robot: str) -> dict[str, dict[str, Any]]:
    """What the robot's own configuration says, section by section; empty for a robot that brings none."""
    try:
        raw = yaml.safe_load(default_path(robot).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # who loads it learns what is wrong
        return {}
    return {name: raw.get(name) or {} for name in PARTS} if isinstance(raw, dict) else {}


def save(config: Config, path: Path) -> None:
    """Write every value, so that the run can be resumed, and a new default changes no old run. Raises OSError."""
    full = {"robot": config.robot.name, "parameters": asdict(config.robot.parameters)}
    full |= {name: asdict(getattr(config, name)) for name in PARTS}
    write_atomically(path, yaml.safe_dump(full, sort_keys=False).encode())
