"""The tube of the stored plan: where the members say that the robot is while the plan runs that was certified last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Floats, Inputs, Robot, Singles
from safe_support_ql.robots.model import Dynamics, advance, columns

TUBE_TICKS = 3  # the one-step residual counts this often: a contracting closed loop forgets older ones


@dataclass(frozen=True)
class Tube:
    """The states[J, S] of every member in the frame of `origin`, `ticks` after the certificate."""

    origin: Inputs
    states: Floats
    ticks: int

    @classmethod
    def start(cls, dynamics: Dynamics, origin: Inputs, state: Floats, action: Floats, past: Floats) -> Tube:
        """One tick after a certificate at state[S]: past[D, A] acts at the first D checks, then action[A]."""
        states = np.tile(state, (len(dynamics.members), 1))
        actions = np.broadcast_to(action, (len(states), len(action)))
        return cls(origin, _tick(dynamics, states, actions, past), 1)

    def move_on(self, dynamics: Dynamics, plan: Callable[[Floats], Singles]) -> Tube:
        """One tick more under the plan: every member acts on its own state, as it did in the rollout."""
        actions = np.array([plan(state).astype(np.float64) for state in self.states])
        return Tube(self.origin, _tick(dynamics, self.states, actions, actions[:0]), self.ticks + 1)

    def holds(self, robot: Robot, inputs: Inputs) -> bool:
        """Whether the robot is inside at `inputs`; no longer than the rollout lasts that the tube comes from."""
        model = robot.model
        if self.ticks * model.dynamics.checks_per_tick >= len(model.certificate.tightening):
            return False
        now = robot.relative(self.origin, inputs)
        slack = model.detection.slack * min(self.ticks, TUBE_TICKS)
        return bool(np.all(now >= self.states.min(axis=0) - slack) and np.all(now <= self.states.max(axis=0) + slack))


def _tick(dynamics: Dynamics, states: Floats, actions: Floats, past: Floats) -> Floats:
    members, x = columns(dynamics.members), columns(states)
    before = past[: dynamics.checks_per_tick]
    for command in before:
        x = advance(dynamics, x, tuple(np.full(len(states), value) for value in command), members, 1)
    x = advance(dynamics, x, columns(actions), members, dynamics.checks_per_tick - len(before))
    return np.stack(x, axis=1)
