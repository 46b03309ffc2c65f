"""Evaluates policies on held-out episodes without ROS, in parallel processes, behind the same gate as the nodes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import config as configuration
from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.experiments import streams
from safe_support_ql.experiments.episodes import EpisodeResult, Policy, play
from safe_support_ql.experiments.workers import pool as start
from safe_support_ql.experiments.worlds import drawn, in_world
from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.claims import DRAWN, FAULTY, LOSSY, NOMINAL
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.timing import Clock
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

EVERY_S = 5.0
LOST = 0.05  # of the messages of the sensors, in a lossy world


def make_policy(name: str, config: configuration.Config, continuous: bool, sim: Simulation, seed: int) -> Policy:
    """'behavior', 'reference', an ONNX file, or 'greedy:' and an ONNX file. Raises ValueError as `OnnxPolicy` does."""
    robot = config.robot
    if name == "behavior":
        return BehaviorPolicy(config.behavior, robot, seed)
    if name == "reference":
        return Reference(robot, sim.world)
    contract = PolicyContract.of(robot, continuous, config.safety_hash)
    served = OnnxPolicy(Path(name.removeprefix("greedy:")), contract)
    return Actor(served, seed, name.startswith("greedy:"), robot.passive_stop)


def run(
    raw_config: Mapping[str, Any], name: str, continuous: bool, seeds: Sequence[int], world: str = NOMINAL
) -> list[EpisodeResult]:
    """Play the episodes of `seeds` with the policy `name`: the part of an evaluation that one process plays.

    The gate does not know of another `world`.
    """
    config = configuration.parse(raw_config, "configuration")
    failing = partial(_failing, robots.claims_of(config.robot).failing)
    fault = _losing if world == LOSSY else failing if world == FAULTY else None
    gate = Gate(config.robot, config.gate, continuous, seeds[0], clock=Clock.REALTIME if fault else Clock.LOCKSTEP)
    draws = world in (DRAWN, LOSSY, FAULTY)
    sim = Simulation(config.robot if draws else in_world(config.robot, world))
    policy = make_policy(name, config, continuous, sim, seeds[0])
    results: list[EpisodeResult] = []
    for number, seed in enumerate(seeds):
        if draws:
            sim.close()
            sim = Simulation(drawn(config.robot, seed))
        if fault is not None:
            results.append(streams.play(sim, gate, policy, seed, number, fault=fault(seed)))
        else:
            results.append(play(sim, gate, policy, seed, number))
    sim.close()
    return results


def _losing(seed: int) -> streams.Fault:
    """Each message is lost with probability LOST, but those that are sent once: goals."""
    rng = np.random.default_rng([seed, 3])
    return lambda channel, vector, at_s: vector if at_s == 0.0 or rng.random() >= LOST else None


def _failing(longest: float, seed: int) -> streams.Fault:
    """Every EVERY_S a sensor is silent for up to `longest` seconds, or sends no number."""
    draw = np.random.default_rng([seed, 4])
    began, until, silent, failed, sensors = 0.0, 0.0, False, "", set[str]()

    def fault(channel: str, vector: Floats, at_s: float) -> Floats | None:
        nonlocal began, until, silent, failed
        if at_s > 0.0:  # goals are sent once, at the start
            sensors.add(channel)
        if at_s >= began + EVERY_S:
            failed = str(draw.choice(sorted(sensors)))  # not always the one whose message comes first
            began, until, silent = at_s, at_s + draw.uniform(0.1, longest), draw.random() < 0.5
        if channel != failed or at_s > until:
            return vector
        return None if silent else np.full_like(vector, np.nan)

    return fault


def evaluate(
    config: configuration.Config, policy: str, continuous: bool, episodes: int, workers: int = 1
) -> list[EpisodeResult]:
    """`episodes` held-out episodes of `policy`. `workers` changes the result only through the draws of beta."""
    seeds = HELD_OUT[:episodes]
    play_part = partial(run, config.raw, policy, continuous)
    if workers == 1:
        return play_part(seeds) if seeds else []
    parts = [seeds[w::workers] for w in range(min(workers, episodes))]
    with start(workers) as pool:
        results = [result for part in pool.map(play_part, parts) for result in part]
    return sorted(results, key=lambda result: result.seed)


def summarise(config: configuration.Config, results: list[EpisodeResult]) -> dict[str, Any]:
    """Rates with exact 95 % intervals; mean return with a normal one."""
    ticks = sum(result.ticks for result in results)
    # If no goal must be reached, success means no unsafe visit until the time limit.
    reached = sum(result.reached if config.robot.must_reach else result.unsafe_visits == 0 for result in results)
    believed = sum(result.believed if config.robot.must_reach else result.unsafe_visits == 0 for result in results)
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
        "success_by_sensors": believed / len(results),
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
