"""Episodes in real time on a simulated clock: with ideal sensors as in lock-step, with others as in the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments import episodes, streams
from safe_support_ql.recording.seeds import TESTS
from safe_support_ql.robots.scan import Scan
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.safety.timing import Clock
from safe_support_ql.simulation.arena import corridor, open_hall
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

CONFIG = config.load_robot("diff_drive", {"parameters.episode_s": 10.0})
ROBOT = CONFIG.robot
SEED = TESTS.start + 2_000_000


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


@pytest.fixture
def gate() -> Gate:
    return Gate(ROBOT, CONFIG.gate, False, 0, clock=Clock.REALTIME)


def beta(seed: int) -> BehaviorPolicy:
    return BehaviorPolicy(CONFIG.behavior, ROBOT, seed)


@pytest.mark.parametrize("policy", ["beta", "reference", None])
def test_with_ideal_sensors_it_goes_as_in_lock_step(sim: Simulation, gate: Gate, policy: str | None) -> None:
    lockstep = Gate(ROBOT, CONFIG.gate, False, 0)
    for number in range(2):
        seed = SEED + number
        asks = {"beta": lambda seed=seed: beta(seed), "reference": lambda: Reference(ROBOT, sim.world)}
        made = [asks[policy]() if policy else None for _ in range(2)]
        before = episodes.play(sim, lockstep, made[0], seed, number)
        now = streams.play(sim, gate, made[1], seed, number)
        assert not now.latched and now.unsafe_visits == now.refused == now.blind == 0 and now.closed <= 2, now
        assert now.reached == before.reached and abs(now.ticks - before.ticks) <= 2
        assert sum(now.verdicts.values()) + now.closed == now.ticks, "one decision a tick"
        if policy is None:
            assert now.min_margin == pytest.approx(before.min_margin, abs=5e-3), "it stands"


def test_a_cycle_begins_late_where_the_state_does_not_come(sim: Simulation, gate: Gate) -> None:
    """By the monitor's rule, a quarter of a period late; the plan then runs on what is left."""
    begun: list[float] = []
    begin = gate.begin

    def noted(now: int, *rest: Any) -> Any:
        begun.append(now / 1e9)
        return begin(now, *rest)

    gate.begin = noted  # type: ignore[method-assign]
    sim.world.become(replace(ROBOT.world, drive=replace(ROBOT.world.drive, odometry_s=0.3)))  # type: ignore[call-arg]
    found = streams.play(sim, gate, None, SEED, 0)
    gaps = np.diff(begun)
    assert gaps.min() > 0.05 - 1e-9 and gaps.max() < 0.125 + 1 / 240 + 1e-9
    assert np.mean(gaps > 0.12) > 0.5, "two of three, and what is left of a period until the next state"
    assert found.unsafe_visits == 0


def test_a_fault_is_what_the_gate_sees(sim: Simulation, gate: Gate) -> None:
    def blind(channel: str, vector: np.ndarray, seconds: float) -> np.ndarray:
        scan = Scan.of(vector) if channel == "scan" else None
        return vector if scan is None else scan.changed(np.full_like(scan.ranges, np.inf))

    found = streams.play(sim, gate, beta(SEED), SEED, 0, fault=blind)
    assert found.closed == found.ticks == 100 and not found.reached and found.unsafe_visits == 0


def test_an_episode_ends_soon_after_a_latch_and_the_next_one_begins_without(sim: Simulation, gate: Gate) -> None:
    def dead(channel: str, vector: np.ndarray, seconds: float) -> np.ndarray:
        return np.full_like(vector, np.nan) if channel == "odom" and seconds > 1.0 else vector

    found = streams.play(sim, gate, beta(SEED), SEED, 0, fault=dead)
    assert found.latched.startswith("odom") and found.refused > 10 and found.blind > 10
    assert found.ticks * ROBOT.period == pytest.approx(1.0 + CONFIG.gate.latch_after_s + streams.AFTERWARDS_S, abs=0.5)
    assert gate.state is State.LATCHED
    assert not streams.play(sim, gate, beta(SEED), SEED, 1).latched


@pytest.mark.parametrize("place", [open_hall, corridor])
def test_places_that_show_a_lidar_little_have_a_safe_start_and_a_way(sim: Simulation, gate: Gate, place: Any) -> None:
    for seed in range(3):
        arena = place(seed)
        found = streams.play(sim, gate, None, SEED, seed, arena)
        assert found.min_margin > 0.1 and sim.world.map is arena
        assert float(arena.clearance(*arena.goal)) > 0.4
        line = np.linspace(arena.start[:2], arena.goal, 50)
        assert arena.clearance(*line.T).min() > ROBOT.world.footprint_radius
