"""The base class alone: no transition, exception or parameter can kill a node or leave it half-done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from safe_support_ql.bringup import NODES
from safe_support_ql.nodes.executor import ShortPathExecutor, _let_go
from safe_support_ql.nodes.lifecycle import PARAMETERS, ManagedNode

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


class Probe(ManagedNode):
    """A node that fails in the callbacks that a test names."""

    def __init__(self) -> None:
        super().__init__("simulator")
        self.fails: dict[str, Exception] = {}
        self.done: list[str] = []

    def _note(self, what: str) -> None:
        self.done.append(what)
        if what in self.fails:
            raise self.fails[what]

    def configure(self) -> None:
        self.every(1000.0, lambda: None)
        self._note("configure")

    def activate(self) -> None:
        self._note("activate")

    def deactivate(self) -> None:
        self._note("deactivate")

    def release(self) -> None:
        self._note("release")


@pytest.fixture
def probe(ros_domain) -> Iterator[Probe]:
    rclpy.init()
    node = Probe()
    yield node
    node.destroy_node()
    rclpy.shutdown()


def change(node: Probe, transition: int = 0, label: str = "") -> bool:
    request = ChangeState.Request()
    request.transition.id, request.transition.label = transition, label
    return bool(node._service_change_state.callback(request, ChangeState.Response()).success)


def test_a_whole_life(probe: Probe) -> None:
    for transition, state in (
        (CONFIGURE, "inactive"),
        (ACTIVATE, "active"),
        (DEACTIVATE, "inactive"),
        (CLEANUP, "unconfigured"),
    ):
        assert change(probe, transition)
        assert probe.get_state() == state
    assert change(probe, label="shutdown") and probe.get_state() == "finalized"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_node_leaves_tidily_before_it_is_configured(ros_domain, number: signal.Signals) -> None:
    started = {
        spec.name: subprocess.Popen(
            [sys.executable, "-m", f"safe_support_ql.nodes.{spec.name}"],
            env=ros_domain.env, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # it is ignored under nohup
        )
        for spec in NODES
    }  # fmt: skip
    try:
        for process in started.values():
            caught, end = 0, time.monotonic() + 60.0
            while not caught & 1 << number - 1 and time.monotonic() < end:
                status = Path(f"/proc/{process.pid}/status").read_text()
                caught = int(status.partition("SigCgt:")[2].split()[0], 16)
                time.sleep(0.02)
            process.send_signal(number)
        for name, process in started.items():
            _, said = process.communicate(timeout=60.0)
            assert process.returncode == 0 and "Traceback" not in said, f"{name}: {said}"
    finally:
        for process in started.values():
            process.kill()


def test_invalid_transitions_are_answered(probe: Probe) -> None:
    assert not change(probe, ACTIVATE)
    assert not change(probe, 200)
    assert not change(probe, label="nonsense")
    assert change(probe, CONFIGURE) and not change(probe, CONFIGURE)
    assert change(probe, label="activate") and not change(probe, ACTIVATE)
    assert probe.get_state() == "active" and probe.active


def test_a_transition_waits_for_an_objection(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    change(probe, CONFIGURE)
    monkeypatch.setattr(probe, "objection", lambda label: "yet" if label == "cleanup" else "")
    assert not change(probe, CLEANUP) and not change(probe, label="cleanup")
    assert probe.get_state() == "inactive" and "release" not in probe.done
    assert change(probe, ACTIVATE) and change(probe, DEACTIVATE)
    monkeypatch.undo()
    assert change(probe, CLEANUP) and probe.done[-1] == "release"


def test_a_stopping_node_cannot_be_started_again(probe: Probe) -> None:
    change(probe, CONFIGURE)
    probe.leaving = True
    assert not change(probe, ACTIVATE) and not change(probe, label="cleanup")
    assert probe.get_state() == "inactive"


@pytest.mark.parametrize("error", [ValueError("a clear line"), KeyError("a bug")])
def test_a_refused_configure_gives_everything_back(probe: Probe, error: Exception) -> None:
    probe.fails["configure"] = error
    timers = len(list(probe.timers))
    assert not change(probe, CONFIGURE)
    assert probe.get_state() == "unconfigured" and len(list(probe.timers)) == timers
    probe.fails.clear()
    assert change(probe, CONFIGURE)


def test_failures_never_leave_a_node_active(probe: Probe) -> None:
    change(probe, CONFIGURE)
    probe.fails["activate"] = RuntimeError("no")
    assert not change(probe, ACTIVATE)
    assert probe.get_state() == "inactive" and not probe.active
    probe.fails = {"deactivate": RuntimeError("no"), "release": RuntimeError("no")}
    assert change(probe, ACTIVATE) and change(probe, DEACTIVATE)
    assert probe.get_state() == "inactive" and not probe.active
    assert change(probe, CLEANUP) and probe.get_state() == "unconfigured"


def test_an_exception_in_a_callback_deactivates(probe: Probe) -> None:
    change(probe, CONFIGURE)
    change(probe, ACTIVATE)

    def broken() -> None:
        raise RuntimeError("a bug")

    probe._guarded(broken)()
    assert probe.get_state() == "inactive" and probe.done[-1] == "deactivate"


def test_parameters_are_checked_and_fixed_while_in_use(probe: Probe) -> None:
    def refused(name: str, value: object) -> str:
        return str(probe.set_parameters([Parameter(name, value=value)])[0].reason)

    assert "must be one of: realtime, lockstep" in refused("clock", "sundial")
    assert refused("seed", -1) and refused("continuous", 1)
    atomic = probe.set_parameters_atomically([Parameter("seed", value=4), Parameter("clock", value="sundial")])
    assert not atomic.successful and probe.param("seed") == 0
    change(probe, CONFIGURE)
    assert "only before configure" in refused("clock", "realtime")
    assert not refused("phase", "evaluation_policy")
    change(probe, ACTIVATE)
    assert "only while inactive" in refused("phase", "collection")


def test_every_parameter_is_described() -> None:
    for node, table in PARAMETERS.items():
        assert len({item.name for item in table}) == len(table), node
        assert all(item.doc for item in table)


def test_what_rclpy_cannot_handle_is_ignored(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any node on the network can send a parameter of an unknown type."""
    executor = ShortPathExecutor()
    executor.add_node(probe)
    heard: list[bool] = []
    probe.subscribe(Bool, "heard", lambda message: message.data, heard.append, 10)
    probe.every(0.01, lambda: None)
    other = rclpy.create_node("other")
    client = other.create_client(SetParameters, "simulator/set_parameters")
    publisher = other.create_publisher(Bool, "heard", 10)
    assert client.wait_for_service(20.0)
    said: list[str] = []
    passed_over = ShortPathExecutor._pass_over
    monkeypatch.setattr(
        ShortPathExecutor, "_pass_over", lambda self, what, e: (said.append(str(e)), passed_over(self, what, e))
    )
    client.call_async(SetParameters.Request(parameters=[ParameterMessage(name="seed", value=ParameterValue(type=99))]))
    for _ in range(2000):
        executor.spin_once()
        if said:
            break
    assert said and "99" in said[0]

    publisher.publish(Bool(data=True))
    for _ in range(2000):
        executor.spin_once()
        if heard:
            break
    assert heard == [True], "and what comes after is handled as ever"
    other.destroy_node()


def test_after_a_message_that_cannot_be_taken_the_services_go_on(probe: Probe) -> None:
    """rclpy marks a callback group as occupied before it takes the message, and frees it only behind the callback."""
    group = probe.default_callback_group
    entity = probe.subscribe(Bool, "heard", bool, lambda _: None, 10)
    assert group.beginning_execution(entity) and not group.can_execute(
        probe.subscribe(Bool, "other", bool, lambda _: None, 1)
    )
    _let_go(entity)
    assert group.can_execute(entity) and not entity._executor_event
