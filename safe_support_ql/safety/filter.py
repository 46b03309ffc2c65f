"""The gate as one call, without ROS: may this action be executed now, and what is executed instead if not?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from safe_support_ql.robots.base import Robot, Singles
from safe_support_ql.safety.gate import Gate, GateConfig


class SafetyFilter:
    """Certifies one action per control period. The world waits for each answer, so nothing is ever late."""

    def __init__(self, robot: Robot, config: GateConfig | None = None) -> None:
        """Compile the certificate of `robot` (seconds)."""
        self.gate = Gate(robot, config or GateConfig(), True, 0)
        self._period_ns = round(1e9 * robot.period)
        self._now_ns = 0

    def reset(self) -> None:
        """The robot was put somewhere else. A latch stays, see `release`."""
        self.gate.new_episode(self.gate.episode + 1)

    def release(self) -> tuple[bool, str]:
        """Leave the latch after a mismatch or inputs that were missing for long. Returns (done, why not).

        Somebody has to have looked at the robot: `gate.cause` says at what.
        """
        return self.gate.reset(self._now_ns, self._now_ns)

    def certify_action(self, inputs: Mapping[str, ArrayLike], action: ArrayLike) -> tuple[Singles, bool]:
        """(what to execute [A], whether that is `action`[A], certified), for the state of this control period.

        Otherwise it is the stored backup plan, or silence where nothing was certified yet, and `gate.cause` says why.
        Call it once a period with one vector per channel, and execute what it returns: the next call compares the new
        state with what that action should have done. A sensor that has nothing to say, or says a NaN, is left out or
        passed on as it is: then the plan goes on along its prediction, as behind the real sensor. Raises ValueError,
        before anything changes, for an unknown channel and for what is no vector of numbers.
        """
        if unknown := sorted(inputs.keys() - {channel.name for channel in self.gate.robot.channels}):
            known = ", ".join(channel.name for channel in self.gate.robot.channels)
            raise ValueError(f"unknown channel '{unknown[0]}'; {self.gate.robot.name} has: {known}")
        vectors = {channel: _vector(channel, value).astype(np.float64) for channel, value in inputs.items()}
        asked = _vector("action", action).astype(np.float32)
        self._now_ns += self._period_ns
        for channel, vector in vectors.items():
            self.gate.receive(channel, vector, *(self._now_ns,) * 3)
        candidates = self.gate.begin(self._now_ns, self._now_ns)
        if candidates is None:
            return self.gate.expire(self._now_ns).action, False
        decision = self.gate.request(candidates.id, asked, self._now_ns)
        assert decision is not None  # it answers the newest set at once
        certified = decision.reason in ("request", "plan_requested") and decision.verdict.startswith("certified")
        return decision.action, certified


def _vector(name: str, value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        vector = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r:.60} is no vector of numbers") from None
    if vector.ndim != 1:
        raise ValueError(f"{name}: has {vector.ndim} dimensions, must be a vector")
    return vector
