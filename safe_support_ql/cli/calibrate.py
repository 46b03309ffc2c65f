"""safe-support-ql calibrate: compare the margins with the need of simulated backup manoeuvres."""

import argparse

from safe_support_ql.cli import shared


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT)
    shared.add_number(parser, "--episodes", 1, "manoeuvres to record, one per episode; default 200", 200)


def run(options: argparse.Namespace) -> int:
    """Print shipped and needed margins; 1 if one is too small or a visit happened."""
    from safe_support_ql.experiments import calibrate

    result = calibrate.calibrate(shared.load(options), options.episodes)
    print(calibrate.table(result))
    return 1 if result.too_small or result.unsafe_visits else 0
