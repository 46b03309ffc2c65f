"""A base with corners: model, certificate, and what its settings must satisfy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.footprint import corners_of, from_outline
from safe_support_ql.robots.free_space import SPACING
from safe_support_ql.robots.model import Floats, columns
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.rollout import rollout_margins
from safe_support_ql.simulation.arena import make_arena
from safe_support_ql.simulation.simulation import Simulation

RECTANGLE = [[0.25, 0.18], [-0.25, 0.18], [-0.25, -0.18], [0.25, -0.18]]
BEHIND = [[0.4, 0.17], [-0.1, 0.17], [-0.1, -0.17], [0.4, -0.17]]  # its axle is near its rear end
WIDE = {"parameters.corridor": 0.75, "parameters.obstacles_min": 4, "parameters.obstacles_max": 8}


def base(footprint: list[list[float]], **parameters: Any) -> DiffDrive:
    own = {f"parameters.{name}": value for name, value in parameters.items()}
    robot = config.load_robot("diff_drive", WIDE | {"parameters.footprint": footprint} | own).robot
    assert isinstance(robot, DiffDrive)
    return robot


ROBOT = base(RECTANGLE)
MODEL, P = ROBOT.model, ROBOT.parameters
CONSTANTS = MODEL.certificate.constants


def test_compiled_and_plain_certificates_agree() -> None:
    rng = np.random.default_rng(3)
    certifier, passed = Certifier(MODEL, 5, 2), 0
    for _ in range(25):
        around = rng.uniform(-np.pi, np.pi, 40)
        points = rng.uniform(0.55, 1.3, (40, 1)) * np.stack([np.cos(around), np.sin(around)], axis=1)
        state = np.array([0.0, 0.0, 0.0, rng.uniform(-0.1, 0.6), rng.uniform(-1.5, 1.5)])
        actions = rng.uniform([-0.15, -1.5], [0.6, 1.5], (12, 2))
        past = np.zeros((1, 3, 2))
        found, _ = certifier(state, past, (2, 3), actions, points, 0)
        expected = rollout_margins(MODEL, state, past, (2, 3), actions, points)[:, 0]
        certified = expected >= 0.0
        np.testing.assert_array_equal(found >= 0.0, certified)
        np.testing.assert_allclose(found[certified], expected[certified], atol=1e-9)
        passed += certified.sum()
    assert 20 < passed < 280


def test_margins_are_never_less_than_what_is_known_from_before() -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(-1.5, 1.5, (30, 2))
    seen, x = (tuple(rng.normal(0.0, (0.2, 0.2, 0.8, 0.3, 0.8), (500, 5)).T) for _ in range(2))
    h = MODEL.certificate.margins(seen, points, CONSTANTS)
    assert MODEL.certificate.margins_from is not None
    for bound, true in zip(
        MODEL.certificate.margins_from(x, seen, h, CONSTANTS),
        MODEL.certificate.margins(x, points, CONSTANTS),
        strict=True,
    ):
        assert (bound <= true + 1e-12).all()


def test_one_that_turns_does_not_stand() -> None:
    slow = P.terminal_speed / P.farthest
    for w, stands in ((0.9 * slow, True), (1.1 * slow, False)):
        assert MODEL.certificate.terminal((0.0, 0.0, 0.0, 0.0, w), (0.0,), CONSTANTS) == stands


def test_points_of_a_scan_close_the_outline_of_free_space() -> None:
    """No two neighbours are farther apart than a corner may pass between: hits, shadows and unknown space alike."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        ranges = np.repeat(rng.uniform(0.5, 3.0, 12), 15)
        scan = full_circle(ranges, P.scan_range).vector()
        points = ROBOT.estimate({"odom": np.array([0.0, 0, 0, 1, 0, 0]), "scan": scan, "goal_pose": np.zeros(2)}).points
        apart = np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1)
        within = np.hypot(*points.T) < ROBOT.reach - SPACING
        assert (apart[within & np.roll(within, -1)] <= SPACING + 1e-9).mean() > 0.99


