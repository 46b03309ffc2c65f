"""The real nodes as processes over real DDS: lock-step, real time, and what happens when one of them dies.

Every wait is for a condition, with a bound; the robot moves at half its top speed or more when something is killed.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from safe_support_ql import config
from safe_support_ql.nodes import native, tables, topics
from safe_support_ql.recording.join import CLOSED
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import PHASES, read_ledger
from safe_support_ql.recording.parts import Verdict

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = config.load_robot("diff_drive", {"learner.extraction_updates": 50})
TOP_SPEED = float(SETTINGS.robot.action_high[0])
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
AGAIN_S = 10.0
LONG = 300.0  # an idle-priority learner on a busy host gets little of it


class Graph:
    """Nodes as processes, and an eye on their topics."""

    def __init__(self, env: dict[str, str], run_dir: Path, namespace: str = "/", stamped: bool = True) -> None:
        self.run_dir, self.namespace, self.stamped = run_dir, namespace, stamped
        self.env = env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.file = run_dir / "config.yaml"
        config.save(SETTINGS, self.file)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.outcome: dict[str, float] = {}
        self.decisions: list[Verdict] = []
        self.speed, self.command, self.gate, self.learner = 0.0, np.zeros(2), "", {}
        rclpy.init()
        self.node = rclpy.create_node("test", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        subscribe = self.node.create_subscription
        subscribe(JointState, topics.OUTCOME, self._on_outcome, topics.RECORDED)
        subscribe(DiagnosticArray, topics.DECISION, self._on_decision, topics.RECORDED)
        subscribe(Odometry, "odom", lambda m: setattr(self, "speed", abs(m.twist.twist.linear.x)), topics.SENSOR)
        command = native.CommandCodec(SETTINGS.robot.command, stamped)
        kind = TwistStamped if stamped else Twist
        subscribe(kind, "cmd_vel", lambda m: setattr(self, "command", command.decode(m)), topics.CHAIN)
        subscribe(String, topics.GATE_STATE, lambda m: setattr(self, "gate", m.data), topics.LATCHED)
        self.diagnosed: dict[str, str] = {}  # newest diagnostics of the gate
        subscribe(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, topics.CHAIN)
        status = tables.decode_status
        subscribe(DiagnosticArray, topics.LEARNER_STATUS, lambda m: setattr(self, "learner", status(m)), topics.CHAIN)

    def _on_outcome(self, message: JointState) -> None:
        self.outcome, _, _ = tables.decode_outcome(message)

    def _on_decision(self, message: DiagnosticArray) -> None:
        self.decisions.append(tables.decode_decision(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if message.status[0].name.endswith("safety_monitor: gate"):
            self.diagnosed = tables.decode_status(message) | {"message": message.status[0].message}

    def spawn(self, name: str, clock: str, **parameters: Any) -> None:
        if name == "safety_monitor":
            parameters = {"simulated": True, "recorder_required": False} | parameters
        common = {"config": self.file, "run_dir": self.run_dir, "clock": clock, "stamped_cmd": self.stamped}
        values = common | parameters
        arguments = [sys.executable, "-m", f"safe_support_ql.nodes.{name}"]
        arguments += ["--ros-args", "-r", f"__ns:={self.namespace}"]
        for key, value in values.items():
            arguments += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        self.processes[name] = subprocess.Popen(arguments, cwd=self.run_dir, env=self.env)

    def until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"not within {timeout} s: {what}; gate '{self.gate}', {self.outcome}"
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind: Any, name: str, request: Any, again: float = LONG) -> Any:
        """The answer; asked `again` after so many seconds, as a killed node seems to be there for a while."""
        client = self.node.create_client(kind, name)
        end = time.monotonic() + LONG
        while True:
            self.until(client.service_is_ready, end - time.monotonic(), f"{name} is there")
            future = client.call_async(request)
            asked = time.monotonic()
            self.until(lambda: future.done() or time.monotonic() > asked + again, LONG + 1, f"{name} answers")  # noqa: B023
            if future.done():
                self.node.destroy_client(client)
                return future.result()

    def change(self, node: str, transition: int) -> bool:
        """Asked again only where it did not happen: the first request may have gone to a dead node of this name."""
        before = self.state(node)
        request = ChangeState.Request()
        request.transition.id = transition
        client = self.node.create_client(ChangeState, f"{node}/change_state")
        end = time.monotonic() + LONG
        while True:
            self.until(client.service_is_ready, end - time.monotonic(), f"{node} takes transitions")
            future, asked = client.call_async(request), time.monotonic()
            self.until(lambda: future.done() or time.monotonic() > asked + AGAIN_S, LONG, f"{node} answers")  # noqa: B023
            if future.done() or self.state(node) != before:
                self.node.destroy_client(client)
                return not future.done() or bool(future.result().success)

    def state(self, node: str) -> str:
        return str(self.call(GetState, f"{node}/get_state", GetState.Request(), again=1.0).current_state.label)

    def start(self, clock: str, *nodes: str, **own: dict[str, Any]) -> None:
        """All nodes, active, the monitor first and the simulator last."""
        for node in nodes:
            self.spawn(node, clock, **own.get(node, {}))
        for transition in (CONFIGURE, ACTIVATE):
            for node in nodes:
                assert self.change(node, transition), f"{node} refused transition {transition}"

    def set(self, node: str, **values: Any) -> None:
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        assert all(result.successful for result in self.call(SetParameters, f"{node}/set_parameters", request).results)

    def kill(self, node: str) -> None:
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def stop(self, *nodes: str, number: signal.Signals = signal.SIGINT) -> None:
        """A signal; every node must leave by itself, with status 0."""
        for node in nodes:
            self.processes[node].send_signal(number)
        for node in nodes:
            self.until(lambda node=node: self.processes[node].poll() is not None, 20.0, f"{node} ends")
            assert self.processes.pop(node).returncode == 0, node

    def moving(self) -> None:
        self.until(lambda: self.speed >= 0.5 * TOP_SPEED, LONG, "the robot moves at half its top speed")

    def stands(self, timeout: float = 5.0) -> None:
        self.until(lambda: self.speed < 0.02, timeout, "the robot stands")

    def reset(self) -> Any:
        """The answer of the monitor's reset service."""
        return self.call(Trigger, "safety_monitor/reset", Trigger.Request())

    def reason(self, reason: str, timeout: float = 10.0) -> None:
        since = len(self.decisions)
        self.until(
            lambda: any(d.reason == reason for d in self.decisions[since:]), timeout, f"a decision for '{reason}'"
        )

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()

    def accounted(self) -> set[int]:
        """Decision numbers in the journal or listed as gaps; none twice."""
        numbers = JournalReader(self.run_dir / "journal.bin").read()["sequence"].tolist()
        assert numbers == sorted(set(numbers))
        for event in read_ledger(self.run_dir / "ledger.jsonl"):
            if event["event"] == "gap":
                numbers += range(event["first"], event["last"] + 1)
        assert len(numbers) == len(set(numbers))
        return set(numbers)


