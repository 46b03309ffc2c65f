"""Bases of several shapes, with one lidar and with two: normal collection, and what a policy learnt on each reaches.

    python benchmarks/shapes.py                       collection: every shape, one lidar and two
    python benchmarks/shapes.py --learn               training and 200 held-out arenas as well, with one lidar
    python benchmarks/shapes.py --cost                what a certificate costs with each shape, and with people about

In lock-step, without ROS. The arenas of bases with corners have wider gaps and fewer obstacles, so that such a base can
pass. The table shows episodes, control ticks, unsafe visits, how often the goal was reached, and the share of the
decisions that left only the plan; a row that begins with "policy" is the extracted policy. What is finished is kept in
the output folder and not run again. About 4 minutes a row of collection, and 15 more where a policy is learnt.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # after the thread limit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.seeds import cached, one_seed  # after the thread limit
from safe_support_ql import config as configuration
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import play
from safe_support_ql.recording.seeds import COLLECTION
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.simulation.simulation import Simulation

ROOMY = {"parameters.corridor": 0.75, "parameters.obstacles_min": 4, "parameters.obstacles_max": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "disc": {},
    "rectangle": {"parameters.footprint": [[0.25, 0.18], [-0.25, 0.18], [-0.25, -0.18], [0.25, -0.18]], **ROOMY},
    "off centre": {"parameters.footprint": [[0.4, 0.17], [-0.1, 0.17], [-0.1, -0.17], [0.4, -0.17]], **ROOMY},
}
LIDARS: dict[str, dict[str, Any]] = {
    "one lidar": {},
    "two": {"parameters.lidars": [
        {"name": "front", "topic": "scan_front", "x": 0.1},
        {"name": "rear", "topic": "scan_rear", "x": -0.1, "yaw": 3.14159},
    ]},
}  # fmt: skip


def collect(shape: str, lidars: str, ticks: int) -> dict[str, Any]:
    """Whole episodes of beta until `ticks` are played."""
    config = configuration.load_robot("diff_drive", SHAPES[shape] | LIDARS[lidars])
    sim, gate = Simulation(config.robot), Gate(config.robot, config.gate, False, COLLECTION.start)
    played = episodes = reached = latched = 0
    while played < ticks:
        gate.state = State.CLOSED
        seed = COLLECTION.start + episodes
        result = play(sim, gate, BehaviorPolicy(config.behavior, config.robot, seed), seed, episodes)
        played, episodes, reached = played + result.ticks, episodes + 1, reached + result.reached
        latched += gate.state is State.LATCHED
    visits, counters = sim.unsafe_visits, gate.counters
    sim.close()
    return {
        "episodes": episodes, "ticks": played, "unsafe_visits": visits, "success": reached / episodes,
        "only_the_plan": counters.empty_supports / counters.decisions, "latched": latched,
    }  # fmt: skip


def learn(shape: str, folder: Path) -> dict[str, Any]:
    """Train and evaluate one policy."""
    config = configuration.load_robot("diff_drive", SHAPES[shape])
    return dict(one_seed(dict(config.raw), False, 0, 200, folder)["policy"])


def cost(ticks: int) -> None:
    """From a state to its candidates, in milliseconds of this thread; all kinds in turn, so that noise meets all."""
    people = {"parameters.obstacle_speed": 0.3, "parameters.walkers": 8}
    kinds = {shape: SHAPES[shape] for shape in ("disc", "rectangle", "off centre")}
    kinds |= {f"{shape}, people": SHAPES[shape] | ROOMY | people for shape in ("disc", "rectangle")}
    kinds["rectangle, people, two lidars"] = kinds["rectangle, people"] | LIDARS["two"]
    games = {name: Game(configuration.load_robot("diff_drive", settings)) for name, settings in kinds.items()}
    for _ in range(ticks):
        for game in games.values():
            game.tick()
    print(f"{'state to candidates [ms]':32}{'p50':>8}{'p99':>8}{'disc':>7}{'of the period':>15}")
    disc = np.percentile(games["disc"].spent, 50)
    for name, game in games.items():
        half, most = np.percentile(game.spent[10:], [50, 99])
        share = most / 1e3 / game.config.robot.period
        print(f"{name:32}{half:>8.2f}{most:>8.2f}{half / disc:>7.2f}{share:>15.1%}")
        game.sim.close()


class Game:
    """Episodes of beta, a tick at a time, and how long each certificate took [ms]."""

    def __init__(self, config: configuration.Config) -> None:
        """Begin the first episode."""
        self.config, self.sim = config, Simulation(config.robot)
        self.gate, self.policy = (
            Gate(config.robot, config.gate, False, 0),
            BehaviorPolicy(config.behavior, config.robot, 0),
        )
        self.spent: list[float] = []
        self.episode = 0
        self.begin()

    def begin(self) -> None:
        """The next episode."""
        self.outcome = self.sim.reset(COLLECTION.start + self.episode)
        self.gate.new_episode(self.episode)
        self.episode += 1

    def tick(self) -> None:
        """Sense, certify, act."""
        now = (self.outcome.tick + 1) * round(1e9 * self.config.robot.period)
        inputs = self.sim.sense()
        before = time.thread_time()
        for channel, vector in inputs.items():
            self.gate.receive(channel, vector, now, now, now)
        candidates = self.gate.begin(now, now)
        self.spent.append(1e3 * (time.thread_time() - before))
        assert candidates is not None
        decision = self.gate.request(candidates.id, self.policy(candidates), 0) or self.gate.expire(0)
        self.outcome = self.sim.tick(decision.action.astype(np.float64))
        if self.outcome.terminated or self.outcome.truncated:
            self.begin()


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=40_000, help="of each row (default 40000)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--learn", action="store_true", help="train and evaluate a policy for each shape as well")
    parser.add_argument("--cost", action="store_true", help="time the certificates instead")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    options = parser.parse_args()
    if options.cost:
        cost(min(options.ticks, 2000))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    names = [f"{shape}, {lidars}" for lidars in LIDARS for shape in SHAPES if options.only in f"{shape}, {lidars}"]
    print(f"{'':28}{'episodes':>9}{'ticks':>8}{'visits':>7}{'success':>8}{'plan only':>10}")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        rows = {name: pool.submit(collect_once, name, options.ticks, options.out) for name in names}
        if options.learn:
            learnt = [name for name in names if name.endswith("one lidar")]
            rows |= {f"policy, {name}": pool.submit(learn, name.split(",")[0], options.out / name) for name in learnt}
        for name, job in rows.items():
            row = job.result()
            ticks, success = row.get("ticks", row.get("control_ticks")), row.get("success", row.get("success_rate"))
            alone = row.get("only_the_plan", row.get("empty_support_fraction"))
            late = f" {row['latched']} latched" if row.get("latched") else ""
            print(
                f"{name:28}{row['episodes']:>9}{ticks:>8}{row['unsafe_visits']:>7}{success:>8.1%}{alone:>10.2%}{late}",
                flush=True,
            )


def collect_once(name: str, ticks: int, out: Path) -> dict[str, Any]:
    """`collect` of a row, unless its result is there."""
    shape, lidars = name.split(", ")
    return dict(cached(out / f"{name}, {ticks}.json", lambda: collect(shape, lidars, ticks)))


if __name__ == "__main__":
    main()
