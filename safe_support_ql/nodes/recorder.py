"""The one writer of the transition journal (journal.bin) and of the safety ledger (ledger.jsonl) in `run_dir`.

Takes `candidates`, `decision`, `outcome`; publishes `recorder/heartbeat` every 0.2 s: every decision below this number
is journalled or listed as a gap, so that a recorder that lags stops the robot as a silent one does. It writes first and
counts afterwards. Both files are fsynced each second and at a visit or latch. While a disk refuses (full, say) records
wait in memory, heartbeats stop, and with them the robot.

Events of the ledger: run_start; phase; counters (each second and at the end of a phase: everything since the run
began, per phase, kept over crash and resume); episode (how one ended); visit (margins and truth); gap (decision
numbers that are not in the journal, and why; before the next heartbeat); latch; run_end. Every decision number is in
the journal or in a gap.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import UInt64

from safe_support_ql.nodes import lifecycle, tables, topics
from safe_support_ql.nodes.candidates import CandidateCodec
from safe_support_ql.nodes.tables import OutcomeTable, Verdict
from safe_support_ql.safety.candidates import CandidateSet, candidate_layout
from safe_support_ql.safety.gate import REASONS, VERDICTS
from safe_support_ql.safety.journal import CERTIFIED, INTERVENED, PLAN, JournalWriter, pack, read_records, unaccounted
from safe_support_ql.safety.ledger import PHASES, LedgerWriter, read_ledger

JOURNAL, LEDGER = "journal.bin", "ledger.jsonl"
HEARTBEAT_S = 0.2
SYNC_S = 1.0
SLOW_SYNC_S = 5.0  # a disk that needs longer is as good as full: heartbeats stop
QUIET_S = 0.5  # without a decision: then the monitor has ended
WAIT_S = 1.0  # for the parts of a decision that come on other topics
KEPT_SETS = 5000
MOST_UNSAVED = 50_000  # records kept in memory while the disk refuses


@dataclass(frozen=True)
class Arrived:
    """What came with a state, summed over the states since the last recorded one."""

    phase: int = 0
    first: bool = False
    terminated: bool = False
    truncated: bool = False
    reward: float = 0.0


@dataclass(frozen=True)
class Joined:
    """One decision with all its parts, or (`gap` says why) one that cannot be journalled."""

    verdict: Verdict
    candidates: CandidateSet | None = None
    arrived: Arrived = Arrived()
    gap: str = ""
    mistake: Exception | None = None  # of this node: the gap is the least of it


class Join:
    """Puts together, in the order of decision numbers, what comes on three topics in any order."""

    def __init__(self, last_sequence: int = -1, wait_s: float = WAIT_S) -> None:
        """`last_sequence`: the last number that is accounted for; it and lower ones are repetitions.

        `wait_s`: how long a decision waits for its parts.
        """
        self.last = last_sequence
        self._wait_s = wait_s
        self._sets: OrderedDict[tuple[int, int], CandidateSet] = OrderedDict()
        self._outcomes: OrderedDict[tuple[int, int], OutcomeTable] = OrderedDict()
        self._queue: deque[tuple[Verdict, float]] = deque()
        self._seen: OrderedDict[int, tuple[int, int, int, bytes]] = OrderedDict()
        self._session = -1.0
        self._state: tuple[int, int] | None = None  # (episode, stamp) of the last joined decision
        self._arrived = Arrived()
        self._ended = False

    @property
    def next(self) -> int:
        """Every decision below this number was taken, or skipped and told of."""
        return self._queue[0][0].sequence if self._queue else self.last + 1

    def candidates(self, candidates: CandidateSet) -> None:
        """A candidate set, perhaps again."""
        self._sets[candidates.id, candidates.stamp_ns] = candidates
        if len(self._sets) > KEPT_SETS:
            self._sets.popitem(last=False)

    def outcome(self, table: OutcomeTable, stamp_ns: int) -> None:
        """What arrived with a state, perhaps again."""
        if table["session"] != self._session:
            self._outcomes.clear()
            self._session = table["session"]
        self._outcomes[int(table["episode"]), stamp_ns] = table
        if len(self._outcomes) > KEPT_SETS:
            self._outcomes.popitem(last=False)

    def decision(self, verdict: Verdict, now: float) -> tuple[int, int] | None:
        """A decision, perhaps again. Returns the numbers [first, last] that were skipped before it, if any.

        Raises ValueError if the numbers went back: they would no longer be unique.
        """
        what = (verdict.id, verdict.episode, verdict.stamp_ns, verdict.action.tobytes())
        if verdict.sequence <= self.last:
            # What was seen before a restart of this node is not known: its last number may come once more.
            known = self._seen.get(verdict.sequence, what if verdict.sequence == self.last else None)
            if known == what:
                return None
            raise ValueError(
                f"decision numbers went back from {self.last} to {verdict.sequence}; "
                f"start safety_monitor with first_sequence {self.last + 1}"
            )
        skipped = (self.last + 1, verdict.sequence - 1) if verdict.sequence > self.last + 1 else None
        self.last = verdict.sequence
        self._seen[verdict.sequence] = what
        if len(self._seen) > KEPT_SETS:
            self._seen.popitem(last=False)
        self._queue.append((verdict, now))
        return skipped

    def take(self, now: float) -> list[Joined]:
        """Decisions that are complete, or have waited for their parts too long, in order."""
        done = []
        while self._queue:
            verdict, since = self._queue[0]
            try:
                joined = self._join(verdict, late=now - since > self._wait_s)
            except Exception as error:  # its number must not vanish, nor block those behind it
                joined = Joined(verdict, gap=_said(error), mistake=error)
            if joined is None:
                break
            done.append(joined)
            self._queue.popleft()
        return done

    def _join(self, verdict: Verdict, late: bool) -> Joined | None:
        if verdict.id == 0:
            return Joined(verdict, gap=f"blind: {verdict.reason}")
        candidates = self._sets.get((verdict.id, verdict.stamp_ns))
        arrived = self._what_arrived(verdict)
        if candidates is None or arrived is None:
            missing = "candidates" if candidates is None else "outcome"
            return Joined(verdict, gap=f"lost: its {missing}") if late else None
        self._sets.pop((verdict.id, verdict.stamp_ns))
        state = (verdict.episode, verdict.stamp_ns)
        for key in [key for key in self._outcomes if key[0] < state[0] or key <= state]:
            del self._outcomes[key]
        self._ended = arrived.terminated or arrived.truncated or (self._ended and not arrived.first)
        self._state, self._arrived = state, arrived
        return Joined(verdict, candidates, arrived)

    def _what_arrived(self, verdict: Verdict) -> Arrived | None:
        state, last = (verdict.episode, verdict.stamp_ns), self._state
        if state == last:
            # Decided on twice (real time): nothing new arrived, so no transition leads into it.
            return Arrived(self._arrived.phase, first=True)
        if state[0] == 0:  # a real robot: nobody announces episodes or pays rewards
            return Arrived(PHASES.index("simulate"), first=last is None or last[0] != 0)
        if state not in self._outcomes:
            return None
        since = last[1] if last is not None and last[0] == state[0] else -1
        new = [table for key, table in self._outcomes.items() if key[0] == state[0] and since < key[1] <= state[1]]
        return Arrived(
            phase=int(new[-1]["phase"]),
            first=any(table["first"] for table in new) or self._ended,
            terminated=any(table["terminated"] for table in new),
            truncated=any(table["truncated"] for table in new),
            reward=float(sum(table["reward"] for table in new)),
        )


def make_record(dtype: np.dtype[np.void], joined: Joined) -> NDArray[np.void]:
    """The journal record [1] of a complete decision. Raises ValueError where its parts contradict each other."""
    verdict, candidates, arrived = joined.verdict, joined.candidates, joined.arrived
    assert candidates is not None
    index, last = verdict.index, len(candidates.margin) - 1
    if not 0 <= index <= last:
        raise ValueError(f"decision {verdict.sequence}: executed candidate {index} of {last + 1}")
    actions, margin = candidates.actions.copy(), candidates.margin.copy()
    certified, band = candidates.certified.copy(), candidates.band.copy()
    if index == last and not np.isfinite(margin[last]):  # a foreign action that the gate certified and appended
        actions[last], margin[last] = verdict.action, verdict.margin
        certified[last], band[last] = verdict.certified, verdict.band
    if not np.array_equal(actions[index], verdict.action):
        raise ValueError(f"decision {verdict.sequence}: executed {verdict.action.tolist()} is not candidate {index}")
    recorded = replace(candidates, actions=actions, margin=margin, certified=certified, band=band)
    return pack(
        dtype, verdict.sequence, recorded, index, VERDICTS.index(verdict.verdict), REASONS.index(verdict.reason),
        arrived.phase, arrived.reward, arrived.first, arrived.terminated, arrived.truncated, verdict.intervention,
    )  # fmt: skip


@dataclass
class Totals:
    """Counts of one phase since the run began."""

    control_ticks: int = 0
    physics_steps: int = 0
    unsafe_visits: int = 0
    unsafe_substeps: int = 0
    decisions: int = 0
    gaps: int = 0
    interventions: int = 0
    empty_supports: int = 0
    episodes: int = 0
    successes: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))


CUMULATIVE = ("control_ticks", "physics_steps", "unsafe_visits", "unsafe_substeps")


class Book:
    """The counts per phase. The simulator's are cumulative, so differences count, and a lost message costs none."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        """Continue from the events of a ledger."""
        self.phases: dict[str, Totals] = {}
        self.session = -1
        self.seen = dict.fromkeys(CUMULATIVE, 0)  # of the session, at its last outcome
        self.sequence = -1  # last decision that is counted
        for event in events:
            if event["event"] == "counters":
                known = {name: event[name] for name in Totals.__dataclass_fields__ if name in event}
                self.phases[event["phase"]] = Totals(**known)
                self.session, self.seen = event["session"], dict(event["seen"])
                self.sequence = event["sequence"]

    def totals(self, phase: str) -> Totals:
        """Counts of `phase`."""
        return self.phases.setdefault(phase, Totals())

    def outcome(self, phase: str, table: Mapping[str, float]) -> int:
        """Count what the simulator did since its last outcome; returns new unsafe visits."""
        if int(table["session"]) != self.session:
            self.session, self.seen = int(table["session"]), dict.fromkeys(CUMULATIVE, 0)
        totals, before = self.totals(phase), self.seen["unsafe_visits"]
        for name in CUMULATIVE:
            now = max(self.seen[name], int(table[name]))  # a repeated one counts nothing
            setattr(totals, name, getattr(totals, name) + now - self.seen[name])
            self.seen[name] = now
        return self.seen["unsafe_visits"] - before

    def decision(self, phase: str, verdict: Verdict, journalled: bool) -> None:
        """Count a decision that is accounted for."""
        totals = self.totals(phase)
        totals.decisions += 1
        totals.gaps += not journalled
        totals.interventions += verdict.intervention
        totals.empty_supports += verdict.empty_support
        if verdict.reason != "closed":
            totals.verdicts[verdict.verdict] += 1
        self.sequence = verdict.sequence

    def event(self, phase: str, period: float) -> dict[str, Any]:
        """The fields of a `counters` event."""
        totals = self.totals(phase)
        return {
            "phase": phase,
            "seconds": round(totals.control_ticks * period, 3),
            **asdict(totals),
            "session": self.session,
            "seen": self.seen,
            "sequence": self.sequence,
        }


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _events(run_dir: Path) -> list[dict[str, Any]]:
    return read_ledger(run_dir / LEDGER) if (run_dir / LEDGER).exists() else []


