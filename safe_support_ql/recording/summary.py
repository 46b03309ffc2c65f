"""Reads a run's results from ledger and journal: progress to resume from, and summary.json.

The top-level numbers of summary.json are for the whole run, evaluation included; `phases` has those of each phase. The
row `reference` of `evaluation` is added later (`add_evaluation`). `ledger_head` is the head of the ledger (chain.py)
that the numbers are from.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound
from safe_support_ql.recording.files import JOURNAL, LEDGER, SUMMARY, write_json
from safe_support_ql.recording.journal import HEADER_BYTES, JournalReader
from safe_support_ql.recording.ledger import TRUTH, open_ledger, read_ledger
from safe_support_ql.safety.gate import VERDICTS

EVALUATIONS = {
    "behavior": "evaluation_behavior", "policy": "evaluation_policy", "reference": "evaluation_reference",
    "driven": "simulate",  # by the policy of a run of `simulate` or `deploy`
}  # fmt: skip
COUNTS = ("control_ticks", "physics_steps", "unsafe_visits", "decisions", "interventions", "empty_supports")
Event = Mapping[str, Any]


@dataclass
class Counts:
    """The newest `counters` event of each phase."""

    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    phase: str = ""  # the phase of the newest event

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if event["event"] == "counters":
                self.phases[event["phase"]] = dict(event)
            if event["event"] in ("counters", "phase"):
                self.phase = event["phase"]

    def of(self, phase: str, name: str) -> float:
        """One count of one phase, 0 before its first event."""
        return float(self.phases.get(phase, {}).get(name, 0))

    def total(self, name: str) -> float:
        """One count over all phases."""
        return sum(self.of(phase, name) for phase in self.phases)

    def verdicts(self) -> dict[str, float]:
        """Share of each verdict over all phases."""
        sums = {name: sum(int(p["verdicts"].get(name, 0)) for p in self.phases.values()) for name in VERDICTS}
        return {name: count / max(1, sum(sums.values())) for name, count in sums.items()}

    def empty_share(self) -> float:
        """Share of decisions with an empty support."""
        return self.total("empty_supports") / max(1.0, self.total("decisions"))


class Tail:
    """Follows a ledger that is being written, like `tail -f`; it may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._position)
                raw = file.read()
        except FileNotFoundError:
            return []
        end = raw.rfind(b"\n") + 1
        self._position += end
        return [json.loads(line) for line in raw[:end].splitlines()]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, and the numbers it continues with."""

    ticks: int = 0  # of collection
    training_seed: int | None = None  # of the next arena; None before the first
    first_episode: int = 1
    first_sequence: int = 0  # one after the last decision that is journalled, listed or counted
    evaluated: Mapping[str, int] = field(default_factory=dict)  # phase -> held-out episodes since the last collection
    collected_at: float = 0.0  # Unix time of the last tick of collection, within a second


def progress(run_dir: Path) -> Progress:
    """The progress of a run. Raises ValueError if ledger or journal is damaged, OSError if it cannot be read."""
    events = read_ledger(run_dir / LEDGER) if (run_dir / LEDGER).exists() else []
    episodes = [event for event in events if event["event"] == "episode"]
    seeds = [int(event["seed"]) for event in episodes if event["phase"] == "collection"]
    numbers = [int(event["episode"]) for event in episodes]
    evaluated: dict[str, int] = {}
    for event in _since_collection(events):
        if event["event"] == "episode":
            evaluated[event["phase"]] = evaluated.get(event["phase"], 0) + 1
    # Counters are written during extraction as well; only the time of the last tick matters.
    collected_at, ticks = 0.0, 0
    for event in events:
        if event["event"] == "counters" and event["phase"] == "collection" and event["control_ticks"] > ticks:
            collected_at, ticks = float(event["time"]), int(event["control_ticks"])
    last = _last_record(run_dir / JOURNAL)
    # A power loss may take a counted decision from the journal; its number is not used again.
    sequences = [int(event["sequence"]) for event in events if event["event"] == "counters"]
    sequences += [int(event["last"]) for event in events if event["event"] == "gap"]
    if last is not None:
        numbers.append(int(last["episode"]))
        sequences.append(int(last["sequence"]))
    # The episode after the last finished one was interrupted; continue with the one after that.
    return Progress(
        ticks=ticks,
        training_seed=max(seeds) + 2 if seeds else None,
        first_episode=max(numbers) + 2 if numbers else 2 if events else 1,
        first_sequence=max(sequences, default=-1) + 1,
        evaluated=evaluated,
        collected_at=collected_at,
    )


def _last_record(path: Path) -> np.void | None:
    """The last complete record of a journal, None if it has none. Raises ValueError if it is not a journal."""
    if not path.exists() or path.stat().st_size < HEADER_BYTES:
        return None
    records = JournalReader(path).read()
    return records[-1] if len(records) else None


def _since_collection(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events after the last one of collection: a policy trained on more data is evaluated again."""
    last = max((i for i, event in enumerate(events) if event.get("phase") == "collection"), default=-1)
    return events[last + 1 :]


def summarise(run_dir: Path, robot: str, seed: int, must_reach: bool) -> dict[str, Any]:
    """The content of summary.json. `must_reach`: see Robot.

    Raises ValueError if the ledger is damaged, OSError if it cannot be read.
    """
    ledger = open_ledger(run_dir / LEDGER)
    return summary_of(ledger.events, ledger.head, robot, seed, must_reach)


