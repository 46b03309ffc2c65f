"""The command line: safe-support-ql train | simulate | ledger | evaluate | report | faults | falsify | calibrate.

One function a subcommand, `add_<name>` declares its options. Heavy imports stay inside the functions, so that --help
comes at once. Exit status: 0 done without an unsafe visit, 1 with one (calibrate: or a margin too small), 2 bad input,
3 a fault (it says how to go on), 130 Ctrl-C; faults: 1 where one was not answered as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from safe_support_ql import bringup
    from safe_support_ql.bringup import Run
    from safe_support_ql.config import Config
    from safe_support_ql.summary import LedgerReport, Progress

BAD_INPUT, FAULT, INTERRUPTED = 2, 3, 130
LOOK_S = 2.0  # for another safety_monitor, in a domain that the user chose


class Parser(argparse.ArgumentParser):
    """One line per mistake."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(prog="safe-support-ql", description="Safe-Support Q-Learning behind a certified gate.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    adders = (add_train, add_simulate, add_ledger, add_evaluate, add_report, add_faults, add_falsify, add_calibrate)
    for add in adders:
        add(commands)
    options = parser.parse_args(arguments)
    try:
        status = options.run(options)
    except ValueError as error:  # bad input, wherever it was noticed
        print(f"error: {error}", file=sys.stderr)
        status = BAD_INPUT
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


# --- train -----------------------------------------------------------------------------------------------------------


def add_train(commands: Any) -> None:
    """Options of `train`."""
    parser = commands.add_parser("train", help="collect over ROS 2, learn, extract, evaluate")
    common_options(parser)
    parser.add_argument("--ticks", type=int, help="control ticks to collect (run.ticks)")
    parser.add_argument("--evaluation-episodes", type=int, help="held-out arenas per policy (run.evaluation_episodes)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the learner computes")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run; more --ticks collect more")
    parser.set_defaults(run=train)


def train(options: argparse.Namespace) -> int:
    """Collect, learn, extract, evaluate."""
    from safe_support_ql import bringup

    if options.resume is not None:
        refuse_with_resume(options)
        run, settings, where = bringup.open_run(options.resume)
        if run.kind != "train":
            raise ValueError(f"{run.folder / 'session.json'}: kind is '{run.kind}', only 'train' can be resumed")
        changed = {name: value for name, value in chosen(options).items() if name.startswith("run.")}
        if changed:
            from safe_support_ql import config

            settings = config.load(run.config_file, changed)
        if "run.ticks" in changed and settings.run.ticks < where.ticks:
            raise ValueError(f"--ticks is {settings.run.ticks}, but {where.ticks} are collected; ask for more, or none")
        with sole_user(run):
            bringup.save_run(run, settings)
            return with_reference(run, settings, conduct(run, settings, where))
    settings = load(options)
    from safe_support_ql.summary import Progress

    run = bringup.create_run(
        options.runs_dir, settings, continuous=options.actions == "continuous", seed=options.seed or 0
    )
    with sole_user(run):
        return with_reference(run, settings, conduct(run, settings, Progress(), new=True))


def with_reference(run: Run, settings: Config, status: int) -> int:
    """Add the reference's row to a summary that has none yet: it knows the map, so it plays without ROS."""
    from safe_support_ql import summary

    episodes = settings.run.evaluation_episodes
    if status != 0 or not episodes or not (run.folder / "summary.json").exists():
        return status
    if "reference" not in json.loads((run.folder / "summary.json").read_text())["evaluation"]:
        from safe_support_ql.experiments.evaluate import evaluate, summarise

        results = evaluate(settings, "reference", run.continuous, episodes)
        row = summarise(settings, results)
        summary.add_evaluation(run.folder, "reference", row)
        print(
            f"reference, the same gate without ROS: {row['success_rate']:.0%} of {episodes} episodes, "
            f"mean return {row['mean_return']:.2f}, {row['unsafe_visits']} unsafe visits"
        )
        if row["unsafe_visits"]:
            return 1
    return status


def refuse_with_resume(options: argparse.Namespace) -> None:
    """A resumed run goes on with its own settings; only its length may change."""
    fixed = {"--robot": options.robot, "--actions": options.actions, "--seed": options.seed, "--config": options.config,
             "--device": options.device}  # fmt: skip
    given = [name for name, value in fixed.items() if value is not None]
    given += [f"--set {text}" for text in options.set if not text.startswith("run.")]
    if given:
        raise ValueError(f"{given[0]} cannot be changed with --resume; {options.resume}/config.yaml says what it is")


