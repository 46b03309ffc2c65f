"""Formulas of the method: KL-regularised soft value, optimal policy, KL and sample share (docs/method.md).

Shapes: `q` and `log_weight` are [..., K]; every result is [...] or [..., K]. `log_weight` is the log probability of
each candidate under the behavior policy: normalised over the support and -inf outside it, so it is also the mask.
"""

import torch
from torch import Tensor


def reduce_members(q: Tensor, twin: str) -> Tensor:
    """One Q-value per candidate from T networks: [T, ..., K] -> [..., K], by 'min' (pessimistic) or 'mean'."""
    return q.amin(dim=0) if twin == "min" else q.mean(dim=0)


def soft_value(q: Tensor, log_weight: Tensor, alpha: float) -> Tensor:
    """V = alpha log sum_i exp(log_weight_i + Q_i / alpha), in reward units (Fox et al. 1512.08562, eq. 11)."""
    return alpha * torch.logsumexp(log_weight + q / alpha, dim=-1)


def optimal_policy(q: Tensor, log_weight: Tensor, alpha: float) -> Tensor:
    """pi*_i = exp(log_weight_i + (Q_i - V) / alpha): the probabilities [..., K], zero outside the support."""
    return torch.softmax(log_weight + q / alpha, dim=-1)


def kl_to_behavior(policy: Tensor, log_weight: Tensor) -> Tensor:
    """KL(policy || beta) in nats, summed where the policy has mass: [..., K] -> [...]."""
    return torch.where(policy > 0, policy * (policy.log() - log_weight), 0.0).sum(dim=-1)


def effective_sample_share(policy: Tensor, log_weight: Tensor) -> Tensor:
    """1 / sum_i policy_i^2 / beta_i = 1 / (1 + chi2(policy || beta)), in (0, 1]: the share of beta's data it uses."""
    return 1.0 / torch.where(policy > 0, policy.square() / log_weight.exp(), 0.0).sum(dim=-1)
