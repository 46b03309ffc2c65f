"""Joins the decision, the candidate set and the outcome of a tick, which arrive on three topics in any order."""

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.recording.journal import pack
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import OutcomeTable, Verdict
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.gate import REASONS, VERDICTS

WAIT_S = 1.0  # how long a decision waits for its parts on the other topics
KEPT_SETS = 5000
CLOSED = "closed"  # why a decision is not journalled that was made before the gate was open: nothing is learnt from it
IDLE = "idle"  # the same of one between two episodes of a robot
MOST_SKIPPED = 1_000_000  # numbers between two decisions heard by one recorder: hours of them


@dataclass(frozen=True)
class Arrived:
    """The outcome of a state, summed over all states since the last recorded one."""

    phase: int = 0
    first: bool = False
    terminated: bool = False
    truncated: bool = False
    reward: float = 0.0
    idle: bool = False


@dataclass(frozen=True)
class Joined:
    """One decision with all its parts, or one that cannot be journalled; `gap` then says why."""

    verdict: Verdict
    candidates: CandidateSet | None = None
    arrived: Arrived = Arrived()
    gap: str = ""
    mistake: Exception | None = None  # a programming error of this node, more serious than the gap


class Join:
    """Joins what arrives on the three topics, in the order of decision numbers."""

    def __init__(self, last_sequence: int = -1, wait_s: float = WAIT_S) -> None:
        """`last_sequence`: the last number that is journalled or listed; it and lower numbers are repetitions."""
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
        """Every decision below this number was taken, or reported as skipped."""
        return self._queue[0][0].sequence if self._queue else self.last + 1

    def candidates(self, candidates: CandidateSet) -> None:
        """Add a candidate set; repetitions are harmless."""
        self._sets[candidates.id, candidates.stamp_ns] = candidates
        if len(self._sets) > KEPT_SETS:
            self._sets.popitem(last=False)

    def outcome(self, table: OutcomeTable, stamp_ns: int) -> None:
        """Add the outcome of a state; repetitions are harmless."""
        if table["session"] != self._session:
            self._outcomes.clear()
            self._session = table["session"]
        self._outcomes[int(table["episode"]), stamp_ns] = table
        if len(self._outcomes) > KEPT_SETS:
            self._outcomes.popitem(last=False)

    def objection(self, verdict: Verdict) -> str:
        """Why `verdict` is no decision that can follow those before, nor a repetition; else ''."""
        if verdict.sequence > self.last + MOST_SKIPPED and self._seen:
            return f"decision: number {verdict.sequence} cannot follow {self.last}"
        if verdict.sequence > self.last or self._repeated(verdict):
            return ""
        return (  # numbers would no longer be unique
            f"decision numbers went back from {self.last} to {verdict.sequence}; "
            f"start safety_monitor with first_sequence {self.last + 1}"
        )

    def _repeated(self, verdict: Verdict) -> bool:
        # After a restart of this node, earlier decisions are unknown; the last one may be sent again.
        what = _content(verdict)
        return self._seen.get(verdict.sequence, what if verdict.sequence == self.last else None) == what

    def decision(self, verdict: Verdict, now: float) -> tuple[int, int] | None:
        """Add a decision; repetitions are harmless. Returns the numbers (first, last) that were skipped before it.

        Raises ValueError if there is an `objection`.
        """
        if problem := self.objection(verdict):
            raise ValueError(problem)
        if verdict.sequence <= self.last:
            return None
        skipped = (self.last + 1, verdict.sequence - 1) if verdict.sequence > self.last + 1 else None
        self.last = verdict.sequence
        self._seen[verdict.sequence] = _content(verdict)
        if len(self._seen) > KEPT_SETS:
            self._seen.popitem(last=False)
        self._queue.append((verdict, now))
        return skipped

    def take(self, now: float) -> list[Joined]:
        """Decisions that are complete or have waited too long for their parts, in order."""
        done = []
        while self._queue:
            verdict, since = self._queue[0]
            try:
                joined = self._join(verdict, late=now - since > self._wait_s)
            except Exception as error:  # its number must neither vanish nor block the following ones
                joined = Joined(verdict, gap=said(error), mistake=error)
            if joined is None:
                break
            done.append(joined)
            self._queue.popleft()
        return done

    def _join(self, verdict: Verdict, late: bool) -> Joined | None:
        if verdict.id == 0:
            return Joined(verdict, gap=CLOSED if verdict.reason == CLOSED else f"blind: {verdict.reason}")
        candidates = self._sets.get((verdict.id, verdict.stamp_ns))
        arrived = self._what_arrived(verdict)
        if candidates is None or arrived is None:
            missing = "candidates" if candidates is None else "outcome"
            return Joined(verdict, gap=f"lost: its {missing}") if late else None
        self._sets.pop((verdict.id, verdict.stamp_ns))
        state = (verdict.episode, verdict.stamp_ns)
        for key in [key for key in self._outcomes if self._belongs(key, state) or key[0] < state[0]]:
            del self._outcomes[key]
        self._ended = arrived.terminated or arrived.truncated or (self._ended and not arrived.first)
        self._state, self._arrived = state, arrived
        return Joined(verdict, gap=IDLE) if arrived.idle else Joined(verdict, candidates, arrived)

    def _what_arrived(self, verdict: Verdict) -> Arrived | None:
        state, last = (verdict.episode, verdict.stamp_ns), self._state
        if state == last:
            # The state was decided on twice (real time): nothing new arrived, so no transition leads into it.
            return Arrived(self._arrived.phase, first=True, idle=self._arrived.idle)
        if state[0] == 0 and self._session < 0:  # a robot, and nobody says what comes of what it does
            return Arrived(PHASES.index("simulate"), first=last is None or last[0] != 0)
        if not any(key[1] == state[1] and self._belongs(key, state) for key in self._outcomes):
            return None
        # A robot's clock may step back; then all that is known up to this state is new.
        since = last[1] if last is not None and last[0] == state[0] and last[1] < state[1] else -1
        new = [table for key, table in self._outcomes.items() if since < key[1] and self._belongs(key, state)]
        return Arrived(
            phase=int(new[-1]["phase"]),
            first=any(table["first"] for table in new) or self._ended,
            terminated=any(table["terminated"] for table in new),
            truncated=any(table["truncated"] for table in new),
            reward=float(sum(table["reward"] for table in new)),
            idle=bool(new[-1]["idle"]),
        )

    @staticmethod
    def _belongs(outcome: tuple[int, int], state: tuple[int, int]) -> bool:
        """Whether an outcome (episode, stamp) is that of a state, or of an earlier one of its episode.

        The gate of a robot knows no episodes (0): there, the time alone tells them apart.
        """
        return state[0] in (0, outcome[0]) and outcome[1] <= state[1]


