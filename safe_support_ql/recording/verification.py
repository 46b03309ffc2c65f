"""Verifies the record of a run: the ledger's chain, the journal's bytes, every decision number, and the files beside.

Damage of the ledger itself is raised, because nothing can be said without it. Everything else is listed as a problem,
one line each, beside the summary. What is harmless is said and is no problem: a torn tail, which a crash leaves and
which was never confirmed; and a hole in the journal that a resumed recorder found and listed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_support_ql.recording import chain
from safe_support_ql.recording.files import JOURNAL, LEDGER, MANIFEST, POLICY, SUMMARY
from safe_support_ql.recording.journal import Hole, JournalReader, unaccounted
from safe_support_ql.recording.ledger import FORMAT, Ledger, open_ledger
from safe_support_ql.recording.summary import summary_of

HEAD = "ledger_head"  # in summary.json, and under `training` in policy.json
SIGNIFICANT = 9  # digits of a number in summary.json that must be right: another SciPy may differ in the last ones
MISSING = "is missing: it was there when the run was recorded"
Events = list[dict[str, Any]]


@dataclass(frozen=True)
class LedgerReport:
    """What `safe-support-ql ledger` shows."""

    summary: dict[str, Any]
    events: int
    head: str  # '' without a chain
    heads: list[tuple[str, int]]  # (who knows a head, how many events it proves)
    journalled: int
    gaps: list[tuple[int, int, str]]  # listed in the ledger: first, last, why
    missing: list[tuple[int, int]]  # neither journalled nor listed
    problems: list[str]  # one line each, beginning with a file; empty if nothing was changed or lost
    notes: list[str]  # what is as it is, and harmless
    latches: list[str]
    visits: list[str]
    ended: bool  # the recorder closed it; otherwise the last seconds are in the journal only


def verify(run_dir: Path, robot: str, seed: int, must_reach: bool, head: str = "") -> LedgerReport:
    """Verify what a run recorded; `head`: one that was kept elsewhere. Raises ValueError and OSError naming a file."""
    path = run_dir / LEDGER
    ledger = open_ledger(path)
    events = ledger.events
    if not events:
        raise ValueError(f"{path}: holds no event yet; nothing was recorded")
    ended = events[-1]["event"] == "run_end"
    problems, notes = [], []
    if ledger.unchained:
        whose = "it has" if not ledger.head else f"its first {ledger.unchained} events have"
        notes.append(f"{LEDGER}: {whose} no chain: written before format {FORMAT}, so a change might not be found")
    if ledger.torn:
        notes.append(f"{LEDGER}: the last {ledger.torn} bytes are torn: a line that a crash cut off, never confirmed")
    first = next((event.get("first_sequence", 0) for event in events if event["event"] == "run_start"), 0)
    if first:
        problems.append(f"{path}: begins with decision {first}; the ledger of those before it is missing")

    reader = JournalReader(run_dir / JOURNAL)
    records = reader.read()
    found, said = _journal(run_dir / JOURNAL, ledger, reader, ended)
    problems += found
    notes += said
    heads, cut = _heads(run_dir, ledger, head)
    # The summary is computed from the settings: where those were changed, it can only differ.
    problems += _files(run_dir, events) or _summary(
        run_dir, ledger, lambda part, end: summary_of(part, end, robot, seed, must_reach)
    )

    listed = [(int(e["first"]), int(e["last"]), str(e["why"])) for e in events if e["event"] == "gap"]
    counted = max((int(e["sequence"]) for e in events if e["event"] == "counters"), default=-1)
    last = max([counted, *records["sequence"][-1:].tolist()])
    return LedgerReport(
        summary=summary_of(events, ledger.head, robot, seed, must_reach),
        events=len(events),
        head=ledger.head,
        heads=heads,
        journalled=len(records),
        gaps=_joined(listed),
        missing=unaccounted(records["sequence"], [(first, last) for first, last, _ in listed], last),
        problems=cut or _one_of_each_file(problems),
        notes=notes,
        latches=[str(event["cause"]) for event in events if event["event"] == "latch"],
        visits=[str(event["what"]) for event in events if event["event"] == "visit"],
        ended=ended,
    )


def _journal(path: Path, ledger: Ledger, reader: JournalReader, ended: bool) -> tuple[list[str], list[str]]:
    """(problems, notes) of the journal, against what the ledger counted and by its checksums."""
    content = path.read_bytes()
    try:
        counted = chain.stretches(ledger.events)
    except ValueError as error:
        return [f"{path.with_name(LEDGER)}: {error}"], []
    end = counted[-1].end if counted else 0
    wrong = [stretch for stretch in counted if not stretch.fits(content)]
    problems, notes = [], []
    if wrong and all(stretch.end > len(content) for stretch in wrong) and not reader.holes:
        problems.append(
            f"{path}: has {len(content)} bytes, the ledger counted {end}: its end was cut off, or lost with the power"
        )
    elif wrong:
        problems.append(f"{path}: {_changed(wrong, len(counted), reader.damage)}")
    elif ended and counted and len(content) > end:
        problems.append(f"{path}: has {len(content) - end} bytes more than the recorder wrote until it ended")
    for hole in reader.damage:
        if hole.end > end and not wrong:
            problems.append(f"{path}: bytes {hole.start} to {hole.end} are damaged; what follows was found again")
        elif not any(hole.start < stretch.end and stretch.start < hole.end for stretch in wrong):
            notes.append(f"{JOURNAL}: bytes {hole.start} to {hole.end} were damaged, as the ledger lists")
    if reader.torn and not problems:
        notes.append(
            f"{JOURNAL}: the last {reader.torn} bytes are torn: a record that a crash cut off, never confirmed"
        )
    return problems, notes


def _changed(wrong: list[chain.Stretch], of: int, holes: list[Hole]) -> str:
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more of {of} stretches)" if len(wrong) > 1 else ""
    inside = [hole for hole in holes if hole.start < first.end and first.start < hole.end]
    if inside:
        return f"bytes {inside[0].start} to {inside[0].end} are damaged{more}; what follows was found again"
    return (
        f"bytes {first.start} to {first.end}{more} are not what the ledger counted, though their checksums fit: "
        "the file was changed or replaced"
    )


def _heads(run_dir: Path, ledger: Ledger, given: str) -> tuple[list[tuple[str, int]], list[str]]:
    """(who knows a head and how many events it proves, the problem if the ledger lacks one that is known).

    Of several heads that it lacks, one is named: what else is wrong then follows from it.
    """
    known = [("--head", given)] if given else []
    for name, inside in ((MANIFEST, "training"), (SUMMARY, "")):
        try:
            content = json.loads((run_dir / name).read_bytes())
            known.append((name, str((content[inside] if inside else content).get(HEAD, ""))))
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue  # none, or a damaged file, which is named elsewhere
    places = {_hash(event): number for number, event in enumerate(ledger.events, start=1)}
    lacking = [
        f"{run_dir / LEDGER}: the head {found[:16]}... of {name} is not in it: its end was cut off, it was replaced, "
        f"or {name} is that of another run"
        for name, found in known
        if found and found not in places
    ]
    return [(name, places[found]) for name, found in known if found in places and found], lacking[:1]


def _hash(event: dict[str, Any]) -> str:
    return str(event.get(chain.KEYED) or event.get(chain.PLAIN) or "")


def _files(run_dir: Path, events: Events) -> list[str]:
    """Settings and manifest that are not those that the ledger saw last, and a policy that is not its manifest's."""
    problems = []
    newest: dict[str, str] = next((event["files"] for event in reversed(events) if event.get("files")), {})
    now = chain.file_hashes(run_dir, [*newest, POLICY])
    for name, then in newest.items():
        if now.get(name) != then and not (name == MANIFEST and _exported_since(run_dir, events)):
            odd = "is not the one that the recorder saw; it was changed or replaced" if name in now else MISSING
            problems.append(f"{run_dir / name}: {odd}")
    try:
        wanted = json.loads((run_dir / MANIFEST).read_bytes())["policy_sha256"]
    except FileNotFoundError:
        return problems
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        return [f"{run_dir / MANIFEST}: is damaged ({type(error).__name__}: {error})", *problems]
    if now.get(POLICY) != wanted:
        odd = f"is not the one of {MANIFEST}; it was changed or replaced" if POLICY in now else MISSING
        problems.append(f"{run_dir / POLICY}: {odd}")
    return problems


