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


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with BAD_INPUT."""
        print(f"error: {message.removeprefix('argument ')}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)


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


OPTIONS: dict[str, dict[str, Any]] = {  # of several commands
    "folder": {"type": Path, "metavar": "RUN", "help": "folder of a run, runs/<robot>-<time>"},
    "--robot": {
        "metavar": "NAME",
        "help": "a robot of this package, or an installed one (entry point safe_support_ql.robots); "
        f"default {DEFAULT_ROBOT}",
    },
    "--config": {"type": Path, "metavar": "FILE", "help": "use this configuration instead of the robot's own"},
    "--profile": {"metavar": "NAME", "help": "use the shipped configuration of a base that can be bought"},
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "SECTION.KEY=VALUE",
        "help": "change one setting; may be repeated",
    },
    "--actions": {"choices": ("discrete", "continuous"), "help": "action space; default discrete"},
    "--seed": {
        "type": whole(0, RUNS - 1),
        "metavar": "N",
        "help": "seed of arenas, draws and networks; default 0",
    },
    "--runs-dir": {
        "type": Path,
        "default": Path("runs"),
        "metavar": "DIR",
        "help": "parent folder of new runs; default runs",
    },
    "--workers": {"type": whole(1), "default": 2, "metavar": "N", "help": "number of processes; default 2"},
    "--json": {"type": Path, "metavar": "FILE", "help": "also write the results to this file"},  # see check_writable
}
ROBOT = ("--robot", "--config", "--profile", "--set")  # what `load` reads
SESSION = ("--actions", "--seed")


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, **OPTIONS[name])


def add_number(parser: argparse.ArgumentParser, name: str, low: int, text: str, default: int | None = None) -> None:
    """An option of one command, whose value is a whole number of at least `low`."""
    parser.add_argument(name, type=whole(low), default=default, metavar="N", help=text)


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
    path = options.config
    if (profile := getattr(options, "profile", None)) is not None:
        if path is not None:
            raise ValueError("--profile and --config both name a configuration; give one")
        path = config.profile(profile)
    if path is None:
        return config.load_robot(options.robot or DEFAULT_ROBOT, changes)
    settings = config.load(path, changes)
    if options.robot is not None and options.robot != settings.robot.name:
        raise ValueError(f"{path}: robot is '{settings.robot.name}', --robot says '{options.robot}'")
    return settings


def load_text(text: str, where: str, options: argparse.Namespace) -> Config:
    """The configuration of the options, on that of `text` where they name none. Raises ValueError."""
    from safe_support_ql import config

    if options.robot is not None or options.config is not None or options.profile is not None:
        return load(options)
    return config.parse_text(text, where, chosen(options))


def load_for(model: Path, options: argparse.Namespace) -> tuple[Config, bool]:
    """(the configuration of the options, whether actions are continuous), for a policy.

    What the options leave open is as in the run that the policy comes from, if it lies in its folder.
    """
    from safe_support_ql import bringup

    own, continuous = bringup.run_of(model)
    if options.config is None and options.profile is None and options.robot is None:
        options.config = own
    if options.actions is not None or continuous is None:
        continuous = options.actions == "continuous"
    return load(options), continuous


def check_writable(path: Path | None) -> None:
    """Raises ValueError if --json cannot be written: before minutes of work, not after. None is allowed."""
    if path is None:
        return
    there = path.resolve()
    if there.is_dir() or not os.access(there if there.exists() else there.parent, os.W_OK):
        raise ValueError(f"--json {path}: cannot be written; give a file in an existing folder")


def open_trained(folder: Path) -> tuple[Run, Config]:
    """A run with a policy, and its configuration. Raises ValueError as bringup.read_run, and if it has no policy."""
    from safe_support_ql import bringup

    run, settings = bringup.read_run(folder)
    if not (run.folder / POLICY).exists():
        raise ValueError(f"{folder}: holds no policy; the run only simulated, or its training is not finished")
    return run, settings


def check_model(path: Path, settings: Config, continuous: bool, instead: str = "") -> Path:
    """The full path of a policy. Raises ValueError if it or its manifest is missing, damaged, or does not fit.

    `instead` names what else could have been given.
    """
    from safe_support_ql.deployment.manifest import PolicyContract, load_manifest

    if path.suffix != ".onnx" or not path.exists():
        raise ValueError(f"{path}: no such policy; give {instead}the path of a policy.onnx")
    load_manifest(path, PolicyContract.of(settings.robot, continuous, settings.safety_hash))
    return path.resolve()
