"""Applies one fault of experiments/faults.py to a running graph and removes it: another verb of a fault goes here.

A relay passes on a topic, unchanged or altered. Signals kill, stop and restart nodes. `stranger` is a node that does
what no node of the run would do.
"""

import copy
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.srv import SetParameters
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String, UInt64

from safe_support_ql.experiments import faults
from safe_support_ql.experiments.faults import COMMAND, REQUEST, Seen
from safe_support_ql.nodes import native, topics
from safe_support_ql.nodes.graph import Graph
from safe_support_ql.recording.files import JOURNAL
from safe_support_ql.robots.base import Floats

CLOCK_S = 0.005
FLOOD_NS = 1000  # difference between the stamps of a flood
LEAVE_S = 10.0  # longest wait for a node to end after SIGTERM
MATCH_S = 5.0  # longest wait for the graph to connect a publisher
ACKED_S = 2.0  # longest wait until everybody who is connected has a message
READY_S = 0.5  # the other side may connect a little later, and then a single message would be lost
MALFORMED = {  # by topic: a message of the right type that nobody can use
    topics.OUTCOME: JointState(name=["phase"], position=[math.nan]),
    topics.EPISODE: DiagnosticArray(),
    topics.EPISODE_ACK: UInt64(data=2**64 - 1),
    topics.CANDIDATES: PointCloud2(),
    topics.DECISION: DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue(key="action", value="nan")])]),
    topics.HEARTBEAT: UInt64(data=2**64 - 1),
    topics.LEARNER_STATUS: DiagnosticArray(),
    topics.GATE_STATE: String(data="nonsense"),
}

Undo = Callable[[], Any]  # removes a fault


class RequestVector:
    """A codec for the action inside a request."""

    def decode(self, message: JointState) -> Floats:
        return np.asarray(message.position[1:], np.float64)

    def encode(self, message: JointState, vector: Floats) -> JointState:
        """`message` with another action."""
        message.position = [message.position[0], *vector.tolist()]
        return message


class Relay:
    """Relays one topic. `alter` (message -> messages) is a fault; `began` is the time of its first message."""

    def __init__(self, node: Any, kind: Any, source: str, target: str, hear: Any, say: Any) -> None:
        """From topic `source`, with QoS `hear`, to topic `target`, with QoS `say`."""
        self.output = node.create_publisher(kind, target, say)
        node.create_subscription(kind, source, self.on_message, hear)
        self.heard: Callable[[Any], None] = lambda message: None
        self.last: Any = None
        self.waiting: deque[tuple[float, Any]] = deque()
        self.clear()

    def clear(self) -> None:
        """End the fault: relay everything unchanged."""
        self.alter: Callable[[Any], list[Any] | None] | None = None
        self.once = False
        self.began: float | None = None

    def on_message(self, message: Any) -> None:
        """Publish the message, unchanged or altered. If `alter` returns None, the fault needs another message."""
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
        """Publish delayed messages that are due."""
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            self.output.publish(self.waiting.popleft()[1])


