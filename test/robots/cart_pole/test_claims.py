"""The cart-pole's claims: the adversary's world is the model, and the plan that is not clipped really is not."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.robots.cart_pole import adversary
from safe_support_ql.robots.cart_pole.margins import without_clipping
from safe_support_ql.robots.cart_pole.robot import CartPole


def robot() -> CartPole:
    made = config.load_robot("cart_pole").robot
    assert isinstance(made, CartPole)
    return made


def test_the_adversary_is_the_model_itself() -> None:
    pole = robot()
    model = pole.model
    world = adversary.Pole(pole, {}, np.random.default_rng(0))
    expected = np.array(
        model.dynamics.step(tuple(world.x), (3.0,), tuple(model.dynamics.members[0]), model.dynamics.dt)
    )
    margin = (pole.truth_margins(expected) / model.certificate.scale).min()
    assert world.tick(np.array([3.0])) == margin and np.array_equal(world.x, expected)


def test_only_a_candidate_may_rest_on_an_old_state() -> None:
    world = adversary.Pole(robot(), {"old": 4}, np.random.default_rng(0))
    assert world.attacks == 1 and [world.age(tick) for tick in range(3)] == [4, 0, 0]


def test_the_plan_that_is_not_clipped() -> None:
    pole = robot()
    far, c = (0.9, 0.15, 2.0, 2.0), pole.model.certificate
    (clipped,), (free,) = (
        made.model.certificate.backup(far, (0.0,), c.constants) for made in (pole, without_clipping(pole.parameters))
    )
    assert abs(clipped) == pole.parameters.force_limit < abs(free)


def test_the_kernel_is_that_of_the_safe_set() -> None:
    pole = robot()
    spec = robots.claims_of(pole).kernel
    assert spec is not None
    state = np.append(spec.limits, np.zeros(2))
    assert pole.truth_margins(state) == pytest.approx([0.0, 0.0])
    assert np.array_equal(pole.estimate(spec.inputs(state)).state, state)
    assert set(spec.truths) == {"nominal", "heavy, weak", "light, strong"} and not spec.truths["nominal"]
