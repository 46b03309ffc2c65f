"""The gate as one call, without ROS: may this action be executed now, and what is executed instead if not?"""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import Inputs, Robot, Singles
from safe_support_ql.safety.gate import Gate, GateConfig


class SafetyFilter:
    """Certifies one action a control period. The world waits for each answer, so nothing is ever late."""

    def __init__(self, robot: Robot, config: GateConfig | None = None) -> None:
        """Compile the certificate of `robot` (seconds)."""
        self.gate = Gate(robot, config or GateConfig(), True, 0)
        self._period_ns = round(1e9 * robot.period)
        self._now_ns = 0

    def reset(self) -> None:
        """The robot was put somewhere else."""
        self.gate.new_episode(self.gate.episode + 1)

    def certify_action(self, inputs: Inputs, action: Singles) -> tuple[Singles, bool]:
        """(what to execute [A], whether that is `action`[A], certified), for the state of this control period.

        Otherwise it is the stored backup plan, or silence where nothing was certified yet, and `gate.cause` says why.
        Call it once a period with one vector per channel, and execute what it returns: the next call compares the new
        state with what that action should have done. Raises ValueError on inputs that make no sense.
        """
        self._now_ns += self._period_ns
        for channel, vector in inputs.items():
            if problem := self.gate.receive(channel, np.asarray(vector, np.float64), *(self._now_ns,) * 3):
                raise ValueError(str(problem))
        candidates = self.gate.begin(self._now_ns, self._now_ns)
        if candidates is None:
            raise ValueError(self.gate.expire(self._now_ns).message)
        decision = self.gate.request(candidates.id, np.asarray(action, np.float32), self._now_ns)
        assert decision is not None  # it answers the newest set at once
        certified = decision.reason in ("request", "plan_requested") and decision.verdict.startswith("certified")
        return decision.action, certified