class Injector:
    """Every `verb` of a fault is a method: it applies the fault and returns a function that removes it."""

    def __init__(self, graph: Graph, relays: Mapping[str, Relay], codecs: Mapping[str, Any]) -> None:
        """`relays` and `codecs` by the target of a fault."""
        assert graph.processes is not None
        self.graph, self.robot, self.node, self.processes = graph, graph.robot, graph.node, graph.processes
        self.relays, self.codecs = relays, codecs
        self.down: set[str] = set()  # nodes that a fault stopped
        self.lidar = dict(faults.HONEST)  # parameters of the simulator, from its next episode on
        # Another DDS participant: one participant cannot have two types of a topic.
        self.elsewhere = rclpy.Context()
        self.elsewhere.init()
        self.stranger = rclpy.create_node("stranger", context=self.elsewhere)
        self.clock = self.node.create_publisher(Clock, "/clock", 1)
        self.clock_timer: Any = None
        self.clock_offset: float | None = 0.0  # s, ahead of the true clock; None: it stands still

    def close(self) -> None:
        self.stranger.destroy_node()
        self.elsewhere.try_shutdown()

    def begin(self, fault: faults.Fault, seen: Seen) -> Undo:
        done: Undo = getattr(self, f"_{fault.verb}")(fault, seen)
        return done

    def start_clock(self) -> None:
        """Publish /clock, with the true time until a fault changes it."""
        self.clock_offset = 0.0
        self.clock_timer = self.node.create_timer(CLOCK_S, self._tick_clock)

    def stop_clock(self) -> None:
        self.node.destroy_timer(self.clock_timer)
        self.clock_timer = None

    # --- messages ----------------------------------------------------------------------------------------------------

    def _alter(self, fault: faults.Fault, alter: Callable[[Any], list[Any] | None]) -> Undo:
        relay = self.relays[fault.target]
        relay.clear()
        relay.alter, relay.once = alter, fault.seconds == 0.0
        if fault.target not in (REQUEST, COMMAND):
            (channel,) = (c for c in self.robot.channels if c.name == fault.target)
            if channel.latched and relay.last is not None:
                # A message that comes once per episode: send it again, with the fault.
                relay.on_message(copy.deepcopy(relay.last))

        return lambda: setattr(relay, "alter", None)

    def _vector(self, fault: faults.Fault, seen: Seen) -> Undo:
        name, argument = fault.option
        codec, change = self.codecs[fault.target], faults.ALTERATIONS[name]
        last = self.relays[fault.target].last
        first = codec.decode(last) if last is not None else None

        def alter(message: Any) -> list[Any]:
            vector = change(codec.decode(message), first, argument)  # type: ignore[arg-type]  # a moving robot was heard
            if fault.target == REQUEST:
                return [codec.encode(message, vector)]
            stamp_ns = native.nanoseconds(message.header.stamp) if hasattr(message, "header") else 0
            return [codec.encode(vector, stamp_ns)]

        return self._alter(fault, alter)

    def _names(self, fault: faults.Fault, seen: Seen) -> Undo:
        constants: dict[str, Any] = {"name": ["id", *self.robot.action_names]}
        if fault.target != REQUEST:
            channel = self.codecs[fault.target].channel
            constants = {"name": list(channel.joints)} if channel.joints else channel.constants
        path, right = next((path, value) for path, value in constants.items() if isinstance(value, str | list | tuple))
        wrong: Any = "stranger" if isinstance(right, str) else [*right[:-1], "stranger"]

        def alter(message: Any) -> list[Any]:
            native.assign(message, path, wrong)
            return [message]

        return self._alter(fault, alter)

    def _length(self, fault: faults.Fault, seen: Seen) -> Undo:
        fields = ["position[]"] if fault.target == REQUEST else self.codecs[fault.target].channel.fields
        path = next(field.removesuffix("[]") for field in fields if field.endswith("[]"))

        def alter(message: Any) -> list[Any]:
            native.assign(message, path, getattr(message, path)[:-1])
            return [message]

        return self._alter(fault, alter)

    def _stamp(self, fault: faults.Fault, seen: Seen) -> Undo:
        offset = round(1e9 * fault.option)

        def alter(message: Any) -> list[Any]:
            message.header.stamp = native.stamp_of(native.nanoseconds(message.header.stamp) + offset)
            return [message]

        return self._alter(fault, alter)

    def _repeat(self, fault: faults.Fault, seen: Seen) -> Undo:
        return self._alter(fault, lambda message: [message, message])

    def _swap(self, fault: faults.Fault, seen: Seen) -> Undo:
        held: list[Any] = []

        def alter(message: Any) -> list[Any] | None:
            if not held:
                held.append(message)
                return None
            return [message, held.pop()]

        return self._alter(fault, alter)

    def _drop(self, fault: faults.Fault, seen: Seen) -> Undo:
        return self._alter(fault, lambda message: [])

    def _delay(self, fault: faults.Fault, seen: Seen) -> Undo:
        relay, (least, most) = self.relays[fault.target], fault.option

        def alter(message: Any) -> list[Any]:
            due = time.monotonic() + random.uniform(least, most)
            if relay.waiting:
                due = max(due, relay.waiting[-1][0])  # one sender's messages keep their order
            relay.waiting.append((due, message))
            return []

        return self._alter(fault, alter)

    def _type(self, fault: faults.Fault, seen: Seen) -> Undo:
        output = self.stranger.create_publisher(String, fault.target, topics.CHAIN)
        end = (lambda: None) if not fault.seconds else self._drop(fault, seen)
        timer = self.node.create_timer(self.robot.period, lambda: output.publish(String(data="no reading")))
        if not fault.seconds:
            output.publish(String(data="no reading"))

        def stop() -> None:
            self.node.destroy_timer(timer)
            self.stranger.destroy_publisher(output)
            end()

        return stop

    def _malformed(self, fault: faults.Fault, seen: Seen) -> Undo:
        message = MALFORMED[fault.target]
        quality = topics.LATCHED if fault.target == topics.GATE_STATE else topics.CHAIN
        output = self.stranger.create_publisher(type(message), fault.target, quality)

        def heard() -> bool:
            count: int = output.get_subscription_count()
            return 0 < count == self.stranger.count_subscribers(fault.target)

        if not self.graph.spin(heard, MATCH_S):
            seen.trouble = f"nobody heard the stranger on {fault.target}"
        self.graph.spin(lambda: False, READY_S)
        output.publish(message)
        again = self.robot.period if fault.seconds else 1e9
        timer = self.node.create_timer(again, lambda: output.publish(message))

        def stop() -> None:
            self.node.destroy_timer(timer)
            # A publisher takes along what is not acknowledged yet. No blocking: the relays of this process must go on.
            self.graph.spin(lambda: bool(output.wait_for_all_acked(Duration())), ACKED_S)
            self.stranger.destroy_publisher(output)

        return stop

    def _lidar(self, fault: faults.Fault, seen: Seen) -> Undo:
        self.lidar |= fault.option
        return lambda: self.lidar.update(faults.HONEST)

    def _flood(self, fault: faults.Fault, seen: Seen) -> Undo:
        relay = self.relays[fault.target]

        def burst() -> None:
            message = relay.last
            if fault.target != REQUEST:  # the same measurement again, with a stamp that is accepted
                message.header.stamp = native.stamp_of(native.nanoseconds(message.header.stamp) + FLOOD_NS)
            relay.output.publish(message)

        timer = self.node.create_timer(1.0 / fault.option, burst)
        return lambda: self.node.destroy_timer(timer)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _signal(self, node: str, number: int) -> None:
        os.killpg(self.processes.pid(node), number)

    def _kill(self, fault: faults.Fault, seen: Seen) -> Undo:
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGKILL)
        return lambda: None

    def _stop(self, fault: faults.Fault, seen: Seen) -> Undo:
        self._signal(fault.target, signal.SIGSTOP)
        return lambda: self._signal(fault.target, signal.SIGCONT)

    def _restart(self, fault: faults.Fault, seen: Seen) -> Undo:
        """SIGTERM. The onset is the end of the process, because a node may first finish its work (stop the robot)."""
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGTERM)
        if not self.graph.spin(lambda: not self.processes.alive(fault.target), LEAVE_S):
            seen.trouble = f"{fault.target} did not end within {LEAVE_S:.0f} s after SIGTERM"
        return lambda: None

    def _disk(self, fault: faults.Fault, seen: Seen) -> Undo:
        """A limit on the size of the recorder's files makes writes fail like a full disk, and needs no root rights."""
        pid, journal = self.processes.pid(fault.target), self.graph.run.folder / JOURNAL
        free = resource.prlimit(pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
        return lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, free)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _hog(self, fault: faults.Fault, seen: Seen) -> Undo:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]

        def end() -> None:
            for process in busy:
                process.kill()
                process.wait()

        return end

    def _parameter(self, fault: faults.Fault, seen: Seen) -> Undo:
        name, value = fault.option
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        asked = time.monotonic()
        service = f"{fault.target}/set_parameters"
        result = self.graph.client.call(fault.target, SetParameters, service, request).results[0]
        if not result.successful:
            seen.answer = time.monotonic() - asked, result.reason
        return lambda: None

    def _foreign(self, fault: faults.Fault, seen: Seen) -> Undo:
        codec = native.CommandCodec(self.robot.command, stamped=True)
        output = self.stranger.create_publisher(codec.type, self.robot.command.name, topics.LATEST)
        fastest = self.robot.action_high.astype(np.float32)

        def talk() -> None:
            output.publish(codec.encode(fastest, self.node.get_clock().now().nanoseconds))

        timer = self.node.create_timer(1.0 / fault.option, talk) if fault.option else None

        def stop() -> None:
            if timer is not None:
                self.node.destroy_timer(timer)
            self.stranger.destroy_publisher(output)

        return stop

    def _clock(self, fault: faults.Fault, seen: Seen) -> Undo:
        self.clock_offset = fault.option
        self._tick_clock()  # the onset is now
        return lambda: setattr(self, "clock_offset", 0.0)

    def _tick_clock(self) -> None:
        if self.clock_offset is not None:
            now = self.node.get_clock().now().nanoseconds + round(1e9 * self.clock_offset)
            self.clock.publish(Clock(clock=native.stamp_of(now)))
