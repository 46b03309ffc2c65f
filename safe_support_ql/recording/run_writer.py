"""Writes journal and ledger of one run to a disk that may be slow, full or refusing: one writer per run.

Both files are fsynced in the background. While the disk refuses, records and events wait in memory, and writing is
tried again each second. What was written to the journal is counted in the ledger each second and at the end, with a
hash that grows with it (chain.py): no byte is hashed twice.
"""

import concurrent.futures
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import filelock
import numpy as np
from numpy.typing import NDArray

from safe_support_ql.recording import chain
from safe_support_ql.recording.files import JOURNAL, LEDGER, RECORDER_LOCK
from safe_support_ql.recording.journal import HEADER_BYTES, Hole, JournalReader, JournalWriter
from safe_support_ql.recording.ledger import LedgerWriter, read_ledger

SLOW_SYNC_S = 5.0  # a disk that needs longer to sync counts as full: nothing is confirmed
MOST_UNSAVED = 50_000  # records kept in memory while the disk refuses


class Logger(Protocol):
    """Where messages go."""

    def info(self, message: str) -> Any:
        """Information."""

    def error(self, message: str) -> Any:
        """A problem that the user must solve."""


class RunWriter:
    """See the module. `trouble` is the error of a disk that refuses, '' while it accepts everything."""

    def __init__(self, folder: Path, header: Mapping[str, Any], logger: Logger) -> None:
        """Open, or continue, the files in `folder`; `header` as for JournalWriter.

        Raises ValueError if they are damaged or belong to another run, or if another recorder writes to them; OSError
        if they cannot be written.
        """
        self.folder, self._header, self._logger = folder, header, logger
        # Two recorders would overwrite each other's lines. The command line holds another lock: it starts this node.
        self._lock = filelock.FileLock(folder / RECORDER_LOCK)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ValueError(f"another recorder writes to {folder}; stop that one first") from None
        with contextlib.ExitStack() as undo:
            undo.callback(self._lock.release)
            events = read_ledger(folder / LEDGER) if (folder / LEDGER).exists() else []
            counted, damage = _found(folder / JOURNAL, events)
            self.journal = JournalWriter(folder / JOURNAL, header, counted)
            undo.callback(self.journal.close)
            self.ledger = LedgerWriter(folder / LEDGER)
            undo.pop_all()
        self.unsaved: list[NDArray[np.void]] = []  # records [1] for the journal
        self.waiting: deque[tuple[str, dict[str, Any]]] = deque()  # events for the ledger
        self._gaps: list[dict[str, Any]] = []
        self.trouble = ""
        self.syncing: deque[tuple[float, concurrent.futures.Future[None]]] = deque()  # (start, sync), oldest first
        # A thread of its own, so that a slow disk delays neither heartbeats nor the receipt of messages.
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        if damage:  # from now on, what is left counts
            self.note("journal", self.journal.count() | {"why": damage})
            logger.error(f"{folder / JOURNAL}: {damage}; what is lost is listed as a gap, and the run goes on")

    def recorded(self) -> tuple[list[dict[str, Any]], NDArray[np.void], list[Hole]]:
        """The events of the ledger, and the records and holes of the journal, as they are on disk."""
        reader = JournalReader(self.folder / JOURNAL)
        records = reader.read()
        return read_ledger(self.folder / LEDGER), records, reader.damage

    # --- what is to be written -----------------------------------------------------------------------------------

    def gap(self, first: int, last: int, why: str) -> None:
        """Note numbers that will not be in the journal; neighbours become one event."""
        if self._gaps and self._gaps[-1]["last"] == first - 1 and self._gaps[-1]["why"] == why:
            self._gaps[-1]["last"] = last
        else:
            self._gaps.append({"first": first, "last": last, "why": why})

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """Queue an event for the ledger."""
        self.waiting.append((event, fields))

    def note_gaps(self) -> None:
        """Queue the gaps so far."""
        for gap in self._gaps:
            self.note("gap", gap)
        self._gaps = []

    def forget_surplus(self) -> None:
        """If too many records wait in memory, drop the oldest and list them as gaps."""
        surplus = self.unsaved[: max(0, len(self.unsaved) - MOST_UNSAVED)]
        self.unsaved = self.unsaved[len(surplus) :]
        for record in surplus:  # one by one, because numbers in between may be listed already
            self.gap(int(record["sequence"][0]), int(record["sequence"][0]), "the disk refused for too long")

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what waits in memory; if the disk refuses, it stays there and is tried again each second."""
        if self.trouble:
            return
        try:
            if self.unsaved:
                self.journal.append(np.concatenate(self.unsaved) if len(self.unsaved) > 1 else self.unsaved[0])
                self.unsaved.clear()
            while self.waiting:
                self.ledger.append(*self.waiting[0])
                self.waiting.popleft()
        except OSError as error:
            self._refused(error)

    def count_journal(self) -> None:
        """Write, and count in the ledger what the journal has gained."""
        self.write()
        if not self.trouble and self.journal.uncounted:
            self.note("journal", self.journal.count())
            self.write()

    def each_second(self) -> None:
        """Write, count and fsync in the background, or try again after a refusal."""
        if self.trouble:
            self._recover()
            return
        self.count_journal()
        while self.syncing and self.syncing[0][1].done():
            error = self.syncing.popleft()[1].exception()
            if isinstance(error, OSError):
                self._refused(error)
                return
        if not self.syncing:
            self.begin_sync()

    def begin_sync(self) -> None:
        """fsync both files in the background, even if a sync runs: that may have begun before the newest write."""
        if self.syncing and not self.syncing[-1][1].running() and not self.syncing[-1][1].done():
            return  # one is waiting to begin
        self.syncing.append((time.monotonic(), self.pool.submit(_sync, self.journal, self.ledger)))

    @property
    def safe(self) -> bool:
        """Whether the disk accepts writes, and soon enough."""
        now = time.monotonic()
        slow = any(now - since > SLOW_SYNC_S and not future.done() for since, future in self.syncing)
        return not self.trouble and not slow

    def finish(self) -> None:
        """Write and fsync everything now."""
        self.write()
        if self.trouble:
            self._logger.error(f"{len(self.unsaved)} records and {len(self.waiting)} events could not be saved")
            return
        try:
            _sync(self.journal, self.ledger)
        except OSError as error:
            self._refused(error)

    def close(self) -> None:
        """Close both files and release the lock, even if one of them raises."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self.ledger.close)
            stack.callback(self.journal.close)
            stack.callback(self.pool.shutdown, wait=False)

    def _refused(self, error: Exception) -> None:
        self.trouble = str(error)
        self._logger.error(f"cannot write in {self.folder}: {error}; the robot runs its backup plan until it can")

    def _recover(self) -> None:
        """Open both files again, which cuts off an incomplete write."""
        refused = self.ledger.next_sequence
        try:
            self.journal.abandon()
            self.ledger.abandon()
            self.journal = JournalWriter(self.folder / JOURNAL, self._header, self.journal.counted)
            self.ledger = LedgerWriter(self.folder / LEDGER)
        except OSError:
            return
        except ValueError as error:  # somebody changed the files meanwhile: nothing may be written over them
            if str(error) != self.trouble:
                self._refused(error)
            return
        last = self.journal.last_sequence
        self.unsaved = [record for record in self.unsaved if int(record["sequence"][0]) > last]
        if self.waiting and self.ledger.next_sequence > refused:
            self.waiting.popleft()  # closing the file wrote the rest of its line
        self.trouble = ""
        self.write()
        if not self.trouble:
            self._logger.info(f"{self.folder} can be written again")


