"""Learning on a robot: the command line beside a stand-in, a process that speaks only the robot's own topics."""

from __future__ import annotations

import json
import os
import pty
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
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from safe_support_ql import config
from safe_support_ql.bringup import PACKAGE
from safe_support_ql.deployment import validation
from safe_support_ql.deployment.manifest import PolicyFacts
from safe_support_ql.learning.export import export_policy
from safe_support_ql.learning.ingest import problem_spec
from safe_support_ql.learning.networks import PolicyNetwork, ValueNetwork
from safe_support_ql.nodes import tables, topics
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.recording.verification import verify
from safe_support_ql.safety.candidates import candidate_layout
from safe_support_ql.simulation.drivers import DRIVERS

CLI = [sys.executable, "-m", "safe_support_ql.cli"]
GOALS = "run.goals=[[-2.9, -1.84], [2.11, 0.58], [-2.84, -0.47], [-0.15, -2.38]]"  # free in the stand-in's room
SHORT = ["--set", "parameters.episode_s=8.0", "--set", "learner.extraction_updates=100", "--set", "learner.hidden=32"]


class Floor:
    """A stand-in, the command line beside it, and a person with a button."""

    def __init__(self, folder: Path, env: dict[str, str], profile: tuple[str, ...]) -> None:
        self.folder, self.env = folder, env
        physics = ("--seed", "3", "--mismatch", "brakes_weak", "--json", "truth.json")
        self.stand_in = self.command("stand-in", *physics, *profile)
        self.node = rclpy.create_node("person")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.button = self.node.create_publisher(Bool, "e_stop", 10)
        self.speed = 0.0
        self.heard = 0
        self.at = (0.0, 0.0)
        self.node.create_subscription(Odometry, "odom", self.on_odometry, qos_profile_sensor_data)
        self.until(lambda: self.heard > 3, "the stand-in publishes")

    def on_odometry(self, message: Odometry) -> None:
        self.heard += 1
        self.at = (message.pose.pose.position.x, message.pose.pose.position.y)
        self.speed = max(abs(message.twist.twist.linear.x), abs(message.twist.twist.angular.z))

    def command(self, *arguments: str, inside: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """`inside`: the command that runs it, as in a network namespace."""
        with open(self.folder / f"{arguments[0]}.txt", "ab") as file:
            command = [*inside, *CLI, *arguments]
            return subprocess.Popen(command, stdout=file, stderr=file, env=self.env, cwd=self.folder)

    def text(self, name: str = "train") -> str:
        path = self.folder / f"{name}.txt"
        return path.read_text() if path.exists() else ""

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}\n{self.text()}\n{self.text('stand-in')}"
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, name)
        future = client.call_async(request)
        self.until(future.done, name)
        self.node.destroy_client(client)
        return future.result()

    def operator(self, *arguments: str, says: str = "") -> None:
        """A person's command, until it says that: a busy machine may not find a service in time."""

        def said() -> bool:
            command = [*CLI, "operator", *arguments]
            done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60)
            return says in done.stdout + done.stderr and (done.returncode == 0) != ("error: " in says)

        self.until(said, f"operator {arguments} says {says!r}")

    def ends(self, run: subprocess.Popen[bytes], name: str) -> None:
        """Wait for the end of a run; a person at the robot resets the gate if a busy host made it latch."""

        def over() -> bool:
            if run.poll() is None and self.text(name).count("latched: ") > self.text(name).count("it goes on"):
                self.call(Trigger, "safety_monitor/reset", Trigger.Request())
            return run.poll() is not None

        self.until(over, f"{name} is over", 240.0)
        assert run.returncode == 0, self.text(name)

    def truth(self) -> dict[str, Any]:
        """Stop the stand-in; what it knows."""
        self.stand_in.send_signal(signal.SIGTERM)
        self.until(lambda: self.stand_in.poll() is not None, "the stand-in ends")
        assert self.stand_in.returncode == 0, self.text("stand-in")
        return dict(json.loads((self.folder / "truth.json").read_text()))


@pytest.fixture
def floor(ros_domain, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Floor]:  # type: ignore[no-untyped-def]
    rclpy.init()
    made = Floor(tmp_path, ros_domain.env, getattr(request, "param", ()))
    yield made
    for process in psutil.Process().children(recursive=True):
        process.kill()
    made.executor.shutdown()
    made.node.destroy_node()
    rclpy.shutdown()


