"""safe-support-ql bag: export a run as a bag (rosbag2, MCAP) for ROS 2 tools, or to learn from."""

import argparse
from pathlib import Path

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import INPUTS, shown


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, "folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bag, a new folder; default RUN/bag")


def run(options: argparse.Namespace) -> int:
    from safe_support_ql import bringup
    from safe_support_ql.nodes import bags

    run, settings = bringup.read_run(options.folder)
    out = options.out or run.folder / "bag"
    counts, damaged = bags.export(run, settings, out)
    for topic, count in counts.items():
        print(f"{topic:24}{count:>10}")
    if damaged:
        print(f"{damaged} bytes of {INPUTS} are damaged; the messages in them are left out")
    if not (run.folder / INPUTS).exists():
        print(f"no sensor messages: the run holds no {INPUTS}, and nothing can be learnt from this bag")
    print(f"bag {shown(out)}; next: ros2 bag info {shown(out)}, or safe-support-ql train --from-bag {shown(out)}")
    return 0
