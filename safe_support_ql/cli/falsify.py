"""safe-support-ql falsify: search for attacks that make the gate unsafe, or delete one margin at a time."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from safe_support_ql.cli import shared


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("falsify", help="search for requests and disturbances that make the gate unsafe")
    shared.add_robot(parser)
    parser.add_argument(
        "--steps",
        type=shared.whole(1),
        metavar="N",
        help="counted steps per world, at least; default 1000000 in the nominal world, 200000 in each mismatch",
    )
    parser.add_argument(
        "--mismatch", metavar="NAME", help="search this world only: nominal, or a mismatch that the robot declares"
    )
    parser.add_argument("--margins", action="store_true", help="delete one margin at a time instead")
    shared.add_workers(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results; default runs/falsify-ROBOT")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """A resumable campaign, or the table of deleted margins; 1 if a visit happened or a deleted margin caused none."""
    from safe_support_ql.experiments import falsify as search
    from safe_support_ql.experiments import margins, trials, worlds

    settings = shared.load(options)
    robot = settings.robot
    if options.margins:
        margins.refuse(robot)
    else:
        search.refuse(robot)
    names = list(worlds.names(robot))
    if options.mismatch is not None:
        worlds.in_world(robot, options.mismatch)  # refuse an unknown name
        names = [options.mismatch]
    folder = options.out or Path("runs") / f"falsify-{robot.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # fail before hours of work, not after
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error.strerror})") from None
    if options.margins:
        table = margins.run(robot, lambda text: print(text, file=sys.stderr, flush=True))
        print(margins.table(table))
        (folder / "margins.json").write_text(json.dumps(table, indent=2))
        return 0 if all(row["shown"] is not False for row in table) else 1
    shards = search.plan(settings.raw, names, options.steps)
    results = search.campaign(shards, folder / "shards", options.workers, lambda text: print(text, flush=True))
    rows = search.summarise(results)
    (folder / "falsify.json").write_text(json.dumps({"robot": robot.name, "edges": search.EDGES, "worlds": rows}))
    print(f"\n{search.table(rows)}\n\n{trials.bounds(robot, results)}")
    for row in rows:
        for text in row["visits"]:
            print(f"UNSAFE VISIT in world {row['mismatch']}: {text}")
    if objection := trials.objection(results):
        print(objection)
    return 1 if objection or any(row["unsafe_visits"] for row in rows) else 0