# --- simulate --------------------------------------------------------------------------------------------------------


def add_simulate(commands: Any) -> None:
    """Options of `simulate`."""
    parser = commands.add_parser("simulate", help="drive with one policy in real time")
    common_options(parser)
    parser.add_argument("--policy", default="behavior", help="behavior, none (the plan only), or a policy.onnx")
    parser.add_argument("--episodes", type=int, default=0, help="stop after this many; 0, the default: until Ctrl-C")
    parser.add_argument("--gui", action="store_true", help="PyBullet's window")
    parser.set_defaults(run=simulate)


def simulate(options: argparse.Namespace) -> int:
    """One policy in real time."""
    from safe_support_ql import bringup
    from safe_support_ql.summary import Progress

    settings = load(options)
    if options.episodes < 0:
        raise ValueError(f"--episodes is {options.episodes}, must be 0 or more")
    policy = options.policy
    if policy not in ("behavior", "none"):
        policy = str(check_model(Path(policy), settings))
    if options.gui:
        check_gui()
    run = bringup.create_run(
        options.runs_dir, settings, kind="simulate", clock="realtime", policy=policy, episodes=options.episodes,
        gui=options.gui, continuous=options.actions == "continuous", seed=options.seed or 0,
    )  # fmt: skip
    with sole_user(run):
        return conduct(run, settings, Progress(), new=True)


def check_model(path: Path, settings: Config) -> Path:
    """Raises ValueError where model or manifest is missing, damaged, or made for something else."""
    from safe_support_ql.deployment.manifest import load_manifest

    if path.suffix != ".onnx" or not path.exists():
        raise ValueError(f"{path}: no such policy; give behavior, none, or the path of a policy.onnx")
    load_manifest(path, robot=settings.robot.name, safety_hash=settings.safety_hash)
    return path.resolve()


def check_gui() -> None:
    """Raises ValueError where there is no display."""
    if not os.environ.get("DISPLAY"):
        raise ValueError("--gui needs a display; DISPLAY is not set")


# --- ledger ----------------------------------------------------------------------------------------------------------


def add_ledger(commands: Any) -> None:
    """Options of `ledger`."""
    parser = commands.add_parser("ledger", help="verify and summarise what a run recorded")
    parser.add_argument("folder", type=Path, metavar="RUN", help="runs/<robot>-<time>")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=ledger)


def ledger(options: argparse.Namespace) -> int:
    """Counts per phase with their bounds; 1 where a visit happened or a number is missing."""
    from safe_support_ql import bringup, summary

    folder = options.folder.resolve()
    try:
        run = bringup.Run(folder, **json.loads((folder / "session.json").read_text()))
        from safe_support_ql import config

        robot = config.load(run.config_file).robot
        report = summary.verify(folder, robot.name, run.seed, robot.must_reach)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); give the folder of a run") from None
    except TypeError as error:
        raise ValueError(f"{folder / 'session.json'}: is damaged ({error})") from None
    if options.json:
        print(json.dumps(report.summary | {"missing": report.missing, "damaged_bytes": report.damaged_bytes}, indent=2))
    else:
        if run.kind == "faults":
            print("a fault campaign: inputs were broken and nodes killed on purpose\n")
        print_ledger(report, folder)
    return 1 if report.summary["unsafe_visits"] or report.missing or report.damaged_bytes else 0


