"""The viability kernel: an outer approximation, what the gate certifies of it, and that a false accept is noticed."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from safe_support_ql import robots
from safe_support_ql.config import Config, load_robot
from safe_support_ql.experiments.kernel import Kernel, Truth, certified_share, outer_kernel, unsafe_on_truth
from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.cart_pole.robot import CartPole


@cache
def config() -> Config:
    return load_robot("cart_pole")


def robot() -> CartPole:
    assert isinstance(config().robot, CartPole)
    return config().robot


@cache
def kernel(member: int) -> Kernel:
    return outer_kernel(robot(), member, 40, 40, samples=3000)


def credulous(config: Config) -> Config:
    """The same robot with a certificate that asks for nothing after the first tick."""
    wrong = CartPole(robot().parameters)
    model = robot().model
    wrong.model = dataclasses.replace(
        model,
        certificate=dataclasses.replace(
            model.certificate,
            terminal=lambda x, centre, constants: x[0] == x[0],
            tightening=0.0 * model.certificate.tightening,
        ),
    )
    return dataclasses.replace(config, robot=wrong)


def test_states_that_some_force_signal_keeps_safe_are_inside() -> None:
    """Rollouts under the controller and the plans, from anywhere: what stayed in S for good was viable."""
    rng = np.random.default_rng(0)
    model, p = robot().model, robot().parameters
    n = 20_000
    start = rng.uniform(-1.0, 1.0, (n, 4)) * [1.0, 0.2, 3.0, 2.0]
    centre = rng.uniform(-0.7, 0.7, n)
    for member in (0, 3):
        x, safe = tuple(start.T), np.ones(n, bool)
        for _ in range(125):
            x = model.dynamics.step(
                x,
                model.certificate.backup(x, (centre,), model.certificate.constants),
                tuple(model.dynamics.members[member]),
                model.dynamics.dt,
            )
            safe &= (np.abs(x[0]) <= p.position_limit) & (np.abs(x[1]) <= p.angle_limit)
        assert safe.sum() > 500
        assert kernel(member).contains(start[safe]).all()


def test_no_force_keeps_a_state_outside_the_kernel_safe() -> None:
    """Not only S itself is cut off: a cart that races to the end of the track and a pole that falls are outside."""
    lost = np.array([[0.9, 0.0, 2.5, 0.0], [0.0, 0.15, 0.0, 2.0], [0.5, -0.1, 2.5, -2.5], [-0.9, 0.19, -3.0, 1.0]])
    assert not kernel(0).contains(np.vstack([lost, -lost])).any()
    assert kernel(0).contains(np.zeros((1, 4))).all()


def test_longer_trajectories_and_more_slabs_only_take_away() -> None:
    rng = np.random.default_rng(1)
    z = rng.uniform(-1.0, 1.0, (100_000, 4)) * kernel(0).box
    short = outer_kernel(robot(), 0, 20, 20, samples=3000)
    assert kernel(0).contains(z).sum() < short.contains(z).sum()


def farthest(member: int, normal: Floats, ticks: int = 100) -> float:
    """normal'z_0 of a trajectory of the model inside S that ends at rest: about as large as it can be.

    Linear programmes about the last trajectory, each inside a smaller trust region, until the model agrees.
    """
    p, model = robot().parameters, robot().model
    z, u, parameters = np.zeros((ticks + 1, 4)), np.zeros(ticks), tuple(model.dynamics.members[member])

    def after(z: Floats, u: Floats) -> Floats:
        return np.array(model.dynamics.step(tuple(z.T), (u,), parameters, model.dynamics.dt)).T

    limits = np.append(np.tile([p.position_limit, p.angle_limit, 12.0, 9.0], ticks + 1), np.full(ticks, p.force_limit))
    limits[4 * ticks : 4 * ticks + 4] = 1e-3
    for n in range(25):
        here, e = after(z[:-1], u), 1e-5
        a = np.stack([(after(z[:-1] + e * i, u) - after(z[:-1] - e * i, u)) / (2 * e) for i in np.eye(4)], axis=2)
        b = ((after(z[:-1], u + e) - after(z[:-1], u - e)) / (2 * e))[:, :, None]
        moves = sparse.eye(4 * ticks, 4 * ticks + 4, k=4) - sparse.block_diag([*a, np.zeros((0, 4))])
        right = here - np.einsum("tij,tj->ti", a, z[:-1]) - b[:, :, 0] * u[:, None]
        trust = np.append(np.tile([0.1, 0.05, 0.5, 0.5], ticks + 1), np.full(ticks, 20.0)) * 0.6 ** (n - 6)
        last = np.append(z.ravel(), u)
        low, high = np.clip([last - trust, last + trust], -limits, limits) if n > 6 else (-limits, limits)
        rows = sparse.hstack([moves, -sparse.block_diag(list(b))]).tocsc()
        cost = np.append(-normal, np.zeros(len(limits) - 4))
        solved = linprog(cost, A_eq=rows, b_eq=right.ravel(), bounds=np.column_stack([low, high]))
        assert solved.status == 0, solved.message
        z, u = solved.x[: len(z) * 4].reshape(-1, 4), solved.x[len(z) * 4 :]
        if np.abs(after(z[:-1], u) - z[1:]).max() < 1e-6:
            return float(normal @ z[0])
    raise AssertionError("the programmes do not converge")


@pytest.mark.parametrize("member", [0, 4])
def test_no_trajectory_of_the_model_goes_beyond_a_slab_and_most_slabs_are_nearly_touched(member: int) -> None:
    """This is what shows an enclosure whose samples missed the worst."""
    slabs = kernel(member)
    pick = np.arange(4, len(slabs.normals), 3)
    reached = np.array([farthest(member, slabs.normals[i]) for i in pick]) / slabs.offsets[pick]
    assert reached.max() < 1.0 + 1e-4
    assert np.median(reached) > 0.93


def test_part_of_the_kernel_is_certified_and_nothing_outside() -> None:
    """Forty slabs are a coarse kernel, larger than the true one: benchmarks/kernel.py has 0.62 and 0.42."""
    robust = {member: kernel(member) for member in (0, 1, 4)}
    row = certified_share(config(), robust, False, 150, 11, 0)
    assert row["certified_outside"] == 0 and row["states_outside"] > 10
    assert row["share"] > 0.35 and row["share_interval95"][0] < row["share"] < row["share_interval95"][1]
    nominal = certified_share(config(), {0: kernel(0)}, False, 150, 11, 0)
    assert nominal["certified_outside"] == 0
    assert 0.2 < nominal["share"] < row["share"]


@pytest.mark.parametrize("name", ["nominal", "heavy, weak"])
def test_certified_pairs_run_into_the_terminal_set_on_pybullet(name: str) -> None:
    spec = robots.claims_of(robot()).kernel
    assert spec
    truth = Truth(robot(), **spec.truths[name])
    row = unsafe_on_truth(config(), {0: kernel(0)}, truth, 60, 11, 0)
    truth.close()
    assert row["unsafe"] == 0 and row["pairs"] == 60 and row["unsafe_rate_upper95"] < 0.07


def test_a_certificate_that_is_wrong_has_false_accepts() -> None:
    wrong = credulous(config())
    assert certified_share(wrong, {0: kernel(0)}, False, 60, 11, 0)["certified_outside"] > 20
    truth = Truth(robot())
    assert unsafe_on_truth(wrong, {0: kernel(0)}, truth, 30, 11, 0)["unsafe"] > 3
    truth.close()