@pytest.fixture
def graph(ros_domain, tmp_path: Path) -> Iterator[Graph]:
    graph = Graph(ros_domain.env, tmp_path)
    yield graph
    graph.close()


def test_lock_step_records_learns_and_survives_what_is_lost(graph: Graph) -> None:
    """The whole chain: a stopped monitor, invalid transitions, the tick limit, learning, and a second phase."""
    nodes = ("safety_monitor", "recorder", "behavior_policy", "learner", "simulator")
    graph.start("lockstep", *nodes, simulator={"ticks": 150})
    graph.until(lambda: graph.outcome.get("control_ticks", 0) >= 20, LONG, "the first ticks")

    # What a stopped monitor misses is sent again; it misses nothing for 2 s.
    graph.processes["safety_monitor"].send_signal(signal.SIGSTOP)
    before = graph.outcome["control_ticks"]
    stopped = time.monotonic()
    graph.until(lambda: time.monotonic() - stopped > 0.7, 5.0, "a while without a monitor")
    assert graph.outcome["control_ticks"] <= before + 2, "physics went on without a decision"
    graph.processes["safety_monitor"].send_signal(signal.SIGCONT)

    assert not graph.change("behavior_policy", ACTIVATE), "an active node cannot be activated"
    assert not graph.change("simulator", CONFIGURE)
    assert graph.state("behavior_policy") == "active"

    graph.until(lambda: graph.outcome.get("done") == 1, LONG, "150 ticks")
    assert graph.outcome["phase_ticks"] == 150 and graph.outcome["unsafe_visits"] == 0

    graph.until(lambda: graph.learner.get("state") == "idle", LONG, "every record is learned from")
    assert float(graph.learner["updates"]) > 0 and not graph.learner["error"]
    assert graph.call(Trigger, "learner/extract", Trigger.Request()).success
    graph.until(lambda: graph.learner["state"] == "exported", 2 * LONG, "a policy")

    assert graph.change("simulator", DEACTIVATE) and graph.change("behavior_policy", DEACTIVATE)
    graph.spawn("inference", "lockstep", model=graph.run_dir / "policy.onnx", greedy=True, validated=False)
    assert graph.change("inference", CONFIGURE) and graph.change("inference", ACTIVATE)
    graph.set("simulator", phase="evaluation_policy", ticks=40, first_seed=1000)
    assert graph.change("simulator", ACTIVATE)
    graph.until(
        lambda: graph.outcome.get("phase") == PHASES.index("evaluation_policy") and graph.outcome["done"] == 1,
        LONG,
        "40 ticks of the policy",
    )
    assert graph.outcome["seed"] == 1000 and graph.outcome["unsafe_visits"] == 0
    reasons = [d.reason for d in graph.decisions[-40:]]
    assert sum(reason in ("request", "plan_requested") for reason in reasons) >= 30, (
        reasons
    )  # a loaded host is late at times
    graph.stop("inference", *nodes[::-1])

    records = JournalReader(graph.run_dir / "journal.bin").read()
    events = read_ledger(graph.run_dir / "ledger.jsonl")
    gaps = [event for event in events if event["event"] == "gap"]
    assert {gap["why"] for gap in gaps} == {"closed"}, "lock-step has no others"
    silent = sum(gap["last"] - gap["first"] + 1 for gap in gaps)
    assert graph.accounted() == set(range(len(records) + silent))
    assert {d.sequence for d in graph.decisions} <= graph.accounted()
    assert np.flatnonzero(records["first"])[0] == 0 and records["truncated"][-1]
    counters = {event["phase"]: event for event in events if event["event"] == "counters"}
    for phase, ticks in (("collection", 150), ("evaluation_policy", 40)):
        counted = counters[phase]
        assert counted["control_ticks"] == ticks and counted["unsafe_visits"] == 0
        assert counted["decisions"] - counted["gaps"] == sum(counted["verdicts"].values())
        assert counted["decisions"] - counted["gaps"] == (records["phase"] == PHASES.index(phase)).sum()
    assert (graph.run_dir / "checkpoint.pt").exists()


