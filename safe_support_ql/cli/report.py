"""safe-support-ql report: draw a finished run as a picture."""

from __future__ import annotations

import argparse
from typing import Any

from safe_support_ql.cli import shared


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("report", help="draw a finished run as report.png")
    shared.add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the picture and print its path."""
    from safe_support_ql import panel
    from safe_support_ql.experiments.report import draw

    run, settings = shared.open_trained(options.folder)
    try:
        print(panel.shown(draw(run.folder, settings, run.continuous)))
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); finish the run first") from None
    return 0
