"""Looks at a live robot before its first motion: what is published and heard, and whether the gate could use it.

It only listens, and never publishes the command. Each finding comes with its remedy. What needs motion is measured by
crawl.py.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safe_support_ql.config import Config
from safe_support_ql.nodes import lifecycle, native, topics
from safe_support_ql.nodes.watchdogs import ListenerWatch, PublisherWatch
from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.fence import Fence
from safe_support_ql.robots.world import DifferentialDrive

OK, WARN, WRONG = "ok", "warn", "WRONG"
UNLIKELY_S = 30.0  # no transport takes so long: an older stamp is one of another clock, or of none
ROOM = 2e9  # bytes: about a day of records


@dataclass(frozen=True)
class Finding:
    """One line: how bad it is, what was found, and what to do about it ('' for nothing)."""

    level: str
    what: str
    remedy: str = ""


@dataclass
class Heard:
    """What came on one channel."""

    arrived: list[float] = field(default_factory=list)  # s, steady clock
    age: list[float] = field(default_factory=list)  # s, of its last part when it arrived, by its stamp
    vector: Floats | None = None
    refused: int = 0
    why: str = ""  # the newest refusal


class Doctor(Node):
    """See the module."""

    def __init__(self, config: Config, stamped_cmd: bool, runs_dir: Path) -> None:
        """Begin to listen. Raises ValueError where a message type is not installed."""
        super().__init__("doctor")
        self.config, self.robot, self.runs_dir = config, config.robot, runs_dir
        self.codecs = [native.ChannelCodec(channel) for channel in self.robot.channels]
        self.heard = {codec.channel.name: Heard() for codec in self.codecs}
        for codec in self.codecs:
            topic, quality = codec.channel.topic or codec.channel.name, topics.SENSOR
            quality = topics.CHAIN if codec.channel.latched else quality
            self.create_subscription(codec.type, topic, functools.partial(self.on_message, codec), quality)
        command = self.robot.command
        kind = command.type if stamped_cmd or not command.unstamped_type else command.unstamped_type
        # The watches of the monitor: they look at the graph, and need of a publisher its topic and type only.
        topic = self.resolve_topic_name(command.name)
        output: Any = SimpleNamespace(topic_name=topic, msg_type=native.message_class(kind))
        self.listener_watch = ListenerWatch(self, output, command)
        self.publisher_watch = PublisherWatch(self, topic, self.codecs)

    def on_message(self, codec: native.ChannelCodec, message: Any) -> None:
        """Note when it came, how old it was, and whether a gate would take it."""
        heard = self.heard[codec.channel.name]
        heard.arrived.append(time.monotonic())
        try:
            vector, stamp_ns, delay = native.admitted(self.robot, codec, message)
        except ValueError as error:
            heard.refused, heard.why = heard.refused + 1, str(error)
            return
        heard.vector = vector
        if stamp_ns is not None:
            heard.age.append((self.get_clock().now().nanoseconds - stamp_ns) / 1e9 - delay)

    # --- what it says ------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """All that was found, channel by channel, then the command, the state as a whole, and this machine."""
        found = [finding for codec in self.codecs for finding in self._channel(codec)]
        found += [Finding(WRONG, cause.what, cause.remedy) for cause in self.publisher_watch.doubled_inputs()]
        return [*found, *self._command(), *self._state(), *self._session(), *self._machine()]

    def _channel(self, codec: native.ChannelCodec) -> list[Finding]:
        channel, heard = codec.channel, self.heard[codec.channel.name]
        topic = channel.topic or channel.name
        if channel.latched:
            if heard.refused:
                return [Finding(WRONG, heard.why)]
            if listed := len(self.config.run.goals):
                return [Finding(OK, f"{topic}: {listed} in run.goals")]
            came = heard.vector is not None
            what = f"{topic}: {'was published' if came else 'nobody has published one'}"
            return [Finding(OK if came else WARN, what, "" if came else "publish a goal, or list run.goals")]
        others = dict(self.publisher_watch.unheard_inputs())
        if channel.name in others:
            cause = others[channel.name]
            return [Finding(WRONG, cause.what, cause.remedy or "let the driver publish that type")]
        if not self.count_publishers(topic):
            return [Finding(WRONG, f"{topic}: nobody publishes it", "start the driver, or set the topic's name")]
        if len(heard.arrived) < 3:
            remedy = "look at ROS_DOMAIN_ID, at the network, and at the driver's log"
            return [Finding(WRONG, f"{topic}: {len(heard.arrived)} messages came, though it is published", remedy)]
        found = []
        if heard.refused:
            found.append(Finding(WRONG, f"{heard.refused} of {len(heard.arrived)} messages are refused: {heard.why}"))
        gaps = np.diff(heard.arrived)
        rate, gap = 1.0 / float(gaps.mean()), float(gaps.max())
        setting = channel.settings.get("max_age", "its age")
        if heard.age:
            newest, oldest = min(heard.age), max(heard.age)
            if newest < -self.config.gate.future_tolerance_s:
                remedy = "let both clocks follow one server (chrony), or stamp messages when they are measured"
                found.append(Finding(WRONG, f"{topic}: stamped {-newest:.3f} s in the future", remedy))
            elif newest > UNLIKELY_S:
                remedy = "let the driver stamp messages with this computer's time: not since its own start, and not 0"
                found.append(Finding(WRONG, f"{topic}: stamped {newest:.0f} s ago", remedy))
            elif gap + oldest > channel.max_age:
                what = (
                    f"{topic}: up to {gap + oldest:.2f} s old before the next one, {setting} is {channel.max_age:g} s"
                )
                found.append(
                    Finding(WRONG, what, f"raise {setting}, let the driver publish faster, or check its clock")
                )
            if not found:
                what = f"{topic}: {rate:.1f} Hz, {1e3 * oldest:.0f} ms old at most, longest gap {gap:.2f} s"
                found.append(Finding(OK, what))
        return found

    def _command(self) -> list[Finding]:
        topic = self.robot.command.name
        if (foreign := self.publisher_watch.foreign()) and foreign.endswith("safety_monitor"):
            said = f"{topic}: a run is going on here, and its monitor ({foreign}) publishes it"
            return [Finding(WRONG, said, "look with `safe-support-ql operator watch`, or end it first")]
        if foreign:
            return [
                Finding(WRONG, f"{topic}: {foreign} publishes it", "stop that node: the monitor must be the only one")
            ]
        cause = self.listener_watch.look(time.monotonic_ns())
        return [Finding(WRONG, cause.what, cause.remedy) if cause else Finding(OK, f"{topic}: a drive listens")]

    def _state(self) -> list[Finding]:
        inputs = {name: heard.vector for name, heard in self.heard.items() if heard.vector is not None}
        known = {codec.channel.name: np.zeros(codec.channel.size) for codec in self.codecs if codec.channel.latched}
        if missing := [name for name in self.heard if name not in known | inputs]:
            return [Finding(WRONG, f"no state without {', '.join(missing)}")]
        try:
            estimate = self.robot.estimate(known | inputs)
        except ValueError as error:
            return [Finding(WRONG, str(error))]
        if estimate.objection:
            what, _, remedy = estimate.objection.partition("; ")
            return [Finding(WRONG, what, remedy)]
        return [Finding(WARN, estimate.remark)] if estimate.remark else [Finding(OK, "the state is complete")]

    def _session(self) -> list[Finding]:
        """What the section `session` asks for, and would not find."""
        session, found = self.config.session, list[Finding]()
        if session.dead_man and not self.count_publishers(topics.DEAD_MAN):
            remedy = "start your switch; without one: safe-support-ql operator dead-man"
            found.append(Finding(WARN, f"{topics.DEAD_MAN}: nobody publishes it, and session.dead_man waits", remedy))
        if session.battery and not self.count_publishers(session.battery_topic):
            remedy = "start its driver, or set session.battery: 0"
            found.append(
                Finding(WARN, f"{session.battery_topic}: nobody publishes it, and session.battery waits", remedy)
            )
        if not session.geofence or not isinstance(self.robot.world.drive, DifferentialDrive):
            return found
        p: Any = self.robot.parameters
        fence, odom, room = Fence(session.geofence), self.heard["odom"].vector, p.farthest + p.clearance
        if odom is not None and (inside := fence.depth(*odom[:2])) < room:
            where = f"at ({odom[0]:.2f}, {odom[1]:.2f}) by its odometry, {_inside(inside)} session.geofence"
            remedy = "put it inside, start its odometry there, or move the fence"
            found.append(Finding(WRONG, f"it stands {where}: nothing is certified there", remedy))
        for goal in self.config.run.goals:
            if (inside := fence.depth(*goal)) < room:
                what = f"goal {list(goal)} of run.goals is {_inside(inside)} session.geofence: it is never reached"
                found.append(Finding(WRONG, what, f"{room:.2f} m inside are needed for this base"))
        return found

    def _machine(self) -> list[Finding]:
        there = self.runs_dir.resolve()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        text = f"{free / 1e9:.1f} GB are free for records in {there}"
        found = [Finding(OK, text) if free > ROOM else Finding(WARN, text, "make room: a full disk stops the robot")]
        why = lifecycle.real_time_priority(lifecycle.GATE_PRIORITY)
        lifecycle.real_time_priority(0)
        if why:
            remedy = "allow it (rtprio in /etc/security/limits.conf); without it a busy machine delays decisions"
            return [*found, Finding(WARN, f"no real-time priority: {why}", remedy)]
        return [*found, Finding(OK, "real-time priority")]


def _inside(depth: float) -> str:
    return f"{depth:.2f} m inside" if depth >= 0.0 else f"{-depth:.2f} m outside"


def look(
    config: Config, stamped_cmd: bool, runs_dir: Path, seconds: float,
    then: Callable[[Doctor, bool], list[Finding]] | None = None,
) -> list[Finding]:  # fmt: skip
    """Listen for so long; then, if nothing is wrong, what `then` finds as well. Raises ValueError as Doctor does."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # a signal must leave time to tell a drive to stop
    try:
        node = Doctor(config, stamped_cmd, runs_dir)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
        found = node.findings()
        if then is not None and any(finding.level == WRONG for finding in found):
            found.append(Finding(WRONG, "it did not drive", "first put right what is wrong"))
        elif then is not None:
            found += then(node, stamped_cmd)
        node.destroy_node()
        return found
    finally:
        rclpy.shutdown()
