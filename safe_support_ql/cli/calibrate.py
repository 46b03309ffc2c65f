"""safe-support-ql calibrate: compare the shipped margin parameters with the need of recorded backup manoeuvres."""

from __future__ import annotations

import argparse
from typing import Any

from safe_support_ql.cli import shared


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("calibrate", help="compare the margins with the need of simulated backup manoeuvres")
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
    """Print shipped and needed margins; 1 if one is too small or a visit happened."""
    from safe_support_ql.experiments import calibrate

    result = calibrate.calibrate(shared.load(options), options.episodes)
    print(calibrate.table(result))
    return 1 if result.too_small or result.unsafe_visits else 0
