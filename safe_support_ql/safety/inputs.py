"""The newest inputs of each channel, and the sample of one instant that a state is estimated from.

Times are in nanoseconds: stamps, and `now`, on the clock of the messages; `steady` on a clock that never jumps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Floats, History, Inputs, Stamped
from safe_support_ql.robots.world import Channel
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.timing import Clock

STEPPED = 3  # messages in a row, behind the newest one but advancing among themselves: a clock that stepped back
IN_PACE = 0.2  # of the time that their stamps span they take to arrive, at least; old messages come at once
SINCE_BOOT_NS = 500_000_000 * 1_000_000_000  # a smaller stamp counts from when a machine began ...
EPOCH_NS = 2 * SINCE_BOOT_NS  # ... where a clock shows more than this, which is 2001

HISTORY = 256  # newest inputs of a channel that are kept, to find those of one instant: a quarter second at 1 kHz


@dataclass(frozen=True)
class Sample:
    """One input of every channel, and the instant of the state: the newest that all which measure it have reached.

    What is brought to that instant (scans) may be older; `history` holds what else was received.
    """

    vectors: Inputs
    stamp_ns: int
    age_s: float
    steady_ns: int  # the instant on the steady clock
    history: History


@dataclass
class _Behind:
    """Messages of a channel in a row whose stamps advance, but lie behind the newest one that was taken."""

    count: int
    back_ns: int  # how far the clock has stepped back, by the first of them
    first_ns: int  # stamp
    arrived_ns: int  # of the first
    last_ns: int


class InputHistory:
    """What every channel received, and why its newest message was refused where it was."""

    def __init__(self, channels: Iterable[Channel], clock: Clock, future_tolerance_s: float, max_skew_s: float) -> None:
        """Nothing was received yet. A stamp may lie so far in the future, inputs of one instant so far apart."""
        self.problems: dict[str, Cause] = {}  # by channel, until its next good input
        self.stepped = False  # whether the newest message showed that its clock had stepped back
        self._channels = {channel.name: channel for channel in channels}
        self._received: dict[str, deque[Stamped]] = {}
        self._behind: dict[str, _Behind] = {}
        self._clock = clock
        self._future_tolerance_s = future_tolerance_s
        self._max_skew_s = max_skew_s

    def forget(self) -> None:
        """Nothing was received since: the robot stands somewhere else."""
        self._received.clear()
        self._behind.clear()
        self.problems.clear()

    def receive(
        self, channel: str, vector: Floats, stamp_ns: int, now_ns: int, steady_ns: int, ends_ns: int | None = None
    ) -> Cause:
        """Take an input, or return why not. A refused one changes nothing: the last one ages.

        But where a channel's clock has stepped back (`stepped`), what it said before is forgotten: else nothing would
        be taken until the clock is again where it was. `ends_ns`: when its last part was measured, if not at its stamp.
        """
        self.stepped = False
        declared = self._channels[channel]
        history = self._received.get(channel)
        last = history[-1] if history else None
        problem = NONE
        if vector.size < declared.size or (vector.size > declared.size and not declared.any_length):
            least = " at least" if declared.any_length else ""
            problem = Cause(f"{channel}: {vector.size} numbers, expected {declared.size}{least}")
        elif declared.finite and not np.isfinite(vector).all():
            problem = Cause(f"{channel}: holds a NaN or infinity")
        elif stamp_ns > now_ns + int(self._future_tolerance_s * 1e9):
            ahead_s = (stamp_ns - now_ns) / 1e9
            problem = Cause(f"{channel}: stamp lies {ahead_s:.3f} s in the future", "synchronise the clocks")
        elif ends_ns is not None and ends_ns > now_ns + int(self._future_tolerance_s * 1e9):
            ahead_s = (ends_ns - now_ns) / 1e9
            problem = Cause(
                f"{channel}: by its stamp, its last ray lies {ahead_s:.3f} s in the future", "set stamp: last for it"
            )
        elif stamp_ns < SINCE_BOOT_NS and now_ns > EPOCH_NS and not declared.latched:
            problem = _no_time(channel, stamp_ns)
        elif last is not None and stamp_ns <= last.stamp_ns and not declared.latched:
            problem = Cause(f"{channel}: stamp did not advance, so the message is a repeated or reordered one")
            if back_s := self._stepped_back(channel, last, stamp_ns, steady_ns):
                problem = Cause(f"{channel}: its clock stepped back by {back_s:.3f} s", "synchronise the clocks")
                self.stepped = True
                del self._received[channel]
        if problem:
            self.problems[channel] = problem
            return problem
        kept = deque(history or (), maxlen=1 if declared.latched else HISTORY)
        kept.append(Stamped(np.array(vector, np.float64), stamp_ns, steady_ns))
        self._received[channel] = kept
        self.problems.pop(channel, None)
        self._behind.pop(channel, None)
        return NONE

    def _stepped_back(self, channel: str, last: Stamped, stamp_ns: int, steady_ns: int) -> float:
        """Seconds by which the clock of a channel has stepped back, 0 while its messages do not show that."""
        run = self._behind.get(channel)
        if run is None or stamp_ns <= run.last_ns:
            back_ns = last.stamp_ns - stamp_ns
            if self._clock is Clock.REALTIME:
                back_ns += steady_ns - last.arrived_ns
            self._behind[channel] = _Behind(1, back_ns, stamp_ns, steady_ns, stamp_ns)
            return 0.0
        run.count, run.last_ns = run.count + 1, stamp_ns
        if run.count < STEPPED:
            return 0.0
        if self._clock is Clock.REALTIME and steady_ns - run.arrived_ns < IN_PACE * (stamp_ns - run.first_ns):
            return 0.0  # late ones, all at once
        del self._behind[channel]
        return run.back_ns / 1e9

    @property
    def newest_ns(self) -> int | None:
        """The newest stamp of all, None without any."""
        return max((items[-1].stamp_ns for name, items in self._received.items() if self._dates(name)), default=None)

    @property
    def instant_ns(self) -> int:
        """Stamp of the newest instant that every channel of the state has reached; 0 while one is missing."""
        if len(self._received) < len(self._channels):
            return 0
        return min(items[-1].stamp_ns for name, items in self._received.items() if self._dates(name))

    def sample(self, now_ns: int, steady_ns: int) -> Sample | Cause:
        """The inputs of the newest instant, or why there are none."""
        if missing := self._missing(now_ns, steady_ns):
            return missing
        instant_ns, chosen = self.instant_ns, {}
        for name, items in self._received.items():
            # A newer speed beside an older scan would hide how far the robot drove in between.
            chosen[name] = nearest = _nearest(items, instant_ns)
            apart_s = abs(nearest.stamp_ns - instant_ns) / 1e9
            if self._dates(name) and apart_s > self._max_skew_s:
                return Cause(
                    f"{name} is {apart_s:.3f} s away from the other inputs, allowed {self._max_skew_s:.3f} s",
                    "check the clocks and rates of the sensors",
                )
        timed = [item for name, item in chosen.items() if self._dates(name)]
        ages = [now_ns - item.stamp_ns for item in timed]
        if self._clock is Clock.REALTIME:  # a stamp clock that was set back must not make an old state look new
            ages += [steady_ns - item.arrived_ns for item in timed]
        age_s = max(0, *ages) / 1e9
        vectors = {name: item.vector for name, item in chosen.items()}
        stamp_ns = min(item.stamp_ns for item in timed)
        return Sample(vectors, stamp_ns, age_s, steady_ns - round(1e9 * age_s), self._received)

    def _timed(self, name: str) -> bool:
        return not self._channels[name].latched

    def _dates(self, name: str) -> bool:
        """Whether its stamps say of which instant a state is."""
        return self._timed(name) and self._channels[name].with_state

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
                setting = channel.settings.get("max_age", "")
                by = f" by {setting}" if setting and allowed else ""
                return Cause(f"{name} is {age:.2f} s old, allowed {allowed:.2f} s{by}{said}", problem.remedy)
        return NONE


def _no_time(channel: str, stamp_ns: int) -> Cause:
    if stamp_ns == 0:
        return Cause(f"{channel}: its stamp is 0", "let the driver stamp its messages")
    return Cause(
        f"{channel}: stamp {stamp_ns / 1e9:.1f} s looks like a time since boot, not since 1970",
        "let the driver stamp its messages with the time of the host",
    )


def _nearest(items: deque[Stamped], instant_ns: int) -> Stamped:
    """The input whose stamp is nearest to the instant; of two as near, the older."""
    nearest = items[-1]
    for item in reversed(items):  # stamps advance
        if abs(item.stamp_ns - instant_ns) > abs(nearest.stamp_ns - instant_ns):
            break
        nearest = item
    return nearest
