"""Reads, merges and validates a configuration (YAML, one file per robot): another section goes here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorConfig
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.parameters import build, param
from safe_support_ql.recording.files import write_atomically
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety import rest
from safe_support_ql.safety.gate import GateConfig


@dataclass(frozen=True)
class RunConfig:
    """The length of a run of `safe-support-ql train`."""

    ticks: int = param(40000, "ticks", 1, 100_000_000, "control ticks to collect")
    evaluation_episodes: int = param(50, "1", 0, 100_000, "held-out episodes per policy, over DDS")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    robot: Robot
    behavior: BehaviorConfig
    gate: GateConfig
    run: RunConfig
    learner: LearnerConfig
    raw: Mapping[str, Any]

    @property
    def safety_hash(self) -> str:
        """sha256 of all that the certificate and the gate depend on."""
        safety = {"robot": self.robot.name, "parameters": asdict(self.robot.parameters), "gate": asdict(self.gate)}
        if provenance := robots.provenance(self.robot.name):  # of an installed robot
            safety["provenance"] = provenance
        return hashlib.sha256(json.dumps(safety, sort_keys=True).encode()).hexdigest()


SECTIONS = ("robot", "parameters", "behavior", "gate", "run", "learner")


def default_path(robot: str) -> Path:
    """The configuration file of `robot`: in its own package, in the source tree, or in the installed share folder."""
    if (folder := robots.folder(robot)) is not None:
        return folder / f"{robot}.yaml"
    source = Path(__file__).resolve().parent.parent / "config" / f"{robot}.yaml"
    if source.exists():
        return source
    from ament_index_python.packages import get_package_share_directory  # needed only by an installed package

    return Path(get_package_share_directory("safe_support_ql")) / "config" / f"{robot}.yaml"


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read `path` and override it with `overrides` ('section.key' -> value).

    Raises ValueError, one line naming the file, the key and what would be right.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected sections {', '.join(SECTIONS)}")
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        if section not in SECTIONS[1:] or not key:
            raise ValueError(f"--set {name}: expected section.key=value, sections: {', '.join(SECTIONS[1:])}")
        if not isinstance(values := raw.get(section) or {}, dict):
            raise ValueError(f"{path}: {section}: expected one 'key: value' per line")
        raw[section] = {**values, key: value}
    # Name both, because the mistake may be in either.
    changes = ", ".join(f"{name}={value}" for name, value in (overrides or {}).items())
    return parse(raw, f"{path} with {changes}" if changes else str(path))


def load_robot(robot: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The shipped configuration of `robot`. Raises ValueError for an unknown robot."""
    if robot not in robots.names():
        raise ValueError(f"unknown robot '{robot}'; known robots: {', '.join(robots.names())}")
    config = load(path := default_path(robot), overrides)
    if config.robot.name != robot:
        raise ValueError(f"{path}: robot is '{config.robot.name}', must be '{robot}'")
    return config


def parse(raw: Mapping[str, Any], where: str) -> Config:
    """Validate every section. Raises ValueError."""
    for section in raw:
        if section not in SECTIONS:
            raise ValueError(f"{where}: unknown section '{section}'; known sections: {', '.join(SECTIONS)}")
    if not isinstance(raw.get("robot"), str):
        raise ValueError(f"{where}: key 'robot' is missing; known robots: {', '.join(robots.names())}")
    robot = robots.make(raw["robot"], raw.get("parameters") or {}, f"{where}: parameters")
    if objection := robot.objection() or rest.objection(robot):
        raise ValueError(f"{where}: parameters: {objection}")
    gate = build(GateConfig, raw.get("gate") or {}, f"{where}: gate")
    if objection := gate.objection(robot.period):
        raise ValueError(f"{where}: gate: {objection}")
    return Config(
        robot=robot,
        behavior=build(BehaviorConfig, raw.get("behavior") or {}, f"{where}: behavior"),
        gate=gate,
        run=build(RunConfig, raw.get("run") or {}, f"{where}: run"),
        learner=build(LearnerConfig, raw.get("learner") or {}, f"{where}: learner"),
        raw=dict(raw),
    )


def save(config: Config, path: Path) -> None:
    """Write the configuration, so that the run can be resumed and read. Raises OSError."""
    write_atomically(path, yaml.safe_dump(dict(config.raw), sort_keys=False).encode())