def print_ledger(report: LedgerReport, folder: Path) -> None:
    """The report in words."""
    from safe_support_ql import panel

    clock = {"lockstep": "lock-step: nothing is said about age and delay", "realtime": "real time"}
    print(f"{folder / 'ledger.jsonl'}: {report.events} events, numbers without a hole")
    print(f"{folder / 'journal.bin'}: {report.journalled} records, checksums right")
    if report.damaged_bytes:
        print(f"  the last {report.damaged_bytes} bytes are torn or damaged")
    for first, last, why in report.gaps:
        print(f"  decisions {first} to {last} are listed as not journalled: {why}")
    for first, last in report.missing:
        print(f"  decisions {first} to {last} are MISSING: neither journalled nor listed")
    if not report.ended:
        print("  the recorder did not close it: it was killed, or is still writing")
    print(f"\n{'phase':<21}{'ticks':>8}{'hours':>7}{'unsafe':>7}{'per hour <':>11}{'interv.':>8}{'empty':>7}")
    for name, phase in report.summary["phases"].items():
        rate = phase["unsafe_rate_upper95_per_hour"]
        bound = "-" if rate is None else f"{rate:.2f}"
        print(
            f"{name:<21}{phase['control_ticks']:>8}{phase['simulated_hours']:>7.2f}{phase['unsafe_visits']:>7}"
            f"{bound:>11}{phase['interventions']:>8}{phase['empty_supports']:>7}"
        )
    print("'per hour <': one-sided 95 % Poisson bound on unsafe visits per simulated hour\n")
    print(f"{'phase':<21}{'episodes':>9}{'with a visit':>14}{'share <':>10}")
    for name, phase in report.summary["phases"].items():
        share = f"{phase['unsafe_episode_upper95']:.2g}" if phase["episodes"] else "-"
        print(f"{name:<21}{phase['episodes']:>9}{phase['unsafe_episodes']:>14}{share:>10}")
    print("'share <': one-sided 95 % Clopper-Pearson bound on the share of such episodes")
    print(f"clock: {clock.get(report.summary['clock'], report.summary['clock'] or 'not recorded')}\n")
    print(f"{'verdicts':<20}" + "".join(f"{name:>15}" for name in report.summary["verdicts"]))
    for name, phase in report.summary["phases"].items():
        print(f"{name:<20}" + "".join(f"{count:>15}" for count in phase["verdicts"].values()))
    print()
    if report.summary["evaluation"]:
        print(panel.table(report.summary))
    for text in report.latches:
        print(f"latch: {text}")
    for text in report.visits:
        print(f"UNSAFE VISIT: {text}")


# --- evaluate, report ------------------------------------------------------------------------------------------------


def finished(folder: Path) -> Path:
    """The folder of a run that has a policy. Raises ValueError saying what it is instead."""
    if not (folder / "session.json").exists():
        raise ValueError(f"{folder}: is no folder of a run; give runs/<robot>-<time>")
    if not (folder / "policy.onnx").exists():
        raise ValueError(f"{folder}: holds no policy: it only simulated, or its training has yet to be resumed")
    return folder.resolve()


def add_evaluate(commands: Any) -> None:
    """Options of `evaluate`."""
    parser = commands.add_parser("evaluate", help="held-out episodes of a run's policies, without ROS")
    parser.add_argument("folder", type=Path, metavar="RUN", help="runs/<robot>-<time>")
    parser.add_argument("--episodes", type=int, default=200, help="default 200, the same ones for every policy")
    parser.add_argument("--workers", type=int, default=2, help="processes, default 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.set_defaults(run=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Behavior policy, extracted policy and reference from the same starts; 1 where a visit happened."""
    from safe_support_ql import bringup, config
    from safe_support_ql.experiments import evaluate as evaluation

    if options.episodes < 1 or options.workers < 1:
        raise ValueError("--episodes and --workers must be 1 or more")
    if options.json is not None:
        writable(options.json)
    folder = finished(options.folder)
    try:
        run = bringup.Run(folder, **json.loads((folder / "session.json").read_text()))
    except (OSError, TypeError) as error:
        raise ValueError(f"{folder / 'session.json'}: is damaged ({error})") from None
    settings = config.load(run.config_file)
    model = check_model(folder / "policy.onnx", settings)
    rows = {}
    print(f"{options.episodes} held-out episodes of each policy; 200 take some minutes", file=sys.stderr, flush=True)
    heads = f"{'success':>8}{'95 % interval':>16}{'return':>9}{'unsafe':>7}{'interv.':>8}{'empty':>8}{'score':>7}"
    print(f"{'policy':11}{heads}")
    for name, source in (("behavior", "behavior"), ("reference", "reference"), ("policy", str(model))):
        results = evaluation.evaluate(settings, source, run.continuous, options.episodes, options.workers)
        row = rows[name] = evaluation.summarise(settings, results)
        row["score"] = evaluation.score(rows)
        interval = "{:.3f} .. {:.3f}".format(*row["success_interval95"])
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        print(
            f"{name:11}{row['success_rate']:8.3f}{interval:>16}{row['mean_return']:9.2f}{row['unsafe_visits']:7}"
            f"{row['intervention_rate']:8.4f}{row['empty_support_fraction']:8.4f}{score:>7}",
            flush=True,
        )
    print("score = (J - J_behavior) / (J_reference - J_behavior), J the mean undiscounted return")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    return 1 if any(row["unsafe_visits"] for row in rows.values()) else 0


def writable(path: Path) -> None:
    """Raises ValueError where --json cannot be written: looked at before minutes of work, not after."""
    there = path.resolve()
    if there.is_dir() or not os.access(there if there.exists() else there.parent, os.W_OK):
        raise ValueError(f"--json {path}: cannot be written; give a file in a folder that exists")


def add_report(commands: Any) -> None:
    """Options of `report`."""
    parser = commands.add_parser("report", help="draw a finished run as report.png")
    parser.add_argument("folder", type=Path, metavar="RUN", help="runs/<robot>-<time>")
    parser.set_defaults(run=report)


def report(options: argparse.Namespace) -> int:
    """Draw."""
    from safe_support_ql.experiments.report import draw

    try:
        print(draw(finished(options.folder)))
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); finish the run first") from None
    return 0


