"""The format of ledger.jsonl, its writer and its reader: append-only JSON lines with sequence numbers; the phases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safe_support_ql.recording.files import AppendOnly

PHASES = ("collection", "evaluation_behavior", "evaluation_policy", "evaluation_reference", "simulate")


class LedgerWriter(AppendOnly):
    """Appends events. An existing ledger is continued: its numbers go on, and an incomplete last line is cut off."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises OSError if it cannot be written."""
        super().__init__(path)
        events, good = _scan(path.read_bytes())
        self._file.truncate(good)
        self.next_sequence = int(events[-1]["seq"]) + 1 if events else 0

    def append(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write one event and flush it. Raises OSError, for example on a full disk."""
        line = json.dumps({"seq": self.next_sequence, "event": event, **fields}) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        self.next_sequence += 1


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Events of a ledger up to an incomplete last line. Raises ValueError if a line or number before it is missing."""
    content = path.read_bytes()  # read once, because it may grow
    events, good = _scan(content)
    if b"\n" in content[good:]:
        raise ValueError(f"{path}: line {len(events) + 1} is damaged; everything before it is intact")
    for expected, event in enumerate(events, start=int(events[0]["seq"]) if events else 0):
        if event["seq"] != expected:
            raise ValueError(f"{path}: event {expected} is missing; the next one there is {event['seq']}")
    return events


def _scan(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Complete events from the start, and their length in bytes."""
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
