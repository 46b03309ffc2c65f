"""Puts the faults of experiments/faults.py onto a running graph, one after the other, and reports what it saw.

The graph is the real one, in real time: the conductor's nodes as processes over DDS. Only topics are renamed, so that
every sensor message, request and command passes a relay of this node, which hands it on unchanged or, while a fault is
on, does the fault to it. Nodes are killed, stopped and restarted by signals. Times are on the steady clock; unsafe
visits are those that the simulator counts on its ground truth.

Before each fault the robot moves (`in_motion`); one graph serves all faults, a new episode or a reset comes in between.
"""

from __future__ import annotations

import copy
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql import bringup, summary
from safe_support_ql.bringup import Run
from safe_support_ql.config import Config
from safe_support_ql.experiments import faults
from safe_support_ql.experiments.faults import COMMAND, REQUEST, Expect, Result, Seen
from safe_support_ql.nodes import conductor, lifecycle, messages
from safe_support_ql.nodes.executor import ShortPathExecutor
from safe_support_ql.robots.base import Estimate, Floats

RELAY_S = 0.002  # delayed messages are looked at this often
CLOCK_S = 0.005
FLOOD_NS = 1000  # by which the stamps of a flood differ
WARM_S = 1.5  # of an episode before its first fault
ATTEMPTS = 5  # to have a fault with the robot moving from its onset to its end
MOVE_S = 20.0  # for the robot to move, in one episode
BACK_S = 30.0  # for the gate to come back after a fault
LEAVE_S = 10.0  # for a node that is asked to leave
AFTER_S = 0.3  # and for a robot that is still under way
SETTLE_S = 2.5  # after a fault for what it must end in
QUIET_S = 1.1  # the monitor logs refusals of a kind once a second
TRUE, ASKED = "_true", "_asked"  # endings of the topics before the relay
DRIVEN = "_driven"  # of the command behind it


class RequestVector:
    """The action inside a request, as a codec."""

    def decode(self, message: JointState) -> Floats:
        """The action."""
        return np.asarray(message.position[1:], np.float64)

    def encode(self, message: JointState, vector: Floats) -> JointState:
        """`message` with another action."""
        message.position = [message.position[0], *vector.tolist()]
        return message


class Relay:
    """Hands one topic on. `alter` (message -> messages) is a fault; `began` when it met its first message."""

    def __init__(self, node: Any, kind: Any, source: str, target: str, hear: Any, say: Any) -> None:
        """From topic `source` to `target`, with the QoS of who speaks and who listens there."""
        self.output = node.create_publisher(kind, target, say)
        node.create_subscription(kind, source, self.on_message, hear)
        self.heard: Callable[[Any], None] = lambda message: None
        self.last: Any = None
        self.waiting: deque[tuple[float, Any]] = deque()
        self.clear()

    def clear(self) -> None:
        """Hand everything on."""
        self.alter: Callable[[Any], list[Any] | None] | None = None
        self.once = False
        self.began: float | None = None

    def on_message(self, message: Any) -> None:
        """To the other side, as it is or as the fault makes it. None from `alter`: the fault needs another message."""
        self.heard(message)
        if self.alter is None:
            self.last = message
            self.output.publish(message)
            return
        out = self.alter(message)
        if out is None:
            return
        if self.began is None:
            self.began = time.monotonic()
        for item in out:
            self.output.publish(item)
        if self.once:
            self.alter = None

    def flush(self) -> None:
        """Delayed messages that are due."""
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            self.output.publish(self.waiting.popleft()[1])


class Silent:
    """A screen that shows nothing: the campaign prints its own rows."""

    def show(self, status: Any) -> None:
        """See panel.Screen."""

    def say(self, text: str) -> None:
        """See panel.Screen."""

    def close(self) -> None:
        """See panel.Screen."""


