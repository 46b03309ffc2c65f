"""Turns a run's ledger into the numbers of the panel, so that displayed numbers are on disk."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from safe_support_ql.panel import Status
from safe_support_ql.recording.files import LEDGER
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.summary import Counts, Tail

LEDGER_S = 0.25
RATES = 12  # number of `counters` events for the rate, about one per second
LENGTH = 100.0  # assumed ticks of an episode before the first one has ended


class LedgerView:
    """Fills in `status` from the ledger in a folder."""

    def __init__(self, folder: Path, status: Status, ticks: int = 0, episodes: int = 0) -> None:
        """Read the ledger so far. `ticks` of collection and `episodes` per policy: the goal of a training, else 0."""
        self.counts = Counts()
        self._status, self._ticks, self._episodes = status, ticks, episodes
        self._tail = Tail(folder / LEDGER)
        self.counts.add(self._tail.read())
        self._read_at = 0.0
        self._before, self._at_start = 0, 0.0
        self._rate: deque[tuple[float, float]] = deque(maxlen=RATES)

    def begin(self, phase: str, before: int = 0) -> None:
        """Begin a phase, of which `before` episodes are already done."""
        self._status.phase = phase
        self._before, self._at_start = before, self.counts.of(phase, "episodes")
        self._rate.clear()

    def refresh(self) -> None:
        """Read new lines of the ledger into the status."""
        if time.monotonic() - self._read_at <= LEDGER_S:
            return
        self._read_at = time.monotonic()
        status, counts = self._status, self.counts
        new = self._tail.read()
        if not new:
            return
        counts.add(new)
        status.control_ticks = int(counts.total("control_ticks"))
        status.unsafe_visits = int(counts.total("unsafe_visits"))
        status.interventions = int(counts.total("interventions"))
        status.decisions = int(counts.total("decisions"))
        status.verdicts, status.empty_share = counts.verdicts(), counts.empty_share()
        stamps = [event["time"] for event in new if event["event"] == "counters"]
        if stamps:
            self._rate.append((stamps[-1], status.control_ticks))
            (t0, n0), (t1, n1) = self._rate[0], self._rate[-1]
            status.ticks_per_s = (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
        self._estimate()

    def _estimate(self) -> None:
        """The progress of this phase, and an estimate of the time left for the whole run."""
        status, counts = self._status, self.counts
        if status.phase == "collection":
            status.done = counts.of("collection", "control_ticks")
        elif status.phase in PHASES:
            status.done = self._before + (counts.of(status.phase, "episodes") - self._at_start)
        if not status.ticks_per_s or not self._ticks:
            return
        played = counts.total("episodes")
        length = counts.total("control_ticks") / played if played else LENGTH
        ticks = max(0.0, self._ticks - counts.of("collection", "control_ticks"))
        episodes = 2.0 * self._episodes
        if status.phase == "evaluation_behavior":
            episodes -= status.done
        elif status.phase == "evaluation_policy":
            episodes = episodes / 2 - status.done
        status.left_s = (ticks + max(0.0, episodes) * length) / status.ticks_per_s
