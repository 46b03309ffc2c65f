"""safe-support-ql stand-in: a simulated robot that speaks only the topics of a real one."""

from __future__ import annotations

import argparse

from safe_support_ql.cli import shared


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT)
    shared.add_number(parser, "--seed", 0, "seed of its room, of its noise and of where it stands; default 0", 0)
    parser.add_argument("--mismatch", metavar="NAME", help="one that the robot declares: its physics differ by that")
    parser.add_argument("--unstamped-cmd", action="store_true", help="its drive takes commands without header")
    shared.add(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Until Ctrl-C; 1 if there was an unsafe visit by its own ground truth."""
    from safe_support_ql import robots

    settings = shared.load(options)
    shared.check_writable(options.json)
    known = {} if options.mismatch is None else robots.claims_of(settings.robot).mismatches
    if options.mismatch is not None and options.mismatch not in known:
        raise ValueError(f"--mismatch is '{options.mismatch}', must be one of: {', '.join(known)}")
    from safe_support_ql.nodes import stand_in
    from safe_support_ql.simulation.drivers import DRIVERS

    mismatch, driver = known.get(options.mismatch, {}), DRIVERS.get(options.profile)
    return stand_in.run(settings.robot, options.seed, mismatch, not options.unstamped_cmd, options.json, driver)
