"""safe-support-ql ledger: verify and summarise what a run recorded."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import JOURNAL, LEDGER, shown

if TYPE_CHECKING:
    from safe_support_ql.recording.verification import LedgerReport

CLOCKS = {"lockstep": "lock-step (message age and delay are not measured)", "realtime": "real time"}


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, "folder")
    parser.add_argument(
        "--head",
        default="",
        metavar="HASH",
        help="ledger head that was printed or published: everything up to it must still be as it was",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.description = (
        "Verify and summarise what a run recorded. Found are: a line of the ledger that was changed, removed, added or "
        "swapped; an end that was cut off, if a head from behind the cut is known (summary.json and policy.json hold "
        "one, and --head gives one); a journal, settings, manifest, policy or summary that is not as it was."
    )
    parser.epilog = (
        "Exit status 1: an unsafe visit, or a record that is missing or not as it was; 2: the ledger is damaged. "
        "Who can write in the folder can compute all hashes anew, and then only a head that was kept elsewhere tells; "
        "or use a key: SAFE_SUPPORT_QL_KEY_FILE names its file, for recording and for this command."
    )


def run(options: argparse.Namespace) -> int:
    """Print counts per phase with their bounds; 1 if a visit happened or a record is missing, changed or damaged."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.verification import verify

    run, settings = bringup.read_run(options.folder)
    robot = settings.robot
    try:
        head = options.head.strip().lower()
        if head and not re.fullmatch("[0-9a-f]{64}", head):
            raise ValueError(f"--head has {len(head)} characters, must be the 64 hexadecimal digits of a ledger head")
        report = verify(run.folder, robot.name, run.seed, robot.must_reach, head)
    except OSError as error:
        lost = "" if (run.folder / LEDGER).exists() else "; the run recorded nothing, or the file was removed"
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}){lost}") from None
    if options.json:
        print(json.dumps(report.summary | {"missing": report.missing, "problems": report.problems}, indent=2))
    else:
        if run.kind == "faults":
            print("a fault campaign: inputs were corrupted and nodes killed on purpose\n")
        print_report(report, run.folder)
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if report.summary["unsafe_visits"] or report.missing or report.problems else 0


def print_report(report: LedgerReport, folder: Path) -> None:
    from safe_support_ql import panel
    from safe_support_ql.recording.join import CLOSED, IDLE

    events, records = f"{report.events} events", f"{report.journalled} records"
    if not report.problems:
        events += (", none changed or missing" if report.head else ", none missing") if report.ended else " so far"
        records += ", checksums correct"
    print(f"{shown(folder / LEDGER)}: {events}")
    print(f"{shown(folder / JOURNAL)}: {records}")
    if report.head:
        print(f"  ledger head {report.head}")
    for who, count in report.heads:
        print(f"  {who} proves the first {count} events")
    for text in report.notes:
        print(f"  {text}")
    for first, last, why in report.gaps:
        if why not in (CLOSED, IDLE):
            print(f"  decisions {first} to {last} are listed as not journalled: {why}")
    for kind, what in ((CLOSED, "of a closed gate, which needs no plan,"), (IDLE, "between the episodes of a robot")):
        if count := sum(last - first + 1 for first, last, why in report.gaps if why == kind):
            print(f"  {count} decisions {what} are not journalled")
    for first, last in report.missing:
        print(f"  decisions {first} to {last} are MISSING: neither journalled nor listed")
    if not report.ended:
        print("  not closed: the recorder was killed, is still writing, or the end was cut off")
    print(f"\n{'phase':<21}{'ticks':>8}{'hours':>7}{'unsafe':>7}{'per hour <':>11}{'interv.':>8}{'empty':>7}")
    for name, phase in report.summary["phases"].items():
        rate = phase["unsafe_rate_upper95_per_hour"]
        bound = "-" if rate is None else f"{rate:.2f}"
        print(
            f"{name:<21}{phase['control_ticks']:>8}{phase['simulated_hours']:>7.2f}{phase['unsafe_visits']:>7}"
            f"{bound:>11}{phase['interventions']:>8}{phase['empty_supports']:>7}"
        )
    print(f"unsafe: visits by {report.summary['judged_by']}")
    print("per hour <: one-sided 95 % Poisson bound on unsafe visits per hour of the robot\n")
    print(f"{'phase':<21}{'episodes':>9}{'with a visit':>14}{'share <':>10}")
    for name, phase in report.summary["phases"].items():
        share = f"{phase['unsafe_episode_upper95']:.2g}" if phase["episodes"] else "-"
        print(f"{name:<21}{phase['episodes']:>9}{phase['unsafe_episodes']:>14}{share:>10}")
    print("share <: one-sided 95 % Clopper-Pearson bound on the share of such episodes\n")
    print(f"{'verdicts':<20}" + "".join(f"{name:>15}" for name in report.summary["verdicts"]))
    for name, phase in report.summary["phases"].items():
        print(f"{name:<20}" + "".join(f"{count:>15}" for count in phase["verdicts"].values()))
    print(f"\nclock: {CLOCKS.get(report.summary['clock'], report.summary['clock'] or 'not recorded')}")
    if report.summary["evaluation"]:
        print(f"\n{panel.table(report.summary)}")
    for text in report.latches:
        print(f"latch: {text}")
    for text in report.visits:
        print(f"UNSAFE VISIT: {text}")