def test_deaths_in_motion_leave_the_robot_safe_and_no_decision_unaccounted(graph: Graph) -> None:
    """SIGKILL of learner, behavior and recorder at half the top speed or more, on the real-time clock."""
    nodes = ("safety_monitor", "recorder", "behavior_policy", "learner", "simulator")
    graph.start("realtime", *nodes)

    graph.moving()
    graph.kill("learner")
    before = len(graph.decisions)
    graph.until(lambda: len(graph.decisions) > before + 10, 10.0, "the gate goes on without a learner")
    assert all(d.reason != "latched" for d in graph.decisions)

    graph.moving()
    graph.kill("behavior_policy")
    graph.reason("no_request")
    graph.stands()

    graph.spawn("behavior_policy", "realtime", seed=1)
    assert graph.change("behavior_policy", CONFIGURE) and graph.change("behavior_policy", ACTIVATE)
    graph.moving()
    graph.kill("recorder")
    graph.reason("recorder_stale")
    graph.stands()

    graph.until(lambda: graph.gate.startswith("latched: the recorder"), 10.0, "nothing moves unrecorded until a reset")
    assert "recorder" in graph.reset().message
    graph.spawn("recorder", "realtime")
    assert graph.change("recorder", CONFIGURE) and graph.change("recorder", ACTIVATE)
    graph.until(lambda: graph.reset().success, LONG, "reset once a recorder is there")
    graph.moving()
    assert graph.outcome["unsafe_visits"] == 0
    graph.stop("simulator", "behavior_policy", "safety_monitor", "recorder")
    assert {d.sequence for d in graph.decisions} <= graph.accounted()
    events = read_ledger(graph.run_dir / "ledger.jsonl")
    assert any(event["event"] == "gap" for event in events), "what the dead recorder missed is listed"
    assert not any(event["event"] == "visit" for event in events)


