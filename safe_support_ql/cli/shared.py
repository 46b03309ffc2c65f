"""What several commands share: common options, the configuration that they select, and access to runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safe_support_ql import DEFAULT_ROBOT
from safe_support_ql.recording.files import POLICY
from safe_support_ql.recording.seeds import RUNS

if TYPE_CHECKING:
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config

BAD_INPUT, FAULT, INTERRUPTED = 2, 3, 130  # exit statuses
RUN_FOLDER = "runs/<robot>-<time>"


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with BAD_INPUT."""
        print(f"error: {message.removeprefix('argument ')}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)


# --- options ---------------------------------------------------------------------------------------------------------


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an option whose value is a whole number in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            limits = f"of at least {low}" if high is None else f"in [{low}, {high}]"
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, not '{text}'")
        return value

    return parse


def add_robot(parser: argparse.ArgumentParser) -> None:
    """Options for the robot and its configuration, which `load` reads."""
    parser.add_argument(
        "--robot",
        metavar="NAME",
        help="a robot of this package, or an installed one (entry point safe_support_ql.robots); "
        f"default {DEFAULT_ROBOT}",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="use this configuration instead of the robot's own")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting; may be repeated"
    )


def add_session(parser: argparse.ArgumentParser) -> None:
    """Options that train and simulate share, except those of `add_robot`."""
    parser.add_argument("--actions", choices=("discrete", "continuous"), help="action space; default discrete")
    parser.add_argument(
        "--seed", type=whole(0, RUNS - 1), metavar="N", help="seed of arenas, draws and networks; default 0"
    )


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Option for the parent folder of new runs."""
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="parent folder of new runs; default runs"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Argument for the folder of an existing run."""
    parser.add_argument("folder", type=Path, metavar="RUN", help=f"folder of a run, {RUN_FOLDER}")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Option for the number of processes."""
    parser.add_argument("--workers", type=whole(1), default=2, metavar="N", help="number of processes; default 2")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Option for results as a file, see `check_writable`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")


# --- their meaning ---------------------------------------------------------------------------------------------------


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """'section.key' -> value, from --set and from options that set a key. Raises ValueError."""
    values = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: expected section.key=value")
        try:
            values[name.strip()] = json.loads(value)  # numbers, true, lists
        except ValueError:
            values[name.strip()] = value
    named = {"ticks": "run.ticks", "evaluation_episodes": "run.evaluation_episodes", "device": "learner.device"}
    for option, key in named.items():
        if getattr(options, option, None) is not None:
            values[key] = getattr(options, option)
    return values


def load(options: argparse.Namespace, defaults: Mapping[str, Any] | None = None) -> Config:
    """The configuration of the options; they override `defaults`, which override the file. Raises ValueError."""
    from safe_support_ql import config

    changes = {**(defaults or {}), **chosen(options)}
    if options.config is None:
        return config.load_robot(options.robot or DEFAULT_ROBOT, changes)
    settings = config.load(options.config, changes)
    if options.robot is not None and options.robot != settings.robot.name:
        raise ValueError(f"{options.config}: robot is '{settings.robot.name}', --robot says '{options.robot}'")
    return settings


def check_writable(path: Path | None) -> None:
    """Raises ValueError if --json cannot be written: before minutes of work, not after. None is allowed."""
    if path is None:
        return
    there = path.resolve()
    if there.is_dir() or not os.access(there if there.exists() else there.parent, os.W_OK):
        raise ValueError(f"--json {path}: cannot be written; give a file in an existing folder")


# --- runs ------------------------------------------------------------------------------------------------------------


def open_trained(folder: Path) -> tuple[Run, Config]:
    """A run with a policy, and its configuration. Raises ValueError as bringup.read_run, and if it has no policy."""
    from safe_support_ql import bringup

    run, settings = bringup.read_run(folder)
    if not (run.folder / POLICY).exists():
        raise ValueError(f"{folder}: holds no policy; the run only simulated, or its training is not finished")
    return run, settings


def check_model(path: Path, settings: Config, continuous: bool) -> Path:
    """The full path of a policy. Raises ValueError if it or its manifest is missing, damaged, or does not fit."""
    from safe_support_ql.deployment.contract import PolicyContract
    from safe_support_ql.deployment.manifest import load_manifest

    if path.suffix != ".onnx" or not path.exists():
        raise ValueError(f"{path}: no such policy; give behavior, none, or the path of a policy.onnx")
    load_manifest(path, PolicyContract.of(settings.robot, continuous, settings.safety_hash))
    return path.resolve()
