"""Obstacles that move: the certificate against brute force, shadows, waiting, and the referee of the world."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from safe_support_ql import robots
from safe_support_ql.robots.base import Stamped
from safe_support_ql.robots.diff_drive.perception import LidarPerception
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.footprint import corners_of, from_outline
from safe_support_ql.robots.free_space import Rays
from safe_support_ql.robots.geometry import match_scans, surfaces
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.gate import Gate, GateConfig, State
from safe_support_ql.simulation.differential_drive import WALKER, DriveWorld
from safe_support_ql.simulation.simulation import Simulation

SPEED = 0.3  # m/s
NS = 1_000_000_000
RECTANGLE = ((0.25, 0.18), (-0.25, 0.18), (-0.25, -0.18), (0.25, -0.18))
SHAPES: dict[str, dict[str, Any]] = {
    "disc": {"corridor": 0.75},
    "rectangle": {"corridor": 0.95, "footprint": RECTANGLE, "obstacles_max": 4, "obstacles_min": 2},
}


def base(shape: str = "disc", **parameters: Any) -> DiffDrive:
    robot = robots.make("diff_drive", {"obstacle_speed": SPEED, **SHAPES[shape], **parameters})
    assert isinstance(robot, DiffDrive)
    return robot


def clearance(robot: DiffDrive, x: Floats, points: Floats) -> Floats:
    """Of the footprint at states x[T, 5] from points[M, 2]: [T, M]."""
    p, found = robot.parameters, []
    for point in points:
        if p.outline:
            found.append(from_outline(x[:, 0], x[:, 1], x[:, 2], point[None], p.outline, p.farthest))
        else:
            found.append(np.hypot(*(x[:, :2] - point).T) - p.footprint_radius)
    return np.array(found).T


@pytest.mark.parametrize("shape", SHAPES)
def test_nobody_who_walks_touches_a_base_in_motion_after_a_certified_action(shape: str) -> None:
    """Every point starts when the state was measured, and runs for where the base will be."""
    robot, rng = base(shape), np.random.default_rng(0)
    model, p = robot.model, robot.parameters
    certify = Certifier(model, 5, 2)
    fine = 8  # steps per check
    certified = closest = 0
    for _ in range(40):
        angles = rng.uniform(-np.pi, np.pi, 5)
        points = rng.uniform(p.farthest + 0.02, 1.6, 5)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        state = np.array([0.0, 0.0, 0.0, rng.uniform(0.0, p.speed) * rng.integers(2), rng.uniform(-1.5, 1.5)])
        actions = rng.uniform(robot.action_low, robot.action_high, (12, 2))
        past, delays = np.zeros((1, 1, 2)), (0,)
        margins, _ = certify(
            state, past, delays, actions, points, 0, model.certificate.band, model.certificate.holds, 0.0
        )
        for action in actions[margins >= 0.0]:
            dt, hold = model.dynamics.dt / fine, max(model.certificate.holds) * fine
            x, states = tuple(state), [state]
            member = list(model.dynamics.members[0])
            member[2] = 1.0 - math.exp(-dt / p.lag)
            for k in range(40 * fine):
                command = action if k < hold else np.zeros(2)
                x = model.dynamics.step(x, tuple(command), tuple(member), dt)
                states.append(np.array(x))
            path = np.array(states)
            moving = np.abs(path[:, 3]) + p.farthest * np.abs(path[:, 4]) > p.terminal_speed
            room = clearance(robot, path, points) - SPEED * dt * np.arange(len(path))[:, None]
            if moving.any():
                least = float(room[moving].min())
                assert least >= p.clearance, (state, action, points)
                certified, closest = certified + 1, closest + (least < p.clearance + 0.3)
    assert certified > 100 and closest > 10, "some must have come near"


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_of_margins_hold_where_the_base_stands_or_starts(shape: str) -> None:
    robot, rng = base(shape), np.random.default_rng(1)
    certificate = robot.model.certificate
    assert certificate.margins_from
    points = rng.uniform(-2.0, 2.0, (20, 2))
    for _ in range(300):
        seen, x = rng.uniform(-0.5, 0.5, (2, 5)) * np.array([1, 1, 2, rng.integers(2), rng.integers(2)])
        h = certificate.margins(tuple(seen), points, certificate.constants)
        exact = certificate.margins(tuple(x), points, certificate.constants)
        least = certificate.margins_from(tuple(x), tuple(seen), h, certificate.constants)
        assert all(a <= b + 1e-9 for a, b in zip(least, exact, strict=True))


def test_a_standing_base_needs_no_room_and_a_turning_disc_does_not_stand() -> None:
    certificate = base().model.certificate
    near = np.array([[0.18, 0.0]])
    standing, turning = (0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 1.0)
    assert certificate.margins(standing, near, certificate.constants)[0] > 100.0
    assert certificate.margins(turning, near, certificate.constants)[0] < 0.0
    assert certificate.terminal(standing, (), certificate.constants)
    assert not certificate.terminal(turning, (), certificate.constants)


def test_the_edge_of_a_shadow_is_a_boundary() -> None:
    """Behind a post, somebody may stand who steps out: the line from the post to the wall bounds the free space."""
    robot = base()
    angles = full_circle(np.zeros(180), 6.0).angles
    ranges = np.where(np.abs(angles) < 0.2, 0.8, 1.8)
    rays = Rays.around(ranges, angles, np.zeros((180, 2)), np.zeros(180), np.zeros(180), angles[1] - angles[0])
    points, _, _ = robot.bounded(rays)
    between = np.hypot(*points.T)
    at = np.abs(np.abs(np.arctan2(points[:, 1], points[:, 0])) - 0.21) < 0.03
    gaps = np.diff(np.sort(between[at & (points[:, 1] > 0.0)]))
    assert gaps.max() < 0.06 and between[at].max() > 1.5 and between[at].min() < 0.81


def seen(robot: DiffDrive, ranges: Floats, tick: int) -> dict[str, Floats]:
    return {
        "odom": np.array([0.0, 0, 0, 1, 0, 0]),
        "scan": full_circle(ranges, 6.0, 0.12).vector(),
        "goal_pose": np.array([3.0, 0.0]),
    }


def test_somebody_within_the_clearance_is_waited_for() -> None:
    robot = base()
    gate = Gate(robot, GateConfig(), False, 0)
    gate.new_episode(0)
    room = np.full(180, 2.5)
    person = np.where(np.abs(full_circle(room, 6.0).angles) < 0.5, 0.25, room)
    for tick in range(60):
        now = (tick + 1) * 100_000_000
        for channel, vector in seen(robot, person if 5 <= tick < 50 else room, tick).items():
            assert not gate.receive(channel, vector, now, now, now)
        candidates = gate.begin(now, now)
        assert candidates is not None
        decision = gate.request(candidates.id, candidates.actions[candidates.plan], now)
        assert decision is not None and gate.state is not State.LATCHED
        if 5 <= tick < 50:
            assert candidates.only_plan and decision.verdict == "certified"
            assert "waiting: something is 0.0" in decision.message and "it goes on when that" in decision.message
        elif tick > 3:
            assert not candidates.only_plan and not decision.message


def test_somebody_who_walks_is_no_motion_of_the_base() -> None:
    """A base that stands in a room, and one object that comes nearer by 0.03 m: nothing else shows the same motion."""
    angles = full_circle(np.zeros(180), 6.0).angles
    wall = np.minimum(2.0 / np.maximum(np.abs(np.cos(angles)), 1e-9), 6.0)  # two walls, ahead and behind
    wall[np.abs(np.sin(angles)) > 0.9] = np.inf
    person = np.abs(angles - 1.5) < 0.3
    before, now = (np.where(person, away, wall) for away in (0.80, 0.77))
    lines = surfaces(before, angles, 0.02)
    flat = surfaces(now, angles, 0.02).smooth
    alone, _, _ = match_scans(lines, now, angles, flat, angles, np.zeros(3), 6.0)
    pose, deviation, _ = match_scans(lines, now, angles, flat, angles, np.zeros(3), 6.0, walkers=True)
    assert abs(alone[1]) > 0.02, "the only thing to the side: it looks as if the base had moved"
    assert np.isinf(deviation[1]) and np.abs(pose).max() < 1e-3
    nearer = np.minimum(1.95 / np.maximum(np.abs(np.cos(angles)), 1e-9), 6.0)
    nearer = np.where(np.isinf(wall) | (np.cos(angles) < 0.0), wall, nearer)
    slipped, _, _ = match_scans(lines, nearer, angles, flat, angles, np.zeros(3), 6.0, walkers=True)
    assert abs(slipped[0]) > 0.01, "no wall walks"


# --- the simulated world ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_the_referee_knows_where_everybody_is(shape: str) -> None:
    robot = base(shape, walkers=12, walker_speed=1.0)
    sim = Simulation(robot)
    world = sim.world
    assert isinstance(world, DriveWorld)
    sim.reset(880_700_001)
    arena = world.map
    rng, p, near = np.random.default_rng(2), robot.parameters, 0
    for _ in range(40):
        sim.world.command(rng.uniform(robot.action_low, robot.action_high))
        for _ in range(24):
            before = world._walked.copy()
            world.step()
            quick, walked = world.quick_truth(0.2), world._walked
            assert np.hypot(*(walked - before).T).max() <= world.dt * 1.0 + 1e-12
            assert (arena.clearance(*walked.T) > WALKER - 1e-9).all()
            exact = world.truth()
            state = np.array([[*exact[:3], 0.0, 0.0]])
            brute = min(arena.room(robot.world, exact[:3]), float(clearance(robot, state, walked).min()) - WALKER)
            assert exact[5] == pytest.approx(brute, abs=1e-9)
            assert quick[5] <= exact[5] + 1e-9 and (quick[5] >= 0.2 or quick[5] == pytest.approx(exact[5], abs=1e-9))
            near += brute < 0.3
    bodies = np.array([world.client.getBasePositionAndOrientation(body)[0][:2] for body in world._walkers])
    assert bodies == pytest.approx(world._walked), "lidars see them where the referee does"
    assert near and len(corners_of(p.outline)) == (4 if p.outline else 0)
    sim.close()


def test_a_standing_base_waits_and_a_moving_one_is_judged() -> None:
    robot = base(walkers=3)
    touched = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.02])
    assert robot.truth_margins(touched)[0] == np.inf and robot.waits(touched)
    for moving in ([0.03, 0.0], [0.0, 0.2]):
        touched[3:5] = moving
        assert robot.truth_margins(touched)[0] == pytest.approx(-0.03) and not robot.waits(touched)
    alone = base(walkers=0)
    touched[3:5] = 0.0
    assert alone.truth_margins(touched)[0] == pytest.approx(-0.03) and not alone.waits(touched), "walls do not come"


def test_who_comes_to_a_standing_base_is_counted_once_each_time() -> None:
    sim = Simulation(base(walkers=1))
    sim.reset(880_700_003)
    world = sim.world
    assert isinstance(world, DriveWorld)
    radius = base().parameters.footprint_radius
    for away in (1.0, 0.03, 0.03, 1.0, 0.03):
        world._walked = world.truth()[None, :2] + np.array([[radius + WALKER + away, 0.0]])
        world._headings[:] = np.pi / 2
        world._clearance_bound = -np.inf
        sim.tick(np.zeros(2))
    assert sim.waits == 2 and sim.unsafe_visits == 0
    sim.close()


def test_the_same_seed_lets_them_walk_the_same() -> None:
    sim = Simulation(base(walkers=5))
    ends = []
    for _ in range(2):
        sim.reset(880_700_002)
        for _ in range(5):
            sim.tick(np.zeros(2))
        assert isinstance(sim.world, DriveWorld)
        ends.append(sim.world._walked)
    assert (ends[0] == ends[1]).all()
    sim.close()


def test_what_comes_nearer_during_a_rollout_is_in_the_tightening() -> None:
    still, moving = base(obstacle_speed=0.0).model, base().model
    grown = moving.certificate.tightening[:, 0] - still.certificate.tightening[:, 0]
    seconds = moving.dynamics.dt * np.arange(len(grown))
    assert (grown >= SPEED * (seconds + moving.dynamics.dt)).all()
    assert (grown < SPEED * (seconds + moving.dynamics.dt) + 0.002).all()
    assert base().reach == pytest.approx(2.07, abs=0.05) and base().pocket == pytest.approx(0.86, abs=0.005)


def test_a_range_loses_what_somebody_may_have_walked_since_its_ray_was_cast() -> None:
    """A scan of 0.2 s ago: walls are nearer by 0.06 m, beside what they are if nobody moves."""
    nearest = []
    for speed in (0.0, SPEED):
        robot = base(obstacle_speed=speed, scan_age=0.6)
        perception, odom = LidarPerception(robot), np.array([0.0, 0, 0, 1, 0, 0])
        scan = full_circle(np.full(180, 1.5), 6.0, 0.12).vector()
        history = {"odom": [Stamped(odom, k * NS // 10, 0) for k in range(3)], "scan": [Stamped(scan, 0, 0)]}
        inputs = {"odom": odom, "scan": scan, "goal_pose": np.zeros(2)}
        points = perception.estimate(inputs, 2 * NS // 10, history).points
        nearest.append(float(np.hypot(*points.T).min()))
    assert nearest[0] - nearest[1] == pytest.approx(0.2 * SPEED, abs=1e-3)


def test_somebody_who_walks_past_is_no_mismatch() -> None:
    """The same two scans: with `obstacle_speed`, the only object to the side may have walked."""
    angles = full_circle(np.zeros(180), 6.0).angles
    wall = np.minimum(2.0 / np.maximum(np.abs(np.cos(angles)), 1e-9), 6.0)
    wall[np.abs(np.sin(angles)) > 0.9] = np.inf
    found = []
    for speed in (0.0, SPEED):
        perception, odom = LidarPerception(base(obstacle_speed=speed)), np.array([0.0, 0, 0, 1, 0, 0])
        for k, away in enumerate((0.80, 0.77)):
            scan = full_circle(np.where(np.abs(angles - 1.5) < 0.5, away, wall), 6.0, 0.12).vector()
            history = {"odom": [Stamped(odom, k * NS // 10, 0)], "scan": [Stamped(scan, k * NS // 10, 0)]}
            perception.estimate({"odom": odom, "scan": scan, "goal_pose": np.zeros(2)}, k * NS // 10, history)
            off = perception.disagreements(True)
        found.append(off["y by scan"])
    assert found[0] > 1.0 and found[1] == 0.0
