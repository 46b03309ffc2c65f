"""safe-support-ql doctor: look at a live robot before its first motion, and say what is wrong and what to do."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from safe_support_ql.cli import shared


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT, "--runs-dir")
    shared.add_number(parser, "--seconds", 2, "how long to listen; default 6", 6)
    parser.add_argument("--unstamped-cmd", action="store_true", help="the drive takes commands without header")
    parser.add_argument(
        "--crawl",
        action="store_true",
        help="a base in free space, the e-stop in your hand: it DRIVES up to 0.3 m ahead",
    )


def run(options: argparse.Namespace) -> int:
    """1 if something is wrong. It only listens, unless it is told to crawl."""
    from safe_support_ql.nodes import crawl, doctor

    settings, then = shared.load(options), crawl.crawl if options.crawl else None
    found = doctor.look(settings, not options.unstamped_cmd, Path(options.runs_dir), options.seconds, then)
    for finding in found:
        text = finding.what + (f"; {finding.remedy}" if finding.remedy else "")
        print(textwrap.fill(text, 80, initial_indent=f"{finding.level:<6}", subsequent_indent=" " * 6))
    wrong = sum(finding.level == doctor.WRONG for finding in found)
    print(
        f"\n{wrong} wrong"
        if wrong
        else "\nnothing is wrong" + ("" if then else "; what needs motion was not looked at")
    )
    return 1 if wrong else 0
