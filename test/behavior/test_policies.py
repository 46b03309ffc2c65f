"""beta: a distribution over the support, with the stated masses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql import config
from safe_support_ql.behavior.policies import BehaviorConfig, BehaviorPolicy, base_mass, log_weights, sample
from safe_support_ql.safety.candidates import EXTRA_SLOTS, CandidateSet

ROBOT = config.load_robot("diff_drive").robot
RNG = np.random.default_rng(0)
POINTS = ROBOT.candidates(False)(RNG, np.zeros(0))
N = len(POINTS)


def situation(certified: np.ndarray, plan: int, continuous: bool = False) -> tuple[np.ndarray, ...]:
    actions = np.zeros((1, N + EXTRA_SLOTS, 2), np.float32)
    actions[0, :N] = ROBOT.candidates(continuous)(np.random.default_rng(1), np.zeros(0))
    is_plan = np.zeros((1, N + EXTRA_SLOTS), bool)
    is_plan[0, plan] = True
    observation = np.random.default_rng(2).random((1, len(ROBOT.observation_names))).astype(np.float32)
    return observation, actions, certified[None], is_plan


@given(mask=st.integers(0, 2**54 - 1), plan=st.integers(0, N), share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_weights_are_a_distribution_over_the_support(mask: int, plan: int, share: float) -> None:
    certified = np.array([mask >> i & 1 for i in range(N)] + [0, 0], bool)
    observation, actions, certified_row, is_plan = situation(certified, plan)
    behavior = BehaviorConfig(controller_share=share)
    weight = np.exp(log_weights(behavior, ROBOT, observation, actions, certified_row, is_plan)[0])
    assert weight.sum() == pytest.approx(1.0, abs=1e-5)
    assert (weight[~(certified | is_plan[0])] == 0).all()
    assert weight[plan] >= behavior.plan_mass * 0.999


def test_the_atom_has_its_mass_and_a_coincident_lattice_point_adds() -> None:
    certified = np.array([True] * N + [False, False])
    uniform = BehaviorConfig(controller_share=0.0)
    apart = np.exp(log_weights(uniform, ROBOT, *situation(certified, N))[0])
    assert apart[N] == pytest.approx(uniform.plan_mass)
    together = np.exp(log_weights(uniform, ROBOT, *situation(certified, 3))[0])
    assert together[3] == pytest.approx(uniform.plan_mass + (1 - uniform.plan_mass) / N)


def test_the_appended_action_is_never_drawn_by_beta() -> None:
    certified = np.array([True] * N + [False, True])
    weight = np.exp(log_weights(BehaviorConfig(), ROBOT, *situation(certified, N))[0])
    assert weight[-1] == 0.0


def test_mixed_first_then_restricted() -> None:
    certified = np.zeros(N + EXTRA_SLOTS, bool)
    certified[[2, 40]] = True
    observation, actions, certified_row, is_plan = situation(certified, N)
    behavior = BehaviorConfig()
    mass = base_mass(behavior, ROBOT, observation, actions[:, :N].astype(np.float64))[0]
    weight = np.exp(log_weights(behavior, ROBOT, observation, actions, certified_row, is_plan)[0])
    assert weight[2] / weight[40] == pytest.approx(mass[2] / mass[40], rel=1e-4)
    assert mass.sum() == pytest.approx(1.0)


def test_draws_follow_the_weights() -> None:
    weight = np.array([0.5, 0.0, 0.3, 0.2])
    rng = np.random.default_rng(0)
    with np.errstate(divide="ignore"):
        draws = np.bincount([sample(np.log(weight).astype(np.float32), rng) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(draws, weight, atol=0.03)
    with pytest.raises(ValueError, match="must sum to 1"):
        sample(np.log(np.array([0.2, 0.2], np.float32)), rng)


def offer(certified: np.ndarray) -> CandidateSet:
    """A set in which these lattice points are certified, and the plan is none of them."""
    observation, actions, offered, is_plan = situation(certified, N)
    margin = np.where(offered[0], 1.0, -np.inf).astype(np.float32)
    return CandidateSet(
        0, 0, 0, observation[0], actions[0], offered[0], offered[0], np.zeros_like(offered[0]), is_plan[0], margin,
        np.zeros(len(margin), np.uint8),
    )  # fmt: skip


def test_a_uniform_draw_is_kept_for_about_that_long_and_its_share_of_the_time_stays() -> None:
    config_ = BehaviorConfig(controller_share=0.0, persistence=2.0)
    everything = offer(np.array([True] * N + [False, False]))
    policy, drawn = BehaviorPolicy(config_, ROBOT, 0), BehaviorPolicy(BehaviorConfig(controller_share=0.0), ROBOT, 0)
    kept = np.array([policy(everything) for _ in range(4000)])
    changes = (kept[1:] != kept[:-1]).any(axis=1).mean()
    assert changes == pytest.approx(ROBOT.period / 2.0 + config_.plan_mass, rel=0.3)
    assert (np.diff([drawn(everything) for _ in range(200)], axis=0) != 0).any(axis=1).mean() > 0.9
    # The two parts of a mixture take turns: as much of the time each as independent draws would have.
    mixed = BehaviorPolicy(BehaviorConfig(controller_share=0.6, persistence=1.0), ROBOT, 1)
    seeks = [mixed._seeks for _ in range(20000) if mixed(everything) is not None]
    assert np.mean(seeks) == pytest.approx(0.6, abs=0.06)


def test_a_kept_draw_is_given_up_when_it_is_no_longer_certified() -> None:
    policy = BehaviorPolicy(BehaviorConfig(controller_share=0.0, persistence=60.0), ROBOT, 3)
    everything = np.array([True] * N + [False, False])
    action = policy(offer(everything))
    same = (offer(everything).actions[:N] == action).all(axis=1)
    for _ in range(20):
        left = policy(offer(everything & ~np.append(same, [False, False])))
        assert not (left == action).all()
    nothing = offer(np.zeros(N + EXTRA_SLOTS, bool))
    assert (policy(nothing) == nothing.actions[nothing.plan]).all(), "the plan is all that is left"
