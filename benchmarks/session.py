"""A session on a robot's stand-in, from the first look to a policy that drives: what docs/robot.md says, step by step.

    python benchmarks/session.py --out session                  # 30 minutes of learning, 50 goals for the policy
    python benchmarks/session.py --out session --launch --page docs/session.md   # with ros2 launch

Everything is in real time, by the commands that a person would type, beside a process that knows only a robot's own
topics. A stage whose result is in the folder is not run again. A gate that a stalled computer latched is reset, as a
person at the robot would do, and counted. Writes a page from the results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy import stats
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql import config as configuration
from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound
from safe_support_ql.recording.files import LEDGER, write_atomically
from safe_support_ql.recording.ledger import read_ledger
from safe_support_ql.simulation.arena import Arena, make_arena

ROOM = 3  # seed of the stand-in
PATIENCE_S = 3.0  # of the person at the robot, with a latched gate


class Person:
    """Looks at `gate_state`, and resets a latched gate."""

    def __init__(self) -> None:
        rclpy.init()
        node = self._node = rclpy.create_node("person")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.causes: list[str] = []
        self.drives = threading.Event()
        self._since = float("inf")
        node.create_subscription(String, "gate_state", self._on_state, latched)
        self._reset = node.create_client(Trigger, "safety_monitor/reset")
        node.create_timer(0.5, self._look)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        threading.Thread(target=self._executor.spin, daemon=True).start()

    def _on_state(self, message: Any) -> None:
        if message.data.startswith("latched"):
            self.causes.append(message.data)
            self._since = time.monotonic()
        else:
            self._since = float("inf")
        if message.data.startswith("nominal"):
            self.drives.set()

    def _look(self) -> None:
        if time.monotonic() - self._since > PATIENCE_S and self._reset.service_is_ready():
            self._reset.call_async(Trigger.Request())


class Session:
    """The folder of a session, and the commands in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.which = ["--profile", options.profile] if options.profile else []
        path = configuration.profile(options.profile) if options.profile else configuration.default_path("diff_drive")
        limit = {"parameters.episode_s": options.episode, "validation.episodes": options.validated}
        arena = configuration.load(path, limit).robot.world.arena
        assert arena is not None
        self.file = self.out / "robot.yaml"
        configuration.save(configuration.load(path, {**limit, "run.goals": goals(make_arena(arena, ROOM))}), self.file)
        self.typed: list[str] = []
        self.person = Person()

    def start(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with open(self.out / f"{log}.log", "ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, cwd=self.out, start_new_session=True)

    def ours(self, *arguments: str) -> list[str]:
        """A command of the command line."""
        self.typed.append(shlex.join(["safe-support-ql", *arguments]).replace(str(self.out), "."))
        return [sys.executable, "-m", "safe_support_ql.cli", *arguments]

    def launched(self, name: str, model: str = "", **given: Any) -> list[str]:
        """`name` by its launch file, or by the command line."""
        if not self.options.launch:
            flags = {f"--{key.replace('_', '-')}": value for key, value in given.items()}
            words = [word for key, value in flags.items() for word in ([key] if value is True else [key, str(value)])]
            return self.ours(name, *([model] if model else []), *words)
        given = ({"model": model} if model else {}) | given
        words = [f"{key}:={str(value).lower() if value is True else value}" for key, value in given.items()]
        command = ["ros2", "launch", "safe_support_ql", f"{name}.launch.py", *words]
        self.typed.append(shlex.join(command).replace(str(self.out), "."))
        return command

    @contextmanager
    def stand_in(self, stage: str) -> Iterator[dict[str, Any]]:
        """A robot; afterwards the dictionary holds what it knows."""
        path, known = self.out / f"truth-{stage}.json", dict[str, Any]()
        robot = ("stand-in", *self.which, "--seed", str(ROOM), "--mismatch", "brakes_weak", "--json", str(path))
        process = self.start(self.ours(*robot), "stand-in")
        try:
            yield known
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        known |= json.loads(path.read_text())

    def run(self, command: Sequence[str], log: str, meanwhile: Callable[[], None] | None = None) -> tuple[int, str]:
        """(exit status, output) of a command; Ctrl-C after `meanwhile`, which begins when the robot drives."""
        path = self.out / f"{log}.log"
        before = path.stat().st_size if path.exists() else 0
        self.person.drives.clear()
        process = self.start(command, log)
        if meanwhile is not None:
            if not self.person.drives.wait(120):
                raise SystemExit(f"{log}: it does not drive; see {path}")
            meanwhile()
            os.killpg(process.pid, signal.SIGINT)
        status = process.wait()
        return status, path.read_bytes()[before:].decode(errors="replace")

    def driven(self, stage: str, command: Sequence[str], meanwhile: Callable[[], None] | None = None) -> dict[str, Any]:
        """A command beside a stand-in: its summary, what the stand-in knows, and what had to be reset."""
        before = len(self.person.causes)
        with self.stand_in(stage) as truth:
            status, said = self.run(command, stage, meanwhile)
        folders = sorted((self.out / stage).iterdir(), key=lambda folder: folder.stat().st_mtime)
        if (meanwhile is None and status not in (0, 1)) or not folders:
            raise SystemExit(f"{stage}: exit status {status}\n{said[-2000:]}")
        return {
            "folder": str(folders[-1]), "status": status, "said": what_counts(said), "typed": self.typed,
            "truth": truth, "latched": self.person.causes[before:],
            "reached": [event["reached"] for event in read_ledger(folders[-1] / LEDGER) if event["event"] == "episode"],
            "ticks": json.loads((folders[-1] / "summary.json").read_text())["control_ticks"],
        }  # fmt: skip

    def told(self, command: Sequence[str], log: str) -> dict[str, Any]:
        status, said = self.run(command, log)
        return {"status": status, "said": what_counts(said), "typed": self.typed}

    @property
    def policy(self) -> Path:
        stage = "again" if self.options.again else "learn"
        return Path(json.loads((self.out / f"{stage}.json").read_text())["folder"]) / "policy.onnx"

    # --- stages ------------------------------------------------------------------------------------------------------

    def doctor(self) -> dict[str, Any]:
        with self.stand_in("doctor"):
            return self.told(self.ours("doctor", "--config", str(self.file)), "doctor")

    def learn(self) -> dict[str, Any]:
        given = {"mode": "hardware", "config": self.file, "ticks": self.options.ticks}
        given["evaluation_episodes"] = self.options.compared
        return self.driven("learn", self.launched("train", **given, runs_dir=self.out / "learn"))

    def again(self) -> dict[str, Any]:
        """Learns from what was recorded with other settings; no robot is there."""
        bag, sets = self.out / "bag", [word for one in self.options.again for word in ("--set", one)]
        self.told(
            self.ours("bag", json.loads((self.out / "learn.json").read_text())["folder"], "--out", str(bag)), "bag"
        )
        command = self.ours("train", "--from-bag", str(bag), *sets, "--runs-dir", str(self.out / "again"))
        result = self.told(command, "again")
        return result | {"folder": str(max((self.out / "again").iterdir(), key=lambda path: path.stat().st_mtime))}

    def validate(self) -> dict[str, Any]:
        return self.told(self.launched("validate", str(self.policy)), "validate")

    def shadow(self) -> dict[str, Any]:
        command = self.launched("deploy", str(self.policy), shadow=True, runs_dir=self.out / "shadow")
        return self.driven("shadow", command, lambda: time.sleep(60))

    def deploy(self) -> dict[str, Any]:
        given = {"episodes": self.options.goals, "runs_dir": self.out / "deploy"}
        return self.driven("deploy", self.launched("deploy", str(self.policy), **given))

    def swap(self) -> dict[str, Any]:
        """A copy of the policy takes over while the robot drives, and a person takes it back."""
        copy = self.out / "copy" / "policy.onnx"
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        for path in self.policy.parent.glob("*"):
            if path.name in ("policy.onnx", "policy.json", "validation.json"):
                shutil.copy(path, copy.parent)
        asked: list[str] = []

        def ask() -> None:
            for arguments in ((str(copy),), ("--back",)):
                time.sleep(20)
                asked.extend(self.run(self.ours("swap", *arguments), "asked")[1].strip().splitlines()[-1:])
            time.sleep(20)

        command = self.launched("deploy", str(self.policy), runs_dir=self.out / "swap")
        result = self.driven("swap", command, ask)
        return result | {"asked": [line.replace(str(self.out), ".") for line in asked]}


STAGES = ("doctor", "learn", "again", "validate", "shadow", "deploy", "swap")


def goals(arena: Arena) -> list[list[float]]:
    """Eight free places of the stand-in's room in the frame of its odometry, each 1 to 2.5 m from the one before."""
    rng = np.random.default_rng(ROOM)
    found = [[0.0, 0.0]]
    while len(found) < 9:
        x, y = rng.uniform(-arena.half_side, arena.half_side, 2)
        near = 1.0 < np.hypot(x - found[-1][0], y - found[-1][1]) < 2.5
        if near and float(arena.clearance(x, y)) > 0.45:
            found.append([round(float(x), 2), round(float(y), 2)])
    return found[1:]


def robot_first(typed: list[str]) -> list[str]:
    """Commands in the order in which they were given: a robot is there before anything drives it."""
    return sorted(typed, key=lambda command: "stand-in" not in command)


def what_counts(said: str) -> list[str]:
    """The lines of the command, under `ros2 launch` of the conductor, without those that tell of progress."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    if any(line.startswith("[INFO] [launch]") for line in lines):
        found = [re.match(r"\[(?:conductor|safe-support-ql)-\d+\] (.*)", line) for line in lines]
        lines = [match[1].rstrip() for match in found if match and match[1].strip()]
    kept, progress = [], False
    for line in lines:
        progress = progress or (" control ticks, " in line and ", seed " not in line)
        if not progress:
            kept.append(line)
        progress = progress and "time left" not in line
    return kept


def page(results: dict[str, Any], command: str, out: Path, note: str) -> str:
    """The page of a session, from the results of its stages; `note` is about its latches."""
    learn, deploy = results["learn"], results["deploy"]
    beta, policy = ((sum(row["reached"]), len(row["reached"])) for row in (learn, deploy))
    table = np.array([[won, of - won] for won, of in (policy, beta)])
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)
    driven = [row for row in results.values() if "truth" in row]
    visits = sum(row["truth"]["unsafe_visits"] for row in driven)
    hours = sum(row["truth"]["seconds"] for row in driven) / 3600

    def rate(row: tuple[int, int]) -> str:
        low, high = proportion_interval(*row)
        return f"{row[0]} of {row[1]} goals [{low:.2f}, {high:.2f}]"

    latched = [cause for row in driven for cause in row["latched"]]
    lines = [
        "# A session on the stand-in",
        "",
        f"Written by `{command}`:",
        "in real time, beside a process with the robot's own topics, its physics off by the mismatch `brakes_weak`.",
        "Goals and time limit are in the `robot.yaml` that it writes first.",
        "",
        f"* Learning: {learn['ticks']} control ticks in {learn['truth']['seconds'] / 60:.0f} minutes.",
        f"* Unsafe visits by the stand-in's ground truth: {visits} in {hours:.2f} hours of all stages, below "
        f"{rate_upper_bound(visits, hours):.2g} per hour at 95 %.",
        f"* Behavior policy, while it collected and after: {rate(beta)}.",
        f"* Extracted policy: {rate(policy)}. One-sided Fisher test: p = {p:.2g}.",
        f"* Latches of the gate that were reset: {len(latched)}.",
        *(f"  * {re.sub(r'; .*', '', cause)}" for cause in latched),
        *([f"  {note}"] if note else []),
    ]
    for stage, row in results.items():
        lines += ["", f"## {stage.capitalize()}", ""]
        for typed in robot_first(row["typed"]):
            lines += textwrap.wrap(f"    $ {typed}", 116, subsequent_indent=" " * 10, break_on_hyphens=False)
        lines.append("")
        lines += [f"    {line.replace(str(out), '.')}"[:118] for line in [*row["said"][-24:], *row.get("asked", [])]]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the stages that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--profile", help="of a base that can be bought; default: the shipped base")
    parser.add_argument("--ticks", type=int, default=18000, help="control ticks of learning")
    parser.add_argument("--goals", type=int, default=50, help="for the policy")
    parser.add_argument("--compared", type=int, default=20, help="goals for the behavior policy after learning")
    parser.add_argument("--validated", type=int, default=50, help="episodes of validation in each world")
    parser.add_argument("--episode", type=float, default=90.0, help="s, time limit of a goal")
    parser.add_argument("--launch", action="store_true", help="by the launch files; needs a ROS with ros2 launch")
    parser.add_argument(
        "--again", metavar="KEY=VALUE", nargs="+", help="learn anew from the record with these settings"
    )
    parser.add_argument("--note", default="", help="why the gate latched, for the page")
    parser.add_argument("--page", type=Path, help="default: session.md in the folder")
    options = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", "77")
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    session = Session(options)
    results: dict[str, Any] = {}
    for stage in STAGES if options.again else [stage for stage in STAGES if stage != "again"]:
        path, session.typed = session.out / f"{stage}.json", []
        if not path.exists():
            print(f"{time.strftime('%T')} {stage}", flush=True)
            made: Callable[[], dict[str, Any]] = getattr(session, stage)
            write_atomically(path, json.dumps(made(), indent=2).encode())
        results[stage] = json.loads(path.read_text())
    given = [word for word in sys.argv[1:] if word not in ("--page", str(options.page), "--note", options.note)]
    text = page(results, " ".join(["python benchmarks/session.py", *given]), session.out, options.note)
    write_atomically(options.page or session.out / "session.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
    os._exit(0)  # do not wait for threads of Fast DDS
