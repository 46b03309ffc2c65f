"""The behavior policy (beta): its settings, its distribution over the candidates, and its draws (docs/method.md)."""

from dataclasses import dataclass, replace

import numpy as np

from safe_support_ql.parameters import param
from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, Bools, CandidateSet

NEAR = 0.3  # of the range of all actions together: the nearest point of a shifted lattice still is the kept action


@dataclass(frozen=True)
class BehaviorConfig:
    """The base distribution (a Gaussian about the scripted controller, mixed with a uniform one) and eps."""

    controller_share: float = param(0.7, "1", 0.0, 1.0, "share of the controller with noise; the rest is uniform")
    noise: float = param(0.15, "1", 0.001, 10.0, "standard deviation of that noise, as a share of each range")
    plan_mass: float = param(0.02, "1", 0.0001, 0.5, "eps: probability of the plan")
    persistence: float = param(0.0, "s", 0.0, 60.0, "mean time for which a uniform draw is kept; 0: for a tick")


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
    """Draws from beta over a CandidateSet.

    With `persistence` the two parts of the mixture take turns, with the same shares of the time, and a uniform draw is
    kept as long as its part lasts and it is certified. Independent draws of a slow robot cancel out before it has come
    around an obstacle. The data then are beta's tick by tick, but not independently so; Q-learning needs no more than
    their support, and what Q is regularised towards is beta all the same (docs/method.md).
    """

    def __init__(self, config: BehaviorConfig, robot: Robot, seed: int) -> None:
        """`seed` determines the draws."""
        self._config, self._robot = config, robot
        self._seeking, self._uniform = replace(config, controller_share=1.0), replace(config, controller_share=0.0)
        self._rng = np.random.default_rng(seed)
        self._change = robot.period / config.persistence if config.persistence > robot.period else 1.0
        self._seeks = True
        self._kept: Singles | None = None  # the action of a uniform draw

    def __call__(self, candidates: CandidateSet) -> Singles:
        """An action [A] of the support."""
        if self._change == 1.0:
            return self._draw(self._config, candidates)
        if self._rng.random() < self._change:
            self._seeks, self._kept = bool(self._rng.random() < self._config.controller_share), None
        if self._seeks:
            return self._draw(self._seeking, candidates)
        if self._kept is None or self._rng.random() < self._config.plan_mass or not candidates.offered.any():
            self._kept = action = self._draw(self._uniform, candidates)
            return action
        apart = (np.abs(candidates.actions - self._kept) / (self._robot.action_high - self._robot.action_low)).sum(
            axis=1
        )
        nearest = int(np.argmin(np.where(candidates.offered, apart, np.inf)))
        if apart[nearest] > NEAR:  # no longer certified
            self._kept = self._draw(self._uniform, candidates)
            return self._kept
        return np.asarray(candidates.actions[nearest])

    def _draw(self, config: BehaviorConfig, candidates: CandidateSet) -> Singles:
        weights = log_weights(
            config, self._robot, candidates.observation[None], candidates.actions[None],
            candidates.offered[None], candidates.is_plan[None],
        )  # fmt: skip
        return np.asarray(candidates.actions[sample(weights[0], self._rng)])


def sample(log_weight: Singles, rng: np.random.Generator) -> int:
    """Index drawn from one row of log weights [K]. Raises ValueError if they are not a distribution."""
    weight = np.exp(log_weight.astype(np.float64))
    if not np.isclose(weight.sum(), 1.0, atol=1e-4):
        raise ValueError(f"log weights sum to {weight.sum()}, must sum to 1")
    return int(rng.choice(len(weight), p=weight / weight.sum()))
