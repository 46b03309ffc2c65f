"""The format of journal.bin, its writer and its readers: fixed-size records with sequence number and checksum.

Record n holds decision n (observation, candidates, what was executed and why) and what ARRIVED with its state: the
reward and end of the transition into it. Transition n is therefore (record n, record n + 1) unless record n + 1 begins
an episode or the numbers jump. File: one JSON line (format, dimensions, hashes, tables of codes), then the records.

The tables name every code in the file: `verdicts`, `reasons` and `phases` in the order of their codes, `flags` with
their bits. Records in memory have the codes of TABLES. Reading and writing translate them, so a new order of a tuple in
this program changes no file.

A checksum that fails costs its own record alone: the next one that fits is looked for, at every byte, so that also
missing or added bytes cost no more. What lies between is a *hole*, and stays as it is. Only an incomplete last record,
which a crash leaves and which was never confirmed, is cut off before the next one is written. Records are read in the
order of their numbers and each number once. A checksum finds an accident; chain.py is about changes on purpose.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
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
LARGEST_SEQUENCE = 2**48  # more decisions than any robot makes: larger numbers are no numbers
PIECE = 1 << 24  # bytes that are read at once, where not everything is
WINDOW = 1 << 20  # most offsets that are examined at once behind a damaged record
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


FLAGS = {"certified": CERTIFIED, "band": BAND, "plan": PLAN, "used": USED, "intervened": INTERVENED, "offered": OFFERED}
TABLES = Tables(VERDICTS, REASONS, PHASES, FLAGS)
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
    """Translates the codes of one set of tables into another; `unknown`: names without a counterpart."""

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

    def __init__(self, path: Path, header: Mapping[str, Any], counted: int = 0) -> None:
        """Open `path`. `header` holds 'observation', 'candidates', 'action' and what identifies the run.

        `counted`: bytes of the file that need no `count` any more. Raises ValueError if the file belongs to another
        run, OSError if it cannot be written.
        """
        self.type = record_type(header["observation"], header["candidates"], header["action"])
        line = json.dumps({"format": FORMAT, **header, **asdict(TABLES)}, sort_keys=True).encode()
        if len(line) >= HEADER_BYTES:
            raise ValueError(f"{path}: header of {len(line)} bytes is longer than {HEADER_BYTES}")
        self._translate = Translation(TABLES, TABLES)
        super().__init__(path)
        self.last_sequence = -1
        self._records = 0
        self.counted = counted
        whole = line.ljust(HEADER_BYTES - 1) + b"\n"
        try:
            if self._file.tell() < HEADER_BYTES:
                if not whole.startswith(self.path.read_bytes()):  # what a crash leaves of this header is begun again
                    raise ValueError(
                        f"{path}: is shorter than its header; it is damaged, keep a copy and start a new run"
                    )
                self._file.truncate(0)
                self._file.write(whole)
                self._file.flush()
            else:
                self._continue(json.loads(line))
            content = self.path.read_bytes()
        except BaseException:
            self._file.close()
            raise
        self._end = len(content)
        self._hash = hashlib.sha256(content[counted:])

    def _continue(self, wanted: dict[str, Any]) -> None:
        reader = JournalReader(self.path)
        if _identity(reader.header) != _identity(wanted):
            raise ValueError(
                f"{self.path}: was written with other settings; resume with the same ones or start a new run"
            )
        self._translate = Translation(TABLES, read_tables(self.path, reader.header))
        if self._translate.unknown:
            raise ValueError(
                f"{self.path}: its header has no code for {', '.join(self._translate.unknown)}: it is of an older "
                "version; start a new run"
            )
        records = reader.read()
        if reader.torn:
            self._file.truncate(reader.end)
        self._records = len(records)
        if len(records):
            self.last_sequence = int(records["sequence"][-1])

    def append(self, records: NDArray[np.void]) -> None:
        """Write records [n] with their checksums and flush them. Raises OSError, for example on a full disk."""
        data = b"".join(_sealed(record) for record in self._translate(records))
        self._file.write(data)
        self._file.flush()
        self._hash.update(data)
        self._end += len(data)
        self._records += len(records)
        self.last_sequence = int(records["sequence"][-1])

    @property
    def uncounted(self) -> int:
        """Bytes since the last `count`."""
        return self._end - self.counted

    def count(self) -> dict[str, Any]:
        """The fields of a `journal` event (chain.py): what was written since the last call."""
        state = {"from": self.counted, "bytes": self._end, "records": self._records, "sha256": self._hash.hexdigest()}
        self.counted, self._hash = self._end, hashlib.sha256()
        return state


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


@dataclass(frozen=True)
class Hole:
    """Bytes [start, end) of the file in which no record is intact, and the numbers of its neighbours."""

    start: int
    end: int
    after: int  # -1: none before it
    before: int  # LARGEST_SEQUENCE: none behind it

    def may_have_held(self, first: int, last: int) -> bool:
        """Whether records of these numbers may have stood there."""
        return self.after < last and first < self.before


class JournalReader:
    """Follows a journal that is being written."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError if `path` is not a journal, OSError if it cannot be read."""
        self.path = path
        self.header = read_header(path)
        self.type = record_type(self.header["observation"], self.header["candidates"], self.header["action"])
        self.end = HEADER_BYTES  # of the last intact record so far
        self.rest = 0  # bytes behind it
        self.holes: list[Hole] = []  # between intact records; see `damage`
        self._last = -1
        self._translate = Translation(read_tables(path, self.header), TABLES)

    def pieces(self) -> Iterator[NDArray[np.void]]:
        """What `read` returns, piece by piece: for a journal that is larger than memory."""
        most = PIECE
        while len(records := self.read(most)) or self.rest >= most:
            most = PIECE if len(records) else 2 * most  # than a hole
            yield records

    def read(self, most: int = -1) -> NDArray[np.void]:
        """Records that are new since the last call, possibly none, with the codes of TABLES.

        `most`: bytes to read at once; -1: to the end. Raises ValueError for a code whose name is unknown to this
        program.
        """
        with open(self.path, "rb") as file:
            file.seek(self.end)
            raw = file.read(most)
        records = np.frombuffer(b"".join(self._intact(raw)), self.type)
        try:
            return self._translate(_in_order(records))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    def _intact(self, raw: bytes) -> list[bytes]:
        """The intact records in `raw`, which is the file from `end` on."""
        size, began, found = self.type.itemsize, self.end, []
        at = 0
        while at + size <= len(raw):
            if not _fits(raw, at, size):
                following = _following(raw, at + 1, size, self._last)
                if following < 0:
                    break
                self.holes.append(Hole(began + at, began + following, self._last, _number(raw, following)))
                at = following
            found.append(raw[at : at + size])
            self._last = max(self._last, _number(raw, at))
            at += size
            self.end = began + at
        self.rest = began + len(raw) - self.end
        return found

    @property
    def torn(self) -> int:
        """Bytes of an incomplete last record: one that is being written, or that a crash left."""
        return self.rest if self.rest < self.type.itemsize else 0

    @property
    def damage(self) -> list[Hole]:
        """The holes, also that behind the last intact record if it is more than an incomplete one."""
        more = self.rest - self.torn
        return [*self.holes, *([Hole(self.end, self.end + more, self._last, LARGEST_SEQUENCE)] if more else [])]


