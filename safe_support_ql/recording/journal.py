"""The format of journal.bin, its writer and its readers: fixed-size records with sequence number and checksum.

Record n holds decision n (observation, candidates, what was executed and why) and what ARRIVED with its state: the
reward and end of the transition into it. Transition n is therefore (record n, record n + 1) unless record n + 1 begins
an episode or the numbers jump. File: one JSON line (format, dimensions, hashes, tables of codes), then the records.

The tables name every code in the file: `verdicts`, `reasons` and `phases` in the order of their codes, `flags` with
their bits. Records in memory have the codes of TABLES. Reading and writing translate them, so a new order of a tuple in
this program changes no file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.recording.files import AppendOnly
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import REASONS, VERDICTS

FORMAT = "safe_support_ql journal 2"
FORMAT_1 = "safe_support_ql journal 1"  # without tables
HEADER_BYTES = 4096
CERTIFIED, BAND, PLAN, USED = 1, 2, 4, 8  # bits of `flags`
OFFERED = 32
INTERVENED = 16  # set at the executed candidate if it ran although a request asked for another action


@dataclass(frozen=True)
class Tables:
    """The meaning of a record's codes: names in the order of their codes, and the bit of each flag."""

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    phases: tuple[str, ...]
    flags: Mapping[str, int]


TABLES = Tables(
    VERDICTS,
    REASONS,
    PHASES,
    {
        "certified": CERTIFIED,
        "band": BAND,
        "plan": PLAN,
        "used": USED,
        "intervened": INTERVENED,
        "offered": OFFERED,
    },
)
# Never change these: files of format 1 do not name their codes.
FORMAT_1_TABLES = Tables(
    ("certified", "certified_band", "plan_held", "no_proof"),
    (
        "request",
        "plan_requested",
        "no_request",
        "uncertified_request",
        "malformed_request",
        "input_missing",
        "recorder_stale",
        "latched",
        "closed",
    ),
    ("collection", "evaluation_behavior", "evaluation_policy", "evaluation_reference", "simulate"),
    {"certified": 1, "band": 2, "plan": 4, "used": 8, "intervened": 16, "offered": 32},
)


def record_type(observation: int, candidates: int, action: int) -> np.dtype[np.void]:
    """The layout of one record for D observations, K candidates and A action dimensions; little-endian."""
    return np.dtype(
        [
            ("sequence", "<u8"),
            ("id", "<u8"),
            ("stamp_ns", "<i8"),
            ("episode", "<u4"),
            ("first", "u1"),  # first state of an episode: no transition leads into it
            ("terminated", "u1"),
            ("truncated", "u1"),
            ("verdict", "u1"),  # index into Tables.verdicts
            ("reason", "u1"),  # index into Tables.reasons
            ("phase", "u1"),  # index into Tables.phases
            ("executed", "<i2"),  # index of the executed candidate
            ("reward", "<f4"),
            ("observation", "<f4", (observation,)),
            ("actions", "<f4", (candidates, action)),
            ("flags", "u1", (candidates,)),
            ("margin", "<f4", (candidates,)),
            ("crc", "<u4"),
        ]
    )


def pack(
    dtype: np.dtype[np.void], sequence: int, candidates: CandidateSet, executed: int, verdict: int, reason: int,
    phase: int, reward: float, first: bool, terminated: bool, truncated: bool, intervention: bool,
) -> NDArray[np.void]:  # fmt: skip
    """One record [1] of a decision and of what arrived with its state, with the codes of TABLES."""
    record = np.zeros(1, dtype)
    used = np.isfinite(candidates.margin)
    flags = CERTIFIED * candidates.certified + BAND * candidates.band + PLAN * candidates.is_plan + USED * used
    flags += OFFERED * candidates.offered
    record["sequence"], record["id"], record["stamp_ns"] = sequence, candidates.id, candidates.stamp_ns
    record["episode"], record["phase"] = candidates.episode, phase
    record["first"], record["terminated"], record["truncated"], record["reward"] = first, terminated, truncated, reward
    record["verdict"], record["reason"], record["executed"] = verdict, reason, executed
    record["observation"], record["actions"] = candidates.observation, candidates.actions
    record["flags"], record["margin"] = flags, candidates.margin
    record["flags"][0, executed] |= INTERVENED * intervention
    return record


