"""Is the robot where a member predicted it? Each new state is compared with the predictions from the one before."""

from __future__ import annotations

from collections import deque

import numpy as np

from safe_support_ql.robots.base import Floats, Inputs, Robot
from safe_support_ql.robots.model import advance
from safe_support_ql.safety.inputs import Sample
from safe_support_ql.safety.mismatch import Mismatch
from safe_support_ql.safety.sent import TRANSPORT_NS, Sent
from safe_support_ql.safety.timing import Clock

AGREED_TICKS = 3  # over which sensors are compared with each other
COMPARED_TICKS = 3  # states farther apart are not compared, as nothing would contradict them, nor certified upon


class Comparison:
    """The states that were compared, and whether more than the plan acted between them. Feeds a Mismatch."""

    def __init__(self, robot: Robot, clock: Clock, sent: Sent, mismatch: Mismatch) -> None:
        """Nothing was seen yet."""
        self._robot, self._clock, self._sent, self._mismatch = robot, clock, sent, mismatch
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else. What was noted in the Mismatch stays."""
        self.apart_s = 0.0  # how far the newest state is from the one before, where the two could not be compared
        self._last: tuple[Sample, Floats] | None = None
        self._chain: deque[Inputs] = deque(maxlen=AGREED_TICKS + 1)  # of states that were compared, the newest last
        self._moving = False  # whether the last decision was for more than the plan
        self._moved_ns = 0  # until when (steady) more than the plan may have acted, before that decision

    def executed(self, moving: bool, steady_ns: int) -> None:
        """A decision for more than the plan (`moving`), or for no more than that."""
        if self._moving and not moving:
            self._moved_ns = steady_ns + TRANSPORT_NS
        self._moving = moving

    def compare(self, sample: Sample, state: Floats, judge: bool, latched: bool) -> bool | None:
        """Compare state[S] with the last one. Whether it counts as a mismatch; None where nothing was compared.

        Without `judge` the state is only kept. If `apart_s` is not 0 afterwards, the newest state stands uncompared,
        and nothing may be certified upon it.
        """
        last, model = self._last, self._robot.model
        apart_s = (sample.stamp_ns - last[0].stamp_ns) / 1e9 if last is not None else 0.0
        if last is not None and apart_s == 0.0:
            return None  # nothing new
        self._last, self.apart_s = (sample, state), 0.0
        chain, self._chain = self._chain, deque([sample.vectors], AGREED_TICKS + 1)
        if last is None or not judge:
            return None
        before, start = last
        moved = self._moving or self._moved_ns > before.steady_ns
        checks = apart_s / model.dynamics.dt
        fewest, most = int(np.floor(checks + model.detection.uneven)), int(np.ceil(checks - model.detection.uneven))
        past = self._acted(before, apart_s, fewest, most)
        if past is None:
            self.apart_s = apart_s
            if moved:
                self._mismatch.missed(apart_s)
            return True if moved else None
        low, high = self._predicted(start, past, fewest)
        residuals = self._robot.residuals(before.vectors, sample.vectors, low, high)
        self._chain = chain
        chain.append(sample.vectors)
        if len(chain) > AGREED_TICKS:
            residuals |= self._robot.disagreements(chain)
        # A robot that only did what the plan says shows less, so that forgives less; a latch leaves it nothing else.
        return self._mismatch.observe(residuals, moved or latched)

    def _acted(self, before: Sample, apart_s: float, fewest: int, most: int) -> Floats | None:
        """Commands [P, most, A] that may have acted since; None where that is unknown or too long ago."""
        if not 0.0 < apart_s <= COMPARED_TICKS * self._robot.period:
            return None
        if self._clock is Clock.REALTIME:
            past, known = self._sent.past(before.steady_ns, most)
            return past if known else None
        # The world waited for each command, which then acted from the state's instant on.
        commands = self._sent.newest(round(apart_s / self._robot.period))
        past = np.repeat(commands, self._robot.model.dynamics.checks_per_tick, 0)[None]
        return past if past.shape[1] == fewest == most else None  # whole ticks

    def _predicted(self, state: Floats, past: Floats, fewest: int) -> tuple[Floats, Floats]:
        """Bounds low[S], high[S] of where every member is under past[P, D, A], after `fewest` to D checks."""
        dynamics = self._robot.model.dynamics
        shape = (len(past), len(dynamics.members))
        members = tuple(np.broadcast_to(column, shape) for column in dynamics.members.T)
        low, high = np.full(len(state), np.inf), np.full(len(state), -np.inf)
        if fewest == 0:
            low, high = state, state
        x = tuple(np.full(shape, value) for value in state)
        for t in range(past.shape[1]):
            command = tuple(np.broadcast_to(column[:, None], shape) for column in past[:, t].T)
            x = advance(dynamics, x, command, members, 1)
            if t + 1 >= fewest:
                ends = np.array(x).reshape(len(x), -1)
                low, high = np.minimum(low, ends.min(axis=1)), np.maximum(high, ends.max(axis=1))
        return low, high
