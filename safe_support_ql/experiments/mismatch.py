"""Changes the robot while it moves, beyond what the certificate covers: does the gate detect it, and how soon?"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.config import Config
from safe_support_ql.experiments.episodes import look
from safe_support_ql.recording.seeds import MISMATCH
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.world import WorldSpec
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.simulation.simulation import Simulation

LONGEST_WAIT_S = 4.0  # before the change
AFTERWARDS_S = 2.0  # for the plan after a latch
MOVING = 0.5  # at the change, the last command must have at least this share of its range


@dataclass(frozen=True)
class Encounter:
    """One episode with a change. `ticks` from the change to the latch, -1 without a latch; `largest` residual in W."""

    seed: int
    ticks: int
    beyond: int
    largest: float
    unsafe_visits: int
    cause: str


def twice(robot: Robot) -> dict[str, WorldSpec]:
    """Worlds twice as far from nominal as each named mismatch, for the mismatches that are numbers of the drive."""
    drive: Any = robot.world.drive
    worlds = {}
    for name, fields in robots.claims_of(robot).mismatches.items():
        if all(isinstance(value, float) for value in fields.values()):
            further = {key: 2.0 * value - getattr(drive, key) for key, value in fields.items()}
            worlds[f"2 x {name}"] = replace(robot.world, drive=replace(drive, **further))
    return worlds


def meet(config: Config, spec: WorldSpec, episodes: int, watch: bool = True) -> list[Encounter]:
    """Play `episodes` under the behavior policy; in each, the world becomes `spec` while the robot moves.

    Without `watch` the gate compares no states, which shows what would happen without detection.
    """
    robot = config.robot
    sim, gate = Simulation(robot), Gate(robot, config.gate, False, MISMATCH.start)
    gate.watching = watch
    met: list[Encounter] = []
    for seed in MISMATCH[:episodes]:
        sim.world.become(robot.world)
        met.append(_episode(sim, gate, BehaviorPolicy(config.behavior, robot, seed), spec, seed))
    sim.close()
    return met


def _episode(sim: Simulation, gate: Gate, policy: BehaviorPolicy, spec: WorldSpec, seed: int) -> Encounter:
    robot, before = sim.robot, sim.unsafe_visits
    outcome = sim.reset(seed)
    gate.state = State.CLOSED
    gate.new_episode(seed)
    wait = int(np.random.default_rng([seed, 5]).integers(1, round(LONGEST_WAIT_S / robot.period) + 1))
    changed = latched = None
    largest, beyond, counted = 0.0, 0, gate.counters.mismatches
    while not (outcome.terminated or outcome.truncated):
        tick = outcome.tick
        moving = (np.abs(gate.support.previous) >= MOVING * robot.action_high).any()
        if changed is None and tick >= wait and moving:
            sim.world.become(spec)
            changed, counted = tick, gate.counters.mismatches
        candidates = look(sim, gate, sim.sense(), tick)
        if changed is not None and latched is None:
            largest, beyond = max(largest, gate.mismatch.largest), gate.counters.mismatches - counted
            latched = tick if gate.state is State.LATCHED else None
        if latched is not None and tick - latched >= AFTERWARDS_S / robot.period:
            break
        decision = gate.request(candidates.id, policy(candidates), 0)
        assert decision is not None
        outcome = sim.tick(decision.action.astype(np.float64))
    ticks = -1 if latched is None or changed is None else latched - changed
    return Encounter(seed, ticks, beyond, largest, sim.unsafe_visits - before, gate.mismatch.what)
