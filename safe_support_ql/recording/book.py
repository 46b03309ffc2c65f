"""Counts per phase since the run began, kept over crash and resume: another number to count goes here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.recording.journal import CERTIFIED, INTERVENED, PLAN
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.safety.gate import VERDICTS


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
    """The counts per phase. The simulator sends cumulative counts, so a lost message loses no count."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        """Continue from the events of a ledger."""
        self.phases: dict[str, Totals] = {}
        self.session = -1
        self.seen = dict.fromkeys(CUMULATIVE, 0)  # counts of this session at its last outcome
        self.sequence = -1  # number of the last counted decision
        for event in events:
            if event["event"] == "counters":
                known = {name: event[name] for name in Totals.__dataclass_fields__ if name in event}
                self.phases[event["phase"]] = Totals(**known)
                self.session, self.seen = event["session"], dict(event["seen"])
                self.sequence = event["sequence"]

    def totals(self, phase: str) -> Totals:
        return self.phases.setdefault(phase, Totals())

    def outcome(self, phase: str, table: Mapping[str, float]) -> int:
        """Count what happened in the simulator since its last outcome; returns the number of new unsafe visits."""
        if int(table["session"]) != self.session:
            self.session, self.seen = int(table["session"]), dict.fromkeys(CUMULATIVE, 0)
        totals, before = self.totals(phase), self.seen["unsafe_visits"]
        for name in CUMULATIVE:
            now = max(self.seen[name], int(table[name]))  # a repeated outcome adds nothing
            setattr(totals, name, getattr(totals, name) + now - self.seen[name])
            self.seen[name] = now
        return self.seen["unsafe_visits"] - before

    def decision(self, phase: str, verdict: Verdict, journalled: bool) -> None:
        """Count a decision that is in the journal or listed as a gap."""
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

    def recount(self, records: NDArray[np.void]) -> None:
        """After a crash: count the records that were journalled after the last `counters` event."""
        for record in records[records["sequence"].astype(np.int64) > self.sequence]:
            totals = self.totals(PHASES[record["phase"]])
            totals.decisions += 1
            totals.verdicts[VERDICTS[record["verdict"]]] += 1
            flags = record["flags"]
            totals.empty_supports += not bool(((flags & CERTIFIED > 0) & (flags & PLAN == 0)).any())
            totals.interventions += bool(flags[record["executed"]] & INTERVENED)
            self.sequence = int(record["sequence"])