def _fits(raw: bytes, at: int, size: int) -> bool:
    return zlib.crc32(raw[at : at + size - 4]) == int.from_bytes(raw[at + size - 4 : at + size], "little")


def _number(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "little")


def _following(raw: bytes, start: int, size: int, last: int) -> int:
    """Where the first intact record with a number above `last` begins, from `start` on; -1 if nowhere."""
    end = len(raw) - size + 1
    low, width = start, 4 * size  # mostly the next record is intact
    while low < end:
        # The number that a record would have at each offset: all but a few cannot be, which saves their checksums.
        numbers: NDArray[np.uint64] = np.ndarray((min(width, end - low),), "<u8", raw, low, (1,))
        plausible = numbers < LARGEST_SEQUENCE
        if last >= 0:
            plausible &= numbers > last
        for offset in np.flatnonzero(plausible).tolist():
            if _fits(raw, low + offset, size):
                return int(low + offset)
        low, width = low + width, min(2 * width, WINDOW)
    return -1


def _in_order(records: NDArray[np.void]) -> NDArray[np.void]:
    """Each number once, ascending: a copied or swapped record neither counts nor is learnt from twice."""
    numbers = records["sequence"].astype(np.int64)
    if (np.diff(numbers) > 0).all():
        return records
    return records[np.unique(numbers, return_index=True)[1]]


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
