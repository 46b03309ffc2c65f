"""Applies one fault of experiments/faults.py to a running graph and removes it: another verb of a fault goes here.

A relay alters messages. Signals kill, stop and restart nodes. `stranger` is a node that does what no node of the run
would do.
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
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from safe_support_ql.experiments import faults
from safe_support_ql.experiments.faults import COMMAND, REQUEST, Seen
from safe_support_ql.nodes import native, topics
from safe_support_ql.nodes.graph import Graph
from safe_support_ql.nodes.relay import Relay
from safe_support_ql.recording.files import JOURNAL

CLOCK_S = 0.005
FLOOD_NS = 1000  # difference between the stamps of a flood
LEAVE_S = 10.0  # longest wait for a node to end after SIGTERM


class Injector:
    """Every `verb` of a fault is a method: it applies the fault and returns a function that removes it."""

    def __init__(self, graph: Graph, relays: Mapping[str, Relay], codecs: Mapping[str, Any]) -> None:
        """`relays` and `codecs` by the target of a fault."""
        assert graph.processes is not None
        self.graph, self.robot, self.node, self.processes = graph, graph.robot, graph.node, graph.processes
        self.relays, self.codecs = relays, codecs
        self.down: set[str] = set()  # nodes that a fault stopped
        # Another DDS participant: one participant cannot have two types of a topic.
        self.elsewhere = rclpy.Context()
        self.elsewhere.init()
        self.stranger = rclpy.create_node("stranger", context=self.elsewhere)
        self.clock = self.node.create_publisher(Clock, "/clock", 1)
        self.clock_timer: Any = None
        self.clock_offset: float | None = 0.0  # s, ahead of the true clock; None: it stands still

    def close(self) -> None:
        """Remove the stranger."""
        self.stranger.destroy_node()
        self.elsewhere.try_shutdown()

    def begin(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """Apply the fault; returns a function that removes it."""
        done: Callable[[], None] = getattr(self, f"_{fault.verb}")(fault, seen)
        return done

    def start_clock(self) -> None:
        """Publish /clock, with the true time until a fault changes it."""
        self.clock_offset = 0.0
        self.clock_timer = self.node.create_timer(CLOCK_S, self._tick_clock)

    def stop_clock(self) -> None:
        """Stop to publish /clock."""
        self.node.destroy_timer(self.clock_timer)
        self.clock_timer = None

    # --- messages ----------------------------------------------------------------------------------------------------

    def _alter(self, fault: faults.Fault, alter: Callable[[Any], list[Any] | None]) -> Callable[[], None]:
        relay = self.relays[fault.target]
        relay.clear()
        relay.alter, relay.once = alter, fault.seconds == 0.0
        if fault.target not in (REQUEST, COMMAND):
            (channel,) = (c for c in self.robot.channels if c.name == fault.target)
            if channel.latched and relay.last is not None:
                relay.on_message(
                    copy.deepcopy(relay.last)
                )  # a message that comes once per episode: send it again, with the fault

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
            stamp_ns = native.nanoseconds(message.header.stamp) if hasattr(message, "header") else 0
            return [codec.encode(vector, stamp_ns)]

        return self._alter(fault, alter)

    def _names(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        constants: dict[str, Any] = {"name": ["id", *self.robot.action_names]}
        if fault.target != REQUEST:
            constants = self.codecs[fault.target].channel.constants
        path, right = next((path, value) for path, value in constants.items() if isinstance(value, str | list | tuple))
        wrong: Any = "stranger" if isinstance(right, str) else [*right[:-1], "stranger"]

        def alter(message: Any) -> list[Any]:
            native.assign(message, path, wrong)
            return [message]

        return self._alter(fault, alter)

    def _length(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        fields = ["position[]"] if fault.target == REQUEST else self.codecs[fault.target].channel.fields
        path = next(field.removesuffix("[]") for field in fields if field.endswith("[]"))

        def alter(message: Any) -> list[Any]:
            native.assign(message, path, getattr(message, path)[:-1])
            return [message]

        return self._alter(fault, alter)

    def _stamp(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        offset = round(1e9 * fault.option)

        def alter(message: Any) -> list[Any]:
            message.header.stamp = native.stamp_of(native.nanoseconds(message.header.stamp) + offset)
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

    def _flood(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        relay = self.relays[fault.target]

        def burst() -> None:
            message = relay.last
            if fault.target != REQUEST:  # the same measurement again, with a stamp that is accepted
                message.header.stamp = native.stamp_of(native.nanoseconds(message.header.stamp) + FLOOD_NS)
            relay.output.publish(message)

        timer = self.node.create_timer(1.0 / fault.option, burst)

        def stop() -> None:
            self.node.destroy_timer(timer)

        return stop

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _signal(self, node: str, number: int) -> None:
        os.killpg(self.processes.pid(node), number)

    def _kill(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGKILL)
        return lambda: None

    def _stop(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self._signal(fault.target, signal.SIGSTOP)
        return lambda: self._signal(fault.target, signal.SIGCONT)

    def _restart(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """SIGTERM. The onset is the end of the process, because a node may first finish its work (stop the robot)."""
        self.down.add(fault.target)
        self._signal(fault.target, signal.SIGTERM)
        if not self.graph.spin(lambda: not self.processes.alive(fault.target), LEAVE_S):
            seen.trouble = f"{fault.target} did not end within {LEAVE_S:.0f} s after SIGTERM"
        return lambda: None

    def _disk(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        """A limit on the size of the recorder's files makes writes fail like a full disk, and needs no root rights."""
        pid, journal = self.processes.pid(fault.target), self.graph.run.folder / JOURNAL
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
        service = f"{fault.target}/set_parameters"
        result = self.graph.client.call(fault.target, SetParameters, service, request).results[0]
        if not result.successful:
            seen.answer = time.monotonic() - asked, result.reason
        return lambda: None

    def _foreign(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
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

    def _clock(self, fault: faults.Fault, seen: Seen) -> Callable[[], None]:
        self.clock_offset = fault.option
        self._tick_clock()  # the onset is now

        def end() -> None:
            self.clock_offset = 0.0

        return end

    def _tick_clock(self) -> None:
        if self.clock_offset is not None:
            now = self.node.get_clock().now().nanoseconds + round(1e9 * self.clock_offset)
            self.clock.publish(Clock(clock=native.stamp_of(now)))