def draw_box(rng: np.random.Generator, count: int) -> Floats:
    """Models of the box, more than half of them at corners."""
    low = 1.0 - np.array([P.motion_mismatch, P.motion_mismatch, P.lag_mismatch, P.braking_mismatch])
    high = 1.0 + np.array([P.motion_mismatch, P.motion_mismatch, P.lag_mismatch, 0.0])
    inside, corner = rng.uniform(low, high, (count, 4)), np.where(rng.random((count, 4)) < 0.5, low, high)
    v, w, lag, braking = np.where(rng.random((count, 1)) < 0.6, corner, inside).T
    response = 1.0 - np.exp(-MODEL.dynamics.dt / (P.lag * lag))
    slew = P.acceleration * braking, P.turn_acceleration * braking
    return np.column_stack([v, w, response, *slew, np.full_like(v, P.dead_zone)])


def least(x0: Floats, action: Floats, hold: int, members: Floats, points: Floats) -> Floats:
    """Least (clearance - tightening) [n, M] of every member against each point alone, up to S_f."""
    n = len(members)
    x, rows = columns(np.tile(x0, (n, 1))), columns(members)
    found, inside = np.full((n, len(points)), np.inf), np.zeros(n, bool)
    for t in range(len(MODEL.certificate.tightening) - 1):
        command = action if t < hold else np.zeros(2)
        x = MODEL.dynamics.step(x, tuple(np.full(n, value) for value in command), rows, MODEL.dynamics.dt)
        each = [from_outline(*x[:3], point[None], P.outline, P.farthest) for point in points]
        now = np.stack(each, axis=1) - P.clearance - MODEL.certificate.tightening[t + 1, 0]
        found = np.where(inside[:, None], found, np.minimum(found, now))
        if t + 1 >= hold:
            inside = inside | MODEL.certificate.terminal(x, (0.0,), CONSTANTS)
    return found


def test_what_models_in_the_box_lose_beside_the_members_has_a_margin() -> None:
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(20):
        state = np.array([0.0, 0.0, 0.0, rng.uniform(-0.15, 0.6), rng.uniform(-1.5, 1.5)])
        action, hold = rng.uniform([-0.15, -1.5], [0.6, 1.5]), int(rng.choice([2, 5]))
        points = rng.uniform(-1.0, 1.0, (60, 2))
        told = least(state, action, hold, MODEL.dynamics.members, points).min(axis=0)
        true = least(state, action, hold, draw_box(rng, 60), points).min(axis=0)
        near = (told >= 0.0) & (told < 0.2)
        worst = max(worst, float((told - true)[near].max(initial=0.0)))
    assert 0.002 < worst <= P.between_members + P.farthest * P.between_members_turn


def at_the_edge(robot: DiffDrive, rng: np.random.Generator, count: int) -> Iterator[tuple[Any, Floats, Floats]]:
    """Arenas, states near an obstacle, and the certified action of least margin there."""
    spec = robot.world.arena
    assert spec is not None
    certifier = Certifier(robot.model, 5, 2)
    while count:
        arena = make_arena(spec, int(rng.integers(2**31)))
        x, y, _, size, _ = arena.obstacles[rng.integers(len(arena.obstacles))]
        bearing = rng.uniform(-np.pi, np.pi)
        away = size + rng.uniform(0.25, 0.9)
        pose = np.array([x + away * np.cos(bearing), y + away * np.sin(bearing), rng.uniform(-np.pi, np.pi)])
        if arena.room(robot.world, pose) < robot.parameters.clearance:
            continue
        motion = rng.uniform([-0.15, -1.5], [0.6, 1.5])
        points = robot.estimate(
            {"odom": np.array([0.0, 0, 0, 1, *motion]), "scan": seen(robot, arena, pose), "goal_pose": np.zeros(2)}
        ).points
        actions = np.vstack([rng.uniform([-0.15, -1.5], [0.6, 1.5], (40, 2)), [0.0, 0.0]])
        margins, _ = certifier(np.array([0.0, 0.0, 0.0, *motion]), np.zeros((1, 1, 2)), (0,), actions, points, 0)
        if (margins >= 0.0).any():
            count -= 1
            yield arena, np.array([*pose, *motion]), actions[np.argmin(np.where(margins >= 0.0, margins, np.inf))]


def seen(robot: DiffDrive, arena: Any, pose: Floats) -> Floats:
    """A scan from the axle, every range as much too long as it may be, by sphere tracing."""
    p = robot.parameters
    angles = pose[2] - np.pi + np.arange(p.scan_rays) * (2 * np.pi / p.scan_rays)
    ranges = np.zeros(p.scan_rays)
    for _ in range(60):
        x, y = pose[0] + ranges * np.cos(angles), pose[1] + ranges * np.sin(angles)
        ranges += np.maximum(arena.clearance(x, y), 0.0)
    return full_circle(np.where(ranges > p.scan_range, np.inf, ranges + p.lidar_noise), p.scan_range).vector()


