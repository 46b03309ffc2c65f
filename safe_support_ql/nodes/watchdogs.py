"""The safety monitor's watchdogs (another one goes here): each returns what is wrong, and the monitor acts on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from rclpy.node import Node

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.native import ChannelCodec
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.sent import TRANSPORT_NS

GHOST_S = 22.0  # a killed participant stays in the graph for its lease: 20 s by default, 4 s with config/fastdds.xml
GHOST_LOOK_S = 0.1
JUMP_S = 0.5  # change against the steady clock between two looks that counts as a jump: no drift is that large


def foreign_command(names: str) -> Cause:
    """Another node could move the robot past the gate."""
    return Cause(f"another node publishes the robot's command: {names}", "stop it, then call the reset service")


def unheard_e_stop(kinds: str) -> Cause:
    """There is an e-stop button that the monitor cannot hear."""
    return Cause(f"a node publishes e_stop as {kinds}, which is not heard", "publish std_msgs/msg/Bool")


class ClockWatch:
    """Detects a jump of the clock, which makes every stamp wrong."""

    def __init__(self) -> None:
        """The first look has nothing to compare with."""
        self._ahead_ns: int | None = None

    def look(self, now_ns: int, steady_ns: int) -> Cause:
        """The jump since the last look, given the time of the clock and of the steady clock."""
        ahead_ns = now_ns - steady_ns
        jumped_s = 0.0 if self._ahead_ns is None else (ahead_ns - self._ahead_ns) / 1e9
        self._ahead_ns = ahead_ns
        if abs(jumped_s) <= JUMP_S:
            return NONE
        return Cause(f"the clock jumped by {jumped_s:+.1f} s", "synchronise the clocks, then call the reset service")


class DelayWatch:
    """Detects commands that left late: the gate assumes that a command is sent soon after its decision.

    Nothing may then be requested until every state that the gate may use was measured later.
    """

    def __init__(self, memory_ns: int) -> None:
        """`memory_ns`: largest age of a state; certificates roll out the commands since then."""
        self._memory_ns = memory_ns
        self._unsure_until_ns = 0

    def sent(self, decided_ns: int) -> None:
        """A command was sent just now."""
        now = time.monotonic_ns()
        if now - decided_ns > TRANSPORT_NS:
            self._unsure_until_ns = now + TRANSPORT_NS + self._memory_ns

    def unsure(self, steady_ns: int) -> bool:
        """Whether certificates may assume wrong times of earlier commands."""
        return steady_ns < self._unsure_until_ns


class RecorderWatch:
    """Detects a recorder that was heard once and is lost for too long; one that was never heard may still start."""

    def __init__(self) -> None:
        """No recorder was heard yet."""
        self.heard = False
        self._lost_since_ns = 0

    def begin(self) -> None:
        """Begin with a new gate; `heard` is kept."""
        self._lost_since_ns = 0

    def on_heartbeat(self, gate: Gate) -> None:
        """The gate has received a heartbeat."""
        self.heard = True
        if not gate.recorder_problem(time.monotonic_ns()):
            self._lost_since_ns = 0

    def look(self, gate: Gate) -> Cause:
        """Why the gate must latch."""
        now = time.monotonic_ns()
        problem = gate.recorder_problem(now) if self.heard else NONE
        if not problem:
            self._lost_since_ns = 0
        elif not self._lost_since_ns:
            self._lost_since_ns = now
        elif now - self._lost_since_ns > round(1e9 * gate.config.latch_after_s):
            return problem.then("call the reset service")
        return NONE


class PublisherWatch:
    """Detects other publishers of the command, and publishers whose type the monitor cannot receive.

    DDS does not connect a publisher of another type, and reports that to neither side.
    """

    def __init__(self, node: Node, command: str, codecs: Sequence[ChannelCodec]) -> None:
        """For the monitor `node`, which publishes the full topic `command` and hears the channels of `codecs`."""
        self._node, self._command, self._codecs = node, command, codecs

    def strangers(self) -> list[str]:
        """Full names of other nodes that publish the command."""
        own = (self._node.get_name(), self._node.get_namespace())
        infos = self._node.get_publishers_info_by_topic(self._command)
        names = [(info.node_name, info.node_namespace) for info in infos]
        if own in names:
            names.remove(own)
        return sorted(f"{space.rstrip('/')}/{name}" for name, space in names)

    def foreign(self) -> str:
        """The same in one text."""
        return ", ".join(self.strangers())

    def foreign_but_ghosts(self, hurry: Callable[[], bool]) -> str:
        """Other publishers of the command, after waiting until a killed predecessor has left the graph.

        It stays there for its lease, and cannot be distinguished from a living node of the same name before. `hurry`
        returns whether to stop waiting.
        """
        own = f"{self._node.get_namespace().rstrip('/')}/{self._node.get_name()}"
        end, told = time.monotonic() + GHOST_S, False
        while True:
            names = self.strangers()
            if set(names) != {own} or time.monotonic() > end or hurry():
                return ", ".join(names)
            if not told:
                self._node.get_logger().info("waiting for a predecessor of this name to leave the graph")
                told = True
            time.sleep(GHOST_LOOK_S)  # DDS has threads of its own

    def unheard_e_stops(self) -> str:
        """Types of e-stop buttons that the monitor cannot hear."""
        return self._other_types(topics.E_STOP, "std_msgs/msg/Bool")

    def unheard_inputs(self) -> Iterator[tuple[str, Cause]]:
        """(channel, what is wrong) for each input that is published as another type."""
        for codec in self._codecs:
            kind = codec.channel.type.replace("/msg/", "/").replace("/", "/msg/")
            if others := self._other_types(codec.channel.name, kind):
                yield codec.channel.name, Cause(f"{codec.channel.name}: a node publishes {others}, expected {kind}")

    def _other_types(self, topic: str, kind: str) -> str:
        infos = self._node.get_publishers_info_by_topic(topic)
        return ", ".join(sorted({info.topic_type for info in infos} - {kind}))