def _found(path: Path, events: list[dict[str, Any]]) -> tuple[int, str]:
    """(bytes of the journal that are as the ledger counted them, what is damaged behind them or '').

    Raises ValueError if the file is another one, or was changed although its checksums fit: no accident does that, and
    to write on would make it count.
    """
    content = path.read_bytes() if path.exists() else b""
    counted = chain.stretches(events)
    wrong = [stretch for stretch in counted if not stretch.fits(content)]
    if not wrong:
        return counted[-1].end if counted else 0, ""
    if len(content) < HEADER_BYTES and counted[-1].records:
        raise ValueError(f"{path}: is missing; the ledger counts {counted[-1].records} records. Put it back")
    reader = JournalReader(path)
    reader.read()
    for stretch in wrong:
        rotten = any(hole.start < stretch.end and stretch.start < hole.end for hole in reader.damage)
        if not rotten and stretch.end <= len(content):
            raise ValueError(
                f"{path}: bytes {stretch.start} to {stretch.end} are not what the ledger counted, though their "
                "checksums fit: the file was changed or replaced. Put the right one back, or start a new run"
            )
    if reader.damage:
        hole = reader.damage[0]
        return wrong[0].start, f"bytes {hole.start} to {hole.end} were damaged"
    return wrong[0].start, f"{counted[-1].end - len(content)} bytes at its end were lost"


def _sync(journal: JournalWriter, ledger: LedgerWriter) -> None:
    journal.sync()
    ledger.sync()
