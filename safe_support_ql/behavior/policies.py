"""The behavior policy (beta): its settings, its distribution over the candidates, and its draws (docs/method.md)."""

from dataclasses import dataclass

import numpy as np

from safe_support_ql.parameters import param
from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, Bools, CandidateSet


@dataclass(frozen=True)
class BehaviorConfig:
    """The base distribution (a Gaussian about the scripted controller, mixed with a uniform one) and eps."""

    controller_share: float = param(0.7, "1", 0.0, 1.0, "share of the controller with noise; the rest is uniform")
    noise: float = param(0.15, "1", 0.001, 10.0, "standard deviation of that noise, as a share of each range")
    plan_mass: float = param(0.02, "1", 0.0001, 0.5, "eps: probability of the plan")


def log_weights(
    config: BehaviorConfig, robot: Robot, observations: Singles, actions: Singles, offered: Bools, is_plan: Bools
) -> Singles:
    """log_weight[N, K] of candidates `actions`[N, K, A]; -inf outside the support and in the appended slot.

    The base distribution on the lattice is restricted to the offered candidates and normalised to 1 - eps. The plan
    gets eps, or all if the base has no mass on offered candidates. A lattice point that is the plan is one candidate,
    with the sum of both.
    """
    n = actions.shape[1] - EXTRA_SLOTS
    base = np.zeros(actions.shape[:2])
    base[:, :n] = base_mass(config, robot, observations, actions[:, :n].astype(np.float64))
    base[~offered] = 0.0
    total = base.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(total > 0.0, (1.0 - config.plan_mass) * base / total, 0.0)
        weight += np.where(total > 0.0, config.plan_mass, 1.0) * is_plan
        return np.log(weight).astype(np.float32)


def base_mass(config: BehaviorConfig, robot: Robot, observations: Singles, lattice: Floats) -> Floats:
    """Mass [N, n] of the unrestricted base distribution on lattice points [N, n, A]; rows sum to 1."""
    n = lattice.shape[1]
    mass = np.full(lattice.shape[:2], (1.0 - config.controller_share) / n)
    if config.controller_share > 0.0:
        spread = config.noise * (robot.action_high - robot.action_low)
        z = (lattice - robot.controller(observations)[:, None, :]) / spread
        exponent = -0.5 * (z**2).sum(axis=2)
        density = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        mass += config.controller_share * density / density.sum(axis=1, keepdims=True)
    return mass


class BehaviorPolicy:
    """Draws from beta over a CandidateSet."""

    def __init__(self, config: BehaviorConfig, robot: Robot, seed: int) -> None:
        """`seed` determines the draws."""
        self._config, self._robot = config, robot
        self._rng = np.random.default_rng(seed)

    def __call__(self, candidates: CandidateSet) -> Singles:
        """An action [A] of the support."""
        weights = log_weights(
            self._config, self._robot, candidates.observation[None], candidates.actions[None],
            candidates.offered[None], candidates.is_plan[None],
        )  # fmt: skip
        return np.asarray(candidates.actions[sample(weights[0], self._rng)])


def sample(log_weight: Singles, rng: np.random.Generator) -> int:
    """Index drawn from one row of log weights [K]. Raises ValueError if they are not a distribution."""
    weight = np.exp(log_weight.astype(np.float64))
    if not np.isclose(weight.sum(), 1.0, atol=1e-4):
        raise ValueError(f"log weights sum to {weight.sum()}, must sum to 1")
    return int(rng.choice(len(weight), p=weight / weight.sum()))
