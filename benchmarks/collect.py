"""How much of a collection without ROS is simulation, and how much the gate: ms a tick, and the share, in one run.

    python benchmarks/collect.py [--robot diff_drive] [--episodes 20]

Each episode is played twice, one after the other: under the behavior policy with the gate, and `bare`, with the same
actions by the simulator alone (PyBullet, rays, ground truth, reward). What the first takes longer is the gate's and the
policy's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this revision, whichever one is installed

import numpy as np  # after the thread limit

from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.config import load_robot
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.recording.seeds import COLLECTION
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.simulation import Simulation


def measure(name: str, episodes: int) -> tuple[list[float], list[float]]:
    """Seconds a tick of each episode: whole, and bare."""
    config = load_robot(name)
    robot = config.robot
    gate = Gate(robot, config.gate, False, COLLECTION.start)
    sim, alone = Simulation(robot), Simulation(robot)
    whole, bare = [], []
    for episode in range(episodes + 1):
        seed = COLLECTION.start + episode
        policy = BehaviorPolicy(config.behavior, robot, seed)
        began = time.perf_counter()
        actions = [decision.action.astype(np.float64) for _, decision in steps(sim, gate, policy, seed, episode)][:-1]
        between = time.perf_counter()
        alone.reset(seed)
        for action in actions:
            alone.tick(action)
        if episode:  # the first compiles
            whole.append((between - began) / len(actions))
            bare.append((time.perf_counter() - between) / len(actions))
    sim.close()
    alone.close()
    return whole, bare


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=robots.names(), help="default: every robot")
    parser.add_argument("--episodes", type=int, default=20, help="default 20")
    options = parser.parse_args()
    print(f"{'ms a tick':<14}{'whole':>8}{'bare':>8}{'bare / whole':>14}   median episode [least, most]")
    for name in [options.robot] if options.robot else robots.names():
        whole, bare = map(np.array, measure(name, options.episodes))
        share = bare / whole
        print(
            f"{name:<14}{1e3 * np.median(whole):8.2f}{1e3 * np.median(bare):8.2f}{np.median(share):14.2f}"
            f"   [{share.min():.2f}, {share.max():.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
