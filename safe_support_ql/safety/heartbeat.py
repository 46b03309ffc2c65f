"""Whether what the gate decides is written: the heartbeat of the recorder confirms decisions by their numbers."""

from __future__ import annotations

from collections import deque

from safe_support_ql.safety.cause import NONE, Cause

# Decisions whose age is remembered until they are recorded: 1000 a second for the longest recorder_timeout_s. Where
# there are more, the oldest kept one is older than that, so forgetting those before it hides nothing.
UNRECORDED = 60_000


class Heartbeat:
    """What the recorder confirmed. Times are in nanoseconds of the steady clock."""

    def __init__(self, timeout_s: float) -> None:
        """An older heartbeat or an older unrecorded decision is a problem, once a recorder is `required`."""
        self.required = False
        self._timeout_ns = int(timeout_s * 1e9)
        self._heard_ns: int | None = None
        self._foreign: int | None = None  # number of the newest heartbeat, where it is none of this run
        self._unrecorded: deque[int] = deque(maxlen=UNRECORDED)  # when the last so many decisions were made

    def alive(self, recorded: int, sequence: int, steady_ns: int) -> None:
        """Every decision below number `recorded` is written; `sequence` is the next. From now on it is required."""
        self.required = True
        self._foreign = recorded if recorded > sequence else None
        if self._foreign is not None:
            return  # what was not decided yet cannot be written: it says nothing about the decisions made here
        self._heard_ns = steady_ns
        while self._unrecorded and sequence - len(self._unrecorded) < recorded:
            self._unrecorded.popleft()

    def decided(self, steady_ns: int) -> None:
        """There is one more decision to be written."""
        self._unrecorded.append(steady_ns)

    def problem(self, sequence: int, steady_ns: int) -> Cause:
        """Why nobody knows that decisions are written: no heartbeat, or it lags behind."""
        if not self.required:
            return NONE
        if self._foreign is not None:
            return Cause(
                f"the recorder confirms decisions up to {self._foreign}, but {sequence} is the next one here",
                "start both for the same run, this monitor with its first_sequence",
            )
        if self._heard_ns is None:
            return Cause("no heartbeat of the recorder yet", "start it")
        if (age := steady_ns - self._heard_ns) > self._timeout_ns:
            return Cause(f"the recorder's heartbeat is {age / 1e9:.1f} s old", "look at its log and at the disk")
        if self._unrecorded and (age := steady_ns - self._unrecorded[0]) > self._timeout_ns:
            number = sequence - len(self._unrecorded)
            return Cause(
                f"the recorder lags: decision {number} is not written after {age / 1e9:.1f} s", "give it a processor"
            )
        return NONE
