"""The format of ledger.jsonl, its writer and its reader: append-only JSON lines, numbered and chained; the phases.

A line is an object: `seq` (0, 1, 2, ...), `event`, the fields of that event (run_record.py says what they mean), and at
its end the hash of chain.py. Format 1 had no hash: such a ledger is read, and continued with a chain from there on.

A line that a crash left incomplete is *torn*: it is the last one, it has no end, and nothing stands behind it. It was
never confirmed to anybody, so it is left out, and cut off before the next line is written. Any other damage is refused
by name, and the file stays as it is: a line that was written is never dropped.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_support_ql.recording import chain
from safe_support_ql.recording.files import AppendOnly

FORMAT = 2
TRUTH, SENSORS = "ground truth", "its sensors"  # by which unsafe visits are judged: of a simulator, of a robot
PHASES = ("collection", "evaluation_behavior", "evaluation_policy", "evaluation_reference", "simulate")
# What readers rely on: the type of each field wherever it stands, and the fields that an event must have. A chain says
# that a line is as it was written; an old ledger has only this.
TYPES: dict[str, type] = {
    "time": float, "clock": str, "first_sequence": int, "files": str, "phase": str, "seconds": float,
    "control_ticks": int, "physics_steps": int, "unsafe_visits": int, "unsafe_substeps": int, "decisions": int,
    "gaps": int, "interventions": int, "empty_supports": int, "episodes": int, "successes": int, "verdicts": int,
    "session": int, "seen": int, "sequence": int, "episode": int, "seed": int, "return": float, "reached": bool,
    "terminated": bool, "what": str, "first": int, "last": int, "why": str, "cause": str, "from": int, "bytes": int,
    "records": int, "sha256": str, "epoch": int,
}  # fmt: skip
TABLES = ("files", "verdicts", "seen")  # name -> value of that type
FIELDS: dict[str, tuple[str, ...]] = {
    "run_start": ("time",),
    "phase": ("phase", "time"),
    "counters": (
        "phase", "time", "seconds", "session", "seen", "sequence", "verdicts", "control_ticks", "physics_steps",
        "unsafe_visits", "decisions", "interventions", "empty_supports",
    ),
    "episode": ("phase", "episode", "seed", "return", "reached", "terminated"),
    "visit": ("phase", "what"),
    "gap": ("first", "last", "why"),
    "latch": ("cause",),
    "policy": ("epoch", "sha256", "what"),
    "journal": ("from", "bytes", "records", "sha256"),
}  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """What a ledger holds."""

    events: list[dict[str, Any]]  # with the field `hash` or `hmac`, if they have one
    whole: int  # bytes up to the end of the last event
    torn: int  # bytes of an incomplete last line behind them
    unchained: int  # events at the beginning that were written without a chain
    head: str  # '' without a chain
    before: str  # the hash that the next line follows


class LedgerWriter(AppendOnly):
    """Appends events. An existing ledger is continued: numbers and chain go on, and a torn last line is cut off."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises ValueError if it is damaged, and leaves it alone; OSError if it cannot be written."""
        self._key = chain.key()
        super().__init__(path)
        try:
            content = path.read_bytes()
            found = parse(path, content)
            self._file.truncate(found.whole)
            if found.whole and content[found.whole - 1 : found.whole] != b"\n":  # torn exactly before its end
                self._file.write(b"\n")
                self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self.next_sequence = len(found.events)
        self.head = found.head
        self._before = found.before

    def append(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write one event and flush it. Raises OSError, for example on a full disk."""
        text = json.dumps({"seq": self.next_sequence, "event": event, **fields}).encode()
        line, head = chain.seal(self._key, self._before, text)
        self._file.write(line + b"\n")
        self._file.flush()
        self.next_sequence += 1
        self.head = self._before = head


def open_ledger(path: Path) -> Ledger:
    """Read and check a ledger. Raises ValueError, one line that names the damage, and OSError."""
    return parse(path, path.read_bytes())  # read once, because it may grow


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The events of a ledger up to a torn last line. Raises ValueError as `open_ledger` does, and OSError."""
    return open_ledger(path).events


def newest_head(path: Path) -> str:
    """The hash of the last whole line, '' if there is none; it reads only the end of the file. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 65536))
        lines = file.read().split(b"\n")
    return chain.unseal(lines[-2])[2] if len(lines) > 1 else ""


def parse(path: Path, content: bytes) -> Ledger:
    """Read and check what stands in the ledger at `path`. Raises ValueError as `open_ledger` does."""
    secret = chain.key()
    events: list[dict[str, Any]] = []
    whole = unchained = 0
    head = ""
    *lines, last = content.split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        torn = number > len(lines)  # it has no end
        if torn and not line:
            break
        event = _event(line)
        if event is None:
            if torn:
                break
            raise ValueError(f"{path}: line {number} is damaged; what stands before it is intact")
        text, kind, found = chain.unseal(line)
        if event["seq"] != len(events):
            raise ValueError(f"{path}: {_odd_number(event['seq'], len(events))}")
        if secret and kind != chain.KEYED:
            raise ValueError(f"{path}: line {number} was written without a key; unset {chain.KEY_FILE} to read it")
        if kind == chain.KEYED and not secret:
            raise ValueError(f"{path}: its chain has a key; name the file of the key in {chain.KEY_FILE}")
        if not kind and (head or {"format", chain.PLAIN, chain.KEYED} & event.keys()):  # no line of format 1
            raise ValueError(f"{path}: line {number} has lost its hash; it was changed after it was written")
        if kind:
            before = head or chain.digest(secret, content[:whole])
            if found != chain.digest(secret, before.encode() + text):
                key = ", or the key is another one" if secret else ""
                raise ValueError(
                    f"{path}: line {number} does not fit its hash; it or the line before it was changed after it was "
                    f"written{key}"
                )
            head = found
        if problem := _problem(event):
            raise ValueError(f"{path}: line {number}: {problem}; it is damaged")
        events.append(event)
        whole += len(line) + (not torn)
        unchained += not kind
    before = head or chain.digest(secret, content[:whole])
    return Ledger(events, whole, len(content) - whole, unchained, head, before)


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in `line`, None if there is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not _is(event.get("seq"), int):
        return None
    return event


def _odd_number(found: int, expected: int) -> str:
    if expected == 0:
        return f"begins with event {found}; those before it are missing"
    if found < expected:
        return f"event {found} stands there twice"
    return f"event {expected} is missing; the next one there is {found}"


def _problem(event: Mapping[str, Any]) -> str:
    """Which field readers cannot use, '' if none."""
    name = next((name for name in FIELDS.get(event["event"], ()) if name not in event), "")
    if name:
        return f"event '{event['event']}' lacks '{name}'"
    for name in TYPES.keys() & event.keys():
        value, kind = event[name], TYPES[name]
        table = name in TABLES
        if not (isinstance(value, dict) and all(_is(v, kind) for v in value.values()) if table else _is(value, kind)):
            return f"event '{event['event']}': '{name}' is {value!r}, which cannot be"
    return ""


def _is(value: object, kind: type) -> bool:
    if kind is float and isinstance(value, float):
        return math.isfinite(value)
    if kind in (int, float):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)
