"""safe-support-ql operator: watch a running robot, stop it, and let it go on."""

from __future__ import annotations

import argparse
import math
import sys
import time

from safe_support_ql.cli import shared


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", default="", metavar="NAME", help="of the run's nodes, as given to ros2 launch")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=shared.Parser)
    for action, what in (
        ("watch", "show gate, policy, pose and why the robot waits, as they change"),
        ("e-stop", "latch the gate: the robot runs its plan"),
        ("release", "take the e-stop back; the gate stays latched"),
        ("reset", "end a latch, if its cause is gone"),
        ("pause", "stop, and wait for resume"),
        ("resume", "go on after a pause or a limit of the session"),
        ("dead-man", "let the robot drive while you hold a key"),
    ):
        actions.add_parser(action, help=what)
    cap = actions.add_parser("cap", help="how much of the range of each action may be asked for")
    cap.add_argument("share", type=_share, metavar="SHARE", help="above 0, at most 1")
    goal = actions.add_parser("goal", help="where to go, in the frame of the odometry")
    for name in ("x", "y"):
        goal.add_argument(name, type=_metres, metavar=name.upper(), help="m")


def run(options: argparse.Namespace) -> int:
    """2 if nobody answers, or what was asked for is refused."""
    if options.action == "dead-man" and not sys.stdin.isatty():
        raise ValueError("dead-man needs a terminal: the key that you hold is the switch")
    from safe_support_ql.nodes.operation import Operator

    operator = Operator(options.namespace)
    try:
        if options.action == "watch":
            operator.watch(lambda text: print(f"{time.strftime('%T')} {text}", flush=True))
        elif options.action == "dead-man":
            operator.dead_man(print)
        elif options.action == "cap":
            print(operator.cap(options.share))
        elif options.action == "goal":
            print(operator.goal(options.x, options.y))
        else:
            print(operator.ask(options.action))
    finally:
        operator.close()
    return 0


def _metres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not '{text}'")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 1, not '{text}'")
    return value