def _exported_since(run_dir: Path, events: Events) -> bool:
    """Whether the manifest is of a policy that was exported after the recorder last looked."""
    try:
        head = json.loads((run_dir / MANIFEST).read_bytes())["training"][HEAD]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
    seen = max(number for number, event in enumerate(events) if event.get("files"))
    return any(_hash(event) == head for event in events[seen + 1 :])


def _summary(run_dir: Path, ledger: Ledger, summarise: Callable[[Events, str], dict[str, Any]]) -> list[str]:
    """Whether summary.json says what the ledger says up to the head that it names."""
    path = run_dir / SUMMARY
    try:
        content = json.loads(path.read_bytes())
        head = content.get(HEAD, "")
        places = [number for number, event in enumerate(ledger.events, start=1) if head and _hash(event) == head]
        if not places and (head or ledger.unchained or not ledger.head):
            return []  # the head is named as a problem elsewhere, or the file is of an older version
        content["evaluation"].pop("reference", None)  # played without a recorder
        found, right = _rounded(content), _rounded(summarise(ledger.events[: places[0]] if places else [], head))
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return [f"{path}: is damaged; it was changed after it was written"]
    odd = sorted(key for key in {*found, *right} if found.get(key, ...) != right.get(key, ...))
    return [f"{path}: '{odd[0]}' is not what the ledger says; it was changed"] if odd else []


def _rounded(content: dict[str, Any]) -> dict[str, Any]:
    rounded: dict[str, Any] = json.loads(
        json.dumps(content), parse_float=lambda text: float(f"{float(text):.{SIGNIFICANT}g}")
    )
    return rounded


def _one_of_each_file(problems: list[str]) -> list[str]:
    """The first problem of each file: what follows from it would only hide it."""
    return list({problem.partition(": ")[0]: problem for problem in reversed(problems)}.values())[::-1]


def _joined(gaps: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """`gaps` with neighbours of one reason joined: the recorder lists a long gap in pieces."""
    joined: list[tuple[int, int, str]] = []
    for first, last, why in gaps:
        if joined and joined[-1][1:] == (first - 1, why):
            first = joined.pop()[0]
        joined.append((first, last, why))
    return joined
