"""safe-support-ql calibrate: the shipped margins beside what recorded backup manoeuvres need."""

from __future__ import annotations

import argparse
from typing import Any

from safe_support_ql.cli import shared


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("calibrate", help="compare the margins with what simulated backup manoeuvres need")
    shared.add_robot(parser)
    parser.add_argument(
        "--episodes",
        type=shared.whole(1),
        default=200,
        metavar="N",
        help="manoeuvres to record, one per episode; default 200",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Shipped margins beside needed ones; 1 where one is too small or a visit happened."""
    from safe_support_ql.experiments import calibrate

    result = calibrate.calibrate(shared.load(options), options.episodes)
    print(calibrate.table(result))
    return 1 if result.too_small or result.unsafe_visits else 0
