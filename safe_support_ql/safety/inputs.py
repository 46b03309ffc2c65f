"""The newest inputs of each channel, and the sample of one instant that a state is estimated from.

Times are in nanoseconds: stamps, and `now`, on the clock of the messages; `steady` on a clock that never jumps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Floats, Inputs
from safe_support_ql.robots.world import Channel
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.timing import Clock

HISTORY = 256  # newest inputs of a channel that are kept, to find those of one instant: a quarter second at 1 kHz


@dataclass(frozen=True)
class Sample:
    """One input of every channel, all of one instant: that of the oldest of them."""

    vectors: Inputs
    stamp_ns: int
    age_s: float
    steady_ns: int  # the instant on the steady clock


@dataclass
class _Input:
    vector: Floats
    stamp_ns: int
    arrived_ns: int


class InputHistory:
    """What every channel received, and why its newest message was refused where it was."""

    def __init__(self, channels: Iterable[Channel], clock: Clock, future_tolerance_s: float, max_skew_s: float) -> None:
        """Nothing was received yet. A stamp may lie so far in the future, inputs of one instant so far apart."""
        self.problems: dict[str, Cause] = {}  # by channel, until its next good input
        self._channels = {channel.name: channel for channel in channels}
        self._received: dict[str, deque[_Input]] = {}
        self._clock = clock
        self._future_tolerance_s = future_tolerance_s
        self._max_skew_s = max_skew_s

    def forget(self) -> None:
        """Nothing was received since: the robot stands somewhere else."""
        self._received.clear()
        self.problems.clear()

    def receive(self, channel: str, vector: Floats, stamp_ns: int, now_ns: int, steady_ns: int) -> Cause:
        """Take an input, or return why not. A refused one changes nothing: the last one ages."""
        declared = self._channels[channel]
        history = self._received.get(channel)
        last = history[-1] if history else None
        problem = NONE
        if vector.shape != (declared.size,):
            problem = Cause(f"{channel}: {vector.size} numbers, expected {declared.size}")
        elif declared.finite and not np.isfinite(vector).all():
            problem = Cause(f"{channel}: holds a NaN or infinity")
        elif stamp_ns > now_ns + int(self._future_tolerance_s * 1e9):
            ahead_s = (stamp_ns - now_ns) / 1e9
            problem = Cause(f"{channel}: stamp lies {ahead_s:.3f} s in the future", "synchronise the clocks")
        elif last is not None and stamp_ns <= last.stamp_ns and not declared.latched:
            problem = Cause(f"{channel}: stamp did not advance, so the message is a repeated or reordered one")
        if problem:
            self.problems[channel] = problem
            return problem
        kept = deque(history or (), maxlen=1 if declared.latched else HISTORY)
        kept.append(_Input(np.array(vector, np.float64), stamp_ns, steady_ns))
        self._received[channel] = kept
        self.problems.pop(channel, None)
        return NONE

    @property
    def newest_ns(self) -> int | None:
        """The newest stamp of all, None without any."""
        return max((items[-1].stamp_ns for name, items in self._received.items() if self._timed(name)), default=None)

    @property
    def instant_ns(self) -> int:
        """Stamp of the newest instant that every channel has reached; 0 while one is missing."""
        if len(self._received) < len(self._channels):
            return 0
        return min(items[-1].stamp_ns for name, items in self._received.items() if self._timed(name))

    def sample(self, now_ns: int, steady_ns: int) -> Sample | Cause:
        """The inputs of the newest instant, or why there are none."""
        if missing := self._missing(now_ns, steady_ns):
            return missing
        instant_ns, chosen = self.instant_ns, {}
        for name, items in self._received.items():
            # A newer speed beside an older scan would hide how far the robot drove in between.
            chosen[name] = nearest = _nearest(items, instant_ns)
            apart_s = abs(nearest.stamp_ns - instant_ns) / 1e9
            if self._timed(name) and apart_s > self._max_skew_s:
                return Cause(
                    f"{name} is {apart_s:.3f} s away from the other inputs, allowed {self._max_skew_s:.3f} s",
                    "check the clocks and rates of the sensors",
                )
        timed = [item for name, item in chosen.items() if self._timed(name)]
        ages = [now_ns - item.stamp_ns for item in timed]
        if self._clock is Clock.REALTIME:  # a stamp clock that was set back must not make an old state look new
            ages += [steady_ns - item.arrived_ns for item in timed]
        age_s = max(0, *ages) / 1e9
        vectors = {name: item.vector for name, item in chosen.items()}
        return Sample(vectors, min(item.stamp_ns for item in timed), age_s, steady_ns - round(1e9 * age_s))

    def _timed(self, name: str) -> bool:
        return not self._channels[name].latched

    def _missing(self, now_ns: int, steady_ns: int) -> Cause:
        for name, channel in self._channels.items():
            item = self._received[name][-1] if name in self._received else None
            problem = self.problems.get(name, NONE)
            said = f" ({problem.what})" if problem else ""
            if item is None:
                return Cause(f"{name} was never received{said}", problem.remedy)
            # The steady clock catches what a stopped or jumping stamp clock would hide.
            age, allowed = max(now_ns - item.stamp_ns, steady_ns - item.arrived_ns) / 1e9, channel.max_age
            if self._clock is Clock.LOCKSTEP:
                # The world waits: a state of an earlier tick means that one of this tick was refused.
                age, allowed = (now_ns - item.stamp_ns) / 1e9, 0.0
            if self._timed(name) and age > allowed:
                return Cause(f"{name} is {age:.2f} s old, allowed {allowed:.2f} s{said}", problem.remedy)
        return NONE


def _nearest(items: deque[_Input], instant_ns: int) -> _Input:
    """The input whose stamp is nearest to the instant; of two as near, the older."""
    nearest = items[-1]
    for item in reversed(items):  # stamps advance
        if abs(item.stamp_ns - instant_ns) > abs(nearest.stamp_ns - instant_ns):
            break
        nearest = item
    return nearest