class Translation:
    """Translates the codes of one set of tables into another; `whole`: every code has a counterpart."""

    def __init__(self, source: Tables, target: Tables) -> None:
        self._source = source
        self._same = source == target
        self._codes = {
            field: np.array([_code(i, getattr(source, name), getattr(target, name)) for i in range(256)], np.int16)
            for field, name in (("verdict", "verdicts"), ("reason", "reasons"), ("phase", "phases"))
        }
        self._codes["flags"] = np.array([_bits(i, source.flags, target.flags) for i in range(256)], np.int16)
        pairs = [(getattr(source, name), getattr(target, name)) for name in ("verdicts", "reasons", "phases", "flags")]
        self.unknown = [name for known, others in pairs for name in known if name not in others]

    def __call__(self, records: NDArray[np.void]) -> NDArray[np.void]:
        """Records [n] with the codes of the target. Raises ValueError for a code without a counterpart."""
        if self._same:
            return records
        translated = records.copy()
        for field, codes in self._codes.items():
            found = codes[records[field]]
            if (found < 0).any():
                code = int(records[field][found < 0][0])
                raise ValueError(f"a record has {field} {code} ({self._name(field, code)}), which is unknown here")
            translated[field] = found
        return translated

    def _name(self, field: str, code: int) -> str:
        if field == "flags":
            return ", ".join(name for name, bit in self._source.flags.items() if code & bit)
        names: tuple[str, ...] = getattr(self._source, f"{field}s")
        return names[code] if code < len(names) else "not named in the header"


def _code(code: int, source: tuple[str, ...], target: tuple[str, ...]) -> int:
    return target.index(source[code]) if code < len(source) and source[code] in target else -1


def _bits(flags: int, source: Mapping[str, int], target: Mapping[str, int]) -> int:
    """`flags` with the bits of `target`, -1 if a flag does not exist there."""
    bits, left = 0, flags
    for name, bit in source.items():
        if flags & bit and name in target:
            bits, left = bits | target[name], left & ~bit
    return -1 if left else bits


class JournalWriter(AppendOnly):
    """Appends records. An existing file is continued: an incomplete last record is cut off, the rest is kept."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open `path`. `header` holds 'observation', 'candidates', 'action' and what identifies the run.

        Raises ValueError if the file belongs to another run, OSError if it cannot be written.
        """
        self.type = record_type(header["observation"], header["candidates"], header["action"])
        line = json.dumps({"format": FORMAT, **header, **asdict(TABLES)}, sort_keys=True).encode()
        if len(line) >= HEADER_BYTES:
            raise ValueError(f"{path}: header of {len(line)} bytes is longer than {HEADER_BYTES}")
        self._translate = Translation(TABLES, TABLES)
        super().__init__(path)
        self.last_sequence = -1
        whole = line.ljust(HEADER_BYTES - 1) + b"\n"
        if self._file.tell() < HEADER_BYTES:
            if not whole.startswith(self.path.read_bytes()):  # what a crash leaves of this very header is begun again
                self._file.close()
                raise ValueError(f"{path}: is shorter than its header; it is damaged, keep a copy and start a new run")
            self._file.truncate(0)
            self._file.write(whole)
            self._file.flush()
            return
        try:
            self._continue(json.loads(line))
        except BaseException:
            self._file.close()
            raise

    def _continue(self, wanted: dict[str, Any]) -> None:
        header = read_header(self.path)
        tables = read_tables(self.path, header)
        if _identity(header) != _identity(wanted):
            raise ValueError(
                f"{self.path}: was written with other settings; resume with the same ones or start a new run"
            )
        self._translate = Translation(TABLES, tables)
        if self._translate.unknown:
            raise ValueError(
                f"{self.path}: its header has no code for {', '.join(self._translate.unknown)}: it is of an older "
                "version; start a new run"
            )
        records = _read_whole(self.path, self.type)
        whole = (self.path.stat().st_size - HEADER_BYTES) // self.type.itemsize
        if whole - len(records) > 1:
            raise ValueError(
                f"{self.path}: record {len(records)} is damaged, with {whole - len(records) - 1} after it; "
                "keep a copy and start a new run"
            )
        self._file.truncate(HEADER_BYTES + len(records) * self.type.itemsize)
        if len(records):
            self.last_sequence = int(records["sequence"][-1])

    def append(self, records: NDArray[np.void]) -> None:
        """Write records [n] with their checksums and flush them. Raises OSError, for example on a full disk."""
        self._file.write(b"".join(_sealed(record) for record in self._translate(records)))
        self._file.flush()
        self.last_sequence = int(records["sequence"][-1])


