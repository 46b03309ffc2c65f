"""safe-support-ql faults: inject faults into the running graph and judge the reactions."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_support_ql.cli import graph, shared
from safe_support_ql.recording.files import POLICY, shown

if TYPE_CHECKING:
    from safe_support_ql.config import Config

EPISODE_S = 600.0  # no episode may reach its time limit during a fault


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT, "--runs-dir")
    parser.add_argument("--phase", choices=("collection", "deployment"), help="play only this phase; default: both")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="play only faults whose names contain one of these texts"
    )
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    shared.add(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Play the campaign; 1 if the reaction to a fault was wrong."""
    from safe_support_ql.experiments import faults as catalogue

    settings = long_episodes(options)
    phases = [options.phase] if options.phase else list(catalogue.PHASES)
    available = {phase: catalogue.catalogue(settings, phase) for phase in phases}
    everything = [fault for phase in phases for fault in available[phase]]
    wanted = {fault.name for fault in catalogue.select(everything, options.only)}
    picked = {phase: [fault for fault in available[phase] if fault.name in wanted] for phase in phases}
    if options.list:
        for phase in phases:
            for fault in picked[phase]:
                print(catalogue.describe(fault, phase))
        return 0
    shared.check_writable(options.json)
    results: list[catalogue.Result] = []

    def show(result: catalogue.Result) -> None:
        results.append(result)
        print(catalogue.row(result), flush=True)

    try:
        for phase in phases:
            if picked[phase]:
                print(f"{settings.robot.name}, {phase}: {len(picked[phase])} faults", flush=True)
                play(settings, phase, picked[phase], options.runs_dir, show)
    finally:  # also write the results so far after Ctrl-C
        if options.json is not None:
            options.json.write_text(json.dumps(catalogue.as_json(results), indent=2))
    print(f"\n{catalogue.closing(results, everything)}")
    return 0 if all(result.passed for result in results) else 1


def long_episodes(options: argparse.Namespace) -> Config:
    """The configuration, with EPISODE_S as the time limit of robots that have the parameter `episode_s`."""
    settings = shared.load(options)
    if "episode_s" not in {field.name for field in dataclasses.fields(settings.robot.parameters)}:
        return settings
    return shared.load(options, {"parameters.episode_s": EPISODE_S})


def play(settings: Config, phase: str, picked: list[Any], runs_dir: Path, show: Callable[[Any], None]) -> None:
    """One phase of the campaign on a graph of its own."""
    import concurrent.futures
    import multiprocessing

    from safe_support_ql import bringup
    from safe_support_ql.experiments import faults as catalogue

    run = bringup.create_run(runs_dir, settings, kind="faults", clock="realtime")
    if phase == "deployment":
        run = bringup.Run(run.folder, kind="faults", clock="realtime", policy=str(run.folder / POLICY))
        bringup.save_run(run, settings)
        print("training a small policy to deploy", file=sys.stderr, flush=True)
        # In a process of its own, to keep torch out of the process that relays messages.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(catalogue.tiny_policy, settings.raw, run.policy).result()
    with graph.sole_user(run), graph.own_graph(run) as processes:
        from safe_support_ql.nodes import conductor, fault_campaign

        print(catalogue.HEAD, flush=True)
        campaign = fault_campaign.Campaign(run, settings, phase, processes)
        conductor.heed_signals(campaign, processes)
        if campaign.no_priority:
            print(
                f"no real-time priority ({campaign.no_priority}): reactions may be late on a busy machine",
                file=sys.stderr,
            )
        try:
            fault_campaign.conduct(campaign, picked, show)
        except conductor.Interrupted:
            raise KeyboardInterrupt from None
        except (conductor.Fault, conductor.Died) as error:
            print(f"error: the campaign cannot continue: {error}; see {shown(run.logs)}", file=sys.stderr)
            sys.exit(shared.FAULT)
        finally:
            campaign.close()
