"""The transition journal: fixed-size records, appended by one writer, each with a sequence number and a checksum.

Record n holds decision n (observation, candidates, what was executed and why) and what ARRIVED with its state: the
reward and end of the transition into it. Transition n is therefore (record n, record n + 1) unless record n + 1 begins
an episode or the numbers jump. File: one JSON line (format, dimensions, hashes), then the records.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.safety.candidates import CandidateSet

FORMAT = "safe_support_ql journal 1"
HEADER_BYTES = 4096
CERTIFIED, BAND, PLAN, USED = 1, 2, 4, 8  # bits of `flags`
OFFERED = 32
INTERVENED = 16  # at the executed candidate: it ran although a request asked for another


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
            ("verdict", "u1"),  # index into gate.VERDICTS
            ("reason", "u1"),  # index into gate.REASONS
            ("phase", "u1"),  # index into ledger.PHASES
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
    """One record [1]: a decision and what arrived with its state. Codes index VERDICTS, REASONS and PHASES."""
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


class JournalWriter:
    """Appends records. Opening an existing file continues it: a torn last record is cut off, the rest is kept."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open `path`; its header must equal `header` ('observation', 'candidates', 'action', what identifies a run).

        Raises ValueError if the file belongs to another run, OSError if it cannot be written.
        """
        self.path = path
        self.type = record_type(header["observation"], header["candidates"], header["action"])
        line = json.dumps({"format": FORMAT, **header}, sort_keys=True).encode()
        if len(line) >= HEADER_BYTES:
            raise ValueError(f"{path}: header of {len(line)} bytes is longer than {HEADER_BYTES}")
        self._file = open(path, "a+b")  # lives as long as the writer
        self.last_sequence = -1
        if self._file.tell() < HEADER_BYTES:
            self._file.truncate(0)
            self._file.write(line.ljust(HEADER_BYTES - 1) + b"\n")
            self._file.flush()
        else:
            self._continue(line)

    def _continue(self, line: bytes) -> None:
        self._file.seek(0)
        if self._file.read(HEADER_BYTES).rstrip() != line:
            self._file.close()
            raise ValueError(
                f"{self.path}: was written with other settings; resume with the same ones or start a new run"
            )
        records = read_records(self.path, self.type)
        whole = (self.path.stat().st_size - HEADER_BYTES) // self.type.itemsize
        if whole - len(records) > 1:
            self._file.close()
            raise ValueError(
                f"{self.path}: record {len(records)} is damaged and {whole - len(records) - 1} follow it; "
                "keep a copy and start a new run"
            )
        self._file.truncate(HEADER_BYTES + len(records) * self.type.itemsize)
        if len(records):
            self.last_sequence = int(records["sequence"][-1])

    def append(self, records: NDArray[np.void]) -> None:
        """Write records [n] with their checksums and hand them to the system. Raises OSError (a full disk)."""
        self._file.write(b"".join(_sealed(record) for record in records))
        self._file.flush()
        self.last_sequence = int(records["sequence"][-1])

    def sync(self) -> None:
        """fsync, so that a power loss costs nothing written before. Raises OSError."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def _sealed(record: np.void) -> bytes:
    data = record.tobytes()[:-4]
    return data + zlib.crc32(data).to_bytes(4, "little")


def read_header(path: Path) -> dict[str, Any]:
    """The header of a journal. Raises ValueError if `path` is none, OSError if it cannot be read."""
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES)
    try:
        header = json.loads(raw)
    except ValueError:
        header = {}
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path}: is not a journal of this version ({FORMAT})")
    return header


def read_records(path: Path, dtype: np.dtype[np.void], start: int = 0) -> NDArray[np.void]:
    """Records from number `start` of the file on, up to the first that is torn or damaged."""
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
        """Raises ValueError if `path` is no journal, OSError if it cannot be read."""
        self.path = path
        self.header = read_header(path)
        self.type = record_type(self.header["observation"], self.header["candidates"], self.header["action"])
        self.position = position

    def read(self) -> NDArray[np.void]:
        """Records that are new since the last call, possibly none."""
        records = read_records(self.path, self.type, self.position)
        self.position += len(records)
        return records


def unaccounted(
    journalled: NDArray[np.unsignedinteger[Any]], listed: list[tuple[int, int]], last: int
) -> list[tuple[int, int]]:
    """Decision numbers from 0 to `last` that are neither journalled (ascending) nor listed, as [first, last] pairs."""
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