def test_a_full_disk_stops_the_robot_and_loses_nothing(graph: Graph) -> None:
    """The recorder cannot write: no heartbeat, so the plan runs and latches; once it can, everything is there."""
    nodes = ("safety_monitor", "recorder", "behavior_policy", "simulator")
    graph.start("lockstep", *nodes, safety_monitor={"recorder_required": True})
    graph.until(lambda: graph.outcome.get("control_ticks", 0) >= 20, LONG, "the first ticks")
    full = (graph.run_dir / "journal.bin").stat().st_size + 1500  # in the middle of a record
    pid = graph.processes["recorder"].pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    graph.reason("recorder_stale", LONG)
    graph.until(lambda: graph.gate.startswith("latched: the recorder"), LONG, "latched")
    answer = graph.reset()
    assert not answer.success and "recorder" in answer.message, "the disk is still full"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    graph.until(lambda: graph.reset().success, LONG, "reset once the disk takes it")
    graph.reason("request", LONG)
    graph.until(lambda: graph.decisions[-1].reason == "request", LONG, "back to what is asked for")

    graph.kill("safety_monitor")
    graph.until(lambda: graph.state("simulator") == "inactive", LONG, "the simulator gives up without a monitor")
    graph.stop("simulator", "behavior_policy", "recorder")
    accounted = graph.accounted()
    assert accounted == set(range(len(accounted)))
    assert {d.sequence for d in graph.decisions if d.sequence <= graph.outcome["executed"]} <= accounted
    events = read_ledger(graph.run_dir / "ledger.jsonl")
    lost = [event for event in events if event["event"] == "gap" and event["why"] != CLOSED]
    assert all(event["last"] == max(accounted) for event in lost), "at most the last words of the killed monitor"
    assert graph.outcome["unsafe_visits"] == 0


@pytest.mark.timeout(900)  # 213 s on two idle cores
def test_the_monitor_stops_the_robot_before_it_leaves(graph: Graph) -> None:
    """E-stop and reset; a second monitor is refused; SIGTERM or SIGINT in motion runs the plan to the end of the stop;
    after SIGKILL the next monitor waits for the ghost of the dead one."""
    graph.start("realtime", "safety_monitor", "behavior_policy", "simulator")
    graph.moving()
    stop = graph.node.create_publisher(Bool, topics.E_STOP, topics.CHAIN)
    graph.until(lambda: stop.get_subscription_count() > 0, 10.0, "the monitor listens")
    stop.publish(Bool(data=True))
    graph.until(lambda: graph.gate.startswith("latched: e-stop"), 5.0, "latched")
    graph.until(lambda: "e-stop" in graph.diagnosed.get("message", ""), 5.0, "diagnostics name the cause, on change")
    assert graph.diagnosed["state"] == "latched" and int(graph.diagnosed["decisions"]) > 0
    assert int(graph.diagnosed["mismatches"]) == 0 and float(graph.diagnosed["largest residual, in W"]) <= 1.0
    graph.stands()
    answer = graph.reset()
    assert not answer.success and "e-stop" in answer.message
    stop.publish(Bool(data=False))
    graph.until(lambda: graph.reset().success, 5.0, "reset once the e-stop is released")

    # A button that nobody made RELIABLE, and one of a type that nobody can hear.
    graph.moving()
    lossy = graph.node.create_publisher(Bool, topics.E_STOP, topics.SENSOR)

    def says(pressed: bool) -> bool:
        lossy.publish(Bool(data=pressed))  # as such a button does, again and again
        return graph.gate.startswith("latched: e-stop") if pressed else bool(graph.reset().success)

    graph.until(lambda: says(True), LONG, "latched by it")
    assert "e-stop" in graph.reset().message
    graph.until(lambda: says(False), LONG, "reset once it is released")
    graph.node.destroy_publisher(lossy)
    graph.moving()
    button = f"""
import rclpy, std_msgs.msg
rclpy.init()
node = rclpy.create_node("button")
node.create_publisher(std_msgs.msg.UInt64, "{topics.E_STOP}", 1)
try:
    rclpy.spin(node)
except KeyboardInterrupt:
    node.destroy_node()
    rclpy.try_shutdown()
"""
    graph.processes["button"] = subprocess.Popen([sys.executable, "-c", button], env=graph.env)
    graph.until(lambda: "e_stop as std_msgs/msg/UInt64" in graph.gate, 10.0, "a button of another type latches")
    assert "UInt64" in graph.reset().message
    graph.stop("button")
    graph.until(lambda: graph.reset().success, LONG, "reset once it is gone")

    graph.moving()
    assert graph.call(SetBool, "safety_monitor/e_stop", SetBool.Request(data=True)).success
    graph.until(lambda: graph.gate.startswith("latched: e-stop"), 5.0, "the service does what the topic does")
    graph.stands()
    assert "e-stop" in graph.reset().message
    assert graph.call(SetBool, "safety_monitor/e_stop", SetBool.Request(data=False)).success
    assert graph.reset().success

    graph.processes["second"] = subprocess.Popen(
        [sys.executable, "-m", "safe_support_ql.nodes.safety_monitor", "--ros-args", "-r", "__node:=second"]
        + ["-p", f"config:={graph.file}", "-p", "clock:=realtime"],
        env=graph.env,
    )
    assert graph.change("second", CONFIGURE)
    graph.until(lambda: "another node publishes" in graph.gate, 10.0, "a second publisher of the command latches")
    assert not graph.change("second", ACTIVATE)
    answer = graph.reset()
    assert not answer.success and "still another publisher" in answer.message and "second" in answer.message
    graph.stop("second")
    graph.until(lambda: graph.reset().success, LONG, "reset once the other publisher is gone")

    def again() -> None:
        graph.spawn("safety_monitor", "realtime")
        assert graph.change("safety_monitor", CONFIGURE) and graph.change("safety_monitor", ACTIVATE)

    graph.moving()
    graph.kill("safety_monitor")
    graph.stands()
    again()  # while the dead one still stands in the graph
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        graph.moving()
        graph.stop("safety_monitor", number=number)
        graph.stands()
        assert not graph.command.any(), "the last command is the plan's stop"
        if number is not signal.SIGINT:
            again()
    assert graph.outcome["unsafe_visits"] == 0


