"""safe-support-ql simulate: one policy drives in real time behind the gate."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from safe_support_ql.cli import graph, shared


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("simulate", help="drive with one policy in real time")
    shared.add_robot(parser)
    shared.add_session(parser)
    shared.add_runs_dir(parser)
    parser.add_argument(
        "--policy", default="behavior", help="behavior (default), none (backup plan only), or the path of a policy.onnx"
    )
    parser.add_argument(
        "--episodes",
        type=shared.whole(0),
        default=0,
        metavar="N",
        help="stop after this many episodes; default 0: run until Ctrl-C",
    )
    parser.add_argument("--gui", action="store_true", help="open PyBullet's window")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status of the run: 1 with an unsafe visit."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.summary import Progress

    settings = shared.load(options)
    policy, continuous = options.policy, options.actions == "continuous"
    if policy not in ("behavior", "none"):
        policy = str(shared.check_model(Path(policy), settings, continuous))
    if options.gui and not os.environ.get("DISPLAY"):
        raise ValueError("--gui needs a display; DISPLAY is not set")
    run = bringup.create_run(
        options.runs_dir, settings, kind="simulate", clock="realtime", policy=policy, episodes=options.episodes,
        gui=options.gui, continuous=continuous, seed=options.seed or 0,
    )  # fmt: skip
    with graph.sole_user(run):
        return graph.conduct(run, settings, Progress(), new=True)