def summary_of(events: list[dict[str, Any]], head: str, robot: str, seed: int, must_reach: bool) -> dict[str, Any]:
    """As `summarise`, from the events up to the one with the hash `head`."""
    counts = Counts()
    counts.add(events)
    wall, collecting = _wall(events), _wall(events, "collection")
    evaluation = {}
    for name, phase in EVALUATIONS.items():
        row = _evaluation(events, phase, must_reach)
        if row["episodes"]:
            evaluation[name] = row
    phases = {}
    for phase in counts.phases:
        hours = counts.of(phase, "seconds") / 3600
        visits = int(counts.of(phase, "unsafe_visits"))
        episodes, unsafe = _trials(events, phase)
        phases[phase] = {name: int(counts.of(phase, name)) for name in COUNTS} | {
            "simulated_hours": hours,
            "unsafe_rate_upper95_per_hour": _finite(rate_upper_bound(visits, hours)),
            "episodes": episodes,
            "unsafe_episodes": unsafe,
            # The upper end of a two-sided 90 % interval is a one-sided 95 % bound, like the bound on the rate.
            "unsafe_episode_upper95": proportion_interval(unsafe, episodes, 0.9)[1],
            "verdicts": {name: int(counts.phases[phase]["verdicts"].get(name, 0)) for name in VERDICTS},
        }
    hours = counts.total("seconds") / 3600
    return {
        "robot": robot,
        "seed": seed,
        "clock": " and ".join(sorted({event["clock"] for event in events if "clock" in event})) or None,
        "judged_by": " and ".join(sorted({event["judged_by"] for event in events if "judged_by" in event})) or TRUTH,
        **{name: int(counts.total(name)) for name in COUNTS[:3]},
        "interventions": int(counts.total("interventions")),
        "verdicts": counts.verdicts(),
        "empty_support_fraction": counts.empty_share(),
        "ticks_per_s": counts.of("collection", "control_ticks") / collecting if collecting else None,
        "wall_s": wall,
        "evaluation": evaluation,
        "unsafe_rate_upper95_per_hour": _finite(rate_upper_bound(int(counts.total("unsafe_visits")), hours)),
        "simulated_hours": hours,
        "gaps": int(sum(event["last"] - event["first"] + 1 for event in events if event["event"] == "gap")),
        "phases": phases,
        "ledger_head": head,
    }


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None  # JSON has no infinity


def _trials(events: list[dict[str, Any]], phase: str) -> tuple[int, int]:
    """(episodes, episodes with an unsafe visit) of one phase: the trials of docs/method.md, one seed each.

    An interrupted episode is a trial only if it had an unsafe visit.
    """
    episodes = unsafe = 0
    visited = False
    for event in events:
        if event["event"] == "run_start" and visited:  # the resumed run began another episode
            episodes, unsafe, visited = episodes + 1, unsafe + 1, False
        if event.get("phase") != phase:
            continue
        visited = visited or event["event"] == "visit"
        if event["event"] == "episode":
            episodes, unsafe, visited = episodes + 1, unsafe + visited, False
    return episodes + visited, unsafe + visited


def _wall(events: list[dict[str, Any]], phase: str = "") -> float:
    """Wall-clock seconds of the run, or those in which `phase` made ticks.

    Time between a stop and a resume is not counted.
    """
    total, before, ticks = 0.0, None, -1
    for event in events:
        if "time" not in event:
            continue
        if event["event"] in ("run_start", "phase") and (phase or event["event"] == "run_start"):
            before = None
        moved = event.get("phase") == phase and event.get("control_ticks", 0) > ticks
        if before is not None and (not phase or moved):
            total += max(0.0, event["time"] - before)
        before = event["time"]
        if event.get("phase") == phase:
            ticks = event.get("control_ticks", ticks)
    return total


def _evaluation(events: list[dict[str, Any]], phase: str, must_reach: bool) -> dict[str, Any]:
    """One row of `evaluation`, over the episodes since the last collection."""
    new = _since_collection(events)
    old, all_ = Counts(), Counts()
    old.add(events[: len(events) - len(new)])
    all_.add(events)
    done = [event for event in new if event["event"] == "episode" and event["phase"] == phase]
    decisions = all_.of(phase, "decisions") - old.of(phase, "decisions")
    successes = sum(bool(event["reached"]) if must_reach else not event["terminated"] for event in done)
    return {
        "episodes": len(done),
        "successes": successes,
        "success_rate": successes / max(1, len(done)),
        "success_interval95": list(proportion_interval(successes, len(done))),
        "mean_return": sum(float(event["return"]) for event in done) / max(1, len(done)),
        "unsafe_visits": int(all_.of(phase, "unsafe_visits") - old.of(phase, "unsafe_visits")),
        "intervention_rate": (all_.of(phase, "interventions") - old.of(phase, "interventions")) / max(1.0, decisions),
        "first_seed": min((int(event["seed"]) for event in done), default=None),
    }


def add_evaluation(run_dir: Path, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Add a row such as 'reference' to summary.json; returns its new content. Raises ValueError if it is missing."""
    path = run_dir / SUMMARY
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["evaluation"][name] = dict(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not the summary of a run ({error}); finish the run first") from None
    write_json(path, content)
    return content