def test_a_robot_in_a_namespace_with_an_unstamped_command(ros_domain, tmp_path: Path) -> None:
    graph = Graph(ros_domain.env, tmp_path, namespace="/robot_1", stamped=False)
    try:
        nodes = ("safety_monitor", "recorder", "behavior_policy", "simulator")
        drawn: list[MarkerArray] = []
        graph.node.create_subscription(MarkerArray, topics.MARKERS, drawn.append, topics.LATEST)
        graph.start("lockstep", *nodes, simulator={"ticks": 30})
        graph.until(lambda: graph.outcome.get("done") == 1, LONG, "30 ticks")
        graph.until(lambda: bool(drawn), 5.0, "a picture of the last decision")
        assert {marker.ns for marker in drawn[-1].markers} >= {"occupied", "certified", "backup", "margins"}
        graph.until(lambda: bool(graph.command.any()), 5.0, "a Twist that moves the robot was seen")
        names = [name for name, _ in graph.node.get_topic_names_and_types()]
        shared = {"/rosout", "/parameter_events", "/diagnostics"}  # global by convention; their messages name the node
        assert all(name.startswith("/robot_1/") for name in set(names) - shared), names
        graph.stop(*nodes[::-1])
    finally:
        graph.close()


def test_a_drive_of_the_other_type_is_named_and_the_robot_stands_until_one_can_hear(ros_domain, tmp_path: Path) -> None:
    """Simulator and test hear Twist, the monitor sends TwistStamped: nothing is asked for and nothing latches."""
    graph = Graph(ros_domain.env, tmp_path, stamped=False)
    try:
        nodes = ("safety_monitor", "behavior_policy", "simulator")
        graph.start("realtime", *nodes, safety_monitor={"stamped_cmd": True})
        types = "listens for geometry_msgs/msg/Twist, the monitor publishes geometry_msgs/msg/TwistStamped"
        graph.until(lambda: types in graph.gate, LONG, "both types are named")
        assert graph.gate.startswith("closed: cmd_vel: '") and "set stamped_cmd: false" in graph.gate
        graph.until(lambda: types in graph.diagnosed.get("warning 2", ""), 10.0, "simulator and test are both named")
        since = time.monotonic()
        graph.until(lambda: time.monotonic() - since > 2.0, 5.0, "a while")
        assert not graph.decisions and graph.gate.startswith("closed") and graph.speed < 0.02

        graph.stop("safety_monitor")
        graph.spawn("safety_monitor", "realtime")
        assert graph.change("safety_monitor", CONFIGURE) and graph.change("safety_monitor", ACTIVATE)
        graph.moving()
        assert graph.outcome["unsafe_visits"] == 0
        graph.stop(*nodes[::-1])
    finally:
        graph.close()


def test_two_policies_at_once_are_named_and_the_robot_goes_on(graph: Graph) -> None:
    graph.start("realtime", "safety_monitor", "behavior_policy", "simulator")
    graph.moving()
    graph.processes["twin"] = subprocess.Popen(
        [sys.executable, "-m", "safe_support_ql.nodes.behavior_policy", "--ros-args", "-r", "__node:=twin"]
        + ["-p", f"config:={graph.file}"],
        env=graph.env,
    )
    assert graph.change("twin", CONFIGURE) and graph.change("twin", ACTIVATE)
    graph.until(lambda: "two policies" in graph.diagnosed.get("warning 1", ""), LONG, "two policies are named")
    assert {"/behavior_policy", "/twin"} <= set(graph.diagnosed["warning 1"].replace(";", "").split())
    assert not graph.gate.startswith("latched") and graph.decisions[-1].reason != "latched"
    graph.stop("twin")
    graph.until(lambda: "warning 1" not in graph.diagnosed, LONG, "forgotten once one is stopped")
    graph.stop("simulator", "behavior_policy", "safety_monitor")