def _listed(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(int(event["first"]), int(event["last"])) for event in events if event["event"] == "gap"]


class Recorder(lifecycle.ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("recorder")
        self.journal: JournalWriter | None = None
        self.ledger: LedgerWriter | None = None
        self.lock: filelock.BaseFileLock | None = None

    def configure(self) -> None:
        """Open, or continue, journal and ledger. Raises ValueError for another run's, OSError if unwritable."""
        settings = self.load_config()
        robot = self.robot = settings.robot
        run_dir = self.run_dir()
        # Two of them would overwrite each other's lines. The command line's own lock is another: it starts this node.
        self.lock = filelock.FileLock(run_dir / ".recorder.lock")
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ValueError(f"another recorder writes to {run_dir}; stop that one first") from None
        self.codec = CandidateCodec(robot, self.param("continuous"))
        self.header = {
            "observation": self.codec.d,
            "candidates": self.codec.k,
            "action": self.codec.a,
            "robot": robot.name,
            "layout": candidate_layout(robot, self.param("continuous")),
            "safety_sha256": settings.safety_hash,
        }
        events = _events(run_dir)
        self.journal = JournalWriter(run_dir / JOURNAL, self.header)
        self.ledger = LedgerWriter(run_dir / LEDGER)
        records, listed = read_records(run_dir / JOURNAL, self.journal.type), _listed(events)
        self.book = Book(events)
        self.recount(records)
        last = max([self.book.sequence, *(gap[1] for gap in listed)])
        # A lost part costs its decision the record, and must not look like a recorder that lags.
        wait_s = min(WAIT_S, settings.gate.recorder_timeout_s / 2)
        self.join = Join(last, wait_s)
        self.unsaved: list[NDArray[np.void]] = []
        self.waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self.gaps: list[dict[str, Any]] = []
        for pair in unaccounted(records["sequence"], listed, last):
            self.gap(*pair, "lost when the recorder died")
        self.trouble = ""  # what the disk says
        self.failed = False  # by its own mistake, which no free disk mends: only a restart does
        self.heard_at = 0.0
        self.signalled_at = 0.0
        self.executed = -1
        self.phase = ""
        self.latched = False
        self.visits_told = -1
        self.episode_told = (-1, -1)
        self.syncing: deque[tuple[float, concurrent.futures.Future[None]]] = deque()  # since when, oldest first
        # One thread, so that a slow disk delays neither heartbeats nor the records that wait in the queues of DDS.
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.heartbeat = self.advertise(UInt64, topics.HEARTBEAT, topics.LATEST)
        self.subscribe(PointCloud2, topics.CANDIDATES, self.on_candidates, topics.RECORDED)
        self.subscribe(DiagnosticArray, topics.DECISION, self.on_decision, topics.RECORDED)
        self.subscribe(JointState, topics.OUTCOME, self.on_outcome, topics.RECORDED)
        self.every(HEARTBEAT_S, self.on_heartbeat)
        self.every(SYNC_S, self.on_second)

    def activate(self) -> None:
        """From now on everything is written."""
        self.note(
            "run_start",
            {
                "time": time.time(),
                "robot_id": self.param("robot_id"),
                "clock": self.param("clock"),
                "seed": self.param("seed"),
                "first_sequence": self.join.last + 1,
                **self.header,
            },
        )
        self.write()
        self.on_heartbeat()

    def deactivate(self) -> None:
        """Write what is there, complete or as a gap."""
        self.finish(self.join.take(float("inf")))
        if self.executed > self.join.last:  # by a monitor that died before it could tell everyone
            self.gap(self.join.last + 1, self.executed, "not received")
        self.count()
        self.note("run_end", {"time": time.time()})
        self.write()
        if self.trouble:
            self.get_logger().error(f"{len(self.unsaved)} records and {len(self.waiting)} events could not be saved")
        else:
            self.sync()

    def busy(self) -> bool:
        """A signal to all nodes at once: the monitor's last decisions, and their parts, are still to come."""
        if not self.active:
            return False
        now = time.monotonic()
        # What came before the signal may still lie unread: quiet begins with the signal at the earliest.
        self.signalled_at = self.signalled_at or now
        waiting = self.join.next <= self.join.last
        return waiting or now - max(self.heard_at, self.signalled_at) < QUIET_S

    def release(self) -> None:
        """Close both files."""
        files, self.journal, self.ledger = (self.journal, self.ledger), None, None
        with contextlib.ExitStack() as stack:  # whatever one of them raises, the others are let go
            if self.lock is not None:
                stack.callback(self.lock.release)
            for file in files:
                if file is not None:
                    stack.callback(file.close)

    def fail(self, error: Exception) -> None:
        """Stop confirming: the gate goes to its plan. What can still be written is."""
        self.failed = True

    # --- what comes in -------------------------------------------------------------------------------------------

    def on_candidates(self, message: PointCloud2) -> None:
        """Kept until its decision comes."""
        if self.active:
            self.join.candidates(self.codec.decode(message))
            self.advance()

    def on_decision(self, message: DiagnosticArray) -> None:
        """Queued until its parts are there."""
        if not self.active:
            return
        verdict = tables.decode_decision(message)
        self.heard_at = time.monotonic()
        skipped = self.join.decision(verdict, self.heard_at)
        if skipped is not None:
            self.gap(skipped[0], skipped[1], "not received")
        latched = verdict.state == "latched"
        if latched and not self.latched:
            self.note("latch", {"time": time.time(), "sequence": verdict.sequence, "cause": verdict.message})
            self.write()
            self.begin_sync()
        self.latched = latched
        self.advance()

    def on_outcome(self, message: JointState) -> None:
        """Counted at once; its reward waits for the decision."""
        if not self.active:
            return
        table, stamp_ns, visit = tables.decode_outcome(message)
        phase = PHASES[int(table["phase"])]
        if phase != self.phase:
            if self.phase:
                self.count()
            self.phase = phase
            self.note("phase", {"phase": phase, "time": time.time()})
        self.executed = int(table["executed"])
        self.join.outcome(table, stamp_ns)
        if visits := self.book.outcome(phase, table):
            self.get_logger().error(f"unsafe visit: {visit}")
            self.note(
                "visit", {"phase": phase, "visits": visits, "time": time.time(), "stamp_ns": stamp_ns, "what": visit}
            )
            self.count()
            self.write()
            self.begin_sync()
        over = (int(table["session"]), int(table["episode"]))
        if (table["terminated"] or table["truncated"]) and over != self.episode_told:
            self.episode_told = over
            self.tell_episode(phase, table)
        self.advance()

    def tell_episode(self, phase: str, table: Mapping[str, float]) -> None:
        """How an episode ended."""
        totals = self.book.totals(phase)
        totals.episodes += 1
        totals.successes += bool(table["reached"])
        self.note(
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
        """Write what is complete."""
        self.finish(self.join.take(time.monotonic()))
        self.write()

    def finish(self, done: list[Joined]) -> None:
        """Turn joined decisions into records and gaps. A mistake of this node costs one its record, not its number."""
        assert self.journal is not None
        for joined in done:
            number, why, mistake = joined.verdict.sequence, joined.gap, joined.mistake
            try:
                if not why:
                    self.unsaved.append(make_record(self.journal.type, joined))
            except ValueError as error:  # its parts contradict each other
                why = str(error)
                self.get_logger().error(f"{why}; it is listed as a gap", throttle_duration_sec=1.0)
            except Exception as error:
                why, mistake = _said(error), error
            if why:
                self.gap(number, number, why)
            try:
                phase = PHASES[joined.arrived.phase] if joined.candidates is not None else self.phase or "simulate"
                self.book.decision(phase, joined.verdict, not why)
            except Exception as error:
                mistake = error
            if mistake is not None:
                what = "listed as a gap" if why else "journalled but not counted"
                self._report(f"decision {number} is {what}; heartbeats stop until the recorder is restarted", mistake)
                self.fail(mistake)
        if len(self.unsaved) > MOST_UNSAVED:
            surplus = self.unsaved[: len(self.unsaved) - MOST_UNSAVED]
            self.unsaved = self.unsaved[len(surplus) :]
            for record in surplus:  # one by one: a number in between may be listed already
                self.gap(int(record["sequence"][0]), int(record["sequence"][0]), "the disk refused for too long")

    def gap(self, first: int, last: int, why: str) -> None:
        """Numbers that the journal will not hold; neighbours become one event."""
        if self.gaps and self.gaps[-1]["last"] == first - 1 and self.gaps[-1]["why"] == why:
            self.gaps[-1]["last"] = last
        else:
            self.gaps.append({"first": first, "last": last, "why": why})

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """Queue an event for the ledger."""
        self.waiting.append((event, fields))

    def count(self) -> None:
        """Queue the gaps so far and the counters of this phase."""
        self.note_gaps()
        if self.phase:
            self.note("counters", {"time": time.time(), **self.book.event(self.phase, self.robot.period)})

    def note_gaps(self) -> None:
        """Queue the gaps so far."""
        for gap in self.gaps:
            self.note("gap", gap)
        self.gaps = []

    def write(self) -> None:
        """Hand over to the system what waits; on a refusal it stays in memory and is tried again each second."""
        if self.trouble or self.journal is None or self.ledger is None:
            return
        try:
            if self.unsaved:
                self.journal.append(np.concatenate(self.unsaved) if len(self.unsaved) > 1 else self.unsaved[0])
                self.unsaved.clear()
            while self.waiting:
                self.ledger.append(*self.waiting[0])
                self.waiting.popleft()
        except OSError as error:
            self.refused(error)

    def refused(self, error: OSError) -> None:
        """Say so and stop confirming; `recover` tries again."""
        self.trouble = str(error)
        self.get_logger().error(
            f"cannot write in {self.param('run_dir')}: {error}; the robot runs its backup plan until it can"
        )

    def recover(self) -> None:
        """Open both files afresh, which cuts off what a refused write left half-done."""
        assert self.ledger is not None
        run_dir, refused = self.run_dir(), self.ledger.next_sequence
        try:
            for file in (self.journal, self.ledger):
                if file is not None:
                    file._file.close()  # close() would sync, on the disk that refuses
            self.journal = JournalWriter(run_dir / JOURNAL, self.header)
            self.ledger = LedgerWriter(run_dir / LEDGER)
        except OSError:
            return
        last = self.journal.last_sequence
        self.unsaved = [record for record in self.unsaved if int(record["sequence"][0]) > last]
        if self.waiting and self.ledger.next_sequence > refused:
            self.waiting.popleft()  # closing the file wrote what was left of its line
        self.trouble = ""
        self.write()
        if not self.trouble:
            self.get_logger().info(f"{run_dir} can be written again")

    def begin_sync(self) -> None:
        """fsync both in the background, after one that runs already: it may have begun before the newest write."""
        assert self.journal is not None and self.ledger is not None
        if self.syncing and not self.syncing[-1][1].running() and not self.syncing[-1][1].done():
            return  # one is waiting to begin
        self.syncing.append((time.monotonic(), self.pool.submit(_sync, self.journal, self.ledger)))

    def sync(self) -> None:
        """fsync both, now."""
        assert self.journal is not None and self.ledger is not None
        try:
            self.journal.sync()
            self.ledger.sync()
        except OSError as error:
            self.refused(error)

    def on_second(self) -> None:
        """Counters, fsync in the background, and another try after a refusal."""
        if not self.active:
            return
        assert self.journal is not None and self.ledger is not None
        self.advance()
        self.count()
        if self.trouble:
            self.recover()
            return
        self.write()
        while self.syncing and self.syncing[0][1].done():
            error = self.syncing.popleft()[1].exception()
            if isinstance(error, OSError):
                self.refused(error)
                return
        if not self.syncing:
            self.begin_sync()

    def on_heartbeat(self) -> None:
        """Write what is complete and confirm it, unless the disk refuses or a mistake was made."""
        if not self.active:
            return
        self.finish(self.join.take(time.monotonic()))  # some may have waited too long, and no message tells
        self.note_gaps()
        self.write()
        slow = any(time.monotonic() - since > SLOW_SYNC_S and not future.done() for since, future in self.syncing)
        if not self.trouble and not self.failed and not slow:
            self.heartbeat.publish(UInt64(data=self.join.next))

    def recount(self, records: NDArray[np.void]) -> None:
        """After a crash: count, as it was counted, what was journalled after the last `counters` event."""
        for record in records[records["sequence"].astype(np.int64) > self.book.sequence]:
            totals = self.book.totals(PHASES[record["phase"]])
            totals.decisions += 1
            totals.verdicts[VERDICTS[record["verdict"]]] += 1
            flags = record["flags"]
            totals.empty_supports += not bool(((flags & CERTIFIED > 0) & (flags & PLAN == 0)).any())
            totals.interventions += bool(flags[record["executed"]] & INTERVENED)
            self.book.sequence = int(record["sequence"])


def _sync(journal: JournalWriter, ledger: LedgerWriter) -> None:
    journal.sync()
    ledger.sync()


def main() -> None:
    """Run the node as a process."""
    # A message for the recorder must not push the robot's chain off its core: no preemption on wake-up, in any thread.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    lifecycle.main(Recorder)


if __name__ == "__main__":
    main()
