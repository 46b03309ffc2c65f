"""Replays what a robot measured through the real gate, by the time at which it was heard, and measures its stops.

Every state is answered with what was executed in the recording. The robot of a recording does not obey, though: once
this gate has decided otherwise, it may find that the motion contradicts its command, and latch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from safe_support_ql.experiments.streams import NS, Monitor
from safe_support_ql.robots.base import Floats, Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.safety.timing import Clock

LONGEST_S = 10.0  # without any message; what is longer is a break of the recording


@dataclass(frozen=True)
class Heard:
    """A message of a channel, or without one the beginning of an episode."""

    now_ns: int
    channel: str = ""
    vector: Floats = field(default_factory=lambda: np.zeros(0))
    stamp_ns: int = 0
    episode: int = 0


@dataclass(frozen=True)
class Executed:
    """What was executed on the state of `stamp_ns`, and whether somebody had asked for it."""

    stamp_ns: int
    action: Singles
    asked: bool


@dataclass
class Stop:
    """One stop: the gate had let requests pass, and then ran the plan."""

    at_s: float  # since the first message
    cause: str
    to_stop_s: float  # from the last request that passed to the plan
    false: bool  # at this state, a request passed in the recording
    hold_s: float = np.nan  # until a request passed again, or the recording or its episode ended
    resume_s: float = np.nan  # from the first new state to that request; NaN if none passed


@dataclass
class Replayed:
    """The result of a replay."""

    decisions: Counter[str] = field(default_factory=Counter)  # by the state of the gate
    stops: list[Stop] = field(default_factory=list)
    refused: int = 0  # inputs


class Replay:
    """See the module."""

    def __init__(self, gate: Gate, executed: Sequence[Executed]) -> None:
        """`executed` in the order of stamps."""
        self._gate, self._executed = gate, executed
        self._stamps = [one.stamp_ns for one in executed]
        self._monitor = Monitor(gate, self._answer)
        self._step = round(NS * gate.robot.period / 8)
        self._ticks = gate.clock is Clock.REALTIME  # in lock-step, nothing happens without a new state
        self.result = Replayed()
        self._stop: Stop | None = None
        self._passed: int | None = None  # instants of the last state with a request that passed, and of that
        self._stop_ns = self._instant = 0
        self._again: int | None = None  # when a new state came after the stop began
        self._began: int | None = None

    def run(self, messages: Iterable[Heard]) -> Replayed:
        """Replay `messages`, in the order of their times."""
        now = 0
        for message in messages:
            if self._began is None:
                self._began = now = message.now_ns
                self._monitor.new_episode(message.episode, now)
            if message.now_ns > now:  # all that was heard at one instant counts at once
                self._look(now)
                silent_until = min(message.now_ns, now + round(NS * LONGEST_S)) if self._ticks else now
                while (now := now + self._step) < silent_until:
                    self._look(now)
                now = message.now_ns
            if message.channel:
                self._gate.receive(message.channel, message.vector, message.stamp_ns, now, now)
            else:
                self._end(now)
                self._passed = None
                if self._gate.state is State.LATCHED:  # as after a reset
                    self._gate.state = State.CLOSED
                self._monitor.new_episode(message.episode, now)
        self._look(now)
        self._end(now)
        self.result.refused = self._gate.counters.refused_inputs
        return self.result

    def _at(self, stamp_ns: int) -> Executed | None:
        """What was executed on this state, or on the newest one of the period before."""
        at = bisect_left(self._stamps, stamp_ns + 1) - 1
        near = at >= 0 and stamp_ns - self._stamps[at] < NS * self._gate.robot.period
        return self._executed[at] if near else None

    def _answer(self, candidates: CandidateSet) -> Singles:
        known = self._at(candidates.stamp_ns)
        return candidates.actions[candidates.plan] if known is None or not known.asked else known.action

    def _look(self, now: int) -> None:
        """The decision of this instant, if one is due."""
        if self._stop is not None and self._again is None and self._gate.inputs.instant_ns > self._instant:
            self._again = now
        decision = self._monitor.look(now)
        if decision is None:
            return
        self.result.decisions[decision.state.value] += 1
        if decision.state is State.NOMINAL:
            self._end(now, passed=True)
            self._passed = now
        elif self._stop is None and self._passed is not None:
            known = self._at(self._gate.inputs.instant_ns)
            cause = f"{decision.reason}: {decision.message}" if decision.message else decision.reason
            false = known is not None and known.asked
            self._stop = Stop((now - (self._began or 0)) / NS, cause, (now - self._passed) / NS, false)
            self._stop_ns, self._instant, self._again = now, self._gate.inputs.instant_ns, None
            self.result.stops.append(self._stop)

    def _end(self, now: int, passed: bool = False) -> None:
        if self._stop is not None:
            self._stop.hold_s = (now - self._stop_ns) / NS
            if passed:
                self._stop.resume_s = (now - (self._again or now)) / NS
            self._stop = None