@pytest.mark.parametrize("footprint", [RECTANGLE, BEHIND])
def test_truth_at_every_bound_stays_safe_on_the_stored_plan(footprint: list[list[float]]) -> None:
    """Any model of the box, every error and disturbance at its bound, those of the heading included."""
    robot, rng, smallest = base(footprint), np.random.default_rng(2), np.inf
    p, model = robot.parameters, robot.model
    corners = corners_of(p.outline)
    for arena, measured, action in at_the_edge(robot, rng, 25):
        for draw in draw_box(rng, 6):
            hold, sides = int(rng.choice(model.certificate.holds)), rng.choice([-1.0, 1.0], 3)
            x: Any = tuple(measured)
            x = (*x[:3], x[3] + p.margin_speed_estimate * sides[0], x[4] + p.margin_turn_estimate * sides[1])
            x = pushed(arena, x, corners, p.margin_model, p.margin_model_turn * sides[2])
            for t in range(len(model.certificate.tightening) - 1):
                command = action if t < hold else np.zeros(2)
                moving = not model.certificate.terminal(x, (0.0,), model.certificate.constants)
                before, dt = x, model.dynamics.dt
                x = model.dynamics.step(x, tuple(command), tuple(draw), dt)
                if moving:
                    x = pushed(arena, x, corners, p.margin_growth * dt, p.margin_growth_turn * dt * sides[2])
                for part in (0.5, 1.0):  # the truth is safe also between two checks
                    pose = np.array([a + part * (b - a) for a, b in zip(before[:3], x[:3], strict=True)])
                    smallest = min(smallest, arena.room(robot.world, pose) - p.clearance)
                if t >= hold and abs(x[3]) < 1e-3 and abs(x[4]) < 1e-3:
                    break
            else:
                raise AssertionError("it never stands")
    assert 0.0 <= smallest < model.certificate.tightening[-1, 0], "far from every obstacle this shows nothing"


def pushed(arena: Any, x: Any, corners: Floats, far: float, turn: float) -> Any:
    """Moved by `far` towards what is nearest to a corner, and turned."""
    cos, sin = np.cos(x[2]), np.sin(x[2])
    at = np.array(x[:2]) + corners @ np.array([[cos, sin], [-sin, cos]])
    east, north = at[np.argmin(arena.clearance(at[:, 0], at[:, 1]))]
    here, size = arena.clearance(east, north), 1e-4
    away = np.array([arena.clearance(east + size, north), arena.clearance(east, north + size)]) - here
    dx, dy = -far * away / max(float(np.hypot(*away)), 1e-12)
    return x[0] + dx, x[1] + dy, x[2] + turn, *x[3:]


@pytest.mark.parametrize("footprint", [RECTANGLE, BEHIND])
def test_it_drives_among_obstacles_without_a_visit(footprint: list[list[float]]) -> None:
    settings = config.load_robot("diff_drive", WIDE | {"parameters.footprint": footprint})
    robot = settings.robot
    sim, gate, reached = Simulation(robot), Gate(robot, settings.gate, False, 0), 0
    for episode in range(2):
        policy = BehaviorPolicy(settings.behavior, robot, episode)
        for outcome, _ in steps(sim, gate, policy, 41 + episode, episode):
            reached += outcome.reached
    sim.close()
    assert sim.unsafe_visits == 0 and reached


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"footprint": [[0.2, 0.2], [-0.2, 0.2]]}, "parameters: footprint has 2 corners"),
        ({"corridor": 0.5}, "corridor is 0.5 m, must be at least 0.56.* the farthest corner = 0.308"),
        ({"turn_acceleration": 0.5}, "margin_terminal is 0.008 m, must cover|a stop from full speed"),
    ],
)
def test_settings_with_which_no_certificate_holds_are_refused(changes: dict[str, Any], words: str) -> None:
    values = WIDE | {"parameters.footprint": RECTANGLE} | {f"parameters.{key}": value for key, value in changes.items()}
    with pytest.raises(ValueError, match=words):
        config.load_robot("diff_drive", values)
