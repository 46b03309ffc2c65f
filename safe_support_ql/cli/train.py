"""safe-support-ql train: collect data over ROS 2, learn, extract a policy, evaluate it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from safe_support_ql.cli import graph, shared
from safe_support_ql.recording.files import SESSION, SUMMARY, shown

if TYPE_CHECKING:
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config
    from safe_support_ql.nodes.bags import Bag


def add(parser: argparse.ArgumentParser) -> None:
    shared.add(parser, *shared.ROBOT, *shared.SESSION, "--runs-dir")
    shared.add_number(parser, "--ticks", 1, "control ticks to collect; default: run.ticks of the configuration")
    held_out = "held-out episodes per policy; default: run.evaluation_episodes of the configuration"
    shared.add_number(parser, "--evaluation-episodes", 0, held_out)
    parser.add_argument(
        "--mode", choices=("simulation", "hardware"), help="hardware: the robot is there, and no simulator is started"
    )
    parser.add_argument(
        "--unstamped-cmd", action="store_true", help="hardware: the drive takes commands without header"
    )
    parser.add_argument(
        "--teleop", action="store_true", help="hardware: a person steers, in the place of the behavior policy"
    )
    parser.add_argument("--remote-learner", action="store_true", help="hardware: another machine learns, see `learn`")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the learner computes")
    parser.add_argument(
        "--from-bag", type=Path, nargs="+", metavar="BAG",
        help="learn from bags alone, see `bag`: no robot, no simulator and no ROS graph",
    )  # fmt: skip
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue this run; more --ticks collect more data")


def run(options: argparse.Namespace) -> int:
    """Exit status of the run: 1 with an unsafe visit."""
    from safe_support_ql import bringup
    from safe_support_ql.recording.summary import Progress

    if options.resume is not None:
        return resume(options)
    if options.from_bag is not None:
        return from_bags(options)
    settings = shared.load(options)
    continuous, seed = options.actions == "continuous", options.seed or 0
    how = bringup.hardware(not options.unstamped_cmd) if options.mode == "hardware" else {}
    if not how and options.unstamped_cmd:
        raise ValueError("--unstamped-cmd is for --mode hardware; the simulator takes what the monitor sends")
    if not how and options.remote_learner:
        raise ValueError("--remote-learner is for --mode hardware; a simulated run learns here")
    if not how and options.teleop:
        raise ValueError("--teleop is for --mode hardware; a simulated robot waits for nobody")
    run = bringup.create_run(
        options.runs_dir, settings, continuous=continuous, seed=seed, teleop=options.teleop,
        remote_learner=options.remote_learner, **how,
    )  # fmt: skip
    with graph.sole_user(run):
        return with_reference(run, settings, graph.conduct(run, settings, Progress(), new=True))


def from_bags(options: argparse.Namespace) -> int:
    """Learn from bags. Raises ValueError if they are of different robots or settings, damaged, or empty."""
    from safe_support_ql import bringup
    from safe_support_ql.nodes.bags import Bag

    odd = {"--mode": options.mode, "--unstamped-cmd": options.unstamped_cmd or None, "--teleop": options.teleop or None,
           "--remote-learner": options.remote_learner or None, "--ticks": options.ticks,
           "--evaluation-episodes": options.evaluation_episodes}  # fmt: skip
    if given := [name for name, value in odd.items() if value is not None]:
        raise ValueError(f"{given[0]} does not go with --from-bag: nothing is collected; leave it out")
    bags = [Bag(path) for path in options.from_bag]
    settings = shared.load_text(bags[0].about["config"], str(bags[0].path), options)
    continuous = bool(bags[0].about["continuous"]) if options.actions is None else options.actions == "continuous"
    for bag in bags:
        bag.check(settings, continuous)
    seed = options.seed or 0
    run = bringup.create_run(options.runs_dir, settings, kind="offline", continuous=continuous, seed=seed)
    try:
        learn(run, settings, bags)
    except ValueError:
        shutil.rmtree(run.folder)
        raise
    print(f"policy {shown(run.model)}; next: safe-support-ql evaluate {shown(run.folder)}")
    return 0


def learn(run: Run, settings: Config, bags: list[Bag]) -> None:
    """Stage one and two, as the learner node does them. Raises ValueError if a bag is damaged, or shows nothing."""
    from safe_support_ql.learning.export import publish_policy
    from safe_support_ql.learning.ingest import collected, learn_from, problem_spec
    from safe_support_ql.learning.trainer import Trainer
    from safe_support_ql.nodes.bags import Rewards

    robot = settings.robot
    trainer = Trainer(settings.learner.seeded(run.seed), problem_spec(robot, run.continuous))
    rewards, refused = Rewards(), dict[str, int]()
    for bag in bags:
        begun = True
        for records in bag.records(robot, rewards, refused):
            records["first"][0] |= begun  # nothing leads from one bag into the next
            begun = False
            learn_from(trainer, collected(records), robot, settings.behavior)
            print(f"\r{trainer.replay.appended} decisions, {trainer.updates} updates", end="", file=sys.stderr)
    print(file=sys.stderr)
    for why, count in refused.items():
        print(f"{count} messages refused: {why}")
    print(
        f"{rewards.computed} rewards by what was measured, {rewards.differing} of them other than in the run; "
        f"{rewards.unmeasured} transitions without sensor messages are left out"
    )
    if not len(trainer.replay):
        raise ValueError(f"{bags[0].path}: shows no transition of a collection, so nothing can be learnt from it")
    publish_policy(run.model, trainer, robot, run.continuous, settings.safety_hash)


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
             "--profile": options.profile, "--device": options.device, "--mode": options.mode,
             "--from-bag": options.from_bag, "--unstamped-cmd": options.unstamped_cmd or None,
             "--teleop": options.teleop or None, "--remote-learner": options.remote_learner or None}  # fmt: skip
    given = [name for name, value in fixed.items() if value is not None]
    given += [f"--set {text}" for text in options.set if not text.startswith("run.")]
    if given:
        raise ValueError(f"{given[0]} cannot be changed with --resume; the run keeps {options.resume}/config.yaml")


def with_reference(run: Run, settings: Config, status: int) -> int:
    """Add the reference's row to a summary without one. The reference needs the map, so it plays without ROS."""
    from safe_support_ql.recording import summary

    episodes = settings.run.evaluation_episodes
    if status != 0 or run.on_hardware or not episodes or not (run.folder / SUMMARY).exists():
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
