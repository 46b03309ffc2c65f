"""safe-support-ql validate: let a policy show in simulation what a robot asks for before it obeys."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safe_support_ql.cli import shared
from safe_support_ql.recording.files import shown


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a policy.onnx; the report is written beside it")
    shared.add(parser, *shared.ROBOT, "--actions")
    shared.add(parser, "--workers")


def run(options: argparse.Namespace) -> int:
    """1 if the report does not pass."""
    from safe_support_ql.deployment.validation import report_path
    from safe_support_ql.experiments.validate import validate
    from safe_support_ql.recording import chain

    settings, continuous = shared.load_for(options.model, options)
    model = shared.check_model(options.model, settings, continuous)
    print(f"{'world':<16}{'episodes':>9}{'success':>9}{'by sensors':>12}{'unsafe':>8}{'interventions':>15}", flush=True)

    def say(world: str, row: Mapping[str, Any]) -> None:
        print(
            f"{world:<16}{row['episodes']:>9}{row['success_rate']:>9.3f}{row['success_by_sensors']:>12.3f}{row['unsafe_visits']:>8}"
            f"{row['intervention_rate']:>15.2%}",
            flush=True,
        )

    report = validate(settings, model, continuous, options.workers, chain.key(), say)
    print(
        f"{report['unsafe_visits']} unsafe visits in {report['simulated_hours']:.2f} simulated hours: below "
        f"{report['unsafe_rate_upper95_per_hour']:.2g} per hour and in less than "
        f"{report['unsafe_episode_upper95']:.2%} of the episodes at 95 %"
    )
    for text in report["failed"]:
        print(f"failed: {text}")
    if not report["failed"]:
        same = ", with the same --set" if options.set else ""
        print(f"passed: {shown(report_path(model))}; next: safe-support-ql deploy {shown(model)}{same}")
    return 1 if report["failed"] else 0
