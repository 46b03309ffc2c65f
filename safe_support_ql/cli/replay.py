"""safe-support-ql replay: run the sensors of a bag through the gate, and measure its stops."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from safe_support_ql.cli import shared

if TYPE_CHECKING:
    from safe_support_ql.experiments.replay import Replayed

SHOWN = 20


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="a bag of `bag`")
    shared.add(parser, *shared.ROBOT)


def run(options: argparse.Namespace) -> int:
    """The bag's own settings count where the options say nothing else."""
    from safe_support_ql.experiments.replay import Replay
    from safe_support_ql.nodes.bags import Bag
    from safe_support_ql.recording.session import restrict
    from safe_support_ql.safety.gate import Gate
    from safe_support_ql.safety.timing import Clock

    bag = Bag(options.bag)
    settings = shared.load_text(bag.about["config"], str(bag.path), options)
    if settings.robot.name != bag.about["robot"]:
        raise ValueError(f"{bag.path}: is of another robot ({bag.about['robot']})")
    continuous = bool(bag.about["continuous"])
    gate = Gate(settings.robot, settings.gate, continuous, bag.about["seed"], clock=Clock(bag.about["clock"]))
    gate.recorder.required = False
    if bag.about["mode"] == "hardware":
        restrict(gate, settings.session)  # as it was at first: the operator may have widened the cap
    refused: dict[str, int] = {}
    executed = bag.executed(settings.robot, refused)
    report(Replay(gate, executed).run(bag.heard(settings.robot, refused)))
    for why, count in refused.items():
        print(f"{count} messages refused: {why}")
    return 0


def report(result: Replayed) -> None:
    """Print the table of the stops."""
    decided = ", ".join(f"{state} {count}" for state, count in result.decisions.items()) or "none"
    print(f"decisions: {decided}; inputs refused: {result.refused}")
    print(f"{'at [s]':>10}{'to stop [s]':>13}{'hold [s]':>10}{'to resume [s]':>15}  false  cause")
    for stop in result.stops[:SHOWN]:
        resume = "-" if math.isnan(stop.resume_s) else f"{stop.resume_s:.2f}"
        why = "yes" if stop.false else "no"
        print(f"{stop.at_s:10.2f}{stop.to_stop_s:13.2f}{stop.hold_s:10.2f}{resume:>15}  {why:5}  {stop.cause}")
    if len(result.stops) > SHOWN:
        print(f"... and {len(result.stops) - SHOWN} more")
    false = sum(stop.false for stop in result.stops)
    longest = max((stop.to_stop_s for stop in result.stops), default=0.0)
    print(f"{len(result.stops)} stops, {false} of them false; longest time to stop {longest:.2f} s")
