"""The command line with real nodes over real DDS: a run, Ctrl-C, resume, and what happens when a process is killed."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState, LaserScan

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.injection import MALFORMED
from safe_support_ql.recording.ledger import read_ledger
from safe_support_ql.recording.verification import verify

ROOT = str(Path(__file__).resolve().parents[2])
CLI = [sys.executable, "-m", "safe_support_ql.cli"]
# Episodes of 5 s, so that a short run has several, and a learner that is done at once.
SHORT = ["--set", "parameters.episode_s=5.0", "--set", "learner.extraction_updates=100", "--set", "learner.hidden=32"]


class Command:
    """A command line at work, its output in a file."""

    def __init__(self, folder: Path, env: dict[str, str], *arguments: str) -> None:
        self.output = folder / "output.txt"
        self.runs = folder / "runs"
        with open(self.output, "ab") as file:
            self.process = subprocess.Popen([*CLI, *arguments], stdout=file, stderr=file, env=env, cwd=folder)

    def text(self) -> str:
        return self.output.read_text()

    def folder(self) -> Path:
        """The one run there is."""
        (folder,) = self.runs.iterdir()
        return folder

    def ticks(self, phase: str = "collection") -> int:
        """Control ticks of `phase` in the ledger."""
        path = self.folder() / "ledger.jsonl" if self.runs.exists() and any(self.runs.iterdir()) else Path("nowhere")
        if not path.exists():
            return 0
        events = [json.loads(text) for text in path.read_bytes().split(b"\n")[:-1]]
        return max((e["control_ticks"] for e in events if e["event"] == "counters" and e["phase"] == phase), default=0)

    def nodes(self) -> dict[str, psutil.Process]:
        """The children, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            words = [word for word in child.cmdline() if word.startswith("safe_support_ql.nodes.")]
            if words:
                found[words[0].rpartition(".")[2]] = child
        return found

    def wait(self, seconds: float = 150.0) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def start(ros_domain, tmp_path: Path) -> Iterator[Callable[..., Command]]:  # type: ignore[no-untyped-def]
    started: list[Command] = []

    def make(*arguments: str) -> Command:
        # The domain is the command line's own: that it finds one is part of what is tested.
        env = {name: value for name, value in ros_domain.env.items() if not name.startswith(("ROS_", "FAST"))}
        started.append(Command(tmp_path, env | {"PYTHONPATH": ROOT}, *arguments))
        return started[-1]

    yield make
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


def until(condition: Callable[[], bool], command: Command, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert command.process.poll() is None, command.text()
        assert time.monotonic() < end, command.text()
        time.sleep(0.1)


def accounted(folder: Path, killed: bool = False) -> None:
    """`killed`: a recorder that dies has not listed the gaps since its last confirmation; whoever resumes it does."""
    report = verify(folder, "diff_drive", 0, True)
    assert (killed or not report.missing) and not report.problems and not report.visits
    assert report.summary["unsafe_visits"] == 0


def test_a_run_learns_evaluates_and_survives_a_killed_learner(start: Callable[..., Command]) -> None:
    run = start("train", "--ticks", "800", "--evaluation-episodes", "2", *SHORT)
    until(lambda: run.ticks() > 0, run)
    run.nodes()["learner"].kill()
    assert run.wait() == 0, run.text()
    text, folder = run.text(), run.folder()
    assert "learner died (killed by SIGKILL); started again" in text
    assert "extracted policy" in text and "behavior policy" in text

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["phases"]["collection"]["control_ticks"] >= 800
    assert summary["control_ticks"] >= 800 and summary["physics_steps"] == 24 * summary["control_ticks"]
    assert summary["unsafe_visits"] == 0 and summary["empty_support_fraction"] < 0.01
    assert sum(summary["verdicts"].values()) == pytest.approx(1.0)
    assert {"robot", "seed", "interventions", "ticks_per_s", "wall_s", "unsafe_rate_upper95_per_hour"} <= set(summary)
    for name in ("behavior", "policy"):
        row = summary["evaluation"][name]
        assert row["episodes"] == 2 and row["unsafe_visits"] == 0 and row["first_seed"] == 900_000_000
    for name in ("config.yaml", "checkpoint.pt", "policy.onnx", "policy.json", "journal.bin", "logs/learner.log"):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "tensorboard").iterdir())
    accounted(folder)

    def ledger(folder: Path, *more: str) -> tuple[int, str]:
        run = subprocess.run([*CLI, "ledger", str(folder), *more], capture_output=True, text=True, cwd=ROOT)
        return run.returncode, run.stdout + run.stderr

    (head,) = re.findall(r"^ledger head: ([0-9a-f]{64})$", text, re.MULTILINE)  # printed at the end of the run
    manifest = json.loads((folder / "policy.json").read_text())
    hashes = [event["hash"] for event in read_ledger(folder / "ledger.jsonl")]
    assert hashes[-1] == head == summary["ledger_head"] and manifest["training"]["ledger_head"] in hashes[:-1]
    status, text = ledger(folder, "--head", head)
    assert status == 0 and "collection" in text and "certified_band" in text
    assert "policy.json proves the first" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 80
    damaged = folder.with_name("damaged")
    shutil.copytree(folder, damaged)
    with open(damaged / "journal.bin", "r+b") as file:
        file.truncate((damaged / "journal.bin").stat().st_size - 100)
    status, text = ledger(damaged)
    assert status == 1 and "its end was cut off, or lost with the power" in text and "MISSING" in text
    shutil.rmtree(damaged)


