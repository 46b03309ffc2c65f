"""A geofence bounds where a base may be, by its odometry; the operator's cap bounds what may be asked for."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.experiments.episodes import look
from safe_support_ql.robots.fence import Fence
from safe_support_ql.robots.free_space import SPACING
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.simulation.simulation import Simulation

SQUARE = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
SETTINGS = config.load_robot("diff_drive")


def test_how_deep_inside_and_which_points_are_near() -> None:
    for corners in (SQUARE, SQUARE[::-1]):
        fence = Fence(corners)
        assert fence.depth(0.0, 0.0) == pytest.approx(1.0)
        assert fence.depth(0.9, -0.5) == pytest.approx(0.1) and fence.depth(1.2, 0.0) == pytest.approx(-0.2)
        near = fence.seen_from(np.array([0.9, 0.0, np.pi / 2]), 0.3)  # the edge lies to its right
        assert len(near) and near[:, 1] == pytest.approx(-0.1)
        assert np.diff(np.sort(near[:, 0])).max() <= SPACING / 2 + 1e-9


@pytest.mark.parametrize(
    ("geofence", "named"),
    [
        ([[0, 0], [1, 0]], "at least 3"),
        ([[0, 0], [1, 0], [0.2, 0.2], [0, 1]], "not convex"),
        ([[0, 0], [1, 0], [1]], "two numbers"),
    ],
)
def test_a_geofence_that_is_none_is_refused_when_the_configuration_is_read(geofence: object, named: str) -> None:
    with pytest.raises(ValueError, match=f"session: geofence: .*{named}"):
        config.load_robot("diff_drive", {"session.geofence": geofence})
    with pytest.raises(ValueError, match="cart_pole does not move from its place"):
        config.load_robot("cart_pole", {"session.geofence": SQUARE})


def driven(gate: Gate, sim: Simulation, ticks: int, wanted: np.ndarray) -> list[np.ndarray]:
    """Poses by odometry while the certified action nearest to `wanted` is asked for."""
    outcome, poses = sim.reset(2), []
    gate.new_episode(1)
    for _ in range(ticks):
        inputs = sim.sense()
        poses.append(inputs["odom"][:2])
        candidates = look(sim, gate, inputs, outcome.tick)
        apart = (((candidates.actions - wanted) / [0.75, 3.0]) ** 2).sum(axis=1)
        action = candidates.actions[np.argmin(np.where(candidates.certified, apart, np.inf))]
        decision = gate.request(candidates.id, action, 0) or gate.expire(0)
        outcome = sim.tick(decision.action.astype(np.float64))
    return poses


def test_a_base_that_is_sent_out_stays_inside_and_without_the_fence_it_leaves() -> None:
    robot, far = SETTINGS.robot, []
    for fenced in (False, True):
        sim = Simulation(robot)
        gate = Gate(robot, SETTINGS.gate, False, 0)
        sim.reset(2)
        x, y = sim.sense()["odom"][:2]
        corners = tuple((x + dx, y + dy) for dx, dy in ((0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8)))
        if fenced:
            gate.perception.fence(corners)
        poses = np.array(driven(gate, sim, 120, np.array([0.6, 0.0])))
        far.append(float(np.abs(poses - [x, y]).max()))
        assert sim.unsafe_visits == 0
        sim.close()
    p = robot.parameters
    assert far[1] + p.footprint_radius < 0.8 < far[0], far  # type: ignore[attr-defined]
    assert far[1] > 0.2, "it drives"


def test_outside_of_its_fence_nothing_is_certified_and_the_message_says_so() -> None:
    robot = SETTINGS.robot
    sim, gate = Simulation(robot), Gate(robot, SETTINGS.gate, False, 0)
    gate.perception.fence(((50.0, 0.0), (53.0, 0.0), (50.0, 3.0)))
    driven(gate, sim, 5, np.array([0.6, 0.0]))
    assert gate.state is State.CLOSED and "outside of session.geofence by odometry" in str(gate.cause)
    assert "bring the base inside" in gate.cause.remedy
    sim.close()


def test_beyond_the_cap_only_the_plan_is_certified_and_the_refusal_names_it() -> None:
    robot = SETTINGS.robot
    sim, gate = Simulation(robot), Gate(robot, SETTINGS.gate, False, 0)
    fastest = []
    for cap in (0.3, 1.0):
        gate.support.cap = cap
        speeds = np.diff(np.array(driven(gate, sim, 40, np.array([0.6, 0.0]))), axis=0)
        fastest.append(float(np.hypot(*speeds.T).max()) * 10)
        gate.close()
    assert 0.05 < fastest[0] < 0.3 * 0.6 * 1.2 < fastest[1], fastest
    gate.support.cap = 0.3
    outcome = sim.reset(2)
    gate.new_episode(2)
    for _ in range(4):
        candidates = look(sim, gate, sim.sense(), outcome.tick)
        slow = gate.support.capped(candidates.actions) | candidates.is_plan
        assert not candidates.certified[~slow].any() and candidates.certified[slow].sum() > 3
        decision = gate.request(candidates.id, np.array([0.6, 0.0], np.float32), 0)
        assert decision is not None
        outcome = sim.tick(decision.action.astype(np.float64))
    assert decision.reason == "uncertified_request" and "beyond 30% of its range" in decision.message
    sim.close()


def test_a_fence_without_room_is_refused_and_one_that_is_near_is_named() -> None:
    with pytest.raises(ValueError, match="session: geofence: leaves .* m about its middle, and the base needs"):
        config.load_robot("diff_drive", {"session.geofence": [[0.1, 0.0], [0.0, 0.1], [-0.1, -0.1]]})
    robot = SETTINGS.robot
    sim, gate = Simulation(robot), Gate(robot, SETTINGS.gate, False, 0)
    sim.reset(2)
    x, y = sim.sense()["odom"][:2]
    gate.perception.fence(((x + 3.0, y + 0.2), (x - 3.0, y + 0.2), (x - 3.0, y - 3.0), (x + 3.0, y - 3.0)))
    driven(gate, sim, 5, np.array([0.6, 0.0]))
    assert gate.state is State.CLOSED and "an edge of session.geofence is 0.20 m from" in str(gate.cause)
    sim.close()


def test_a_cap_of_zero_leaves_the_plan_and_is_named_as_what_may_be_the_reason() -> None:
    robot = SETTINGS.robot
    sim, gate = Simulation(robot), Gate(robot, SETTINGS.gate, False, 0)
    gate.support.cap = 0.0
    outcome = sim.reset(2)
    gate.new_episode(1)
    for _ in range(6):
        candidates = look(sim, gate, sim.sense(), outcome.tick)
        assert not candidates.actions[candidates.support & ~candidates.is_plan].any()
        decision = gate.request(candidates.id, candidates.actions[candidates.plan], 0)
        assert decision is not None
        outcome = sim.tick(decision.action.astype(np.float64))
    assert "the operator's speed_cap" in decision.message
    sim.close()
