"""Where the robot is while its state is missing, by the nominal model: the one place where the plan is open-loop."""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats
from safe_support_ql.robots.model import Model, advance, columns
from safe_support_ql.safety.sent import Sent
from safe_support_ql.safety.timing import Clock


class BlindState:
    """The state that the nominal model predicts from the last one that was measured."""

    def __init__(self, model: Model, clock: Clock, sent: Sent) -> None:
        """Nothing was measured yet."""
        self._model, self._clock, self._sent = model, clock, sent
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else."""
        self._state: Floats | None = None
        self._points = np.zeros((0, self._model.certificate.point_size))
        self._at_ns = self._measured_ns = 0
        self._ticks = 0  # lock-step: decisions since it was measured

    def measured(self, estimate: Estimate, steady_ns: int) -> None:
        """The state was measured at that moment."""
        self._state, self._points = estimate.state, estimate.points
        self._at_ns = self._measured_ns = steady_ns
        self._ticks = 0

    def executed(self, action: Floats) -> None:
        """In lock-step the world goes on for a tick with every decision. In real time the sent commands tell."""
        if self._state is None or self._clock is not Clock.LOCKSTEP:
            return
        dynamics = self._model.dynamics
        self._ticks += 1
        x = advance(
            dynamics, columns(self._state[None]), columns(action[None]), columns(dynamics.members[:1]),
            dynamics.checks_per_tick,
        )  # fmt: skip
        self._state = np.stack(x, axis=1)[0]

    def at(self, steady_ns: int) -> Floats | None:
        """The state[S] now, None where nothing was ever measured: k of a state that has passed is no feedback."""
        if self._state is not None and self._clock is Clock.REALTIME:
            self._follow(self._state, steady_ns)
        return self._state

    @property
    def seconds(self) -> float:
        """How long ago the state was measured."""
        if self._clock is Clock.LOCKSTEP:
            return self._ticks * self._model.dynamics.checks_per_tick * self._model.dynamics.dt
        return (self._at_ns - self._measured_ns) / 1e9

    @property
    def lost(self) -> str:
        """Why the prediction means nothing any more: it left the safe set, or is longer than a plan; '' if neither."""
        if self._state is None:
            return ""
        certificate = self._model.certificate
        if self.seconds > self._model.horizon_s:
            return f"predicted for {self.seconds:.2f} s, longer than the {self._model.horizon_s:.2f} s of a plan"
        h = certificate.margins(tuple(self._state), self._points, certificate.constants)
        for name, value in zip(certificate.margin_names, h, strict=True):
            if not float(value) >= 0.0:
                return f"predicted for {self.seconds:.2f} s, and the prediction left margin '{name}'"
        return ""

    def _follow(self, state: Floats, until_ns: int) -> None:
        dynamics, member = self._model.dynamics, tuple(self._model.dynamics.members[0])
        check_ns = round(1e9 * dynamics.dt)
        # A prediction that is longer than any rollout says nothing.
        at_ns = max(self._at_ns, until_ns - len(self._model.certificate.tightening) * check_ns)
        x = tuple(state)
        while at_ns < until_ns:
            passed_ns = min(check_ns, until_ns - at_ns)  # the last step is shorter than a check: not for `advance`
            command = tuple(self._sent.acting(at_ns + passed_ns // 2))
            x = dynamics.step(x, command, member, passed_ns / 1e9)
            at_ns += passed_ns
        self._state, self._at_ns = np.array(x), until_ns