def test_ctrl_c_keeps_everything_and_the_run_resumes(start: Callable[..., Command]) -> None:
    run = start("train", "--ticks", "500", "--evaluation-episodes", "1", *SHORT)
    until(lambda: run.ticks() > 0, run)
    run.process.send_signal(signal.SIGINT)
    assert run.wait(40) == 130, run.text()
    folder = run.folder()
    assert "to continue: " in run.text() and "safe-support-ql train --resume runs/" in run.text()
    assert (folder / "checkpoint.pt").exists() or run.ticks() < 50
    before = run.ticks()
    assert 0 < before < 500
    accounted(folder)

    again = start("train", "--resume", str(folder))
    assert again.wait() == 0, again.text()
    summary = json.loads((folder / "summary.json").read_text())
    assert 500 <= summary["phases"]["collection"]["control_ticks"] <= 501 + before
    assert summary["evaluation"]["policy"]["episodes"] == 1
    accounted(folder)

    # Nothing is left to do: it says so and evaluates nothing twice.
    third = start("train", "--resume", str(folder))
    assert third.wait() == 0, third.text()
    assert "this run is complete" in third.text()
    assert json.loads((folder / "summary.json").read_text())["evaluation"]["policy"]["episodes"] == 1


@pytest.mark.parametrize("victim", ["recorder", "safety_monitor"])
def test_the_death_of_a_node_stops_the_run_and_is_named(start: Callable[..., Command], victim: str) -> None:
    run = start("train", "--ticks", "50000", *SHORT)
    until(lambda: run.ticks() > 0, run)
    nodes = run.nodes()
    nodes[victim].kill()
    assert run.wait(40) == 3, run.text()
    assert f"error: {victim} died (killed by SIGKILL)" in run.text() and "--resume" in run.text()
    assert not [name for name, node in nodes.items() if node.is_running() and node.status() != psutil.STATUS_ZOMBIE]
    accounted(run.folder(), killed=victim == "recorder")


def test_no_node_outlives_a_killed_command_line(start: Callable[..., Command]) -> None:
    run = start("train", "--ticks", "50000", *SHORT)
    until(lambda: run.ticks() > 0, run)
    nodes = run.nodes()
    assert len(nodes) == 6
    run.process.kill()
    gone, alive = psutil.wait_procs(list(nodes.values()), timeout=20)
    assert not alive
    accounted(run.folder())