@pytest.mark.timeout(900)
def test_a_robot_learns_and_an_e_stop_or_a_pause_does_not_end_the_run(floor: Floor) -> None:
    options = ("--mode", "hardware", "--ticks", "250", "--evaluation-episodes", "1", "--set", GOALS, *SHORT)
    run = floor.command("train", *options)
    floor.until(lambda: floor.speed > 0.2, "it drives")
    (learner,) = [one for one in psutil.Process(run.pid).children() if f"{PACKAGE}.nodes.learner" in one.cmdline()]
    learner.suspend()  # it costs learning, and no data
    watch = floor.command("operator", "watch")
    floor.until(lambda: "odom: x " in floor.text("operator"), "it shows the pose")
    floor.button.publish(Bool(data=True))
    floor.until(lambda: "latched: e-stop" in floor.text(), "the run says why the robot stands")
    floor.until(lambda: floor.speed < 0.01, "it stands")
    floor.operator("reset", says="error: reset is refused: still e-stop: send false on e_stop first")
    floor.operator("release")
    floor.operator("reset")
    floor.until(lambda: "it goes on" in floor.text() and floor.speed > 0.2, "it goes on")
    floor.operator("pause")
    floor.until(lambda: floor.speed < 0.01, "it stands")
    floor.operator("cap", "0.02")
    floor.operator("resume")
    said = "the gate is nominal: only the plan is left"
    floor.until(lambda: said in floor.text() and "speed_cap" in floor.text(), "the run says why it stands")
    floor.operator("cap", "1")
    floor.until(lambda: floor.speed > 0.2, "it goes on without a learner")
    floor.operator("goal", "0.5", "-0.5", says="(0.5, -0.5) in 'odom' is sent on /goal_pose")
    (log,) = floor.folder.glob("runs/*/logs/task.log")
    floor.until(lambda: "[0.5, -0.5] was published, and is the goal now" in log.read_text(), "the goal is taken")
    watch.send_signal(signal.SIGINT)
    floor.until(lambda: watch.poll() is not None, "the end of watch")
    assert watch.returncode == 130 and "Traceback" not in floor.text("operator")
    for seen in ("gate: latched: e-stop", "gate: nominal", "waits: paused: by a person", "waits: no longer"):
        assert seen in floor.text("operator")
    learner.resume()
    floor.ends(run, "train")

    (folder,) = (floor.folder / "runs").iterdir()
    report = verify(folder, "diff_drive", 0, True)
    assert not report.missing and not report.problems and not report.visits
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judged_by"] == "its sensors" and summary["unsafe_visits"] == 0 and summary["clock"] == "realtime"
    assert summary["phases"]["collection"]["control_ticks"] >= 250
    assert summary["evaluation"]["behavior"]["episodes"] == 1 and len(summary["evaluation"]) == 1, "no policy yet"
    records = JournalReader(folder / "journal.bin").read()
    collected = int((records["phase"] == PHASES.index("collection")).sum())
    manifest = json.loads((folder / "policy.json").read_text())
    assert manifest["training"]["decisions"] == collected >= 250, "learnt from all of them"

    model = str(folder / "policy.onnx")
    asked = (
        "validation.episodes=1",
        "validation.success=0.0",
        "validation.success_by_sensors=0.0",
        "validation.interventions=1.0",
    )
    lenient = [part for setting in asked for part in ("--set", setting)]
    deploy = ("deploy", model, "--episodes", "1", "--runs-dir", "deployed", *lenient)  # it has hardly learnt
    refused = floor.command(*deploy)
    floor.until(lambda: refused.poll() is not None, "nothing was validated")
    assert refused.returncode == 2 and f"run: safe-support-ql validate {model}" in floor.text("deploy")
    validated = floor.command("validate", model, *lenient)
    floor.until(lambda: validated.poll() is not None, "the validation")
    assert validated.returncode == 0, floor.text("validate")
    floor.ends(floor.command(*deploy), "deploy")
    assert floor.truth()["unsafe_visits"] == 0


def test_nothing_commands_after_the_command_line_was_killed(floor: Floor) -> None:
    run = floor.command("train", "--mode", "hardware", "--set", GOALS, *SHORT)
    floor.until(lambda: floor.speed > 0.3, "it drives")
    nodes = psutil.Process(run.pid).children()
    assert len(nodes) == 5
    run.kill()
    floor.until(lambda: not any(node.is_running() for node in nodes), "every node ends", 60.0)
    floor.until(lambda: floor.speed < 0.01, "the base stands", 3.0)
    assert floor.truth()["unsafe_visits"] == 0


