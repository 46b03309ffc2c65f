"""Records one run: joins and counts what arrives, writes journal and ledger events, and confirms what is written.

Events of the ledger: run_start; phase; counters (each second and at the end of a phase: the counts of a phase since the
run began, kept over crash and resume); journal (each second and at the end: what the journal gained, with a hash);
episode (how one ended); visit (margins and truth); gap (decision numbers that are not in the journal, and why; written
before they are confirmed); latch; run_end. Every decision number is in the journal or in a gap. run_start, phase and
run_end also hold hashes of the settings and the manifest. Formats: ledger.py, chain.py.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safe_support_ql.recording.book import Book
from safe_support_ql.recording.chain import file_hashes
from safe_support_ql.recording.files import CONFIG, MANIFEST, SESSION
from safe_support_ql.recording.join import Join, Joined, make_record, said
from safe_support_ql.recording.journal import unaccounted
from safe_support_ql.recording.ledger import FORMAT, PHASES, TRUTH
from safe_support_ql.recording.parts import OutcomeTable, Verdict
from safe_support_ql.recording.run_writer import Logger, RunWriter
from safe_support_ql.safety.candidates import CandidateSet

QUIET_S = 0.5  # after this time without a decision, the monitor has ended
TELL_S = 1.0  # least time between two log lines of one kind


class RunRecord:
    """See the module. Times are time.monotonic(); all methods belong to one thread."""

    def __init__(
        self, folder: Path, header: Mapping[str, Any], period: float, wait_s: float, logger: Logger,
        report: Callable[[str, Exception], None],
    ) -> None:  # fmt: skip
        """Open, or continue, the record in `folder`. Raises ValueError and OSError as RunWriter does.

        `header` as for JournalWriter; `period` of a control tick [s]; `wait_s` as for Join; `report` is called with
        programming errors.
        """
        self._header, self._period, self._logger, self._report = header, period, logger, report
        self.writer = RunWriter(folder, header, logger)
        try:
            events, records, holes = self.writer.recorded()
            self.book = Book(events)
            self.book.recount(records)
        except BaseException:
            self.writer.close()
            raise
        listed = [(int(event["first"]), int(event["last"])) for event in events if event["event"] == "gap"]
        last = max([self.book.sequence, *(gap[1] for gap in listed)])
        self.join = Join(last, wait_s)
        for pair in unaccounted(records["sequence"], listed, last):
            rotten = any(hole.may_have_held(*pair) for hole in holes)
            self.writer.gap(*pair, "damaged on the disk" if rotten else "lost when the recorder died")
        self.failed = False  # by a programming error: unlike a full disk, only a restart helps
        self.phase = ""
        self._heard_at = 0.0
        self._quiet_since = 0.0
        self._executed = -1
        self._latched = False
        self._episode_told = (-1, -1)
        self._contradiction_told_at = -TELL_S

    def begin(self, robot_id: str, clock: str, seed: int, judged_by: str = TRUTH) -> None:
        """Start to write: everything from now on is recorded. `judged_by`: what shows an unsafe visit."""
        start = {"time": time.time(), "robot_id": robot_id, "clock": clock, "seed": seed, "judged_by": judged_by}
        start |= {"format": FORMAT, "first_sequence": self.join.last + 1, **self._header, "files": self._files()}
        self.writer.note("run_start", start)
        self.writer.write()

    def end(self) -> None:
        """Write all decisions so far, complete or as a gap."""
        self._finish(self.join.take(float("inf")))
        if self._executed > self.join.last:  # by a monitor that died before its decision was received
            self.writer.gap(self.join.last + 1, self._executed, "not received")
        self._count()
        self.writer.count_journal()
        self.writer.note("run_end", {"time": time.time(), "files": self._files()})
        self.writer.finish()

    @property
    def head(self) -> str:
        """The hash of the newest line of the ledger (chain.py)."""
        return self.writer.ledger.head

    def _files(self) -> dict[str, str]:
        return file_hashes(self.writer.folder, (CONFIG, SESSION, MANIFEST))

    def busy(self, monitor_there: bool) -> bool:
        """Whether the monitor's last decisions, or their parts, may still come after a signal to all nodes at once.

        `monitor_there`: it has not left yet. A busy host may hold it up for longer than any silence to wait for.
        """
        now = time.monotonic()
        # Messages from before the signal, or before it left, may still be unread: quiet begins then at the earliest.
        if monitor_there or not self._quiet_since:
            self._quiet_since = now
        waiting = self.join.next <= self.join.last
        return monitor_there or waiting or now - max(self._heard_at, self._quiet_since) < QUIET_S

    # --- what comes in -------------------------------------------------------------------------------------------

    def candidates(self, candidates: CandidateSet) -> None:
        """Keep a candidate set until its decision comes."""
        self.join.candidates(candidates)
        self.advance()

    def decision(self, verdict: Verdict) -> None:
        """Queue a decision until its parts arrive. Raises ValueError if decision numbers went back."""
        self._heard_at = time.monotonic()
        skipped = self.join.decision(verdict, self._heard_at)
        if skipped is not None:
            self.writer.gap(skipped[0], skipped[1], "not received")
        latched = verdict.state == "latched"
        if latched and not self._latched:
            self.writer.note("latch", {"time": time.time(), "sequence": verdict.sequence, "cause": verdict.message})
            self.writer.write()
            self.writer.begin_sync()
        self._latched = latched
        self.advance()

    def policy(self, epoch: int, sha256: str, what: str) -> None:
        """Another policy drives from about now on (epoch 0: none), or was refused: `what` says which."""
        self.writer.note(
            "policy", {"time": time.time(), "sequence": self.join.last, "epoch": epoch, "sha256": sha256, "what": what}
        )

    def outcome(self, table: OutcomeTable, stamp_ns: int, visit: str) -> None:
        """Count an outcome; its reward waits for the decision. `visit` describes the newest unsafe visit."""
        phase = PHASES[int(table["phase"])]
        if phase != self.phase:
            if self.phase:
                self._count()
            self.phase = phase
            self.writer.note("phase", {"phase": phase, "time": time.time(), "files": self._files()})
        self._executed = int(table["executed"])
        self.join.outcome(table, stamp_ns)
        if visits := self.book.outcome(phase, table):
            self._logger.error(f"unsafe visit: {visit}")
            self.writer.note(
                "visit", {"phase": phase, "visits": visits, "time": time.time(), "stamp_ns": stamp_ns, "what": visit}
            )
            self._count()
            self.writer.write()
            self.writer.begin_sync()
        over = (int(table["session"]), int(table["episode"]))
        if (table["terminated"] or table["truncated"]) and over != self._episode_told:
            self._episode_told = over
            self._tell_episode(phase, table)
        self.advance()

    def _tell_episode(self, phase: str, table: OutcomeTable) -> None:
        totals = self.book.totals(phase)
        totals.episodes += 1
        totals.successes += bool(table["reached"])
        self.writer.note(
            "episode",
            {
                "phase": phase,
                "episode": int(table["episode"]),
                "seed": int(table["seed"]),
                "ticks": int(table["tick"]),
                "return": table["episode_return"],
                "reached": bool(table["reached"]),
                "terminated": bool(table["terminated"]),
                "min_margin": table["min_margin"],
            },
        )

    # --- what goes out -------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Write the decisions that are complete."""
        self._finish(self.join.take(time.monotonic()))
        self.writer.write()

    def confirm(self) -> int | None:
        """Write the decisions that are complete; all below the returned number are then journalled or listed as a gap.

        None if nothing may be confirmed: the disk refuses or is slow, or there was a programming error.
        """
        self._finish(self.join.take(time.monotonic()))  # some may have waited too long since the last message
        self.writer.note_gaps()
        self.writer.write()
        return self.join.next if self.writer.safe and not self.failed else None

    def each_second(self) -> None:
        """Write counters, fsync in the background, and try again after a refusal of the disk."""
        self.advance()
        self._count()
        self.writer.each_second()

    def close(self) -> None:
        self.writer.close()

    def _count(self) -> None:
        """Queue the gaps so far and the counters of this phase."""
        self.writer.note_gaps()
        if self.phase:
            self.writer.note("counters", {"time": time.time(), **self.book.event(self.phase, self._period)})

    def _finish(self, done: list[Joined]) -> None:
        """Turn joined decisions into records and gaps. A programming error may lose a record, but never a number."""
        for joined in done:
            number, why, mistake = joined.verdict.sequence, joined.gap, joined.mistake
            try:
                if not why:
                    self.writer.unsaved.append(make_record(self.writer.journal.type, joined))
            except ValueError as error:  # its parts contradict each other
                why = str(error)
                self._tell_contradiction(f"{why}; it is listed as a gap")
            except Exception as error:
                why, mistake = said(error), error
            if why:
                self.writer.gap(number, number, why)
            try:
                phase = PHASES[joined.arrived.phase] if joined.candidates is not None else self.phase or "simulate"
                self.book.decision(phase, joined.verdict, not why)
            except Exception as error:
                mistake = error
            if mistake is not None:
                what = "listed as a gap" if why else "journalled but not counted"
                self._report(f"decision {number} is {what}; heartbeats stop until the recorder is restarted", mistake)
                self.failed = True
        self.writer.forget_surplus()

    def _tell_contradiction(self, text: str) -> None:
        now = time.monotonic()
        if now - self._contradiction_told_at >= TELL_S:
            self._contradiction_told_at = now
            self._logger.error(text)
