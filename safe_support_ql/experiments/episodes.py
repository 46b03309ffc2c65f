"""Plays episodes in one process: simulator, gate and policy in lock-step, like the nodes but without DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Inputs, Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Decision, Gate
from safe_support_ql.simulation.simulation import Outcome, Simulation

Policy = Callable[[CandidateSet], Singles]


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode."""

    seed: int
    ticks: int
    reached: bool  # by ground truth
    believed: bool  # by the robot's own sensors
    episode_return: float
    min_margin: float
    unsafe_visits: int
    waits: int  # how often somebody came within the clearance of the standing robot
    interventions: int
    empty_supports: int
    verdicts: dict[str, int]


def look(sim: Simulation, gate: Gate, inputs: Inputs, tick: int) -> CandidateSet:
    """Give the gate what was sensed at `tick`, and let it certify. In lock-step nothing is ever late.

    Raises ValueError if the gate refuses what the simulator sends: the robot's settings do not fit its sensors.
    """
    now = (tick + 1) * int(1e9 / sim.robot.world.control_hz)
    for channel, vector in inputs.items():
        problem = gate.receive(channel, vector, now, now, now)
        if problem:
            raise ValueError(f"simulated in lock-step, {problem}")
    candidates = gate.begin(now, now)
    if candidates is None:
        raise ValueError(f"simulated in lock-step, {gate.cause}")
    return candidates


def steps(
    sim: Simulation, gate: Gate, policy: Policy | None, seed: int, episode: int
) -> Iterator[tuple[Outcome, Decision]]:
    """Play one episode; yields the outcome of each state and the decision on it, up to the plan at the final state.

    Without a policy (None) nothing is requested, and the plan runs.
    """
    outcome = sim.reset(seed)
    gate.new_episode(episode)
    while True:
        candidates = look(sim, gate, sim.sense(), outcome.tick)
        over = outcome.terminated or outcome.truncated
        decision = None
        if policy is not None and not over:
            decision = gate.request(candidates.id, policy(candidates), 0)
        decision = decision or gate.expire(0)
        yield outcome, decision
        if over:
            return
        outcome = sim.tick(decision.action.astype(np.float64))


def play(sim: Simulation, gate: Gate, policy: Policy | None, seed: int, episode: int) -> EpisodeResult:
    """Play one episode and return its result."""
    counters = gate.counters
    interventions, empty, verdicts = counters.interventions, counters.empty_supports, dict(counters.verdicts)
    visits, waits = sim.unsafe_visits, sim.waits
    *_, (outcome, _) = steps(sim, gate, policy, seed, episode)
    believed = outcome.terminated and sim.unsafe_visits == visits
    return EpisodeResult(
        seed, outcome.tick, outcome.reached, believed, outcome.episode_return, outcome.min_margin,
        sim.unsafe_visits - visits, sim.waits - waits, counters.interventions - interventions,
        counters.empty_supports - empty, {name: count - verdicts[name] for name, count in counters.verdicts.items()},
    )  # fmt: skip
