"""safe-support-ql deploy: let a validated policy drive a robot."""

from __future__ import annotations

import argparse
from pathlib import Path

from safe_support_ql.cli import graph, shared


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a policy.onnx with a validation.json that passed")
    shared.add(parser, *shared.ROBOT, *shared.SESSION, "--runs-dir")
    shared.add_number(parser, "--episodes", 0, "stop after this many episodes; default 0: run until Ctrl-C", 0)
    parser.add_argument(
        "--shadow", action="store_true", help="the policy shows what it would do, and the behavior policy drives"
    )
    parser.add_argument("--unstamped-cmd", action="store_true", help="the drive takes commands without header")


def run(options: argparse.Namespace) -> int:
    """Exit status of the run: 1 with an unsafe visit by the robot's sensors."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.summary import Progress

    settings, continuous = shared.load_for(options.model, options)
    run = bringup.deploy_run(
        options.runs_dir, settings, options.model, not options.unstamped_cmd, episodes=options.episodes,
        continuous=continuous, seed=options.seed or 0, shadow=options.shadow,
    )  # fmt: skip
    with graph.sole_user(run):
        return graph.conduct(run, settings, Progress(), new=True)
