"""safe-support-ql report: draw a finished run as report.png."""

import argparse

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import shown


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, "folder")


def run(options: argparse.Namespace) -> int:
    from safe_support_ql.experiments.report import draw

    run, settings = shared.open_trained(options.folder)
    try:
        print(shown(draw(run.folder, settings, run.continuous)))
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); finish the run first") from None
    return 0
