"""The safety monitor's watchdogs (another one goes here): each returns what is wrong, and the monitor acts on it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.native import ChannelCodec
from safe_support_ql.robots.base import Singles
from safe_support_ql.robots.world import CommandTopic
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.sent import TRANSPORT_NS

GHOST_S = 22.0  # a killed participant stays in the graph for its lease: 20 s by default, 4 s with config/fastdds.xml
GHOST_LOOK_S = 0.1
HEARD_LOOK_NS, UNHEARD_LOOK_NS = 1_000_000_000, 100_000_000
ENDLESS_NS = 2**62  # and more: how the graph shows a time that is not limited
LATELY_NS = 5_000_000_000
KEPT_REQUESTS = 16  # a slow policy answers a set while the next one is out
ONLOOKERS = ("rosbag2", "_ros2cli")  # beginnings of the names of nodes that listen to everything
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


class ListenerWatch:
    """Finds out whether anyone who listens to the command can hear it.

    DDS does not connect a reader of another type, and tells neither side; of another quality of service it does not
    either. Recorders of bags and `ros2 topic echo` move no robot: they do not count as a drive.
    """

    def __init__(self, node: Node, output: Publisher, command: CommandTopic) -> None:
        """For the monitor `node`, whose publisher of the command is `output`."""
        self._node, self._output = node, output
        self._topic, self._type = output.topic_name.lstrip("/"), type_name(output.msg_type)
        types = [name.replace("/msg/", "/").replace("/", "/msg/") for name in (command.type, command.unstamped_type)]
        self._others = {types[0]: "true", types[1]: "false"} if command.unstamped_type else {}
        self.unheard = NONE  # why nobody hears the command
        self.deaf: list[Cause] = []  # everyone who listens and cannot hear it
        self._looked_ns: int | None = None

    def look(self, now_ns: int) -> Cause:
        """Why nobody hears the command; looks at the graph once a second, more often while that is so."""
        due_ns = UNHEARD_LOOK_NS if self.unheard else HEARD_LOOK_NS
        if self._looked_ns is None or now_ns - self._looked_ns >= due_ns:
            self._looked_ns = now_ns
            self._see(self._node.get_subscriptions_info_by_topic(self._output.topic_name))
        return self.unheard

    def _see(self, listeners: Sequence[TopicEndpointInfo]) -> None:
        heard, deaf_drives = False, []
        self.deaf = []
        for info in listeners:
            drive = not info.node_name.startswith(ONLOOKERS)
            if problem := self._problem(info):
                self.deaf.append(problem)
                deaf_drives += [problem] * drive
            heard = heard or (drive and not problem)
        if heard:
            self.unheard = NONE
        elif deaf_drives:
            self.unheard = deaf_drives[0]
        else:
            self.unheard = Cause(f"nobody listens on '{self._topic}'", "start the drive, or look at its topic's name")

    def _problem(self, info: TopicEndpointInfo) -> Cause:
        """Why this listener cannot hear the command."""
        who = f"'{full_name(info).lstrip('/')}'"
        if info.topic_type != self._type:
            what = f"{self._topic}: {who} listens for {info.topic_type}, the monitor publishes {self._type}"
            stamped = self._others.get(info.topic_type)
            setting = f"set stamped_cmd: {stamped}, or " if stamped else ""
            return Cause(what, f"{setting}let it listen for {self._type}")
        asked = _not_offered(info.qos_profile)
        if not asked:
            return NONE
        wants = ", ".join(f"{policy} {value}" for policy, value, _ in asked)
        offers = ", ".join(f"{policy} {offered}" for policy, _, offered in asked)
        what = f"{self._topic}: {who} asks for {wants}, the monitor offers {offers}"
        return Cause(what, f"let it subscribe with {offers}")


def _not_offered(asked: QoSProfile) -> list[tuple[str, str, str]]:
    """(policy, what a reader asks for, what the monitor offers) where these are incompatible.

    The monitor's command is RELIABLE. rclpy's own comparison takes the defaults of a publisher for other values than
    the graph's.
    """
    found = []
    if asked.durability is DurabilityPolicy.TRANSIENT_LOCAL:
        found.append(("durability", "TRANSIENT_LOCAL", "VOLATILE"))
    if asked.liveliness is LivelinessPolicy.MANUAL_BY_TOPIC:
        found.append(("liveliness", "MANUAL_BY_TOPIC", "AUTOMATIC"))
    for policy, duration in (("deadline", asked.deadline), ("liveliness lease", asked.liveliness_lease_duration)):
        if 0 < duration.nanoseconds < ENDLESS_NS:
            found.append((policy, f"{duration.nanoseconds / 1e9:g} s", "none"))
    return found


class PolicyWatch:
    """Finds two policies that answer the same candidates: the gate executes whichever answer comes first."""

    def __init__(self, node: Node, topic: str) -> None:
        """For the monitor `node`, which hears requests on `topic`."""
        self._node, self._topic = node, topic
        self._asked: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        self._found = NONE
        self._found_ns = self._looked_ns = -LATELY_NS

    def asked(self, id: int, action: Singles, source: str, now_ns: int) -> None:
        """A request for set `id`; `source` is the node that it names."""
        what = source, action.tobytes()
        before = self._asked.setdefault(id, what)
        if len(self._asked) > KEPT_REQUESTS:
            self._asked.popitem(last=False)
        if before == what or (names := self._names(before[0], source, now_ns)) is None:
            return
        self._found = Cause(f"two policies answer the same candidates: {' and '.join(names)}", "stop one")
        self._found_ns = now_ns

    def lately(self, now_ns: int) -> Cause:
        """What was found in the last seconds."""
        return self._found if now_ns - self._found_ns < LATELY_NS else NONE

    def _names(self, one: str, other: str, now_ns: int) -> list[str] | None:
        """Both nodes; None if they are one, which in lock-step may answer twice."""
        if one == other:
            if now_ns - self._looked_ns < HEARD_LOOK_NS:
                return None
            self._looked_ns = now_ns
        infos = self._node.get_publishers_info_by_topic(self._topic)
        if one == other:
            same = [full_name(info) for info in infos if info.node_name == one]
            return same[:2] if len(same) > 1 else None
        known = {info.node_name: full_name(info) for info in infos}
        return [known.get(name, name or "a node that names none in header.frame_id") for name in (one, other)]


def full_name(info: TopicEndpointInfo) -> str:
    """Name space and name of an endpoint's node."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def type_name(kind: Any) -> str:
    """'package/msg/Type' of a message class."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


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
            channel = codec.channel
            kind = channel.type.replace("/msg/", "/").replace("/", "/msg/")
            if others := self._other_types(channel.topic or channel.name, kind):
                yield channel.name, Cause(f"{channel.name}: a node publishes {others}, expected {kind}")

    def doubled_inputs(self) -> list[Cause]:
        """Sensors that several nodes publish: each message contradicts the last, as wheels that slip would."""
        found = []
        for codec in self._codecs:
            topic = codec.channel.topic or codec.channel.name
            infos = [] if codec.channel.latched else self._node.get_publishers_info_by_topic(topic)
            if len(infos) > 1:
                names = " and ".join(sorted(full_name(info) for info in infos))
                found.append(Cause(f"{topic}: {names} both publish it", "stop one, or give it another topic"))
        return found

    def _other_types(self, topic: str, kind: str) -> str:
        infos = self._node.get_publishers_info_by_topic(topic)
        return ", ".join(sorted({info.topic_type for info in infos} - {kind}))