def _sealed(record: np.void) -> bytes:
    data = record.tobytes()[:-4]
    return data + zlib.crc32(data).to_bytes(4, "little")


def _identity(header: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a header that identifies its run, without format and tables."""
    own = {"format", *asdict(TABLES)}
    return {key: value for key, value in header.items() if key not in own}


def read_header(path: Path) -> dict[str, Any]:
    """The header of a journal. Raises ValueError if `path` is not a journal, OSError if it cannot be read."""
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES)
    try:
        header = json.loads(raw)
    except ValueError:
        header = {}
    if not isinstance(header, dict) or header.get("format") not in (FORMAT, FORMAT_1):
        raise ValueError(f"{path}: is not a journal of this version ({FORMAT})")
    for size in ("observation", "candidates", "action"):
        if not isinstance(header.get(size), int) or not 0 < header[size] < HEADER_BYTES:
            raise ValueError(f"{path}: its header says {size} = {header.get(size)!r}; it is damaged, keep a copy")
    return header


def read_tables(path: Path, header: Mapping[str, Any]) -> Tables:
    """The tables in this header of the journal at `path`. Raises ValueError if the header is damaged."""
    if header["format"] == FORMAT_1:
        return FORMAT_1_TABLES
    try:
        verdicts, reasons, phases = (tuple(map(str, header[name])) for name in ("verdicts", "reasons", "phases"))
        return Tables(verdicts, reasons, phases, {str(name): int(bit) for name, bit in header["flags"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{path}: its header does not name its codes; it is damaged") from None


def _read_whole(path: Path, dtype: np.dtype[np.void], start: int = 0) -> NDArray[np.void]:
    """Records from index `start` on, up to the first incomplete or damaged one, with the file's own codes."""
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES + start * dtype.itemsize)
        raw = file.read()
    whole = len(raw) // dtype.itemsize
    records = np.frombuffer(raw[: whole * dtype.itemsize], dtype)
    size = dtype.itemsize
    for i in range(whole):
        if zlib.crc32(raw[i * size : (i + 1) * size - 4]) != records["crc"][i]:
            return records[:i]
    return records


class JournalReader:
    """Follows a journal that is being written; `position` counts the records read so far."""

    def __init__(self, path: Path, position: int = 0) -> None:
        """Raises ValueError if `path` is not a journal, OSError if it cannot be read."""
        self.path = path
        self.header = read_header(path)
        self.type = record_type(self.header["observation"], self.header["candidates"], self.header["action"])
        self.position = position
        self._translate = Translation(read_tables(path, self.header), TABLES)

    def read(self) -> NDArray[np.void]:
        """Records that are new since the last call, possibly none, with the codes of TABLES.

        Raises ValueError for a code whose name is unknown to this program.
        """
        records = _read_whole(self.path, self.type, self.position)
        try:
            translated = self._translate(records)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        self.position += len(records)
        return translated

    def stored_bytes(self) -> int:
        """Bytes of the file after its header, incomplete records included."""
        return self.path.stat().st_size - HEADER_BYTES


def unaccounted(
    journalled: NDArray[np.unsignedinteger[Any]], listed: list[tuple[int, int]], last: int
) -> list[tuple[int, int]]:
    """Decision numbers from 0 to `last` that are neither journalled (ascending) nor listed, as (first, last) pairs."""
    numbers = journalled.astype(np.int64)
    ends = np.append(np.flatnonzero(np.diff(numbers) > 1), len(numbers) - 1) if len(numbers) else np.empty(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(numbers) else ends
    runs = zip(numbers[starts].tolist(), numbers[ends].tolist(), strict=True)
    missing, following = [], 0
    for first, end in [*sorted([*listed, *runs]), (last + 1, last)]:
        if first > following:
            missing.append((following, first - 1))
        following = max(following, end + 1)
    return missing