def _content(verdict: Verdict) -> tuple[int, int, int, bytes]:
    return verdict.id, verdict.episode, verdict.stamp_ns, verdict.action.tobytes()


def said(error: Exception) -> str:
    """Type and text of an error, as the reason of a gap."""
    return f"{type(error).__name__}: {error}"


def make_record(dtype: np.dtype[np.void], joined: Joined) -> NDArray[np.void]:
    """The journal record [1] of a complete decision. Raises ValueError if its parts contradict each other."""
    verdict, candidates, arrived = joined.verdict, joined.candidates, joined.arrived
    assert candidates is not None
    index, last = verdict.index, len(candidates.margin) - 1
    if not 0 <= index <= last:
        raise ValueError(f"decision {verdict.sequence}: executed candidate {index} of {last + 1}")
    actions, margin = candidates.actions.copy(), candidates.margin.copy()
    certified, band = candidates.certified.copy(), candidates.band.copy()
    if index == last and not np.isfinite(margin[last]):  # a requested action that the gate certified and appended
        actions[last], margin[last] = verdict.action, verdict.margin
        certified[last], band[last] = verdict.certified, verdict.band
    if not np.array_equal(actions[index], verdict.action):
        raise ValueError(f"decision {verdict.sequence}: executed {verdict.action.tolist()} is not candidate {index}")
    recorded = replace(candidates, actions=actions, margin=margin, certified=certified, band=band)
    return pack(
        dtype, verdict.sequence, recorded, index, VERDICTS.index(verdict.verdict), REASONS.index(verdict.reason),
        arrived.phase, arrived.reward, arrived.first, arrived.terminated, arrived.truncated, verdict.intervention,
    )  # fmt: skip
