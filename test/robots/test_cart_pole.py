"""The cart-pole: its model against PyBullet, its terminal set, its tubes, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from itertools import product

import numba
import numpy as np
import pybullet
import pybullet_data
import pytest

from safe_support_ql.config import load_robot
from safe_support_ql.robots import make
from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.cart_pole import model as cart_pole
from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.gate import Gate, GateConfig

TICK = 1.0 / cart_pole.CONTROL_HZ
LIMITS = np.array([1.0, 0.2, 1.5, 1.5])  # states that a controlled cart-pole visits
NO_PAST = np.zeros((1, 0, 1))  # in lock-step no earlier command acts
NO_POINTS = np.zeros((0, 2))


@cache
def robot() -> CartPole:
    return make("cart_pole", {}, "test")


@cache
def certificate() -> Certifier:
    return Certifier(robot().model, 4, 1)


def error_bounds() -> tuple[Floats, Floats]:
    return cart_pole.bounds(robot().parameters)


def plan(z: Floats, centre: tuple[float, ...]) -> float:
    return float(robot().model.certificate.backup(tuple(z), centre, robot().model.certificate.constants)[0])


def advance(z: Floats, force: float, member: Floats, dt: float = TICK) -> Floats:
    return np.array(cart_pole.step(tuple(z), (force,), tuple(member), dt))


def certified(
    rng: np.random.Generator, count: int, member: int | None = None
) -> Iterator[tuple[Floats, float, tuple[float, ...]]]:
    """(state, force, centre) of `count` random certified actions."""
    model = robot().model
    while count:
        z, force = rng.uniform(-LIMITS, LIMITS), rng.uniform(-10.0, 10.0, (1, 1))
        margin, centre = certificate()(z, NO_PAST, (0,), force, NO_POINTS, 4)
        if margin[0] >= 0.0:
            count -= 1
            yield z, float(force[0, 0]), model.certificate.centre(int(centre[0]))


@pytest.fixture
def bullet() -> Iterator[int]:
    client = pybullet.connect(pybullet.DIRECT)
    pybullet.setAdditionalSearchPath(pybullet_data.getDataPath(), physicsClientId=client)
    pybullet.setGravity(0, 0, -cart_pole.GRAVITY, physicsClientId=client)
    pybullet.setTimeStep(1.0 / cart_pole.PHYSICS_HZ, physicsClientId=client)
    pybullet.loadURDF("cartpole.urdf", useFixedBase=True, physicsClientId=client)  # body 0
    for joint in (0, 1):
        pybullet.setJointMotorControl2(0, joint, pybullet.VELOCITY_CONTROL, force=0, physicsClientId=client)
    yield client
    pybullet.disconnect(client)


def place(client: int, z: Floats) -> None:
    for joint in (0, 1):
        pybullet.resetJointState(0, joint, z[joint], z[2 + joint], physicsClientId=client)


def simulate(client: int, force: float, steps: int) -> Floats:
    for _ in range(steps):
        pybullet.setJointMotorControl2(0, 0, pybullet.TORQUE_CONTROL, force=force, physicsClientId=client)
        pybullet.stepSimulation(physicsClientId=client)
    joints = pybullet.getJointStates(0, (0, 1), physicsClientId=client)
    return np.array([joints[0][0], joints[1][0], joints[0][1], joints[1][1]])


def test_shipped_configuration_lists_every_parameter_at_its_default() -> None:
    config = load_robot("cart_pole")
    assert set(config.raw["parameters"]) == {field.name for field in dataclasses.fields(Parameters)}
    assert config.robot.parameters == Parameters()


def test_one_physics_step_is_exactly_pybullets(bullet: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        z, force = rng.uniform(-LIMITS, LIMITS), rng.uniform(-10.0, 10.0)
        place(bullet, z)
        predicted = advance(z, force, robot().model.dynamics.members[0], 1.0 / cart_pole.PHYSICS_HZ)
        assert np.abs(simulate(bullet, force, 1) - predicted).max() < 1e-9


def test_model_error_stays_within_w_bar_over_backup_manoeuvres(bullet: int) -> None:
    model, (_, w) = robot().model, error_bounds()
    worst, deviation = np.zeros(4), np.zeros(2)
    for z, force, centre in certified(np.random.default_rng(1), 12):
        place(bullet, z)
        predicted, truth = z, z
        for t in range(len(model.certificate.tightening) - 1):
            u = force if t == 0 else plan(truth, centre)
            before, truth = truth, simulate(bullet, u, 5)
            worst = np.maximum(worst, np.abs(truth - advance(before, u, model.dynamics.members[0])))
            predicted = advance(predicted, force if t == 0 else plan(predicted, centre), model.dynamics.members[0])
            deviation = np.maximum(deviation, np.abs(truth - predicted)[:2] / model.certificate.tightening[t + 1])
    assert (worst <= w).all(), worst
    assert (deviation <= 0.1).all(), deviation


def test_step_is_elementwise_and_compiles_to_the_same() -> None:
    rng = np.random.default_rng(2)
    model = robot().model
    z, force = rng.uniform(-LIMITS, LIMITS, (50, 4)), rng.uniform(-10.0, 10.0, 50)
    dynamics, cert = model.dynamics, model.certificate
    compiled = [numba.njit(f) for f in (dynamics.step, cert.backup, cert.margins, cert.terminal)]
    for member in model.dynamics.members:
        p = tuple(member)
        together = np.array(model.dynamics.step(tuple(z.T), (force,), p, TICK)).T
        for row, x, u in zip(together, z, force, strict=True):
            assert np.allclose(row, advance(x, u, member), rtol=0, atol=1e-14)
            assert np.allclose(row, compiled[0](tuple(x), (u,), p, TICK), rtol=0, atol=1e-12)
    small = 0.3 * z
    inside = model.certificate.terminal(tuple(small.T), (0.35,), model.certificate.constants)
    assert inside.any() and not inside.all()
    for x, within in zip(small, inside, strict=True):
        assert compiled[1](tuple(x), (0.35,), model.certificate.constants) == pytest.approx(
            model.certificate.backup(tuple(x), (0.35,), model.certificate.constants)
        )
        assert compiled[2](tuple(x), NO_POINTS, cert.constants) == cert.margins(tuple(x), NO_POINTS, cert.constants)
        assert compiled[3](tuple(x), (0.35,), model.certificate.constants) == within


def terminal_boundary(rng: np.random.Generator, centre: float, count: int) -> Floats:
    """States [count, 4] on the boundary of S_f about `centre`."""
    model = robot().model
    p = np.zeros((4, 4))
    p[np.triu_indices(4)] = model.certificate.constants[7:17]
    p = p + np.triu(p, 1).T
    rho, room, reach = model.certificate.constants[17:]
    radius = min(np.sqrt(rho), (room - abs(centre)) / reach)
    direction = rng.normal(size=(count, 4))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.linalg.solve(np.linalg.cholesky(p).T, radius * direction.T).T + np.array([centre, 0, 0, 0])


def test_terminal_set_is_invariant_under_every_model_and_disturbance() -> None:
    rng = np.random.default_rng(3)
    model, p = robot().model, robot().parameters
    e0, w = error_bounds()
    signs = np.array(list(product((-1, 1), repeat=4)))
    drawn = [draw_model(rng) for _ in range(20)]
    cert = model.certificate
    for centre in cert.centres[:, 0]:
        z = terminal_boundary(rng, centre, 500)
        inner = np.array([centre, 0, 0, 0]) + 0.999 * (z - [centre, 0, 0, 0])
        assert np.all(cert.terminal(tuple(inner.T), (centre,), cert.constants))
        assert np.all(np.abs(z[:, 0]) <= p.position_limit - model.certificate.tightening[-1, 0] + 1e-9)
        assert np.all(np.abs(z[:, 1]) <= p.angle_limit - model.certificate.tightening[-1, 1] + 1e-9)
        force = -(z - [centre, 0, 0, 0]) @ np.array(model.certificate.constants[3:7])
        assert np.abs(force).max() + np.abs(cert.constants[3:7]) @ e0 <= p.force_limit  # saturation is inactive
        for member in [*model.dynamics.members, *drawn]:
            after = np.array(model.dynamics.step(tuple(z.T), (force,), tuple(member), TICK)).T
            for sign in signs:
                assert np.all(cert.terminal(tuple((after + sign * w).T), (centre,), cert.constants))


def draw_model(rng: np.random.Generator, corner: bool = False) -> Floats:
    """A model from the box of true parameters, or from its 16 corners."""
    cart, pole, length, gain = 1.0 + 0.2 * (rng.choice([-1, 1], 4) if corner else rng.uniform(-1, 1, 4))
    return robot().model.dynamics.members[0] * np.array([cart, pole, length, pole * length**2, gain, 1.0, 1.0])


def test_truth_at_every_bound_stays_safe_on_the_stored_plan() -> None:
    """docs/method.md (a): any model of the box; errors, disturbances and late commands at their bounds."""
    rng = np.random.default_rng(4)
    p, (e0, w) = robot().parameters, error_bounds()
    least = np.inf
    for n, (z, force, centre) in enumerate(certified(rng, 150)):
        member = draw_model(rng, corner=n % 2 == 0)
        steady = rng.choice([-1, 1], 8)  # the worst push often keeps its sign
        truth, before = z - e0 * steady[:4], -np.sign(force) * p.force_limit
        for t in range(125):
            sign = steady if n % 4 < 2 else rng.choice([-1, 1], 8)
            u = force if t == 0 else plan(truth + e0 * sign[:4], centre)
            late = p.command_delay if t < 2 else 0.0
            for h, f in ((late, before), (TICK - late, u)):
                truth = advance(truth, f, member * np.array([1, 1, 1, 1, 1, 1, 0]), h) if h else truth
            truth, before = truth + w * sign[4:], u
            least = min(least, float((robot().truth_margins(truth) / robot().model.certificate.scale).min()))
    assert least >= 0.0


def test_models_between_the_members_lose_no_more_than_their_margin() -> None:
    rng = np.random.default_rng(5)
    model, p = robot().model, robot().parameters
    drawn = np.array([draw_model(rng, corner=n % 2 == 0) for n in range(40)])
    cert = model.certificate
    for z, force, centre in certified(rng, 60):
        lowest = np.full(len(model.dynamics.members) + len(drawn), np.inf)
        members = tuple(np.vstack([model.dynamics.members, drawn]).T)
        x = tuple(np.full(len(lowest), value) for value in z)
        for t in range(len(model.certificate.tightening) - 1):
            u = (np.full(len(lowest), force),) if t == 0 else cert.backup(x, centre, cert.constants)
            x = model.dynamics.step(x, u, members, TICK)
            h = np.array(cert.margins(x, NO_POINTS, cert.constants)) / cert.scale[:, None]
            lowest = np.minimum(lowest, h.min(axis=0))
        assert lowest.min() >= lowest[: len(model.dynamics.members)].min() - p.between_members


def test_gated_controller_crosses_the_track_and_never_needs_the_plan(bullet: int) -> None:
    model = robot().model
    forces = np.linspace(-10.0, 10.0, 21)[:, None]
    for goal in (0.6, -0.6):
        z = np.array([-goal, 0.0, 0.0, 0.0])
        place(bullet, z)
        centre = 0 if goal > 0 else len(model.certificate.centres) - 1
        for _ in range(300):
            inputs = {"joint_states": z, "goal_pose": np.array([goal])}
            estimate = robot().estimate(inputs)
            margin, centres = certificate()(z, NO_PAST, (0,), forces, NO_POINTS, centre, model.certificate.band)
            passed = np.flatnonzero(margin >= model.certificate.band)
            assert len(passed)
            wanted = robot().controller(robot().observation(inputs, estimate, np.zeros(1), np.zeros(1), 0.0)[None])[
                0, 0
            ]
            chosen = passed[np.argmin(np.abs(forces[passed, 0] - wanted))]
            centre = int(centres[chosen])
            z = simulate(bullet, forces[chosen, 0], 5)
            assert (robot().truth_margins(z) > 0).all()
        assert abs(z[0] - goal) < 0.02


def test_most_states_are_certified_despite_the_ensemble() -> None:
    rng = np.random.default_rng(6)
    model = robot().model
    forces = np.linspace(-10.0, 10.0, 5)[:, None]
    states = rng.uniform(-LIMITS, LIMITS, (200, 4)) * [1, 1, 0.5, 0.5]
    band = model.certificate.band
    share = np.mean([certificate()(z, NO_PAST, (0,), forces, NO_POINTS, 4)[0].max() >= band for z in states])
    assert share > 0.6, share


def test_every_start_is_certified() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        z = robot().initial_state(rng)
        assert certificate()(z, NO_PAST, (0,), np.zeros((1, 1)), NO_POINTS, 4)[0][0] >= robot().model.certificate.band
        assert abs(robot().draw_goal(rng)[0]) <= robot().parameters.goal_range


@pytest.mark.parametrize(
    ("channel", "value"),
    [
        ("joint_states", np.zeros(3)),
        ("joint_states", np.array([0.0, np.nan, 0.0, 0.0])),
        ("joint_states", np.array([20.0, 0.0, 0.0, 0.0])),
        ("goal_pose", np.array([np.inf])),
        ("goal_pose", np.zeros(2)),
    ],
)
def test_impossible_inputs_are_refused_by_name(channel: str, value: Floats) -> None:
    inputs = {"joint_states": np.zeros(4), "goal_pose": np.zeros(1)} | {channel: value}
    with pytest.raises(ValueError, match=channel):
        robot().estimate(inputs)


@pytest.mark.parametrize(
    ("key", "value"),
    [("angle_limit", 2.0), ("cart_mass", -1.0), ("centres", 1.5), ("force", 1.0), ("position_error", "small")],
)
def test_bad_parameters_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        make("cart_pole", {key: value})


@pytest.mark.parametrize(("key", "value"), [("centre_span", 0.95), ("position_error", 0.1), ("checks_per_tick", 3)])
def test_parameters_without_a_certificate_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key if key != "position_error" else "errors"):
        make("cart_pole", {key: value})


def test_observation_reward_and_controller_agree_on_the_goal() -> None:
    inputs = {"joint_states": np.array([0.1, 0.02, -0.3, 0.4]), "goal_pose": np.array([5.0])}
    estimate = robot().estimate(inputs)
    seen = robot().observation(inputs, estimate, np.array([3.0]), np.array([0.35]), 0.01)
    assert seen == pytest.approx([0.1, 0.02, -0.3, 0.4, 0.5, 0.6, 3.0, 0.35, 0.01])  # goal clipped to 0.6 m
    assert len(robot().observation_scale) == len(robot().observation_names) == len(seen)
    before, after = ({"joint_states": np.array([x, 0.0, 0.0, 0.0]), "goal_pose": np.array([5.0])} for x in (0.0, 0.2))
    reward, reached = robot().task(before, np.array([5.0]), after)
    assert reward == pytest.approx(-(0.4**2) - 0.1 * 0.25) and not reached
    at_rest = robot().observation(
        {**inputs}, robot().estimate({**inputs, "joint_states": np.array([0.6, 0, 0, 0])}), np.zeros(1), np.zeros(1), 0
    )
    assert robot().controller(at_rest[None]) == pytest.approx(np.zeros((1, 1)), abs=1e-5)
    assert np.abs(robot().controller(np.tile(seen, (3, 1)) * 100)).max() <= 10.0


def test_a_drive_that_gives_up_within_a_period_and_a_late_answer_is_refused() -> None:
    """Its effort would be zero between two commands, and no rollout has that in it."""
    with pytest.raises(ValueError, match="drive_timeout"):
        make("cart_pole", {"drive_timeout": TICK})


@pytest.mark.parametrize("joints", [[0.0, 0.0, 1e308, -1e308], [0.0, 0.0, 1e5, 1e5], [0.0, 1e308, 1e308, 1e308]])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_no_joint_state_makes_the_plan_a_command_that_is_no_number(joints: list[float]) -> None:
    """No joint is that fast: it is no state, and what is predicted in silence stays a number."""
    gate = Gate(robot(), GateConfig(), False, 0)
    gate.receive("joint_states", np.array(joints), 10**9, 10**9, 10**9)
    gate.receive("goal_pose", np.zeros(1), 10**9, 10**9, 10**9)
    assert gate.begin(10**9, 10**9) is None
    for tick in range(60):
        decision = gate.expire(10**9)
        assert np.abs(decision.action).max() <= robot().parameters.force_limit, tick
        assert decision.verdict == "no_proof"
        gate.begin(10**10, 10**10)


def test_settings_that_would_undo_a_guarantee_are_refused() -> None:
    nothing = {f"parameters.{name}_disturbance": 0.0 for name in ("position", "angle", "speed", "turn")}
    with pytest.raises(ValueError, match="budget would never be spent"):
        load_robot("cart_pole", nothing)
    with pytest.raises(ValueError, match="saturated_ticks is 50, must be at most the 25"):
        load_robot("cart_pole", {"parameters.saturated_ticks": 50, "parameters.horizon": 0.5})
