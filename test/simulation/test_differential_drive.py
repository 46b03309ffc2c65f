"""The base's world: what it measures is true, and the drive lags, stops by itself and has a dead zone."""

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.simulation.differential_drive import DriveWorld
from safe_support_ql.simulation.simulation import Simulation

ROBOT = config.load_robot("diff_drive").robot


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


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


def test_a_quick_truth_is_a_lower_bound_or_exact(sim: Simulation) -> None:
    sim.reset(3)
    sim.command(np.array([0.5, 0.4]))
    exact_at = 0
    for _ in range(200):
        sim.world.step()
        quick = sim.world.quick_truth(0.3)
        assert sim.world.map is not None
        exact = sim.world.map.clearance(quick[0], quick[1]) - ROBOT.world.footprint_radius
        assert quick[5] <= exact + 1e-9 and (quick[5] >= 0.3 or quick[5] == pytest.approx(exact))
        exact_at += quick[5] == exact
    assert exact_at < 200


def test_it_goes_on_from_the_state_it_was_put_at(sim: Simulation) -> None:
    sim.reset(3)
    state = np.array([*sim.world.truth()[:3], 0.4, 0.5])
    sim.world.set_state(state)
    np.testing.assert_allclose(sim.world.truth()[:5], state, atol=1e-9)
    np.testing.assert_allclose(sim.sense()["odom"][[0, 1, 4]], [*state[:2], 0.4], rtol=0.05)
    sim.command(state[3:])
    sim.advance(12)
    np.testing.assert_allclose(sim.world.truth()[3:5], state[3:], atol=0.05)