@pytest.mark.timeout(600)
def test_a_person_steers_within_a_fence_and_only_while_the_switch_is_held(floor: Floor) -> None:
    """Straight on, for as long as it takes: the fence stops the base, and a released switch does at once."""
    x, y = floor.at
    fence = [[x + 0.9, y + 0.9], [x - 0.9, y + 0.9], [x - 0.9, y - 0.9], [x + 0.9, y - 0.9]]
    session = {"geofence": fence, "dead_man": True, "speed_cap": 0.5}
    settings = [part for name, value in session.items() for part in ("--set", f"session.{name}={value}".lower())]
    options = ("--mode", "hardware", "--teleop", "--ticks", "100000", "--set", GOALS, *SHORT, *settings)
    run = floor.command("train", *options)
    keyboard, keys = pty.openpty()
    switch = subprocess.Popen([*CLI, "operator", "dead-man"], stdin=keys, env=floor.env, cwd=floor.folder)
    stick = floor.node.create_publisher(TwistStamped, "teleop/cmd_vel", 10)
    held, farthest, fastest = True, 0.0, 0.0

    def steers() -> None:
        nonlocal farthest, fastest
        command = TwistStamped()
        command.twist.linear.x, command.twist.angular.z = 0.6, 0.05
        stick.publish(command)
        if held:
            os.write(keyboard, b" ")
        farthest = max(farthest, abs(floor.at[0] - x), abs(floor.at[1] - y))
        fastest = max(fastest, floor.speed)

    timer = floor.node.create_timer(0.1, steers)
    floor.until(lambda: floor.speed > 0.1, "it drives")
    held = False
    floor.until(lambda: floor.speed < 0.01, "it stands")
    moved = farthest
    held = True
    floor.until(lambda: farthest > moved + 0.1, "it drives on, and nothing latched")
    end = time.monotonic() + 15.0
    floor.until(lambda: time.monotonic() > end, "it is sent against the fence")
    assert 0.2 < farthest < 0.9 - 0.17 and fastest < 1.0, "the cap is half of 0.6 m/s and 1.5 rad/s"
    floor.node.destroy_timer(timer)
    floor.until(lambda: floor.speed < 0.01, "nobody steers")
    os.write(keyboard, b"q")
    floor.until(lambda: switch.poll() == 0, "the switch is let go")
    run.send_signal(signal.SIGINT)
    floor.until(lambda: run.poll() is not None, "the run ends")
    assert run.returncode == 130, floor.text()
    assert floor.truth()["unsafe_visits"] == 0


def validated(path: Path, seed: int, promised: float | None = None) -> Path:
    """A policy that has learnt nothing, with a report that says it passed: what drives here is the swapping.

    With `promised` it says that it is worth about so much.
    """
    import torch

    settings = config.load_robot("diff_drive")
    robot, spec = settings.robot, problem_spec(settings.robot, False)
    torch.manual_seed(seed)
    facts = PolicyFacts(
        robot=robot.name, observation_names=list(robot.observation_names), action_names=list(robot.action_names),
        observation_units=list(robot.observation_units), action_units=list(robot.action_units),
        candidate_layout=candidate_layout(robot, False), alpha=0.1, gamma=0.9, seeds=[seed], git_revision="",
        safety_sha256=settings.safety_hash, training={"value_spread": 1.0},
    )  # fmt: skip
    path.parent.mkdir()
    value = None if promised is None else ValueNetwork(spec, 8, promised, 1.0)
    export_policy(path, PolicyNetwork(spec, 16), spec, facts, value=value)
    about = validation.bound_to(path, settings.safety_hash, settings.validation)
    validation.report_path(path).write_text(json.dumps(validation.sealed(about | {"failed": []})))
    return path


