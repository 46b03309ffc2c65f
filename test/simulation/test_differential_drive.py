"""The base's world: what it measures is true, and the drive lags, stops by itself and has a dead zone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.scan import Scan
from safe_support_ql.simulation.differential_drive import DriveWorld
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Streams

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
        scan = Scan.of(sim.world.sense(sim.rng)["scan"]).ranges
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


@pytest.mark.parametrize("footprint", [(), ((0.3, 0.15), (-0.1, 0.15), (-0.1, -0.15), (0.3, -0.15))])
def test_a_quick_truth_is_a_lower_bound_or_exact(footprint: tuple[tuple[float, float], ...]) -> None:
    """Also while it mostly turns, which moves the corners of a footprint that has some."""
    overrides = {"parameters.footprint": footprint, "parameters.corridor": 0.62}
    sim = Simulation(config.load_robot("diff_drive", overrides if footprint else {}).robot)
    sim.reset(3)
    exact_at = 0
    for command in ([0.5, 0.4], [0.0, 1.5]):
        sim.command(np.array(command))
        for _ in range(150):
            sim.world.step()
            quick = sim.world.quick_truth(0.3)
            assert sim.world.map is not None
            exact = sim.world.map.room(sim.world.spec, quick[:3])
            assert quick[5] <= exact + 1e-9 and (quick[5] >= 0.3 or quick[5] == pytest.approx(exact))
            exact_at += quick[5] == exact
    assert exact_at < 300
    sim.close()


def test_it_goes_on_from_the_state_it_was_put_at(sim: Simulation) -> None:
    sim.reset(3)
    state = np.array([*sim.world.truth()[:3], 0.4, 0.5])
    sim.world.set_state(state)
    np.testing.assert_allclose(sim.world.truth()[:5], state, atol=1e-9)
    np.testing.assert_allclose(sim.world.sense(sim.rng)["odom"][[0, 1, 4]], [*state[:2], 0.4], rtol=0.05)
    sim.command(state[3:])
    sim.advance(12)
    np.testing.assert_allclose(sim.world.truth()[3:5], state[3:], atol=0.05)


def with_lidar(sim: Simulation, **fields: Any) -> DriveWorld:
    """The world of `sim` in which its lidar has these `fields`."""
    world = sim.world
    assert isinstance(world, DriveWorld)
    lidars = {"scan": replace(ROBOT.world.lidars["scan"], **fields)}
    world.become(replace(ROBOT.world, lidars=lidars))
    return world


def off_walls(world: DriveWorld, scan: Scan, pose: Any) -> np.ndarray:
    """How far each return [n] of a lidar, while its base stood at pose(s) [3] or [3, N], ends from what it may hit."""
    lidar, (x, y, yaw) = world.lidars["scan"], np.broadcast_to(np.array(pose).T, (len(scan.ranges), 3)).T
    at = yaw + lidar.yaw + (-scan.angles if lidar.upside_down else scan.angles)
    x, y = x + np.cos(yaw) * lidar.x - np.sin(yaw) * lidar.y, y + np.sin(yaw) * lidar.x + np.cos(yaw) * lidar.y
    hit = np.isfinite(scan.ranges) & (scan.ranges > 0.0)
    assert hit.sum() > 20
    far, at, x, y = scan.ranges[hit], at[hit], x[hit], y[hit]
    return np.abs(world.arena.clearance(x + far * np.cos(at), y + far * np.sin(at)))


@pytest.mark.parametrize(
    "fields",
    [
        {"x": 0.1, "y": -0.05, "yaw": np.pi / 2},
        {"x": -0.2, "yaw": 2.8, "upside_down": True},
        {"angle_min": 0.0, "rays": 360, "nothing": 0.0},
        {"angle_min": np.pi, "angle_increment": -np.pi / 180, "rays": 360},
        {"angle_min": -2.3, "angle_increment": 4.6 / 120, "rays": 121, "nothing": np.nan},
    ],
)
def test_scans_of_any_mounting_and_direction_end_on_obstacles(sim: Simulation, fields: dict[str, Any]) -> None:
    for seed in range(3):
        world = with_lidar(sim, noise=0.0, **fields)
        sim.reset(seed)
        assert off_walls(world, Scan.of(sim.world.sense(sim.rng)["scan"]), world.truth()[:3]).max() < 0.003


@pytest.mark.parametrize(("range_min", "nothing"), [(0.0, np.inf), (2.0, np.inf), (2.0, 0.0), (2.0, 6.0)])
def test_what_is_nearer_than_range_min_reads_as_nothing(sim: Simulation, range_min: float, nothing: float) -> None:
    sim.reset(3)
    with_lidar(sim, noise=0.0)
    free = Scan.of(sim.world.sense(sim.rng)["scan"]).ranges
    with_lidar(sim, noise=0.0, range_min=range_min, nothing=nothing)
    scan = Scan.of(sim.world.sense(sim.rng)["scan"])
    assert (free < 2.0).any() and scan.range_min == range_min
    np.testing.assert_array_equal(scan.ranges, np.where((free < range_min) | np.isinf(free), nothing, free))


def test_a_header_says_where_and_when_the_rays_are(sim: Simulation) -> None:
    sim.reset(3)
    with_lidar(sim, rays=91, angle_min=1.5, angle_increment=-0.02, turn_s=0.09, range_max=4.0)
    scan = Scan.of(sim.world.sense(sim.rng)["scan"])
    assert len(scan.ranges) == 91 and scan.angles[-1] == pytest.approx(scan.angle_max) == pytest.approx(1.5 - 90 * 0.02)
    assert scan.time_increment == pytest.approx(0.001) and scan.scan_time == 0.09 and scan.range_max == 4.0
    with_lidar(sim, period_s=0.2)
    assert Scan.of(sim.world.sense(sim.rng)["scan"]).scan_time == 0.2


@pytest.mark.parametrize("stamp", ["first", "last"])
def test_each_ray_of_a_turn_ends_on_what_was_there_at_its_time(sim: Simulation, stamp: str) -> None:
    world = with_lidar(sim, noise=0.0, x=0.1, yaw=0.5, turn_s=0.148, period_s=0.16, stamp=stamp)
    sim.reset(3)
    streams, poses, scans = Streams(sim), [world.truth()[:3]], []
    scans += streams.start()
    for step in range(240):
        if step % 24 == 0:
            sim.command(np.array([0.4, 1.5 if step < 120 else -1.5]))
        sim.advance(1)
        poses.append(world.truth()[:3])
        scans += streams.step()
    path, sub_steps = np.unwrap(np.array(poses), axis=0, period=2 * np.pi), np.arange(241) / 240
    path[:, :2] = np.array(poses)[:, :2]
    at_once, turned = [], []
    for channel, vector, stamp_s in scans:
        if channel == "scan":
            scan = Scan.of(vector)
            times = stamp_s + np.arange(180) * scan.time_increment - (0.148 if stamp == "last" else 0.0)
            each = [np.interp(times, sub_steps, path[:, i]) for i in range(3)]
            turned.append(off_walls(world, scan, each).max())
            at_once.append(off_walls(world, scan, [column[0] for column in each]).max())
    assert len(turned) == 6 and max(turned) < 0.003
    assert min(at_once) > 0.1, "the whole scan from one place would be elsewhere"
