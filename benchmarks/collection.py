"""Normal collection under the behavior policy, nominal and under each named mismatch: every verdict of the gate.

    python benchmarks/collection.py [--ticks 10000] [--robot R] [--json F]

The mismatches are those of `falsify`, 16 to 20 % off, and change the simulated world alone, never the monitor's model.
In lock-step, without ROS. `empty` is the share of ticks that left only the plan, `asked` the share in which something
else was asked for than was run, `beyond` the share with a residual beyond W. Minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.config import load_robot
from safe_support_ql.experiments.episodes import play
from safe_support_ql.experiments.worlds import in_world, names
from safe_support_ql.recording.seeds import COLLECTION
from safe_support_ql.safety.gate import VERDICTS, Gate, State
from safe_support_ql.simulation.simulation import Simulation


def collect(name: str, world: str, continuous: bool, ticks: int) -> dict[str, Any]:
    """Whole episodes until `ticks` are played: counts of ticks, visits and what the gate decided."""
    config = load_robot(name)
    robot = config.robot
    sim, gate = Simulation(in_world(robot, world)), Gate(robot, config.gate, continuous, COLLECTION.start)
    played = episode = latched = 0
    while played < ticks:
        gate.state = State.CLOSED
        policy = BehaviorPolicy(config.behavior, robot, COLLECTION.start + episode)
        played += play(sim, gate, policy, COLLECTION.start + episode, episode).ticks
        latched += gate.state is State.LATCHED
        episode += 1
    counters, visits = gate.counters, sim.unsafe_visits
    sim.close()
    return {
        "robot": name, "world": world, "actions": "continuous" if continuous else "discrete", "ticks": played,
        "episodes": episode, "unsafe_visits": visits, "empty": counters.empty_supports,
        "asked": counters.interventions, "beyond": counters.mismatches, "latched": latched,
        "verdicts": dict(counters.verdicts), "decisions": counters.decisions,
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=robots.names(), help="one robot only")
    parser.add_argument("--ticks", type=int, default=10_000, help="per row (default 10000)")
    parser.add_argument("--json", type=Path, help="write the counts here")
    options = parser.parse_args()
    widths = {verdict: max(8, len(verdict.removeprefix("certified_")) + 1) for verdict in VERDICTS}
    titles = "".join(f"{verdict.removeprefix('certified_'):>{width}}" for verdict, width in widths.items())
    rows = []
    for name in [options.robot] if options.robot else robots.names():
        for continuous in (False, True):
            print(f"{name}, {'continuous' if continuous else 'discrete'} actions, {options.ticks} ticks a row")
            print(f"{'world':14}{'visits':>6}{'empty':>7}{titles}{'asked':>7}{'beyond':>7}")
            for world in names(load_robot(name).robot):
                row = collect(name, world, continuous, options.ticks)
                empty, asked, beyond = (row[key] / row["decisions"] for key in ("empty", "asked", "beyond"))
                shares = "".join(f"{row['verdicts'][v] / row['decisions']:>{width}.2%}" for v, width in widths.items())
                late = f" {row['latched']} latched" if row["latched"] else ""
                print(
                    f"{world:14}{row['unsafe_visits']:>6}{empty:>7.2%}{shares}{asked:>7.2%}{beyond:>7.2%}{late}",
                    flush=True,
                )
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
