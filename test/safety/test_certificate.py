"""The certificate: compiled equals readable, and what it certifies stays safe at the bounds of what it assumes."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql import config
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.rollout import rollout_margins

ROBOTS = {name: config.load_robot(name).robot for name in ("diff_drive", "cart_pole")}
CERTIFICATES = {
    name: Certifier(robot.model, len(robot.state_names), len(robot.action_names)) for name, robot in ROBOTS.items()
}


def random_situation(robot: Robot, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(state, past, actions, points) as they come up in a run: two sequences of three earlier commands."""
    rng = np.random.default_rng(seed)
    past = rng.uniform(robot.action_low, robot.action_high, (2, 3, len(robot.action_low)))
    actions = robot.candidates(bool(rng.integers(2)))(rng, np.zeros(0)).astype(np.float64)
    if robot.name == "diff_drive":
        state = np.array([0.0, 0.0, 0.0, *(past[0, 0] * rng.uniform(0.5, 1.0))])
        scan = rng.uniform(0.2, 2.0) + rng.uniform(0.0, 1.5) * np.abs(np.sin(np.arange(180) * rng.uniform(0.01, 0.3)))
        inputs = {
            "odom": np.array([0, 0, 0, 1, *state[3:]]),
            "scan": full_circle(scan, 6.0).vector(),
            "goal_pose": np.zeros(2),
        }
        return state, past, actions, robot.estimate(inputs).points
    scale = np.array([0.8, 0.12, 0.6, 0.5])
    return rng.uniform(-scale, scale), past, actions, np.full((1, 2), 1e3)


@pytest.mark.parametrize("name", ROBOTS)
@given(seed=st.integers(0, 2**32 - 1), delay=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_compiled_equals_the_readable_rollout(name: str, seed: int, delay: int) -> None:
    robot = ROBOTS[name]
    state, past, actions, points = random_situation(robot, seed)
    compiled, _ = CERTIFICATES[name](state, past, (0, delay), actions, points, 0)
    readable = rollout_margins(robot.model, state, past, (0, delay), actions, points).max(axis=1)
    # Below zero the compiled one stops where it failed; there the two need only agree that it failed.
    np.testing.assert_array_equal(compiled >= 0, readable >= 0)
    np.testing.assert_allclose(compiled[compiled >= 0], readable[compiled >= 0], atol=1e-9)


@pytest.mark.parametrize("name", ROBOTS)
def test_compiled_dynamics_work_on_plain_numbers(name: str) -> None:
    """np.where, for one, makes an array of a number where it is compiled: right, and ten times as slow."""
    model = ROBOTS[name].model
    x = tuple(0.1 for _ in ROBOTS[name].state_names)
    u = numba.njit(model.certificate.backup)(x, model.certificate.centre(0), model.certificate.constants)
    ahead = numba.njit(model.dynamics.step)(
        x, u, tuple(float(value) for value in model.dynamics.members[0]), model.dynamics.dt
    )
    assert all(isinstance(value, float) for value in (*u, *ahead))


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_that_differ_in_numbers_alone_share_the_compiled_code(name: str) -> None:
    robot = config.load_robot(name).robot
    sizes = len(robot.state_names), len(robot.action_names)
    again = Certifier(robot.model, *sizes)
    assert again._kernel is CERTIFICATES[name]._kernel
    certificate = replace(robot.model.certificate, constants=tuple(2.0 * c for c in robot.model.certificate.constants))
    assert certificate.constants
    assert Certifier(replace(robot.model, certificate=certificate), *sizes)._kernel is not again._kernel


@pytest.mark.parametrize("name", ROBOTS)
def test_without_a_past_or_with_points_that_are_no_numbers_nothing_is_certified(name: str) -> None:
    robot = ROBOTS[name]
    state, past, actions, points = random_situation(robot, 1)
    assert not (CERTIFICATES[name](state, past[:0], (0,), actions, points, 0)[0] >= 0).any()
    spoilt = np.vstack([points, [[np.nan, 0.0]]])
    assert not (CERTIFICATES[name](state, past, (0,), actions, spoilt, 0)[0] >= 0).any()


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_no_number_certifies_nothing(name: str, bad: float) -> None:
    robot = ROBOTS[name]
    state, past, actions, points = random_situation(robot, 1)
    for i in range(len(state)):
        broken = state.copy()
        broken[i] = bad
        margins, _ = CERTIFICATES[name](broken, past, (0,), actions, points, 0)
        assert not (margins >= 0).any(), (robot.state_names[i], bad)
        assert not (rollout_margins(robot.model, broken, past, (0,), actions, points) >= 0).any()


@pytest.mark.parametrize("name", ROBOTS)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_a_certified_action_then_the_plan_stay_safe_for_every_model_in_the_box(
    name: str, seed: int, share: float
) -> None:
    """Guarantee (a) of docs/method.md, the truth drawn inside and at the corners of the ensemble, fixed per rollout."""
    robot, model = ROBOTS[name], ROBOTS[name].model
    state, past, actions, points = random_situation(robot, seed)
    margins, centres = CERTIFICATES[name](state, past, (0,), actions, points, 0)
    certified = np.flatnonzero(margins >= 0)
    if not len(certified):
        return
    rng = np.random.default_rng(seed)
    chosen = rng.choice(certified)
    low, high = model.dynamics.members.min(axis=0), model.dynamics.members.max(axis=0)
    corner = np.where(rng.random(len(low)) < 0.5, low, high)
    truth = corner if share < 0.5 else low + rng.random(len(low)) * (high - low)
    members = tuple(np.array([value]) for value in truth)
    x = tuple(np.array([value]) for value in state)
    command = tuple(np.array([value]) for value in actions[chosen])
    centre = model.certificate.centre(centres[chosen])
    for t in range(2 * len(model.certificate.tightening)):
        if t >= model.dynamics.checks_per_tick and t % model.dynamics.checks_per_tick == 0:
            command = model.certificate.backup(x, centre, model.certificate.constants)
        x = model.dynamics.step(x, command, members, model.dynamics.dt)
        h = np.array(
            [np.ravel(value)[0] for value in model.certificate.margins(x, points, model.certificate.constants)]
        )
        assert (h >= 0).all(), (t, h)


def test_more_tightening_never_certifies_more() -> None:
    robot = ROBOTS["diff_drive"]
    shrunk = replace(robot.model.certificate, tightening=robot.model.certificate.tightening + 0.05)
    tighter = replace(robot.model, certificate=shrunk)
    fewer = 0
    for seed in range(10):
        state, past, actions, points = random_situation(robot, seed)
        loose = rollout_margins(robot.model, state, past, (0,), actions, points)
        tight = rollout_margins(tighter, state, past, (0,), actions, points)
        assert (tight <= loose).all()
        fewer += int(((loose >= 0) & (tight < 0)).sum())
    assert fewer > 0
