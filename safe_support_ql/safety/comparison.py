"""Is the robot where a member predicted it? Each new state is compared with the predictions from the one before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.model import advance
from safe_support_ql.safety.inputs import Sample
from safe_support_ql.safety.membership import Membership
from safe_support_ql.safety.mismatch import Mismatch
from safe_support_ql.safety.sent import TRANSPORT_NS, Sent
from safe_support_ql.safety.timing import Clock

# An encoder zeroed in the wrong place looks right until the robot moves, and then k about that zero is what harms.
CONFIRMED_TICKS = 10  # within W, in which more than the plan acted: then the zero of the sensors counts as right
TOGETHER = 1.05  # W, by which no model may miss those ticks taken together; healthy robots at all bounds need 0.97
STEADY = 0.25  # of the range of commands: where they change more, a late one hides what such a tick could tell
COMPARED_TICKS = 3  # states farther apart are not compared, as nothing would contradict them, nor certified upon


class Comparison:
    """The states that were compared, and whether more than the plan acted between them. Feeds a Mismatch."""

    def __init__(self, robot: Robot, clock: Clock, sent: Sent, mismatch: Mismatch) -> None:
        """Nothing was seen yet."""
        self.needed = CONFIRMED_TICKS  # none where an experiment knows that its sensors are right
        self._robot, self._clock, self._sent, self._mismatch = robot, clock, sent, mismatch
        # Where silence and plan both stop the robot, a wrong zero that takes longer to show does no harm.
        detection = robot.model.detection
        self._together = None if robot.passive_stop else Membership(detection.residual, 4 * CONFIRMED_TICKS)
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else. What was noted in the Mismatch stays."""
        self.restart()
        self.apart_s = 0.0  # how far the newest state is from the one before, where the two could not be compared
        self._last: tuple[Sample, Floats] | None = None
        self._moving = False  # whether the last decision was for more than the plan
        self._moved_ns = 0  # until when (steady) more than the plan may have acted, before that decision

    @property
    def confirmed(self) -> bool:
        """Whether the robot moved as predicted for long enough to trust the zero of its sensors."""
        return self.informative >= self.needed

    def restart(self) -> None:
        """What was seen up to now confirms nothing about what comes."""
        self.informative = 0  # ticks within W in which more than the plan acted
        if self._together is not None:
            self._together.forget()

    def executed(self, moving: bool, steady_ns: int) -> None:
        """A decision for more than the plan (`moving`), or for no more than that."""
        if self._moving and not moving:
            self._moved_ns = steady_ns + TRANSPORT_NS
        self._moving = moving

    def compare(
        self, sample: Sample, state: Floats, off: Mapping[str, float], judge: bool, latched: bool
    ) -> bool | None:
        """Compare state[S] with the last one. Whether it counts as a mismatch; None where nothing was compared.

        `off` is how far sensors disagree about the motion. Without `judge` the state is only kept. If `apart_s` is not
        0 afterwards, the newest state stands uncompared, and nothing may be certified upon it.
        """
        last, model = self._last, self._robot.model
        apart_s = (sample.stamp_ns - last[0].stamp_ns) / 1e9 if last is not None else 0.0
        if last is not None and apart_s == 0.0:
            return None  # nothing new
        self._last, self.apart_s = (sample, state), 0.0
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
        low, high = self._predicted(start, past, fewest)  # [J, S]
        residuals = self._robot.residuals(before.vectors, sample.vectors, low.min(axis=0), high.max(axis=0))
        residuals |= off
        # A robot that only did what the plan says shows less, so that forgives less; a latch leaves it nothing else.
        beyond = self._mismatch.observe(residuals, moved or latched)
        told = True
        if self._together is not None and not self.confirmed:
            now = self._robot.relative(before.vectors, sample.vectors)
            swing = self._swing(apart_s)
            detection = self._robot.model.detection
            late = (detection.slack - detection.residual) * swing
            left = self._together.observe(low - late, high + late, now, 1.0)
            told = swing <= STEADY
            if left > TOGETHER:
                self._mismatch.contradict(left, len(self._together))
                beyond = True
        self.informative += moved and told and not beyond
        return beyond

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

    def _swing(self, apart_s: float) -> float:
        """By how much of their range commands changed: so much of the effect of a late one may act."""
        robot = self._robot
        sent = self._sent.newest(round(apart_s / robot.period) + (1 if self._clock is Clock.LOCKSTEP else 2))
        return float((np.ptp(sent, axis=0) / (robot.action_high - robot.action_low)).max())

    def _predicted(self, state: Floats, past: Floats, fewest: int) -> tuple[Floats, Floats]:
        """Bounds low[J, S], high[J, S] of where each member is under past[P, D, A], after `fewest` to D checks."""
        dynamics = self._robot.model.dynamics
        shape = (len(past), len(dynamics.members))
        members = tuple(np.broadcast_to(column, shape) for column in dynamics.members.T)
        low, high = (np.full((len(dynamics.members), len(state)), value) for value in (np.inf, -np.inf))
        if fewest == 0:
            low[:], high[:] = state, state
        x = tuple(np.full(shape, value) for value in state)
        for t in range(past.shape[1]):
            command = tuple(np.broadcast_to(column[:, None], shape) for column in past[:, t].T)
            x = advance(dynamics, x, command, members, 1)
            if t + 1 >= fewest:
                ends = np.array(x)  # [S, P, J]
                low, high = np.minimum(low, ends.min(axis=1).T), np.maximum(high, ends.max(axis=1).T)
        return low, high
