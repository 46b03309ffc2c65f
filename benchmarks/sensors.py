"""Sensors as they are: each kind of lidar, of odometry and of fault before the gate, in real time on a simulated clock.

    python benchmarks/sensors.py                                    every row
    python benchmarks/sensors.py --only LDS --episodes 4            the rows whose name contains this, and the ideal one
    python benchmarks/sensors.py --policy models/policy.onnx        an extracted policy instead of beta
    python benchmarks/sensors.py --slip                             the smallest slip that is found, by arithmetic

Each row is played in the same arenas, from `--seed` on, by a policy with the same seeds. Prints a table of 80 columns:
episodes, unsafe visits, episodes that latched and, below, why most of them did; success, and the share of the success
with ideal sensors; control ticks, and those of them in which the gate was still closed, means per episode; the 95 %
upper bound on visits per simulated hour. An extracted policy is the one that was learnt with ideal sensors, and with
the settings that `--set` repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import textwrap
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # after the thread limit

from safe_support_ql import config as configuration
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.experiments.episodes import Policy
from safe_support_ql.experiments.streams import StreamedEpisode, play
from safe_support_ql.recording.bounds import rate_upper_bound
from safe_support_ql.recording.seeds import COLLECTION
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.diff_drive.perception import COMPARED
from safe_support_ql.robots.diff_drive.sensors import FAULTS, SENSORS
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.timing import Clock
from safe_support_ql.simulation.arena import corridor, open_hall
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

ROBOT = "diff_drive"
IDEAL = "ideal"
PLACES = {"open hall, one post": open_hall, "corridor": corridor}


@dataclass(frozen=True)
class Row:
    """Which entries of the catalogue a row is about."""

    sensors: str = IDEAL
    fault: str = ""
    place: str = ""


ROWS = (
    {name: Row(name) for name in SENSORS}
    | {f"fault: {name}": Row(fault=name) for name in FAULTS}
    | {name: Row(place=name) for name in PLACES}
)


@dataclass(frozen=True)
class Job:
    """The part of a row that one process plays; plain data. `policy`: 'behavior', 'reference' or an ONNX file."""

    row: Row
    policy: str
    seeds: tuple[int, ...]
    learnt_with: tuple[tuple[str, Any], ...] = ()  # settings that the policy was learnt with, over the shipped ones


def run(job: Job) -> list[StreamedEpisode] | str:
    """Play the episodes of a job, or say why its profile is refused."""
    sensors = SENSORS[job.row.sensors]
    try:
        config = configuration.load_robot(ROBOT, sensors.overrides())
    except ValueError as error:
        return str(error)
    robot = config.robot
    sim, gate = Simulation(robot), Gate(robot, config.gate, False, job.seeds[0], clock=Clock.REALTIME)
    world = sensors.world(robot.world)
    sim.world.become(world)
    sent = sensors.sent(world, FAULTS.get(job.row.fault))
    served = None
    if job.policy.endswith(".onnx"):
        learnt_with = configuration.load_robot(ROBOT, dict(job.learnt_with))
        served = OnnxPolicy(Path(job.policy), PolicyContract.of(robot, False, learnt_with.safety_hash))
    results = []
    for number, seed in enumerate(job.seeds):
        policy: Policy = BehaviorPolicy(config.behavior, robot, seed)
        if served is not None:
            policy = Actor(served, seed, passive_stop=robot.passive_stop)
        elif job.policy == "reference":
            policy = Reference(robot, sim.world)
        place = PLACES.get(job.row.place)
        results.append(play(sim, gate, policy, seed, number, place(seed) if place else None, sent))
    sim.close()
    return results


def line(name: str, results: list[StreamedEpisode], ideal: list[StreamedEpisode], period: float) -> str:
    """A row of the table, and below it why episodes latched."""
    reached, latched = sum(one.reached for one in results), [one for one in results if one.latched]
    visits, ticks = sum(one.unsafe_visits for one in results), sum(one.ticks for one in results)
    best = sum(one.reached for one in ideal)
    share = f"{reached / best:.2f}" if best else "-"
    bound = rate_upper_bound(visits, ticks * period / 3600)
    closed, n = np.mean([one.closed for one in results]), len(results)
    text = (
        f"{name:<36}{n:>4}{visits:>4}{len(latched):>4}{reached / n:>6.0%}{share:>6}{ticks / n:>6.0f}{closed:>6.0f}"
        f"{bound:>8.1f}"
    )
    if waits := sum(one.waits for one in results):
        text += f"\n    {waits} times somebody came within the clearance of the standing base"
    if latched:
        kinds = Counter(re.sub(r"[\d.]+", "_", one.latched) for one in latched)  # whatever its figures are
        (cause, count), *_ = kinds.most_common(1)
        when = [one.latched_after for one in latched]
        why = f"within {max(when)} ticks, half of them within {np.median(when):.0f}: {count} x {cause}"
        text += "\n" + textwrap.fill(why, 80, initial_indent="    ", subsequent_indent="      ")
    return text


def slip() -> str:
    """The table of the smallest lasting slip, as a share of the distance, that is beyond W over COMPARED scans."""
    lines = [f"{'':34}{'W':>8}{'0.6 m/s':>10}{'0.3 m/s':>10}{'0.15 m/s':>10}"]
    for name in ("ideal", "rolling 0.1 s, stamped last", "5 Hz beside 50 Hz", "LDS-01", "RPLidar A1"):
        p = configuration.load_robot(ROBOT, SENSORS[name].overrides()).robot.parameters
        assert isinstance(p, Parameters)
        (true,) = SENSORS[name].true
        turn, period = true.get("turn_s", 0.0), true.get("period_s", 0.1)
        shares = []
        for v in (0.6, 0.3, 0.15):
            # Each of the two scans may be off by what the odometry may be wrong by while it was taken.
            w = p.scan_residual_distance + 2 * p.motion_mismatch * v * turn
            shares.append(p.motion_mismatch + w / (v * COMPARED * period))
        found = "".join(f"{share:>10.0%}" if share < 1.0 else f"{'-':>10}" for share in shares)
        fastest = p.scan_residual_distance + 2 * p.motion_mismatch * p.speed * turn
        lines.append(f"{name:34}{fastest:>6.3f} m{found}")
    return "\n".join(lines)


def main() -> None:
    """Play, and print each row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--episodes", type=int, default=20, help="of each row")
    parser.add_argument("--seed", type=int, default=COLLECTION.start, help="the first arena")
    parser.add_argument("--policy", default="behavior", help="behavior (beta), reference, or an ONNX file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="learnt with this setting"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slip", action="store_true", help="print the smallest slip that is found, and play nothing")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(ROWS))
        return
    if arguments.slip:
        print(slip())
        return
    learnt = tuple((key, json.loads(value)) for key, value in (item.split("=", 1) for item in arguments.set))
    names = [IDEAL, *(name for name in ROWS if arguments.only in name and name != IDEAL)]
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    period = configuration.load_robot(ROBOT).robot.period
    print(f"{'':36}{'eps':>4}{'vis':>4}{'lat':>4}{'succ':>6}{'/id':>6}{'ticks':>6}{'clos':>6}{'vis/h<':>8}")
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        parts = [tuple(seeds[w :: arguments.workers]) for w in range(arguments.workers)]
        jobs = {
            name: [pool.submit(run, Job(ROWS[name], arguments.policy, part, learnt)) for part in parts if part]
            for name in names
        }
        ideal: list[StreamedEpisode] = []
        for name, played in jobs.items():
            found = [job.result() for job in played]
            refused = [one for one in found if isinstance(one, str)]
            results = [one for part in found if not isinstance(part, str) for one in part]
            ideal = ideal or results
            print(f"{name:<36}refused: {refused[0]}" if refused else line(name, results, ideal, period), flush=True)


if __name__ == "__main__":
    main()