# --- faults ----------------------------------------------------------------------------------------------------------


def add_faults(commands: Any) -> None:
    """Options of `faults`."""
    parser = commands.add_parser("faults", help="put faults onto the running graph, in real time, and judge the gate")
    parser.add_argument("--robot", default="diff_drive", help="a robot of this package; default diff_drive")
    parser.add_argument("--phase", choices=("collection", "deployment"), help="default: both, one after the other")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="faults whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="say which faults there are, and do nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where runs go")
    parser.set_defaults(run=faults)


def faults(options: argparse.Namespace) -> int:
    """The campaign; 1 where a fault was not answered as it must be."""
    from safe_support_ql import config
    from safe_support_ql.experiments import faults as catalogue

    # No episode may end by its time limit in the middle of a fault.
    settings = config.load_robot(options.robot, {"parameters.episode_s": 600.0})
    phases = [options.phase] if options.phase else list(catalogue.PHASES)
    chosen = {phase: catalogue.catalogue(settings, phase) for phase in phases}
    if options.list:
        for phase in phases:
            print(
                "\n".join(catalogue.describe(fault, phase) for fault in catalogue.select(chosen[phase], options.only))
            )
        return 0
    if options.json is not None:
        writable(options.json)
    everything = [fault for phase in phases for fault in chosen[phase]]
    catalogue.select(everything, options.only)
    results: list[catalogue.Result] = []

    def show(result: catalogue.Result) -> None:
        results.append(result)
        print(catalogue.row(result), flush=True)

    try:
        for phase in phases:
            picked = [f for f in chosen[phase] if not options.only or any(text in f.name for text in options.only)]
            if picked:
                print(f"{options.robot}, {phase}: {len(picked)} faults", flush=True)
                play(settings, phase, picked, options.runs_dir, show)
    finally:  # what was seen until a Ctrl-C, too
        if options.json is not None:
            options.json.write_text(json.dumps(catalogue.as_json(results), indent=2))
    print(f"\n{catalogue.closing(results, everything)}")
    return 0 if all(result.passed for result in results) else 1


def play(settings: Config, phase: str, picked: list[Any], runs_dir: Path, show: Callable[[Any], None]) -> None:
    """One phase of the campaign on a graph of its own."""
    import concurrent.futures
    import multiprocessing

    from safe_support_ql import bringup, panel
    from safe_support_ql.experiments import faults as catalogue

    run = bringup.create_run(runs_dir, settings, kind="faults", clock="realtime")
    if phase == "deployment":
        run = bringup.Run(run.folder, kind="faults", clock="realtime", policy=str(run.folder / "policy.onnx"))
        bringup.save_run(run, settings)
        print("training a small policy to deploy", file=sys.stderr, flush=True)
        # In a process of its own: torch stays out of the one that relays messages.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(catalogue.tiny_policy, settings.raw, run.policy).result()
    with sole_user(run), own_graph(run) as processes:
        from safe_support_ql.nodes import conductor, fault_campaign

        print(
            f"run {panel.shown(run.folder)}, ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}\n{catalogue.HEAD}", flush=True
        )
        campaign = fault_campaign.Campaign(run, settings, phase, processes)
        heed_signals(campaign, processes)
        if campaign.no_priority:
            print(
                f"no real-time priority ({campaign.no_priority}): a busy machine may spoil reactions", file=sys.stderr
            )
        try:
            fault_campaign.conduct(campaign, picked, show)
        except conductor.Interrupted:
            raise KeyboardInterrupt from None
        except (conductor.Fault, conductor.Died) as error:
            print(f"error: the campaign cannot go on: {error}; see {panel.shown(run.logs)}", file=sys.stderr)
            sys.exit(FAULT)
        finally:
            campaign.close()


