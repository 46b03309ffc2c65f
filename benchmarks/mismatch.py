"""How soon the gate notices a robot that is no longer the one that was certified, and what would happen otherwise.

    python benchmarks/mismatch.py [--episodes 40] [--robot R] [--only changes|margins] [--json F]

In every episode the robot changes while it moves (`beyond` of its claims: slipping wheels, a load, a tilted lidar; a
load, half the force, a sticky track; then as far again as the mismatches that the certificate covers), in simulation,
in lock-step. `half` and `most`: ticks from the change to the latch, in half of the episodes and at the most; `W`: the
largest residual; `unwatched`: visits without detection. The first row, unchanged, must stay silent.

Then, a second table, what the margins cover while nothing latches (experiments/beyond.py): one error of W at 1, 2 and 3
times its bound, and all of them at once in every corner of the box of parameters.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.config import Config, load_robot
from safe_support_ql.experiments import beyond
from safe_support_ql.experiments.mismatch import meet, twice


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=robots.names(), help="one robot only")
    parser.add_argument("--episodes", type=int, default=40, help="per change (default 40)")
    parser.add_argument("--only", choices=("changes", "margins"), help="one table only")
    parser.add_argument("--json", type=Path, help="write every episode here")
    options = parser.parse_args()
    configs = [load_robot(name) for name in ([options.robot] if options.robot else robots.names())]
    result = {}
    if options.only != "margins":
        print(f"{'robot':11}{'change':18}{'noticed':>9}{'half':>6}{'most':>6}{'W':>7}{'visits':>8}{'unwatched':>11}")
        result["changes"] = [row for config in configs for row in changed(config, options.episodes)]
    if options.only != "changes":
        result["margins"] = [covered(config) for config in configs]
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def changed(config: Config, episodes: int) -> list[dict[str, Any]]:
    """The first table."""
    rows, name = [], config.robot.name
    changes = {"none": config.robot.world, **robots.claims_of(config.robot).beyond, **twice(config.robot)}
    for change, spec in changes.items():
        met = meet(config, spec, episodes)
        unwatched = meet(config, spec, episodes, watch=False)
        ticks = [one.ticks for one in met if one.ticks >= 0]
        half, most = (f"{np.median(ticks):.0f}", f"{max(ticks)}") if ticks else ("-", "-")
        visits, otherwise = (sum(one.unsafe_visits for one in ones) for ones in (met, unwatched))
        print(
            f"{name:11}{change:18}{f'{len(ticks)}/{len(met)}':>9}{half:>6}{most:>6}"
            f"{max(one.largest for one in met):>7.1f}{visits:>8}{otherwise:>11}",
            flush=True,
        )
        rows.append({"robot": name, "change": change, "watched": [asdict(one) for one in met],
                     "unwatched": [asdict(one) for one in unwatched]})  # fmt: skip
    return rows


def covered(config: Config) -> dict[str, Any]:
    """The second table."""
    singly, together = beyond.singly(config.robot), beyond.together(config.robot)
    print(f"\n{beyond.table(config.robot, singly, together)}", flush=True)
    return {"robot": config.robot.name, "singly": singly, "together": together}


if __name__ == "__main__":
    main()
