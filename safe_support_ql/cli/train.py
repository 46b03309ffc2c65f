"""safe-support-ql train: collect over ROS 2, learn, extract a policy, evaluate it; or resume such a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_support_ql.cli import graph, shared
from safe_support_ql.recording.files import SESSION, SUMMARY

if TYPE_CHECKING:
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config


def add(commands: Any) -> None:
    """Its options."""
    parser = commands.add_parser("train", help="collect data over ROS 2, learn, extract a policy, evaluate it")
    shared.add_robot(parser)
    shared.add_session(parser)
    shared.add_runs_dir(parser)
    parser.add_argument(
        "--ticks",
        type=shared.whole(1),
        metavar="N",
        help="control ticks to collect; default: run.ticks of the configuration",
    )
    parser.add_argument(
        "--evaluation-episodes",
        type=shared.whole(0),
        metavar="N",
        help="held-out episodes per policy; default: run.evaluation_episodes of the configuration",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the learner computes")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue this run; more --ticks collect more data")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status of the run: 1 with an unsafe visit."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.summary import Progress

    if options.resume is not None:
        return resume(options)
    settings = shared.load(options)
    run = bringup.create_run(
        options.runs_dir, settings, continuous=options.actions == "continuous", seed=options.seed or 0
    )
    with graph.sole_user(run):
        return with_reference(run, settings, graph.conduct(run, settings, Progress(), new=True))


def resume(options: argparse.Namespace) -> int:
    """Continue a run. Raises ValueError if the options or the folder do not allow it."""
    from safe_support_ql import bringup, config

    refuse_with_resume(options)
    run, settings, where = bringup.open_run(options.resume)
    if run.kind != "train":
        raise ValueError(f"{run.folder / SESSION}: kind is '{run.kind}', only 'train' can be resumed")
    changed = {name: value for name, value in shared.chosen(options).items() if name.startswith("run.")}
    if changed:
        settings = config.load(run.config_file, changed)
    if "run.ticks" in changed and settings.run.ticks < where.ticks:
        raise ValueError(
            f"--ticks is {settings.run.ticks}, but the run has collected {where.ticks}; ask for more, or leave it out"
        )
    with graph.sole_user(run):
        bringup.save_run(run, settings)
        return with_reference(run, settings, graph.conduct(run, settings, where))


def refuse_with_resume(options: argparse.Namespace) -> None:
    """Raises ValueError for options that a resumed run cannot change: it keeps all settings but its length."""
    fixed = {"--robot": options.robot, "--actions": options.actions, "--seed": options.seed, "--config": options.config,
             "--device": options.device}  # fmt: skip
    given = [name for name, value in fixed.items() if value is not None]
    given += [f"--set {text}" for text in options.set if not text.startswith("run.")]
    if given:
        raise ValueError(f"{given[0]} cannot be changed with --resume; the run keeps {options.resume}/config.yaml")


def with_reference(run: Run, settings: Config, status: int) -> int:
    """Add the reference's row to a summary without one. The reference needs the map, so it plays without ROS."""
    from safe_support_ql.recording import summary

    episodes = settings.run.evaluation_episodes
    if status != 0 or not episodes or not (run.folder / SUMMARY).exists():
        return status
    if "reference" not in json.loads((run.folder / SUMMARY).read_text())["evaluation"]:
        from safe_support_ql.experiments.evaluate import evaluate, summarise

        row = summarise(settings, evaluate(settings, "reference", run.continuous, episodes))
        summary.add_evaluation(run.folder, "reference", row)
        print(
            f"reference, without ROS: success {row['success_rate']:.3f}, return {row['mean_return']:.2f}, "
            f"unsafe visits {row['unsafe_visits']}"
        )
        if row["unsafe_visits"]:
            return 1
    return status
