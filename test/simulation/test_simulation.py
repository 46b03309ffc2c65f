"""The world: what it measures is true, what it counts is counted, and a seed is an episode."""

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.experiments.episodes import play
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.arena import make_arena
from safe_support_ql.simulation.differential_drive import DriveWorld
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


def test_arenas_hold_what_they_promise() -> None:
    spec = ROBOT.world.arena
    assert spec is not None
    for seed in range(30):
        arena = make_arena(spec, seed)
        assert spec.count[0] <= len(arena.obstacles) <= spec.count[1]
        assert np.hypot(*(arena.goal - arena.start[:2])) >= spec.start_goal_distance
        for x, y in (arena.start[:2], arena.goal):
            assert arena.clearance(x, y) >= spec.corridor
        np.testing.assert_array_equal(make_arena(spec, seed).obstacles, arena.obstacles)


def test_driving_straight_at_the_goal_succeeds_in_less_than_half() -> None:
    spec = ROBOT.world.arena
    assert spec is not None
    free = 0
    for seed in range(900_000_000, 900_000_200):
        arena = make_arena(spec, seed)
        line = np.linspace(arena.start[:2], arena.goal, 200)
        free += arena.clearance(line[:, 0], line[:, 1]).min() > ROBOT.world.footprint_radius + 0.05
    assert free < 100


def test_exact_clearance_agrees_with_the_physics_engine(sim: Simulation) -> None:
    world = sim.world
    assert isinstance(world, DriveWorld)
    rng = np.random.default_rng(0)
    probe = world.client.createMultiBody(0, world.client.createCollisionShape(2, radius=0.001))
    for seed in range(5):
        sim.reset(seed)
        for _ in range(20):
            x, y = rng.uniform(-3.8, 3.8, 2)
            exact = float(world.arena.clearance(x, y))
            if not 0.05 < exact < 1.0:
                continue
            world.client.resetBasePositionAndOrientation(probe, [x, y, 0.3], [0, 0, 0, 1])
            found = [p[8] for body in world._obstacles for p in world.client.getClosestPoints(probe, body, 1.2)]
            assert min(found) == pytest.approx(exact, abs=0.004)


def test_scan_ranges_end_on_obstacles(sim: Simulation) -> None:
    for seed in range(5):
        sim.reset(seed)
        scan = sim.sense()["scan"]
        x, y, yaw, *_ = sim.world.truth()
        angles = yaw - np.pi + np.arange(180) * 2 * np.pi / 180
        hit = np.isfinite(scan)
        clearance = sim.world.arena.clearance(x + scan[hit] * np.cos(angles[hit]), y + scan[hit] * np.sin(angles[hit]))
        assert np.abs(clearance).max() < 0.032


def test_a_seed_is_an_episode() -> None:
    traces = []
    for _ in range(2):
        sim = Simulation(ROBOT)
        sim.reset(5)
        trace = []
        for i in range(20):
            trace.append(np.concatenate([sim.sense()["odom"], sim.world.truth()]))
            sim.tick(np.array([0.5, 0.3 * np.sin(i)]))
        traces.append(np.array(trace))
        sim.close()
    np.testing.assert_array_equal(*traces)


def test_a_collision_is_one_visit_and_ends_the_episode(sim: Simulation) -> None:
    sim.reset(0)
    outcomes = [sim.tick(np.array([0.6, 0.0])) for _ in range(200)]
    over = next(i for i, outcome in enumerate(outcomes) if outcome.terminated)
    assert outcomes[over].unsafe_visits == 1 and not outcomes[over].reached
    began = next(outcome for outcome in outcomes if outcome.visit)
    assert "clearance" in began.visit and began.min_margin < 0
    assert outcomes[over].unsafe_substeps >= 1


def test_the_drive_stops_by_itself_without_commands(sim: Simulation) -> None:
    sim.reset(3)
    sim.command(np.array([0.3, 0.0]))
    sim.advance(24)
    assert sim.world.truth()[3] > 0.1
    sim.advance(24 * 10)
    assert abs(sim.world.truth()[3]) < 0.005


def test_the_dead_zone_stops_the_base(sim: Simulation) -> None:
    sim.reset(3)
    for _ in range(10):
        sim.tick(np.array([0.04, 0.0]))
    assert abs(sim.world.truth()[3]) < 0.005


def test_starts_and_stops_cost_the_odometry_no_heading(sim: Simulation) -> None:
    sim.reset(3)
    world = sim.world
    assert isinstance(world, DriveWorld)
    world._scale = np.ones(2)  # no drift: what is left is wheel slip
    start = world.truth()[2]
    for speed, turn_rate in 5 * ((0.6, 0.0), (0.0, 0.0), (0.0, 1.5), (0.0, -1.5), (-0.15, 0.0)):
        for _ in range(3):
            sim.tick(np.array([speed, turn_rate]))
            sim.sense()
    slip = (world.truth()[2] - start) - (world._pose[2] - start)
    assert abs((slip + np.pi) % (2 * np.pi) - np.pi) < 0.02


def test_the_time_limit_truncates(sim: Simulation) -> None:
    sim.reset(3)
    outcome = None
    for _ in range(400):
        outcome = sim.tick(np.zeros(2))
        if outcome.terminated or outcome.truncated:
            break
    assert outcome is not None and outcome.truncated and outcome.tick == 400


def test_the_reference_reaches_its_goals_behind_the_gate(sim: Simulation) -> None:
    gate = Gate(ROBOT, SETTINGS.gate, False, 0)
    reference = Reference(ROBOT, sim.world)
    results = [play(sim, gate, reference, 500_000_000 + i, i) for i in range(8)]
    assert sum(result.reached for result in results) >= 7
    assert sum(result.unsafe_visits for result in results) == 0
    assert sum(result.verdicts["no_proof"] for result in results) == 0
