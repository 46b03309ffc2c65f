"""Run-time mismatch detection: does the robot move as the ensemble predicted for what was executed?"""

from __future__ import annotations

import math
from collections.abc import Mapping

FORGIVEN = 0.25  # of a residual beyond W, by every tick without one: single ones are forgotten, frequent ones add up
FORGIVEN_AT_REST = 0.025  # by every tick that can hardly tell; not zero, or a narrow support would stay so for ever


class Mismatch:
    """Counts residuals beyond W, the robot's stated bound of one tick.

    The level rises by one with each such tick, by half the residual where that is more: a jump needs no second one.
    """

    def __init__(self, budget: float) -> None:
        """`budget`: the level at which the robot is no longer the one that the certificate speaks of."""
        self.budget = budget
        self.reset()

    def reset(self) -> None:
        """Nothing was noticed yet."""
        self.level = 0.0
        self.largest = 0.0  # residual of the newest tick, in W
        self.name = ""  # of the residual that was beyond W last; '' where it was none of one tick
        self.what = ""

    def observe(self, residuals: Mapping[str, float], told: bool = True) -> bool:
        """Take the residuals of one tick, by name and in units of W; returns whether one is beyond W.

        `told`: whether the tick can show anything; one in which the robot was only to stand still hardly does.
        """
        # A residual that is no number is the largest: every comparison with it is false, and max would pass over it.
        name = max(residuals, key=lambda n: math.inf if math.isnan(residuals[n]) else residuals[n], default="")
        self.largest = residuals.get(name, 0.0)
        beyond = bool(name) and not residuals[name] <= 1.0  # a residual that is no number is beyond every bound
        if beyond:
            self.level = min(self.level + max(1.0, 0.5 * self.largest), self.budget)
            self.name = name
            self.what = f"{name} is off by {residuals[name]:.1f} times what the models leave open"
        else:
            self.level = max(self.level - (FORGIVEN if told else FORGIVEN_AT_REST), 0.0)
        return beyond

    def contradict(self, residual: float, ticks: int) -> None:
        """No single model explains the newest ticks together, whatever each of them shows."""
        self.level = self.budget
        self.name = ""
        self.what = (
            f"no model explains {ticks} ticks together, the best is off by {residual:.1f} times what it leaves open"
        )

    def missed(self, apart_s: float) -> None:
        """States were too far apart to compare, and more than the plan acted: as bad as a residual.

        Else a robot would never be noticed that is only seen while the plan runs.
        """
        self.level = min(self.level + 1.0, self.budget)
        self.name = ""
        self.what = f"too much may have acted between states {apart_s:.3f} s apart to tell what the robot did"

    @property
    def spent(self) -> bool:
        """Whether the budget is spent."""
        return self.level >= self.budget