# --- falsify ---------------------------------------------------------------------------------------------------------


def add_falsify(commands: Any) -> None:
    """Options of `falsify`."""
    parser = commands.add_parser("falsify", help="search for requests and disturbances that make the gate unsafe")
    parser.add_argument("--robot", default="diff_drive", help="a robot of this package; default diff_drive")
    parser.add_argument("--steps", type=int, help="counted steps per world; default 1000000, 200000 per mismatch")
    parser.add_argument("--mismatch", metavar="NAME", help="this world alone: nominal, or one the robot declares")
    parser.add_argument("--out", type=Path, metavar="DIR", help="shards and falsify.json; default runs/falsify-ROBOT")
    parser.add_argument("--workers", type=int, default=2, help="processes, default 2")
    parser.add_argument("--margins", action="store_true", help="delete one margin at a time instead")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    parser.set_defaults(run=falsify)


def falsify(options: argparse.Namespace) -> int:
    """A resumable campaign, or the table of deleted margins; 1 where a visit happened or a deleted margin cost none."""
    from safe_support_ql import config
    from safe_support_ql.experiments import falsify as search
    from safe_support_ql.experiments import trials, worlds

    settings = config.load_robot(options.robot, chosen(options))
    folder = options.out or Path("runs") / f"falsify-{options.robot}"
    if options.workers < 1 or (options.steps is not None and options.steps < 1):
        raise ValueError("--steps and --workers must be 1 or more")
    names = list(worlds.names(settings.robot))
    if options.mismatch is not None:
        worlds.in_world(settings.robot, options.mismatch)  # refuses an unknown name
        names = [options.mismatch]
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error.strerror})") from None
    if options.margins:
        from safe_support_ql.experiments import margins

        rows = margins.run(settings.robot, lambda text: print(text, file=sys.stderr, flush=True))
        print(margins.table(rows))
        (folder / "margins.json").write_text(json.dumps(rows, indent=2))
        return 0 if all(row["shown"] is not False for row in rows) else 1
    shards = search.plan(settings.raw, names, options.steps)
    results = search.campaign(shards, folder / "shards", options.workers, lambda text: print(text, flush=True))
    rows = search.summarise(results)
    (folder / "falsify.json").write_text(json.dumps({"robot": options.robot, "edges": search.EDGES, "worlds": rows}))
    print(f"\n{search.table(rows)}\n\n{trials.bounds(settings.robot, results)}")
    for row in rows:
        for text in row["visits"]:
            print(f"UNSAFE VISIT in world {row['mismatch']}: {text}")
    if objection := trials.objection(results):
        print(objection)
    return 1 if objection or any(row["unsafe_visits"] for row in rows) else 0


# --- calibrate -------------------------------------------------------------------------------------------------------


def add_calibrate(commands: Any) -> None:
    """Options of `calibrate`."""
    parser = commands.add_parser("calibrate", help="the margins that recorded backup manoeuvres need")
    parser.add_argument("--robot", help="a robot of this package; default diff_drive")
    parser.add_argument("--episodes", type=int, default=200, help="manoeuvres, one an episode; default 200")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a configuration instead of the robot's own")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    parser.set_defaults(run=calibrate, seed=None)


def calibrate(options: argparse.Namespace) -> int:
    """Shipped margins beside needed ones; 1 where one is too small or a visit happened."""
    from safe_support_ql.experiments import calibrate as calibration

    result = calibration.calibrate(load(options), options.episodes)
    print(calibration.table(result))
    return 1 if result.too_small or result.unsafe_visits else 0


# --- shared ----------------------------------------------------------------------------------------------------------


