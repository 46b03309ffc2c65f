"""The trainer itself, on a table instead of a network, lands on the solution of an MDP that NumPy solves exactly."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.soft_value import kl_to_behavior, optimal_policy, soft_value
from safe_support_ql.learning.trainer import QFactory, Trainer, twin_q_network

STATES, LATTICE, BRANCHES = 7, 5, 3
K = LATTICE + 1  # the last candidate is the plan where the plan is no lattice action, and padding where it is one
GAMMA, EPSILON = 0.8, 0.02
ABSORBING = STATES - 1  # entering it terminates
PLAN_ONLY = 2  # the state where nothing is certified


@dataclass
class Mdp:
    support: np.ndarray  # bool [S, K]
    is_plan: np.ndarray  # bool [S, K]
    beta: np.ndarray  # [S, K]
    successor: np.ndarray  # int [S, K, BRANCHES], equally likely
    reward: np.ndarray  # [S, K, BRANCHES]

    def backup(self, value: np.ndarray) -> np.ndarray:
        """The Bellman operator on V: E[r + gamma (1 - terminated) V(s')], [S, K]."""
        alive = self.successor != ABSORBING
        return (self.reward + GAMMA * alive * value[self.successor]).mean(axis=-1)

    def soft(self, q: np.ndarray, alpha: float) -> np.ndarray:
        top = np.where(self.support, q, -np.inf).max(axis=1)
        gain = np.where(self.support, q - top[:, None], -np.inf) / alpha
        return top + alpha * np.log((self.beta * np.exp(gain)).sum(axis=1))

    def fixed_point(self, alpha: float) -> np.ndarray:
        q = np.zeros((STATES, K))
        for _ in range(300):  # 0.8^300 is far below rounding
            q = self.backup(self.soft(q, alpha))
        return q


def make_mdp(seed: int) -> Mdp:
    rng = np.random.default_rng(seed)
    certified = rng.random((STATES, LATTICE)) < 0.6
    certified[:, 1] = True
    certified[PLAN_ONLY] = False
    support, is_plan, beta = np.zeros((STATES, K), bool), np.zeros((STATES, K), bool), np.zeros((STATES, K))
    base = rng.uniform(0.2, 1.0, (STATES, LATTICE))
    for state in range(STATES):
        plan = 1 if state % 2 else LATTICE  # a lattice action in odd states, an action of its own in even ones
        support[state, :LATTICE] = certified[state]
        support[state, plan] = is_plan[state, plan] = True
        if certified[state].any():
            masked = base[state] * certified[state]
            beta[state, :LATTICE] = (1 - EPSILON) * masked / masked.sum()
        beta[state, plan] += 1 - beta[state].sum()
    successor = rng.integers(STATES, size=(STATES, K, BRANCHES))
    reward = rng.normal(size=(STATES, K, 1)) + 0.1 * rng.normal(size=(STATES, K, BRANCHES))
    reward[~support] = 1e3  # never executed: if the learner looked there, every test below would show it
    return Mdp(support, is_plan, beta, successor, reward)


def journal(mdp: Mdp) -> Rows:
    """Every supported transition once, as a pair of records: the data's MDP then equals the true one exactly."""
    state, action, branch = (
        index.ravel() for index in np.meshgrid(np.arange(STATES), np.arange(K), np.arange(BRANCHES), indexing="ij")
    )
    kept = mdp.support[state, action] & (state != ABSORBING)
    state, action, branch = state[kept], action[kept], branch[kept]
    n = len(state)
    at = np.stack([state, mdp.successor[state, action, branch]], axis=1).ravel()
    values = np.tile(np.arange(K, dtype=np.float32)[None, :, None], (2 * n, 1, 1))
    values[~mdp.support[at, -1], -1] = np.nan  # padding
    with np.errstate(divide="ignore"):
        log_weight = np.log(mdp.beta)[at].astype(np.float32)
    executed = np.stack([action, mdp.support[at[1::2]].argmax(axis=1)], axis=1).ravel()
    arriving = np.stack([np.zeros(n), mdp.reward[state, action, branch]], axis=1).ravel()
    second = np.tile([False, True], n)
    return {
        "observation": np.eye(STATES, dtype=np.float32)[at],
        "candidates": values,
        "support": mdp.support[at],
        "is_plan": mdp.is_plan[at],
        "log_weight": log_weight,
        "executed": executed,
        "reward": arriving,
        "terminated": second & (at == ABSORBING),
        "truncated": second & (at != ABSORBING),
        "first": ~second,
        "sequence": np.arange(2 * n),
    }


class Table(nn.Module):
    """Q as a table, with the signature of a network: one-hot observation, candidates that hold the action's number."""

    def __init__(self, spec: ProblemSpec, config: LearnerConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, STATES, K, dtype=torch.float64))

    def forward(self, observation: Tensor, candidates: Tensor, wanted: Tensor | None = None) -> Tensor:
        rows = self.weight[:, observation.argmax(dim=-1)]
        return rows.gather(2, candidates[..., 0].long().expand(2, -1, -1))


SPEC = ProblemSpec(STATES, 1, K, np.ones(STATES), np.zeros(1), np.full(1, float(LATTICE)))
OBSERVATIONS = torch.eye(STATES)
ACTIONS = torch.arange(K, dtype=torch.float32)[None, :, None].expand(STATES, K, 1)


def learn(mdp: Mdp, alpha: float, factory: QFactory = Table, **settings: object) -> Trainer:
    config = LearnerConfig(
        gamma=GAMMA,
        alpha=alpha,
        device="cpu",
        seed=0,
        **{"learning_rate": 0.03, "tau": 0.03, "batch_size": 512} | settings,
    )
    trainer = Trainer(config, SPEC, factory)
    trainer.replay.append(journal(mdp))
    for _ in range(3):
        metrics = trainer.update(1000)
        for group in trainer.optimizer.param_groups:
            group["lr"] /= 8  # far from the solution steps must be large, near it their noise is all that is left
    assert metrics["target_progress"] > 5
    return trainer


def error_share(mdp: Mdp, q: np.ndarray, oracle: np.ndarray) -> float:
    """max |Q - Q*| over what can be executed, as a share of the range of Q*."""
    executable = mdp.support & (np.arange(STATES) != ABSORBING)[:, None]
    return np.abs(q - oracle)[executable].max() / np.ptp(oracle[executable])


@pytest.mark.parametrize(
    ("seed", "alpha", "twin"), [(0, 0.1, "min"), (0, 1.0, "mean"), (1, 0.1, "mean"), (1, 1.0, "min")]
)
def test_trainer_lands_on_the_fixed_point(seed: int, alpha: float, twin: str):
    mdp = make_mdp(seed)
    oracle = mdp.fixed_point(alpha)
    q = learn(mdp, alpha, twin=twin).q_values(OBSERVATIONS, ACTIONS)
    assert error_share(mdp, q.numpy(), oracle) < 0.01

    living = np.arange(STATES) != ABSORBING
    log_weight = torch.from_numpy(mdp.beta).log()
    value, oracle_value = soft_value(q, log_weight, alpha).numpy(), mdp.soft(oracle, alpha)
    span = np.ptp(oracle[mdp.support])
    assert np.abs(value - oracle_value)[living].max() < 0.01 * span

    policy = optimal_policy(q, log_weight, alpha)
    oracle_policy = np.where(mdp.support, mdp.beta * np.exp((oracle - oracle_value[:, None]) / alpha), 0.0)
    assert np.abs(policy.numpy() - oracle_policy)[living].max() < 0.01 * span / alpha
    assert (policy.numpy()[~mdp.support] == 0).all()

    with np.errstate(divide="ignore", invalid="ignore"):
        oracle_kl = np.nansum(np.where(mdp.support, oracle_policy * np.log(oracle_policy / mdp.beta), 0.0), axis=1)
    kl = kl_to_behavior(policy, log_weight).numpy()
    assert np.abs(kl - oracle_kl)[living].max() < 0.02 * span / alpha
    assert kl[PLAN_ONLY] == 0.0
    assert value[PLAN_ONLY] == pytest.approx(q[PLAN_ONLY, LATTICE].item())


def test_large_alpha_evaluates_beta():
    mdp = make_mdp(2)
    q = np.zeros((STATES, K))
    for _ in range(300):
        q = mdp.backup((mdp.beta * np.where(mdp.support, q, 0.0)).sum(axis=1))
    assert error_share(mdp, learn(mdp, 1e3).q_values(OBSERVATIONS, ACTIONS).numpy(), q) < 0.01


def test_small_alpha_takes_the_maximum_in_support():
    mdp = make_mdp(2)
    q = np.zeros((STATES, K))
    for _ in range(300):
        q = mdp.backup(np.where(mdp.support, q, -np.inf).max(axis=1))
    assert error_share(mdp, learn(mdp, 1e-3).q_values(OBSERVATIONS, ACTIONS).numpy(), q) < 0.01


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1e3])
def test_bellman_operator_contracts_by_gamma(alpha: float):
    mdp, rng = make_mdp(3), np.random.default_rng(0)
    log_weight = torch.from_numpy(mdp.beta).log()
    for _ in range(20):
        one, other = rng.normal(size=(2, STATES, K)) * 10
        values = [soft_value(torch.from_numpy(q), log_weight, alpha).numpy() for q in (one, other)]
        moved = np.abs(mdp.backup(values[0]) - mdp.backup(values[1])).max()
        assert moved <= GAMMA * np.abs(one - other)[mdp.support].max() + 1e-9


def test_network_of_the_package_lands_near_the_fixed_point():
    mdp = make_mdp(0)
    trainer = learn(mdp, 0.3, factory=twin_q_network, learning_rate=5e-3, hidden=64, batch_size=256)
    q = trainer.q_values(OBSERVATIONS, ACTIONS).numpy()
    assert error_share(mdp, q, mdp.fixed_point(0.3)) < 0.05