@pytest.mark.parametrize("policy", ["behavior", "none"])
def test_simulate_drives_in_real_time(start: Callable[..., Command], policy: str) -> None:
    run = start("simulate", "--policy", policy, "--episodes", "1", "--set", "parameters.episode_s=4.0")
    assert run.wait(90) == 0, run.text()
    summary = json.loads((run.folder() / "summary.json").read_text())
    assert summary["phases"]["simulate"]["control_ticks"] >= 35 and summary["unsafe_visits"] == 0
    if policy == "none":
        assert summary["interventions"] == 0  # nothing was asked for


def test_continuous_actions_from_training_to_the_report(start: Callable[..., Command]) -> None:
    arguments = ("--robot", "cart_pole", "--actions", "continuous", "--ticks", "1500", "--evaluation-episodes", "1")
    run = start("train", *arguments, *SHORT)
    assert run.wait() == 0, run.text()
    report = verify(run.folder(), "cart_pole", 0, False)
    assert not report.missing and not report.problems and report.summary["unsafe_visits"] == 0
    # Both play the exported policy over its own candidates, of which there are more than discrete ones.
    for command in (["report"], ["evaluate", "--episodes", "1", "--workers", "1"]):
        done = subprocess.run([*CLI, *command, str(run.folder())], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    assert (run.folder() / "report.png").stat().st_size > 0


def test_another_monitor_in_a_chosen_domain_is_refused(ros_domain, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    env = ros_domain.env | {"PYTHONPATH": ROOT}
    other = subprocess.Popen([sys.executable, "-m", "safe_support_ql.nodes.safety_monitor"], env=env)
    try:
        command = [*CLI, "train", *SHORT]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    finally:
        other.kill()
        other.wait()
    assert done.returncode == 2
    (said,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert "another safety_monitor is active in ROS domain" in said and "unset ROS_DOMAIN_ID" in said
    assert not list((tmp_path / "runs").iterdir())


NONSENSE: dict[str, Any] = {  # what every node hears, and no monitor or policy can use
    **MALFORMED,
    topics.REQUEST: JointState(name=["id"], position=[math.nan]),
    "odom": Odometry(),
    "scan": LaserScan(ranges=[math.nan]),
    "goal_pose": PoseStamped(),
}


def test_malformed_messages_on_every_topic_end_no_run(start: Callable[..., Command], ros_domain) -> None:
    """Each is refused by whoever hears it, counted in /diagnostics, and named; the run ends with 0 and no hole."""
    run = start("train", "--ticks", "600", "--evaluation-episodes", "1", *SHORT)
    until(lambda: run.ticks() > 0, run)
    domain = int(run.nodes()["recorder"].environ()["ROS_DOMAIN_ID"])
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("stranger", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    counts: dict[str, dict[str, int]] = {}

    def heard(message: DiagnosticArray) -> None:
        name, _, what = message.status[0].name.partition(": ")
        if what == "refused messages":
            counts[name] = {item.key: int(item.value) for item in message.status[0].values}

    node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, heard, topics.CHAIN)
    quality = {topics.GATE_STATE: topics.LATCHED}
    outputs = [
        (node.create_publisher(type(message), topic, quality.get(topic, topics.CHAIN)), message)
        for topic, message in NONSENSE.items()
    ]
    try:
        while run.process.poll() is None:
            for output, message in outputs:
                output.publish(message)
            spun = time.monotonic()
            while time.monotonic() - spun < 0.05:
                executor.spin_once(timeout_sec=0.01)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    assert run.wait() == 0, run.text()
    assert set(counts["safety_monitor"]) >= {"episode", "request", "recorder/heartbeat", "odom", "scan", "goal_pose"}
    assert set(counts["recorder"]) == {"candidates", "decision", "outcome"}
    assert set(counts["simulator"]) == {"decision", "episode_ack"}
    assert set(counts["behavior_policy"]) == {"candidates"}
    assert set(counts["inference"]) == {"candidates", "decision", "outcome"}
    for topic in ("outcome", "learner/status", "gate_state"):
        assert f"{topic} refused (1 so far): {topic}: " in run.text(), "the conductor says so"
    assert "unsafe visits" in run.text() and "the monitor failed" not in run.text()
    accounted(run.folder())