@pytest.mark.timeout(600)
def test_a_hundred_swaps_while_it_drives_and_nothing_unchecked_ever_drives(floor: Floor, tmp_path: Path) -> None:
    models = [validated(tmp_path / name / "policy.onnx", seed) for seed, name in enumerate(("a", "b"))]
    cut, foreign = tmp_path / "cut" / "policy.onnx", tmp_path / "foreign" / "policy.onnx"
    shutil.copytree(models[1].parent, cut.parent)
    cut.write_bytes(cut.read_bytes()[:5000])
    shutil.copytree(models[1].parent, foreign.parent)
    shutil.copy(validation.report_path(models[0]), foreign.parent)
    heard: list[Any] = []
    decisions: list[Verdict] = []
    hear = floor.node.create_subscription
    hear(String, topics.MODEL_ACTIVE, lambda m: heard.append(tables.decode_news(m)), topics.LATCHED)
    hear(DiagnosticArray, topics.DECISION, lambda m: decisions.append(tables.decode_decision(m)), topics.RECORDED)
    swap = floor.node.create_publisher(String, topics.MODEL_SWAP, 10)
    run = floor.command("deploy", str(models[0]), "--set", GOALS)
    floor.until(lambda: bool(heard) and floor.speed > 0.05, "it drives")
    began = len(decisions)
    for number in range(100):
        before = len(heard)
        swap.publish(String(data=str(models[(number + 1) % 2])))
        # Two swaps to a decision at the most: on a fast machine a hundred would be over before it has driven.
        driven = began + number // 2
        floor.until(lambda: len(heard) > before and len(decisions) >= driven, f"swap {number}")  # noqa: B023
        assert (heard[-1].said, heard[-1].epoch, heard[-1].asked) == ("swapped", number + 2, heard[-1].path)
    during = decisions[began:]
    answered = sum(one.reason in ("request", "plan_requested") for one in during)
    assert answered > 0.8 * len(during), [one.reason for one in during]
    for path, named in ((cut, "policy_sha256"), (foreign, "is the report of another policy"), (tmp_path, "policy")):
        before = len(heard)
        swap.publish(String(data=str(path)))
        floor.until(lambda: len(heard) > before, "the refusal")  # noqa: B023
        assert heard[-1].said.startswith("refused: ") and named in heard[-1].said and heard[-1].epoch == 101
    assert floor.call(Trigger, "inference/rollback", Trigger.Request()).success
    floor.until(lambda: heard[-1].epoch == 102, "the rollback")
    assert "b/policy.onnx" in heard[-1].path
    assert not floor.call(Trigger, "inference/rollback", Trigger.Request()).success, "there is none before it"
    floor.until(lambda: floor.speed < 0.01, "the plan runs, and the base stands")
    run.send_signal(signal.SIGINT)
    floor.until(lambda: run.poll() is not None, "the run ends")
    assert "refused: " in floor.text("deploy") and "none before it: the plan runs" in floor.text("deploy")
    assert floor.truth()["unsafe_visits"] == 0


@pytest.mark.timeout(400)
def test_a_policy_that_earns_less_than_it_promised_is_taken_back(floor: Floor, tmp_path: Path) -> None:
    """The one before drives again; it has promised little enough."""
    modest, boasting = (
        validated(tmp_path / "a" / "policy.onnx", 0, -50.0),
        validated(tmp_path / "b" / "policy.onnx", 1, 50.0),
    )
    run = floor.command("deploy", str(modest), "--set", GOALS, "--set", "deployment.stretches=3")
    floor.until(lambda: floor.speed > 0.05, "it drives")
    assert floor.command("swap", str(boasting)).wait(60) == 0, floor.text("swap")
    floor.until(lambda: "policy 3: rolled back: it earned" in floor.text("deploy"), "it is taken back")
    assert "less than it promised, in the mean of 3 stretches of 10 ticks" in floor.text("deploy")
    run.send_signal(signal.SIGINT)
    floor.until(lambda: run.poll() is not None, "the run ends")
    assert floor.truth()["unsafe_visits"] == 0


@pytest.mark.timeout(600)
def test_a_shadow_commands_nothing_and_says_what_it_would_have_done(floor: Floor, tmp_path: Path) -> None:
    """Without a report: the behavior policy drives."""
    model = validated(tmp_path / "a" / "policy.onnx", 0)
    validation.report_path(model).unlink()
    sources: set[str] = set()
    shown: list[Any] = []
    floor.node.create_subscription(JointState, topics.REQUEST, lambda m: sources.add(m.header.frame_id), 10)
    floor.node.create_subscription(JointState, topics.SHADOW, shown.append, 10)
    run = floor.command("deploy", str(model), "--shadow", "--set", GOALS)
    floor.until(lambda: len(shown) > 50, "it shows")
    run.send_signal(signal.SIGINT)
    floor.until(lambda: run.poll() is not None, "the run ends")
    assert "shadow: " in floor.text("deploy") and "the action that was executed" in floor.text("deploy")
    assert len(sources) == 1 and "behavior_policy" in str(sources)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("floor", [("--profile", name) for name in DRIVERS], ids=DRIVERS, indirect=True)
def test_a_base_that_can_be_bought_begins_to_learn(floor: Floor, request: pytest.FixtureRequest) -> None:
    profile = ("--profile", request.node.callspec.id)
    options = ("--ticks", "150", "--evaluation-episodes", "0", "--set", GOALS, *SHORT)
    run = floor.command("train", "--mode", "hardware", *profile, *options)
    floor.until(lambda: floor.speed > 0.1, "it drives")
    floor.ends(run, "train")
    assert floor.truth()["unsafe_visits"] == 0


