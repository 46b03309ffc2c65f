"""safe-support-ql simulate: drive with one policy in real time."""

import argparse
import os
from pathlib import Path

from safe_support_ql.cli import graph, shared


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT, *shared.SESSION, "--runs-dir")
    parser.add_argument(
        "--policy", default="behavior", help="behavior (default), none (backup plan only), or the path of a policy.onnx"
    )
    shared.add_number(parser, "--episodes", 0, "stop after this many episodes; default 0: run until Ctrl-C", 0)
    parser.add_argument("--gui", action="store_true", help="open PyBullet's window")


def run(options: argparse.Namespace) -> int:
    """Exit status of the run: 1 with an unsafe visit."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.summary import Progress

    settings = shared.load(options)
    policy, continuous = options.policy, options.actions == "continuous"
    if policy not in ("behavior", "none"):
        policy = str(shared.check_model(Path(policy), settings, continuous, "behavior, none, or "))
    if options.gui and not os.environ.get("DISPLAY"):
        raise ValueError("--gui needs a display; DISPLAY is not set")
    run = bringup.create_run(
        options.runs_dir, settings, kind="simulate", clock="realtime", policy=policy, episodes=options.episodes,
        gui=options.gui, continuous=continuous, seed=options.seed or 0,
    )  # fmt: skip
    with graph.sole_user(run):
        return graph.conduct(run, settings, Progress(), new=True)
