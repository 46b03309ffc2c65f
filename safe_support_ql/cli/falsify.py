"""safe-support-ql falsify: search for requests and disturbances that make the gate unsafe."""

import argparse
import json
import sys
from pathlib import Path

from safe_support_ql.cli import shared


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT)
    counted = "counted steps per world, at least; default 1000000 in the nominal world, 200000 in each mismatch"
    shared.add_number(parser, "--steps", 1, counted)
    parser.add_argument(
        "--mismatch", metavar="NAME", help="search this world only: nominal, or a mismatch that the robot declares"
    )
    parser.add_argument("--margins", action="store_true", help="delete one margin at a time instead")
    shared.add(parser, "--workers")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results; default runs/falsify-ROBOT")


def run(options: argparse.Namespace) -> int:
    """A resumable campaign, or the table of deleted margins; 1 if a visit happened or a deleted margin caused none."""
    from safe_support_ql import robots
    from safe_support_ql.experiments import falsify as search
    from safe_support_ql.experiments import margins, worlds

    settings = shared.load(options)
    robot = settings.robot
    by, parts = (margins.BY, ("margins", "adversary")) if options.margins else (search.BY, ("search",))
    for part in parts:
        robots.claimed(robot, part, by)  # refuses a robot without it
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
    print(f"\n{search.table(rows)}\n\n{search.bounds(robot, results)}")
    for row in rows:
        for text in row["visits"]:
            print(f"UNSAFE VISIT in world {row['mismatch']}: {text}")
    if objection := search.objection(results):
        print(objection)
    return 1 if objection or any(row["unsafe_visits"] for row in rows) else 0