class Campaign(conductor.Conductor):
    """See the module."""

    def __init__(self, run: Run, settings: Config, phase: str, processes: bringup.Processes) -> None:
        """rclpy must be initialised; `start` brings the graph up."""
        super().__init__(run, settings, summary.Progress(), processes, Silent())
        self.robot = settings.robot
        self.phase = phase
        self.policy = "behavior_policy" if run.policy == "behavior" else "inference"
        self.executor.remove_node(self.node)
        self.executor.shutdown()
        self.executor = ShortPathExecutor()  # the relay must cost little
        self.executor.add_node(self.node)
        self.down: set[str] = set()  # nodes that a fault took down
        self.decisions: list[tuple[float, messages.Verdict]] = []
        self.logs: list[tuple[float, str]] = []
        self.states: list[tuple[float, str]] = []
        self.inputs: dict[str, Floats] = {}
        self.state_now: Floats | None = None
        self.stood_at: float | None = None
        self.sensed_at = self.commanded_at = 0.0
        self.moved_s = 0.0  # in motion so far
        self.refused = 0
        self.visits: list[float] = []  # when each unsafe visit was told of
        self._session: dict[str, float] = {}
        self.seed = 0
        self.relays = self._relays()
        node = self.node
        node.create_subscription(DiagnosticArray, messages.DECISION, self._on_decision, messages.RECORDED)
        node.create_subscription(DiagnosticArray, messages.DIAGNOSTICS, self._on_diagnostics, messages.CHAIN)
        node.create_subscription(Log, "/rosout", self._on_log, messages.RECORDED)
        node.create_timer(RELAY_S, self._flush)
        # Another participant: one cannot hold two types of a topic, and a stranger is no node of this run.
        self.elsewhere = rclpy.Context()
        self.elsewhere.init()
        self.stranger = rclpy.create_node("stranger", context=self.elsewhere)
        self.clock = node.create_publisher(Clock, "/clock", 1)
        self.no_priority = lifecycle.real_time_priority(lifecycle.ROBOT_PRIORITY)  # the relay is part of the robot
        self.clock_timer: Any = None
        self.clock_offset: float | None = 0.0  # s, ahead of the true one; None: it stands still

    def _relays(self) -> dict[str, Relay]:
        robot = self.robot
        relays = {}
        self.codecs: dict[str, Any] = {}
        for channel in robot.channels:
            codec = messages.ChannelCodec(channel)
            quality = messages.CHAIN if channel.latched else messages.SENSOR
            relay = Relay(self.node, codec.type, channel.name + TRUE, channel.name, quality, quality)
            relay.heard = lambda message, codec=codec: self._sense(codec, message)  # type: ignore[misc]
            relays[channel.name], self.codecs[channel.name] = relay, codec
        command = self.codecs[COMMAND] = messages.CommandCodec(robot.command, stamped=True)
        name = robot.command.name
        relays[COMMAND] = Relay(self.node, command.type, name, name + DRIVEN, messages.LATEST, messages.LATEST)
        relays[COMMAND].heard = lambda message: setattr(self, "commanded_at", time.monotonic())
        request = messages.REQUEST
        relays[REQUEST] = Relay(self.node, JointState, request + ASKED, request, messages.LATEST, messages.LATEST)
        self.codecs[REQUEST] = RequestVector()
        return relays

    def close(self) -> None:
        """Leave the graph; who goes on in this process does so at ordinary priority."""
        lifecycle.real_time_priority(0)
        self.stranger.destroy_node()
        self.elsewhere.try_shutdown()
        super().close()

    # --- the graph ---------------------------------------------------------------------------------------------------

    def launch(self, node: str) -> None:
        """As the conductor does, with the topics led through the relays."""
        assert self.processes is not None
        renamed = {}
        if node == "simulator":
            renamed = {channel.name: channel.name + TRUE for channel in self.robot.channels}
            renamed[self.robot.command.name] = self.robot.command.name + DRIVEN
        elif node == self.policy:
            renamed = {messages.REQUEST: messages.REQUEST + ASKED}
        self.processes.start(node, bringup.parameters(node, self.run, self.progress), renamed)

    def _look_at_processes(self) -> None:
        """Raises Fault where a node died that no fault took down."""
        if self.processes is None or not self._watching:
            return
        for name in self.processes.dead():
            if name not in self.down:
                words = self.processes.last_words(name)
                raise conductor.Fault(f"{name} died ({self.processes.how_it_ended(name)}): {words}")

    def _flush(self) -> None:
        for relay in self.relays.values():
            if relay.waiting:
                relay.flush()

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _sense(self, codec: messages.ChannelCodec, message: Any) -> None:
        self.inputs[codec.channel.name] = codec.decode(message)
        if codec.channel.name != self.robot.channels[0].name or len(self.inputs) < len(self.robot.channels):
            return
        estimate: Estimate = self.robot.estimate(self.inputs)
        self.state_now, self.sensed_at = estimate.state, time.monotonic()
        certificate = self.robot.model.certificate
        newest = self.decisions[-1][1].centre if self.decisions else 0
        if self.decisions and self.robot.in_motion(estimate.state, certificate.centres[newest]):
            self.moved_s += self.robot.period
        stands = bool(certificate.terminal(estimate.state, certificate.centre(newest), certificate.constants))
        if not (self.robot.passive_stop and stands):
            self.stood_at = None
        elif self.stood_at is None:
            self.stood_at = time.monotonic()

    def _on_decision(self, message: DiagnosticArray) -> None:
        self.decisions.append((time.monotonic(), messages.decode_decision(message)))

    def _on_gate(self, message: String) -> None:
        super()._on_gate(message)
        self.states.append((time.monotonic(), message.data))

    def _on_log(self, message: Log) -> None:
        if message.name.endswith("safety_monitor"):
            self.logs.append((time.monotonic(), message.msg))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = messages.decode_status(message)
        if "refused_inputs" in values:
            self.refused = int(values["refused_inputs"]) + int(values["refused_requests"])

    def _on_outcome(self, message: JointState) -> None:
        super()._on_outcome(message)
        table = self.outcome()
        same = table["session"] == self._session.get("session")
        new = int(table["unsafe_visits"] - (self._session["unsafe_visits"] if same else 0))
        self.visits += [time.monotonic()] * new
        self._session = table

    def moving(self) -> bool:
        """Under its policy, long enough into an episode, and in motion."""
        if self.state_now is None or not self.decisions or self._gate.startswith("latched"):
            return False
        at, newest = self.decisions[-1]
        warm = self.outcome().get("tick", 0) * self.robot.period >= WARM_S
        fresh = time.monotonic() - at < 2 * self.robot.period
        centre = self.robot.model.certificate.centres[newest.centre]
        return warm and fresh and newest.reason == "request" and self.robot.in_motion(self.state_now, centre)

    # --- between two faults ------------------------------------------------------------------------------------------

    def new_episode(self) -> None:
        """Another arena, the robot at its start."""
        self.deactivate("simulator")
        self.seed += 1
        self.set("simulator", first_seed=self.seed)
        self.activate("simulator")

    def open(self) -> None:
        """Everybody up, active, and in a first episode."""
        self.start()
        self.activate(self.policy)
        self.set("simulator", phase="collection" if self.phase == "collection" else "simulate", first_seed=self.seed)
        self.activate("simulator")

    def recover(self) -> None:
        """Nodes back, latch reset. Raises Fault where the gate does not come back."""
        for relay in self.relays.values():
            relay.clear()
        for node in self.run.nodes:
            if node in self.down:
                self._bring_back(node)
        if self.state("simulator") != State.PRIMARY_STATE_ACTIVE:
            self.seed += 1
            self.set("simulator", first_seed=self.seed)
            self.activate("simulator")
        end, answer = time.monotonic() + BACK_S, ""
        while self._gate.startswith("latched") and time.monotonic() < end:
            response = self.call("safety_monitor", Trigger, "safety_monitor/reset", Trigger.Request())
            answer = response.message
            self.spin(lambda: not self._gate.startswith("latched"), 0.5)
        if self._gate.startswith("latched"):
            raise conductor.Fault(f"the gate cannot be reset: {answer}")

    def _bring_back(self, node: str) -> None:
        """A node that a fault took down: a process, configured and active."""
        assert self.processes is not None
        if not self.processes.alive(node):
            self.progress = summary.progress(self.run.folder)  # numbers go on after the last one that is accounted for
            self.launch(node)
        self.down.discard(node)
        if self.state(node, conductor.START_S) == State.PRIMARY_STATE_UNCONFIGURED:
            self.configure(node)
        if self.state(node) == State.PRIMARY_STATE_INACTIVE and node != "simulator":
            self.activate(node)

    # --- one fault ---------------------------------------------------------------------------------------------------

    def get_moving(self, quiet: bool) -> bool:
        """Wait until the robot moves, and until a refusal would be logged; in another episode if it does not."""

        def ready() -> bool:
            return self.moving() and not (quiet and self.logs and time.monotonic() - self.logs[-1][0] < QUIET_S)

        for attempt in range(ATTEMPTS):
            if attempt:
                self.recover()  # a gate that latched late, a simulator that gave up
                self.new_episode()
            if self.spin(ready, MOVE_S):
                return True
        return False

    def play_fault(self, fault: faults.Fault, seen: Seen) -> None:
        """The fault, with the robot moving; tried again where it could not show. Fills in `seen`."""
        for _ in range(ATTEMPTS):
            seen.tries += 1
            self.arrange(fault)
            if not self.get_moving(quiet=fault.expect is Expect.REFUSED):
                seen.trouble = "the robot could not be brought to move"
                return
            episode, visits = self.outcome()["episode"], len(self.visits)
            self.observe(fault, seen)
            ended = self.outcome().get("episode") != episode and fault.target not in ("simulator", "safety_monitor")
            if len(self.visits) > visits or not (ended or faults.hidden(fault, seen)):
                return
            self.back()
        seen.trouble = "the episode ended, or the robot hardly moved, each time"

    def observe(self, fault: faults.Fault, seen: Seen) -> None:
        """Onset, duration, end and what follows."""
        decided, logged, refused, visits = len(self.decisions), len(self.logs), self.refused, len(self.visits)
        moved, asked = self.moved_s, time.monotonic()
        end = self.begin(fault, seen)
        try:
            onset = self._wait_out(fault, seen, asked if fault.expect is Expect.DRIVE else time.monotonic())
        finally:
            end()
        seen.moved_s = self.moved_s - moved

        def settled() -> bool:
            if fault.expect is Expect.LATCHED:
                return self._gate.startswith("latched")
            return fault.expect is not Expect.REFUSED or self.refused > refused

        self.spin(settled, SETTLE_S)
        self.spin(lambda: False, AFTER_S)
        seen.decisions = [(at - onset, v.reason, v.message) for at, v in self.decisions[decided:] if at >= onset]
        seen.states = [(at - onset, text) for at, text in self.states if at >= onset]
        seen.logs = [(at - onset, text) for at, text in self.logs[logged:] if at >= onset]
        seen.refused = self.refused - refused
        seen.visit_s = self.visits[visits] - onset if len(self.visits) > visits else None
        seen.state = "silent" if fault.expect is Expect.DRIVE else self._gate

    def _wait_out(self, fault: faults.Fault, seen: Seen, onset: float) -> float:
        """Until the fault is to end. Returns its onset: when the first message was spoilt, or missing."""
        relay = self.relays.get(fault.target)
        if fault.seconds:
            self.spin(lambda: False, fault.seconds)
        elif relay is not None:
            self.spin(lambda: relay.began is not None, 2.0)
        if relay is not None:
            if relay.alter is not None and relay.began is None:
                seen.trouble = f"no message came on {fault.target}"
            onset = relay.began or onset
        if fault.target == "simulator":
            onset = max(onset, self.sensed_at + self.robot.period)
        if fault.expect is Expect.DRIVE:
            if self.stood_at is not None:
                seen.stood_s = max(0.0, self.stood_at - onset)
            if (silent_at := self.commanded_at + self.robot.world.drive.timeout) < time.monotonic():
                seen.silent_s = max(0.0, silent_at - onset)
        return onset

    def arrange(self, fault: faults.Fault) -> None:
        """What must stand before the robot moves."""
        if fault.verb == "clock":
            self.clock_offset = 0.0
            self.clock_timer = self.node.create_timer(CLOCK_S, self._tick_clock)
            self.set("safety_monitor", use_sim_time=True)
            self.spin(lambda: False, AFTER_S)  # until /clock is heard, it is the year 1970
            self.recover()

    def back(self) -> None:
        """As before the fault."""
        if self.clock_timer is not None:
            self.set("safety_monitor", use_sim_time=False)
            self.node.destroy_timer(self.clock_timer)
            self.clock_timer = None
        self.recover()

    def begin(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """Put the fault on; returns what takes it off."""
        done: Callable[[], None] = getattr(self, f"_{fault.verb}")(fault, seen)
        return done

    # --- messages ----------------------------------------------------------------------------------------------------

    def _alter(self, fault: faults.Fault, alter: Callable[[Any], list[Any] | None]) -> Callable[[], None]:
        relay = self.relays[fault.target]
        relay.clear()
        relay.alter, relay.once = alter, fault.seconds == 0.0
        if fault.target not in (REQUEST, COMMAND):
            (channel,) = (c for c in self.robot.channels if c.name == fault.target)
            if channel.latched and relay.last is not None:
                relay.on_message(copy.deepcopy(relay.last))  # it comes once an episode: once more, with the fault

        def end() -> None:
            relay.alter = None

        return end

    def _vector(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        name, argument = fault.option
        codec, change = self.codecs[fault.target], faults.ALTERATIONS[name]
        last = self.relays[fault.target].last
        first = codec.decode(last) if last is not None else None

        def alter(message: Any) -> list[Any]:
            vector = change(codec.decode(message), first, argument)  # type: ignore[arg-type]  # a moving robot was heard
            if fault.target == REQUEST:
                return [codec.encode(message, vector)]
            stamp_ns = messages.nanoseconds(message.header.stamp) if hasattr(message, "header") else 0
            return [codec.encode(vector, stamp_ns)]

        return self._alter(fault, alter)

    def _names(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        constants: dict[str, Any] = {"name": ["id", *self.robot.action_names]}
        if fault.target != REQUEST:
            constants = self.codecs[fault.target].channel.constants
        path, right = next((path, value) for path, value in constants.items() if isinstance(value, str | list | tuple))
        wrong: Any = "stranger" if isinstance(right, str) else [*right[:-1], "stranger"]

        def alter(message: Any) -> list[Any]:
            messages.assign(message, path, wrong)
            return [message]

        return self._alter(fault, alter)

    def _length(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        fields = ["position[]"] if fault.target == REQUEST else self.codecs[fault.target].channel.fields
        path = next(field.removesuffix("[]") for field in fields if field.endswith("[]"))

        def alter(message: Any) -> list[Any]:
            messages.assign(message, path, getattr(message, path)[:-1])
            return [message]

        return self._alter(fault, alter)

    def _stamp(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        offset = round(1e9 * fault.option)

        def alter(message: Any) -> list[Any]:
            message.header.stamp = messages.stamp_of(messages.nanoseconds(message.header.stamp) + offset)
            return [message]

        return self._alter(fault, alter)

    def _repeat(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        return self._alter(fault, lambda message: [message, message])

    def _swap(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        held: list[Any] = []

        def alter(message: Any) -> list[Any] | None:
            if not held:
                held.append(message)
                return None
            return [message, held.pop()]

        return self._alter(fault, alter)

    def _drop(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        return self._alter(fault, lambda message: [])

    def _delay(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        relay, (least, most) = self.relays[fault.target], fault.option

        def alter(message: Any) -> list[Any]:
            due = time.monotonic() + random.uniform(least, most)
            if relay.waiting:
                due = max(due, relay.waiting[-1][0])  # one sender's messages keep their order
            relay.waiting.append((due, message))
            return []

        return self._alter(fault, alter)

    def _type(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        output = self.stranger.create_publisher(String, fault.target, messages.CHAIN)
        end = (lambda: None) if not fault.seconds else self._drop(fault, seen)
        timer = self.node.create_timer(self.robot.period, lambda: output.publish(String(data="no reading")))
        if not fault.seconds:
            output.publish(String(data="no reading"))

        def stop() -> None:
            self.node.destroy_timer(timer)
            self.stranger.destroy_publisher(output)
            end()

        return stop

    def _flood(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        relay = self.relays[fault.target]

        def burst() -> None:
            message = relay.last
            if fault.target != REQUEST:  # the same reading once more, with a stamp that gets by
                message.header.stamp = messages.stamp_of(messages.nanoseconds(message.header.stamp) + FLOOD_NS)
            relay.output.publish(message)

        timer = self.node.create_timer(1.0 / fault.option, burst)

        def stop() -> None:
            self.node.destroy_timer(timer)

        return stop

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _signal(self, node: str, number: int) -> None:
        assert self.processes is not None
        os.killpg(self.processes.pid(node), number)

    def _kill(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGKILL)
        return lambda: None

    def _stop(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self._signal(fault.target, signal.SIGSTOP)
        return lambda: self._signal(fault.target, signal.SIGCONT)

    def _restart(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """Asked to leave; the onset is when it has left, as it may have something to finish: the monitor, the stop."""
        processes = self.processes
        assert processes is not None
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGTERM)
        if not self.spin(lambda: not processes.alive(fault.target), LEAVE_S):
            seen.trouble = f"{fault.target} did not leave within {LEAVE_S:.0f} s of SIGTERM"
        return lambda: None

    def _disk(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """A limit on the size of the recorder's files fails its writes as a full disk does, and needs no root."""
        assert self.processes is not None
        pid, journal = self.processes.pid(fault.target), self.run.folder / "journal.bin"
        free = resource.prlimit(pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))

        def end() -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, free)

        return end

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _hog(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]

        def end() -> None:
            for process in busy:
                process.kill()
                process.wait()

        return end

    def _parameter(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        name, value = fault.option
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        asked = time.monotonic()
        result = self.call(fault.target, SetParameters, f"{fault.target}/set_parameters", request).results[0]
        if not result.successful:
            seen.answer = time.monotonic() - asked, result.reason
        return lambda: None

    def _foreign(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        codec = messages.CommandCodec(self.robot.command, stamped=True)
        output = self.stranger.create_publisher(codec.type, self.robot.command.name, messages.LATEST)
        fastest = self.robot.action_high.astype(np.float32)

        def talk() -> None:
            output.publish(codec.encode(fastest, self.node.get_clock().now().nanoseconds))

        timer = self.node.create_timer(1.0 / fault.option, talk) if fault.option else None

        def stop() -> None:
            if timer is not None:
                self.node.destroy_timer(timer)
            self.stranger.destroy_publisher(output)

        return stop

    def _clock(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self.clock_offset = fault.option
        self._tick_clock()  # the onset is now

        def end() -> None:
            self.clock_offset = 0.0

        return end

    def _tick_clock(self) -> None:
        if self.clock_offset is not None:
            now = self.node.get_clock().now().nanoseconds + round(1e9 * self.clock_offset)
            self.clock.publish(Clock(clock=messages.stamp_of(now)))


def conduct(
    campaign: Campaign, chosen: Sequence[faults.Fault], show: Callable[[Result], None], timed: bool = True
) -> list[Result]:
    """Play `chosen` in order, `show` each result, and stop the graph.

    Raises Interrupted, and Refused, Fault or Died where the graph does not come up, or not any more.
    """
    results: list[Result] = []
    broken = 0
    try:
        campaign.open()
        for number, fault in enumerate(chosen, 1):
            before, seen = len(campaign.visits), Seen()
            try:
                campaign.play_fault(fault, seen)
                if number < len(chosen):
                    campaign.back()
                broken = 0
            except (conductor.Fault, conductor.Refused, conductor.Died) as error:
                broken += 1
                if broken > ATTEMPTS:
                    raise
                seen.trouble = str(error)
            # From the end of the fault before it to the end of its own aftermath: no visit is nobody's.
            seen.visits = len(campaign.visits) - before
            results.append(faults.judge(fault, seen, campaign.robot.name, campaign.phase, timed))
            show(results[-1])
    finally:
        campaign.stop()
    return results
