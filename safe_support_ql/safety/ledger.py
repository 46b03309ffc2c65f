"""The safety ledger: append-only JSON lines with sequence numbers, and the bounds of docs/method.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PHASES = ("collection", "evaluation_behavior", "evaluation_policy", "evaluation_reference", "simulate")


class LedgerWriter:
    """Appends events. Opening an existing ledger continues its numbers; a torn last line is cut off."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises OSError if it cannot be written."""
        self.path = path
        self._file = open(path, "a+b")  # lives as long as the writer
        events, good = _scan(path.read_bytes())
        self._file.truncate(good)
        self.next_sequence = int(events[-1]["seq"]) + 1 if events else 0

    def append(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write one event and flush it. Raises OSError (a full disk)."""
        line = json.dumps({"seq": self.next_sequence, "event": event, **fields}) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        self.next_sequence += 1

    def sync(self) -> None:
        """fsync: a power loss costs nothing before this. Raises OSError."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Events of a ledger up to a torn last line. Raises ValueError where a line or a number is missing in between."""
    content = path.read_bytes()  # once: it may grow meanwhile
    events, good = _scan(content)
    if b"\n" in content[good:]:
        raise ValueError(f"{path}: line {len(events) + 1} is damaged; everything before it is intact")
    for expected, event in enumerate(events, start=int(events[0]["seq"]) if events else 0):
        if event["seq"] != expected:
            raise ValueError(f"{path}: event {expected} is missing; the next one there is {event['seq']}")
    return events


def _scan(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Whole events from the start, and the number of bytes they take."""
    events: list[dict[str, Any]] = []
    good = 0
    for line in content.splitlines(keepends=True):
        try:
            event = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(event, dict) or "seq" not in event:
            break
        events.append(event)
        good += len(line)
    return events, good


def rate_upper_bound(events: int, hours: float, confidence: float = 0.95) -> float:
    """One-sided exact Poisson upper bound on a rate per hour; for zero events 3.0/hours at 95 %."""
    from scipy import stats  # a second to import, which no node that only writes a ledger should pay

    return float(stats.chi2.ppf(confidence, 2 * events + 2) / 2 / hours) if hours > 0 else float("inf")


def proportion_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact (Clopper-Pearson) interval of a proportion over independent trials."""
    from scipy import stats

    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)
