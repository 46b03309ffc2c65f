"""inputs.bin: the native messages that a run was fed with, byte for byte, and when each decision was heard among them.

The journal holds what the gate saw in its inputs (observations), not the inputs. A bag needs them, and so does whoever
computes a reward again. Nothing waits for this file: it is no part of what the recorder confirms.

File: one JSON line (format, topics with their types), then entries: time [ns], topic (MARK: a decision; BEGIN: the run
was resumed), length, data (of a mark the decision's number), checksum. Damage costs the entries that it is in: those
behind are found again. What stands behind the last intact entry is what a crash left of another one, and is cut off
before the next one is written. A file whose first line is damaged is set aside. Entries of different topics are in
order only as far as the recorder heard them in order.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from safe_support_ql.recording.files import AppendOnly

FORMAT = "safe_support_ql inputs 1"
MARK, BEGIN = 0xFFFF, 0xFFFE
_HEAD, _NUMBER, _CRC = struct.Struct("<qHI"), struct.Struct("<Q"), struct.Struct("<I")
LONGEST = 1 << 24  # bytes of a message: no sensor sends more, and longer ones are not kept
SEARCHED = 1 << 26  # bytes behind damage in which the next entry is looked for
Topic = tuple[str, str]  # its name, and its type


class InputsWriter(AppendOnly):
    """Appends entries. An existing file of the same topics is continued."""

    def __init__(self, path: Path, topics: Sequence[Topic]) -> None:
        """Raises ValueError if the file is of other topics, OSError if it cannot be written.

        `aside`: where a file went that could not be read at all, None if there was none.
        """
        self.aside: Path | None = None
        known: InputsReader | None = None
        if path.exists() and path.stat().st_size:
            try:
                known = InputsReader(path)
            except ValueError:
                self.aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
                os.replace(path, self.aside)
        super().__init__(path)
        try:
            if known is None:
                self._file.write(json.dumps({"format": FORMAT, "topics": topics}).encode() + b"\n")
                return
            if known.topics != [tuple(topic) for topic in topics]:
                raise ValueError(f"{path}: was recorded from other topics; start a new run")
            for _ in known:
                pass
            self._file.truncate(known.end)
            self.message(0, BEGIN, b"")
        except BaseException:
            self._file.close()
            raise

    def message(self, time_ns: int, topic: int, data: bytes) -> None:
        """A message as it was serialized. Raises OSError."""
        if len(data) > LONGEST:
            return
        head = _HEAD.pack(time_ns, topic, len(data))
        self._file.write(b"".join((head, data, _CRC.pack(zlib.crc32(data, zlib.crc32(head))))))

    def mark(self, time_ns: int, sequence: int) -> None:
        """Decision `sequence` was heard. Raises OSError."""
        self.message(time_ns, MARK, _NUMBER.pack(sequence))

    def flush(self) -> None:
        """Hand over to the system what waits. Raises OSError."""
        self._file.flush()


class InputsReader:
    """The intact entries of a file, one after the other. `end`: behind the last of them; `damaged`: bytes before it."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError if `path` is no such file, OSError if it cannot be read."""
        self.path = path
        with path.open("rb") as file:
            line = file.readline(1 << 20)
        try:
            header = json.loads(line)
            self.topics: list[Topic] = [(str(name), str(kind)) for name, kind in header["topics"]]
            known = header["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ValueError(f"{path}: is not a record of inputs of this version ({FORMAT})")
        self.end, self.damaged = len(line), 0

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """(time [ns], topic, data); read piece by piece."""
        with self.path.open("rb") as file:
            at = self.end
            while True:
                file.seek(at)
                if (entry := self._entry(file)) is None:
                    if not (at := self._next(file, at + 1)):
                        return
                    continue
                self.damaged += at - self.end
                self.end = at = at + _HEAD.size + len(entry[2]) + _CRC.size
                yield entry

    def _next(self, file: BinaryIO, begin: int) -> int:
        """Where the next intact entry begins, 0 if there is none."""
        file.seek(begin)
        rest = file.read(SEARCHED)
        for at in range(len(rest) - _HEAD.size - _CRC.size + 1):
            _, topic, length = _HEAD.unpack_from(rest, at)
            if self._possible(topic, length):
                file.seek(begin + at)
                if self._entry(file) is not None:
                    return begin + at
        return 0

    def _possible(self, topic: int, length: int) -> bool:
        return length <= LONGEST and (topic < len(self.topics) or (topic, length) in ((MARK, _NUMBER.size), (BEGIN, 0)))

    def _entry(self, file: BinaryIO) -> tuple[int, int, bytes] | None:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        time_ns, topic, length = _HEAD.unpack(head)
        if not self._possible(topic, length):
            return None
        data, crc = file.read(length), file.read(_CRC.size)
        if len(data) < length or crc != _CRC.pack(zlib.crc32(data, zlib.crc32(head))):
            return None
        return time_ns, topic, data


def number(data: bytes) -> int:
    """The decision of a mark."""
    return int(_NUMBER.unpack(data)[0])
