"""Evaluates policies on held-out episodes without ROS, in parallel processes, behind the same gate as the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import config as configuration
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.deployment.contract import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.experiments.episodes import EpisodeResult, Policy, play
from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation


@dataclass(frozen=True)
class Job:
    """The part of an evaluation that one process plays; plain data. `policy`: see make_policy."""

    raw_config: Mapping[str, Any]
    policy: str
    continuous: bool
    seeds: tuple[int, ...]


def make_policy(name: str, config: configuration.Config, continuous: bool, sim: Simulation, seed: int) -> Policy:
    """'behavior', 'reference', an ONNX file, or 'greedy:' and an ONNX file. Raises ValueError as `OnnxPolicy` does."""
    robot = config.robot
    if name == "behavior":
        return BehaviorPolicy(config.behavior, robot, seed)
    if name == "reference":
        return Reference(robot, sim.world)
    contract = PolicyContract.of(robot, continuous, config.safety_hash)
    served = OnnxPolicy(Path(name.removeprefix("greedy:")), contract)
    return Actor(served, seed, name.startswith("greedy:"))


def run(job: Job) -> list[EpisodeResult]:
    """Play the episodes of a job."""
    config = configuration.parse(job.raw_config, "configuration")
    sim = Simulation(config.robot)
    gate = Gate(config.robot, config.gate, job.continuous, job.seeds[0])
    policy = make_policy(job.policy, config, job.continuous, sim, job.seeds[0])
    results = [play(sim, gate, policy, seed, number) for number, seed in enumerate(job.seeds)]
    sim.close()
    return results


def evaluate(
    config: configuration.Config, policy: str, continuous: bool, episodes: int, workers: int = 1
) -> list[EpisodeResult]:
    """`episodes` held-out episodes of `policy`. `workers` changes the result only through the draws of beta."""
    seeds = [HELD_OUT.start + i for i in range(episodes)]
    slices = [tuple(seeds[w::workers]) for w in range(workers) if seeds[w::workers]]
    jobs = [Job(config.raw, policy, continuous, part) for part in slices]
    if workers == 1:
        return run(jobs[0]) if jobs else []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return sorted((result for part in pool.map(run, jobs) for result in part), key=lambda result: result.seed)


def summarise(config: configuration.Config, results: list[EpisodeResult]) -> dict[str, Any]:
    """Rates with exact 95 % intervals; mean return with a normal one."""
    ticks = sum(result.ticks for result in results)
    # If no goal must be reached, success means no unsafe visit until the time limit.
    reached = sum(result.reached if config.robot.must_reach else result.unsafe_visits == 0 for result in results)
    returns = np.array([result.episode_return for result in results])
    visits = sum(result.unsafe_visits for result in results)
    verdicts = {name: sum(result.verdicts[name] for result in results) for name in results[0].verdicts}
    decisions = sum(verdicts.values())
    mean = float(returns.mean())
    half = 1.96 * float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
    return {
        "episodes": len(results),
        "success_rate": reached / len(results),
        "success_interval95": proportion_interval(reached, len(results)),
        "mean_return": mean,
        "mean_return_interval95": None if half is None else (mean - half, mean + half),
        "control_ticks": ticks,
        "unsafe_visits": visits,
        "unsafe_rate_upper95_per_hour": rate_upper_bound(visits, ticks * config.robot.period / 3600),
        "intervention_rate": sum(result.interventions for result in results) / max(ticks, 1),
        "empty_support_fraction": sum(result.empty_supports for result in results) / max(decisions, 1),
        "verdicts": {name: count / max(decisions, 1) for name, count in verdicts.items()},
        "min_margin": min(result.min_margin for result in results),
    }


def score(rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    """(J - J_behavior) / (J_reference - J_behavior) of row 'policy'; None until all three rows exist."""
    if not {"behavior", "reference", "policy"} <= rows.keys():
        return None
    low, high = rows["behavior"]["mean_return"], rows["reference"]["mean_return"]
    return float((rows["policy"]["mean_return"] - low) / (high - low)) if high != low else None
