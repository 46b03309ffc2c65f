"""The task node of a robot: it stands where the simulator stands in a simulated run, and never commands the robot.

It hears the robot's channels and `decision`, and publishes `outcome` (rewards, ends of episodes, the unsafe visits that
sensors show), the goal of each episode, and `hold`: why policies ask for nothing now, so that the robot stops under its
plan; '' while they may. What an episode is: recording/episodes.py; when a session is over: recording/session.py.
Parameters of its own: phase, first_seed, first_episode, episodes and ticks, as of the simulator. Services: `~/pause`
and `~/resume` (std_srvs/Trigger).

An outcome belongs to the state that was decided on, and has its stamp. It waits until the sensors of that state were
heard here too, for at most WAIT_S.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections import deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import BatteryState, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.nodes.battery import Battery
from safe_support_ql.nodes.dead_man import DeadMan
from safe_support_ql.nodes.frames import Frames
from safe_support_ql.recording.episodes import Episodes
from safe_support_ql.recording.heard import KEPT, Heard
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.recording.session import Limits
from safe_support_ql.robots.base import Floats, Robot

WAIT_S = 0.2
AGAIN_S = 1.0  # a goal and `hold` are sent again so often, for who came later


class Task(lifecycle.ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("task")
        self.episodes: Episodes | None = None
        self.frames = Frames(self)

    def configure(self) -> None:
        """Create the topics. Raises ValueError where nothing would show an unsafe visit of this robot."""
        settings = self.load_config()
        robot = settings.robot
        if type(robot).sensed is Robot.sensed:
            robot.sensed({})
        self.codecs = {channel.name: native.ChannelCodec(channel) for channel in robot.channels}
        before, limits = self.episodes, Limits(settings.session)
        if before is not None:  # a cleanup is no person's word: what was driven and paused stays so
            limits.go_on(before.limits)
        self.episodes = Episodes(robot, settings.run.goals, secrets.randbits(31), self.param("first_episode"), limits)
        self.episodes.paused = before.paused if before is not None else ""
        self.battery, self.battery_topic = Battery(settings.session), settings.session.battery_topic
        self.heard = Heard(robot.channels)
        self.pending: deque[tuple[Verdict, float]] = deque()
        self.sent_ns: deque[int] = deque(maxlen=KEPT)  # stamps of our own goals, which are heard here as well
        self.told = ""
        self.last = (-1, -1)  # number and stamp of the newest decision
        self.values: dict[str, float] | None = None  # of the newest outcome
        self.outcomes = self.advertise(JointState, topics.OUTCOME, topics.RECORDED)
        self.hold = self.advertise(String, topics.HOLD, topics.LATCHED)
        self.goals: dict[str, Any] = {}
        for name, codec in self.codecs.items():
            topic, goal = codec.channel.topic or name, codec.channel.latched
            decode, hear = functools.partial(self.admitted, robot, codec), functools.partial(self.on_channel, codec)
            self.subscribe(codec.type, topic, decode, hear, topics.CHAIN if goal else topics.SENSOR, native=True)
            if goal:
                self.goals[name] = self.advertise(codec.type, topic, topics.CHAIN)
        decision = functools.partial(tables.decode_decision, size=len(robot.action_names))
        self.subscribe(DiagnosticArray, topics.DECISION, decision, self.on_decision, topics.RECORDED)
        self.serve(Trigger, "~/pause", self.on_pause)
        self.serve(Trigger, "~/resume", self.on_resume)
        self.every(WAIT_S / 4, self.follow)
        self.every(AGAIN_S, self.on_second)
        self.hold.publish(String(data=self.episodes.waiting))
        self.dead_man: DeadMan | None = None
        if settings.session.dead_man:
            self.dead_man = DeadMan(self, settings.session.dead_man_age, self.on_switch)
        if settings.session.battery:
            battery, topic = self.battery, self.battery_topic
            self.subscribe(BatteryState, topic, battery.decode, battery.hear, topics.SENSOR, native=True)

    def activate(self) -> None:
        """Begin a phase."""
        assert self.episodes is not None
        number = (self.param("first_seed"), self.param("episodes"), self.param("ticks"))
        self.episodes.begin(self.param("phase"), *number)
        self.battery.wait(time.monotonic())
        self.episodes.propose()
        self.values = None
        self.on_second()

    def deactivate(self) -> None:
        """No policy drives any more; outcomes go on, of states that lead to nothing."""
        if self.episodes is not None:
            self.episodes.stop()
            self.hold.publish(String(data=self.episodes.waiting))

    # --- what comes in -----------------------------------------------------------------------------------------------

    def admitted(self, robot: Robot, codec: native.ChannelCodec, message: Any) -> tuple[Floats, int | None, float]:
        """As native.admitted, and a goal in another frame where tf2 knows both. The gate hears it when we send it."""
        frame = codec.channel.constants.get("header.frame_id")
        if codec.channel.latched and isinstance(frame, str):
            message = self.frames.brought(message, frame)
        return native.admitted(robot, codec, message)

    def on_channel(self, codec: native.ChannelCodec, reading: tuple[Floats, int | None, float]) -> None:
        """A message of a sensor, or a goal."""
        assert self.episodes is not None
        name, vector = codec.channel.name, reading[0]
        stamp_ns = self.get_clock().now().nanoseconds if reading[1] is None else reading[1]
        if codec.channel.latched and stamp_ns not in self.sent_ns:  # not our own
            self.get_logger().info(f"{name}: {np.round(vector, 3).tolist()} was published, and is the goal now")
            self.episodes.take(vector)
            self.on_second()
        self.heard.add(name, stamp_ns, vector)
        self.follow()

    def on_switch(self) -> None:
        """Whether somebody holds the dead-man switch: what the robot does not do is not counted as driven."""
        absent = str(self.dead_man.problem(time.monotonic_ns())) if self.dead_man else ""
        if self.episodes is not None and absent != self.episodes.absent:
            self.episodes.absent = absent
            self.on_second()

    def on_decision(self, verdict: Verdict) -> None:
        """The gate decided on a state; one on none (a closed or blind gate) has no outcome."""
        # A state that is decided on twice has one outcome. A clock may step back; numbers do not.
        if verdict.sequence > self.last[0] and verdict.id != 0:
            known, self.last = self.last[1], (verdict.sequence, verdict.stamp_ns)
            if verdict.stamp_ns == known:
                return
            self.pending.append((verdict, time.monotonic()))
            self.follow()

    def follow(self) -> None:
        """Publish the outcomes of decisions whose sensors were heard."""
        self.on_switch()
        while self.pending:
            verdict, since = self.pending[0]
            late = time.monotonic() - since > WAIT_S
            if not late and not self.heard.complete(verdict.stamp_ns):
                return
            self.pending.popleft()
            if inputs := self.heard.at(verdict.stamp_ns):
                self._tell(inputs, verdict)

    def _tell(self, inputs: dict[str, Floats], verdict: Verdict) -> None:
        assert self.episodes is not None
        goal, running = self.episodes.goal, self.episodes.running
        self.values = self.episodes.after(
            inputs, verdict.stamp_ns, verdict.action.astype(np.float64), verdict.state, verdict.sequence
        )
        self.values["done"] *= self.active
        self.outcomes.publish(tables.encode_outcome(self.values, verdict.stamp_ns, self.episodes.visit))
        if running and not self.episodes.running:
            self.get_logger().info(
                f"episode {int(self.values['episode'])}: {self.episodes.ended}, {int(self.values['tick'])} ticks"
            )
        if self.episodes.goal is not goal or self.episodes.waiting != self.told:
            self.on_second()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def on_second(self) -> None:
        """The goal, whether policies hold, and the newest outcome once all is done."""
        if not self.active or self.episodes is None:
            return
        if not self.episodes.paused and (low := self.battery.problem(time.monotonic())):
            self.episodes.pause(low)
        self.episodes.propose()
        waiting = self.episodes.waiting
        if waiting != self.told:
            self.get_logger().info(waiting or "policies may drive")
        self.told = waiting
        if self.episodes.goal is not None:
            for name, output in self.goals.items():
                now_ns = self.get_clock().now().nanoseconds
                self.sent_ns.append(now_ns)
                output.publish(self.codecs[name].encode(self.episodes.goal, now_ns))
        self.hold.publish(String(data=waiting))
        if self.episodes.done and self.values is not None:
            self.outcomes.publish(tables.encode_outcome(self.values, self.last[1], self.episodes.visit))

    def refuse(self, topic: str, why: str) -> None:
        """See ManagedNode; a battery that is refused is named where it is waited for."""
        super().refuse(topic, why)
        if self.episodes is not None and topic == self.battery_topic:
            self.battery.refused = why

    def on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Stop, and wait for `resume`."""
        if self.episodes is not None:
            self.episodes.pause("by a person")
            self.on_second()
        response.success, response.message = True, "the robot stops; ~/resume goes on"
        return response

    def on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Go on."""
        if self.episodes is not None:
            self.episodes.resume()
            self.battery.wait(time.monotonic())
            self.on_second()
            response.message = self.episodes.waiting
        response.success = not response.message
        return response


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Task)


if __name__ == "__main__":
    main()