def learnt_from_all(floor: Floor) -> None:
    """The policy came back to the run of the robot, and was learnt from every record of its collection."""
    (folder,) = (floor.folder / "runs").iterdir()
    records = JournalReader(folder / "journal.bin").read()
    collected = int((records["phase"] == PHASES.index("collection")).sum())
    manifest = json.loads((folder / "policy.json").read_text())
    assert manifest["training"]["decisions"] == collected >= 250
    assert not verify(folder, "diff_drive", 0, True).missing


def host_process(host: subprocess.Popen[bytes]) -> psutil.Process:
    """The learner that `learn` has started."""
    children = psutil.Process(host.pid).children(recursive=True)
    (found,) = [one for one in children if f"{PACKAGE}.nodes.learner" in one.cmdline()]
    return found


@pytest.mark.timeout(900)
def test_another_machine_learns_and_gives_the_policy_back_though_its_learner_was_killed(floor: Floor) -> None:
    """Two folders on one host; that of the learner begins empty."""
    options = ("--mode", "hardware", "--remote-learner", "--ticks", "250", "--evaluation-episodes", "0", "--set", GOALS)
    run = floor.command("train", *options, *SHORT)
    floor.until(lambda: floor.speed > 0.2, "it drives, and waits for no learner")
    host = floor.command("learn", "elsewhere")
    floor.until(lambda: "learning for diff_drive-" in floor.text("learn"), "the learner knows its run")
    floor.until(lambda: (floor.folder / "elsewhere" / "checkpoint.pt").exists(), "it learns")
    host_process(host).kill()
    floor.ends(run, "train")
    learnt_from_all(floor)
    host.send_signal(signal.SIGINT)
    floor.until(lambda: host.poll() is not None, "the learner ends")
    assert host.returncode == 0, floor.text("learn")
    wrong = floor.command("learn", "/proc/nowhere")
    floor.until(lambda: wrong.poll() is not None, "refused")
    assert wrong.returncode == 2 and "cannot be written" in floor.text("learn")
    assert floor.truth()["unsafe_visits"] == 0


class Link:
    """A network namespace, and a cable to it."""

    name, cable = "safe_support_ql_test", "ssql_robot"

    def __init__(self) -> None:
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {self.cable} type veth peer name ssql_learner netns {self.name}",
            f"ip addr add 10.203.77.1/24 dev {self.cable}",
            f"ip link set {self.cable} up",
            f"ip -n {self.name} addr add 10.203.77.2/24 dev ssql_learner",
            f"ip -n {self.name} link set ssql_learner up",
            f"ip -n {self.name} link set lo up",
        ):
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                self.close()
                pytest.skip(f"{command}: {done.stderr.strip()}; two network namespaces need the rights of root")

    def set(self, state: str) -> None:
        subprocess.run(["ip", "link", "set", self.cable, state], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.cable], capture_output=True, check=False)


@pytest.mark.timeout(900)
def test_a_link_that_is_cut_costs_learning_and_no_data(
    ros_domain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    """LINK_CUT_S is how long; the learner is killed meanwhile."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here, so no network namespaces")
    link = Link()
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    rclpy.init()
    floor = Floor(tmp_path, dict(os.environ), "")
    try:
        cut_s = float(os.environ.get("LINK_CUT_S", "8"))
        ticks = str(round(270 + 10 * cut_s))  # more than are driven meanwhile
        options = ("--mode", "hardware", "--remote-learner", "--ticks", ticks, "--evaluation-episodes", "0")
        run = floor.command("train", *options, "--set", GOALS, *SHORT)
        host = floor.command("learn", "elsewhere", inside=("ip", "netns", "exec", link.name))
        floor.until(lambda: (tmp_path / "elsewhere" / "journal.bin").exists() and floor.speed > 0.2, "it is copied")
        link.set("down")
        end = time.monotonic() + cut_s
        copied = (tmp_path / "elsewhere" / "journal.bin").stat().st_size
        floor.until(lambda: time.monotonic() > end, "the link is cut")
        host_process(host).kill()
        floor.until(lambda: floor.speed > 0.2, "it drives on")
        assert (tmp_path / "elsewhere" / "journal.bin").stat().st_size <= copied + 48 * 1024, "nothing came"
        link.set("up")
        floor.ends(run, "train")
        learnt_from_all(floor)
        host.send_signal(signal.SIGTERM)
        floor.until(lambda: host.poll() is not None, "the learner ends")
        assert floor.truth()["unsafe_visits"] == 0
    finally:
        for process in psutil.Process().children(recursive=True):
            process.kill()
        link.close()
        floor.executor.shutdown()
        floor.node.destroy_node()
        rclpy.shutdown()