def common_options(parser: argparse.ArgumentParser) -> None:
    """What train and simulate share."""
    parser.add_argument("--robot", help="a robot of this package; default diff_drive")
    parser.add_argument("--actions", choices=("discrete", "continuous"), help="default discrete")
    parser.add_argument("--seed", type=int, help="seed of arenas, draws and networks; default 0")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where runs go")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a configuration instead of the robot's own")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """'section.key' -> value, of --set and of the options that stand for one. Raises ValueError."""
    values = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: expected section.key=value")
        try:
            values[name.strip()] = json.loads(value)  # numbers, true, lists
        except ValueError:
            values[name.strip()] = value
    named = {"ticks": "run.ticks", "evaluation_episodes": "run.evaluation_episodes", "device": "learner.device"}
    for option, key in named.items():
        if getattr(options, option, None) is not None:
            values[key] = getattr(options, option)
    return values


def load(options: argparse.Namespace) -> Config:
    """The configuration that the options ask for. Raises ValueError."""
    from safe_support_ql import config

    if options.seed is not None and not 0 <= options.seed < 800:
        # Arenas of training take the seeds from seed * 1 000 000 on, the held-out ones begin at 900 000 000.
        raise ValueError(f"--seed is {options.seed}, must lie in [0, 799]")
    if options.config is None:
        return config.load_robot(options.robot or "diff_drive", chosen(options))
    settings = config.load(options.config, chosen(options))
    if options.robot is not None and options.robot != settings.robot.name:
        raise ValueError(f"{options.config}: robot is '{settings.robot.name}', --robot says '{options.robot}'")
    return settings


@contextlib.contextmanager
def sole_user(run: Run) -> Iterator[None]:
    """Raises ValueError where another process works in the run's folder."""
    import filelock

    lock = filelock.FileLock(run.folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"{run.folder}: another process works in it; stop that one first") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def own_graph(run: Run) -> Iterator[bringup.Processes]:
    """A ROS domain of the run's own, unless the user chose one, and its nodes, which are stopped on every way out."""
    from safe_support_ql import bringup

    domain, lock = (None, None) if "ROS_DOMAIN_ID" in os.environ else bringup.claim_domain()
    wanted, unwanted = bringup.ros_environment(os.environ, domain)
    before = dict(os.environ)
    os.environ.update(wanted)
    for name in unwanted:
        del os.environ[name]
    from safe_support_ql.nodes import conductor as conducting

    processes = bringup.Processes(run.logs)
    conducting.join_graph()
    try:
        if domain is None and (others := conducting.other_monitors(LOOK_S)):
            raise ValueError(
                f"another safety_monitor is active in ROS domain {os.environ['ROS_DOMAIN_ID']}: {', '.join(others)}; "
                "stop it, or unset ROS_DOMAIN_ID to get a domain of its own"
            )
        yield processes
    finally:
        processes.stop(bringup.STOP_ORDER)
        conducting.leave_graph()
        if lock is not None:
            lock.release()
        os.environ.clear()
        os.environ.update(before)


def heed_signals(conductor: Any, processes: bringup.Processes) -> None:
    """Ctrl-C asks the conductor to stop; for the second time it kills."""
    from safe_support_ql import bringup

    def interrupt(number: int, frame: FrameType | None) -> None:
        if conductor.interrupted:
            processes.kill()
        conductor.interrupted = True

    for number in bringup.stop_signals():
        signal.signal(number, interrupt)


def conduct(run: Run, settings: Config, where: Progress, new: bool = False) -> int:
    """Start the nodes, conduct the run, stop them. A new run that is refused leaves no folder."""
    from safe_support_ql import panel

    screen: panel.Screen | None = None
    status = 3
    try:
        with own_graph(run) as processes:
            from safe_support_ql.nodes import conductor as conducting

            print(f"run {panel.shown(run.folder)}, ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}", flush=True)
            screen = panel.make(sys.stdout.isatty())
            conductor = conducting.Conductor(run, settings, where, processes, screen)
            heed_signals(conductor, processes)
            status = conducting.conduct(conductor)
            conductor.close()
    except ValueError:
        status = BAD_INPUT
        raise
    finally:
        if screen is not None:
            screen.close()
        if new and status == BAD_INPUT:
            shutil.rmtree(run.folder, ignore_errors=True)  # nothing half-written
    return status


if __name__ == "__main__":
    main()
