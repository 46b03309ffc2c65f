import numpy as np
import pytest

from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows

CANDIDATES = 8


@pytest.fixture
def spec() -> ProblemSpec:
    return ProblemSpec(3, 2, CANDIDATES, np.array([1.0, 2.0, 0.5]), np.array([-1.0, 0.0]), np.array([1.0, 4.0]))


@pytest.fixture
def journal(spec: ProblemSpec) -> Rows:
    """400 decisions in episodes of 20, reward smooth in what was executed; the last candidate is padding."""
    n, k = 400, CANDIDATES
    rng = np.random.default_rng(3)
    observation = (rng.normal(size=(n, 3)) * spec.observation_scale).astype(np.float32)
    candidates = rng.uniform(spec.action_low, spec.action_high, (n, k, 2)).astype(np.float32)
    candidates[:, -1] = np.nan
    support = rng.random((n, k)) < 0.6
    support[:, -1] = False
    support[:, 0] = True
    support[::17, 1:] = False  # nothing is certified, only the plan is left
    is_plan = np.zeros((n, k), np.bool_)
    is_plan[:, 0] = True
    certified = support & ~is_plan
    share = np.where(certified.any(axis=1), 0.98, 0.0)[:, None]
    mass = np.where(certified, share / np.maximum(certified.sum(axis=1, keepdims=True), 1), is_plan * (1 - share))
    executed = np.array([rng.choice(k, p=row) for row in mass])
    action = candidates[np.arange(n), executed]
    reward = np.concatenate(([0.0], (action[:, 0] * observation[:, 0] - (action[:, 1] - 2) ** 2 / 4)[:-1]))
    number = np.arange(n)
    with np.errstate(divide="ignore"):
        log_weight = np.log(mass).astype(np.float32)
    return {
        "observation": observation,
        "candidates": candidates,
        "support": support,
        "is_plan": is_plan,
        "log_weight": log_weight,
        "executed": executed,
        "reward": reward.astype(np.float32),
        "terminated": number % 40 == 39,
        "truncated": number % 40 == 19,
        "first": number % 20 == 0,
        "sequence": number,
    }
