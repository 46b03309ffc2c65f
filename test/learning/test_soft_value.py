"""The facts docs/method.md states of V and pi*, for any Q and any support."""

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import Tensor

from safe_support_ql.learning.soft_value import (
    effective_sample_share,
    kl_to_behavior,
    optimal_policy,
    reduce_members,
    soft_value,
)


@st.composite
def decisions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """(q [K], log_weight [K]) in float64; some candidates outside the support, their Q absurdly good."""
    k = draw(st.integers(1, 12))
    q = torch.tensor(draw(st.lists(st.floats(-100, 100), min_size=k, max_size=k)), dtype=torch.float64)
    mass = torch.tensor(draw(st.lists(st.floats(0.01, 1), min_size=k, max_size=k)), dtype=torch.float64)
    outside = torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k)))
    outside[draw(st.integers(0, k - 1))] = False
    mass[outside] = 0.0
    q[outside] = 1e6
    return q, (mass / mass.sum()).log()


alphas = st.floats(0.01, 100)
relaxed = settings(deadline=None)  # the first call of a torch operation can take long on a busy machine


@relaxed
@given(decisions(), alphas)
def test_value_lies_between_the_mean_of_beta_and_the_maximum_in_support(decision: tuple[Tensor, Tensor], alpha: float):
    q, log_weight = decision
    inside = log_weight > -torch.inf
    value = soft_value(q, log_weight, alpha)
    assert (log_weight.exp() * q)[inside].sum() - 1e-9 * (1 + alpha) <= value <= q[inside].max() + 1e-9 * (1 + alpha)


@relaxed
@given(decisions(), alphas)
def test_optimal_policy_is_a_distribution_on_the_support(decision: tuple[Tensor, Tensor], alpha: float):
    q, log_weight = decision
    policy = optimal_policy(q, log_weight, alpha)
    formula = (log_weight + (q - soft_value(q, log_weight, alpha)) / alpha).exp()
    torch.testing.assert_close(policy, formula, rtol=1e-6, atol=1e-9)
    assert abs(policy.sum() - 1) < 1e-9
    assert (policy[log_weight == -torch.inf] == 0).all()


@relaxed
@given(decisions(), alphas)
def test_kl_equals_what_the_policy_gains_over_the_value(decision: tuple[Tensor, Tensor], alpha: float):
    q, log_weight = decision
    policy = optimal_policy(q, log_weight, alpha)
    identity = ((policy * q).sum() - soft_value(q, log_weight, alpha)) / alpha
    torch.testing.assert_close(kl_to_behavior(policy, log_weight), identity, rtol=1e-6, atol=1e-9 * (1 + 100 / alpha))


@relaxed
@given(decisions())
def test_large_alpha_evaluates_beta_and_small_alpha_takes_the_maximum_in_support(decision: tuple[Tensor, Tensor]):
    q, log_weight = decision
    inside = log_weight > -torch.inf
    mean = (log_weight.exp() * q)[inside].sum()
    assert abs(soft_value(q, log_weight, 1e7) - mean) < 1e-2
    assert abs(soft_value(q, log_weight, 1e-4) - q[inside].max()) < 1e-3


@relaxed
@given(decisions(), decisions(), alphas)
def test_value_is_a_non_expansion(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], alpha: float):
    q, log_weight = one
    k = min(len(q), len(other[0]))
    shifted = q.clone()
    shifted[:k] += other[0][:k].clamp(max=100)
    inside = log_weight > -torch.inf
    moved = (soft_value(q, log_weight, alpha) - soft_value(shifted, log_weight, alpha)).abs()
    assert moved <= (q - shifted)[inside].abs().max() + 1e-9 * (1 + alpha)


@relaxed
@given(decisions(), alphas)
def test_effective_sample_share_is_one_over_one_plus_chi_square(decision: tuple[Tensor, Tensor], alpha: float):
    q, log_weight = decision
    policy, beta = optimal_policy(q, log_weight, alpha), log_weight.exp()
    inside = beta > 0
    chi_square = ((policy - beta)[inside].square() / beta[inside]).sum()
    torch.testing.assert_close(effective_sample_share(policy, log_weight), 1 / (1 + chi_square), rtol=1e-6, atol=1e-12)


def test_only_the_plan_left_gives_its_q_value_and_no_kl():
    q = torch.tensor([[5.0, -3.0, 9.0]])
    log_weight = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    policy = optimal_policy(q, log_weight, 0.1)
    assert soft_value(q, log_weight, 0.1).item() == -3.0
    assert kl_to_behavior(policy, log_weight).item() == 0.0
    assert effective_sample_share(policy, log_weight).item() == 1.0


def test_float32_value_survives_large_q_over_alpha():
    q = torch.tensor([1000.0, 999.0])
    value = soft_value(q, torch.tensor([0.5, 0.5]).log(), 0.01)
    assert abs(value.item() - (1000.0 + 0.01 * torch.tensor(0.5).log().item())) < 1e-3


def test_members_reduce_to_minimum_or_mean():
    q = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    assert reduce_members(q, "min").tolist() == [1.0, 2.0]
    assert reduce_members(q, "mean").tolist() == [2.0, 3.0]
