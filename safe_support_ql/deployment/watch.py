"""When a policy that drives is to be taken back: its requests are refused, or come too late, or it earns too little."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_support_ql.parameters import param


@dataclass(frozen=True)
class DeploymentConfig:
    """When inference goes back to the policy before; without one it asks for nothing any more, and the plan runs."""

    window: int = param(100, "1", 10, 100_000, "newest decisions that are looked at")
    refused: float = param(0.1, "1", 0.0, 1.0, "share of them in which the request was not certified, at most")
    late: float = param(0.1, "1", 0.0, 1.0, "share of them without a request in time, at most")
    stretches: int = param(20, "1", 2, 10_000, "newest stretches of 1 / (1 - gamma) ticks whose return is looked at")
    shortfall: float = param(
        1.5, "1", 0.0, 100.0, "mean by which it may fall short, in standard deviations of the value; 0: not watched"
    )


class Watch:
    """The newest decisions on one policy."""

    def __init__(self, config: DeploymentConfig) -> None:
        """A policy begins to drive."""
        self.config = config
        self._refused: deque[bool] = deque(maxlen=config.window)
        self._late: deque[bool] = deque(maxlen=config.window)

    def note(self, refused: bool, late: bool) -> str:
        """One decision; why this policy must not go on, '' if it may. A tenth of a window is too few to judge by."""
        self._refused.append(refused)
        self._late.append(late)
        n, config = self.config.window, self.config
        for what, values, most in (
            ("were refused", self._refused, config.refused),
            ("came too late, or not at all", self._late, config.late),
        ):
            # Of a whole window, also while it fills: a policy that is never certified is known after a tenth of it.
            if sum(values) > most * n:
                return f"{sum(values)} of its newest {len(values)} requests {what}, more than {most:.0%} of {n}"
        return ""


class Calibration:
    """Whether a policy earns what its value network promised: bias over standard deviation, as in docs/method.md.

    Over a stretch of n = 1 / (1 - gamma) ticks, the promise at its first state is compared with what came: the rewards,
    less `value_cost` for each tick but the first, and the promise at its last state. What ends in the middle of a
    stretch, for another reason than that the goal was reached, is not compared.
    """

    def __init__(self, config: DeploymentConfig, gamma: float, facts: Mapping[str, Any]) -> None:
        """`facts`: the training facts of the manifest. Without a spread nothing is watched."""
        self._config, self._gamma = config, gamma
        self._spread, self._cost = float(facts.get("value_spread", 0.0)), float(facts.get("value_cost", 0.0))
        self._ticks = max(1, round(1.0 / (1.0 - gamma)))
        self.gaps: deque[float] = deque(maxlen=config.stretches)
        self._promised: float | None = None
        self._came, self._weight, self._count = 0.0, 1.0, 0

    def note(self, value: float, reward: float, first: bool, terminated: bool) -> str:
        """A state, with what came of the action before it; why the policy must not go on, '' if it may.

        `value`: the promise of the policy at this state; NaN where it did not decide, and then a stretch is over.
        """
        if not self._spread or not self._config.shortfall:
            return ""
        if self._promised is not None and not first:
            self._came += self._weight * (reward - (self._cost if self._count else 0.0))
            self._weight *= self._gamma
            self._count += 1
            if terminated or (self._count == self._ticks and np.isfinite(value)):
                rest = 0.0 if terminated else self._weight * (value - self._cost)
                self.gaps.append((self._came + rest - self._promised) / self._spread)
            elif np.isfinite(value):
                return ""
        self._promised = None if terminated or not np.isfinite(value) else value
        self._came, self._weight, self._count = 0.0, 1.0, 0
        mean, config = float(np.mean(self.gaps)) if self.gaps else 0.0, self._config
        if len(self.gaps) == config.stretches and mean < -config.shortfall:
            return (
                f"it earned {-mean:.1f} standard deviations less than it promised, in the mean of {len(self.gaps)} "
                f"stretches of {self._ticks} ticks, more than {config.shortfall:g}"
            )
        return ""
