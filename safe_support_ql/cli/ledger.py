"""safe-support-ql ledger: verify what a run recorded, and summarise it with exact bounds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import JOURNAL, LEDGER

if TYPE_CHECKING:
    from safe_support_ql.recording.summary import LedgerReport

CLOCKS = {"lockstep": "lock-step (message age and delay are not measured)", "realtime": "real time"}


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("ledger", help="verify and summarise what a run recorded")
    shared.add_run(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print counts per phase with their bounds; 1 if a visit happened or a record is missing or damaged."""
    from safe_support_ql import bringup
    from safe_support_ql.recording import summary

    run, settings = bringup.read_run(options.folder)
    robot = settings.robot
    try:
        report = summary.verify(run.folder, robot.name, run.seed, robot.must_reach)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); the run recorded nothing") from None
    if options.json:
        print(json.dumps(report.summary | {"missing": report.missing, "damaged_bytes": report.damaged_bytes}, indent=2))
    else:
        if run.kind == "faults":
            print("a fault campaign: inputs were corrupted and nodes killed on purpose\n")
        print_report(report, run.folder)
    return 1 if report.summary["unsafe_visits"] or report.missing or report.damaged_bytes else 0


def print_report(report: LedgerReport, folder: Path) -> None:
    """Print the report as text."""
    from safe_support_ql import panel

    print(f"{panel.shown(folder / LEDGER)}: {report.events} events, none missing")
    print(f"{panel.shown(folder / JOURNAL)}: {report.journalled} records, checksums correct")
    if report.damaged_bytes:
        print(f"  the last {report.damaged_bytes} bytes are incomplete or damaged")
    for first, last, why in report.gaps:
        print(f"  decisions {first} to {last} are listed as not journalled: {why}")
    for first, last in report.missing:
        print(f"  decisions {first} to {last} are MISSING: neither journalled nor listed")
    if not report.ended:
        print("  not closed: the recorder was killed or is still writing")
    print(f"\n{'phase':<21}{'ticks':>8}{'hours':>7}{'unsafe':>7}{'per hour <':>11}{'interv.':>8}{'empty':>7}")
    for name, phase in report.summary["phases"].items():
        rate = phase["unsafe_rate_upper95_per_hour"]
        bound = "-" if rate is None else f"{rate:.2f}"
        print(
            f"{name:<21}{phase['control_ticks']:>8}{phase['simulated_hours']:>7.2f}{phase['unsafe_visits']:>7}"
            f"{bound:>11}{phase['interventions']:>8}{phase['empty_supports']:>7}"
        )
    print("per hour <: one-sided 95 % Poisson bound on unsafe visits per simulated hour\n")
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
