"""The commands that were sent, and which of them act at a moment: a drive hears late, and stops when it hears nothing.

Times are in nanoseconds of the steady clock.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import product

import numpy as np

from safe_support_ql.robots.base import Floats, Robot

LOOK_BACK = 64  # newest commands that are kept
MOST_PASTS = 8  # sequences of past commands that are rolled out: each costs as much time as one
TRANSPORT_NS = 5_000_000  # a command has reached the drive so long after it was sent


class Sent:
    """The newest commands. No new episode forgets them: they may still act."""

    def __init__(self, robot: Robot) -> None:
        """Nothing was sent: silence."""
        self._silence = robot.silence
        self._timeout_ns = round(1e9 * robot.world.drive.timeout)  # of the drive: then it acts as under silence
        self._check_ns = round(1e9 * robot.model.dynamics.dt)
        self._commands: deque[tuple[Floats, int]] = deque(maxlen=LOOK_BACK)  # each with its time, oldest first

    def note(self, action: Floats, steady_ns: int) -> None:
        """A command [A] goes out."""
        self._commands.append((action, steady_ns))

    def newest(self, count: int) -> Floats:
        """The last `count` commands [count, A], oldest first; the oldest known stands for those before it."""
        sent = [action for action, _ in self._commands][-max(count, 1) :] or [self._silence]
        return np.array(sent[:1] * (count - len(sent)) + sent)

    def acting(self, moment_ns: int) -> Floats:
        """The command [A] that acts at a moment; silence where none was sent, or none acts any more."""
        for action, sent_ns in reversed(self._commands):
            if sent_ns <= moment_ns:
                return action if moment_ns - sent_ns <= self._timeout_ns else self._silence
        return self._commands[0][0] if self._commands else self._silence

    def past(self, since_ns: int, checks: int) -> tuple[Floats, bool]:
        """Commands [P, checks, A] that may have acted at each check from `since_ns` on; whether these are all.

        At a check every command may act that was sent before its end, unless another one had surely arrived by its
        start; a command that arrives in the middle of a check is covered by the two cases. Silence may act where a
        command is older than the drive's timeout. The P sequences are all combinations of these, the newest commands
        first; where there would be more than MOST_PASTS, that first one is all that is returned. The oldest command
        that is known stands for those before it; without any, silence.
        """
        if not checks or not self._commands:
            return np.tile(self._silence, (1, checks, 1)), True
        sent = np.array([moment for _, moment in self._commands])
        actions = np.array([action for action, _ in self._commands])
        starts = since_ns + self._check_ns * np.arange(checks)
        newest, oldest = (
            np.maximum(np.searchsorted(sent, before) - 1, 0)
            for before in (starts + self._check_ns, starts - TRANSPORT_NS)
        )
        oldest = np.minimum(oldest, newest)  # whatever order they were noted in
        options = []
        for start, first, last in zip(starts, oldest, newest, strict=True):
            those: dict[tuple[float, ...], None] = {}
            for i in range(last, first - 1, -1):
                if start - sent[i] <= self._timeout_ns + TRANSPORT_NS:
                    those[tuple(actions[i])] = None
                if start + self._check_ns - sent[i] > self._timeout_ns:
                    those[tuple(self._silence)] = None
            options.append(those)
        if math.prod(len(those) for those in options) > MOST_PASTS:
            return np.array([[next(iter(those)) for those in options]]), False
        return np.array(list(product(*options))), True
