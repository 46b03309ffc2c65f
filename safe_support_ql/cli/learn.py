"""safe-support-ql learn: be the learner of a robot that runs `train --remote-learner` on another machine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new one for each run; the same to go on")


def run(options: argparse.Namespace) -> int:
    """Until Ctrl-C."""
    from safe_support_ql.nodes import learner_host

    learner_host.host(options.folder, lambda text: print(f"{time.strftime('%T')} {text}", flush=True))
    return 0
