"""The simulator node: the simulated world behind the robot's own topics, and the source of rewards and episode ends.

It publishes the robot's channels, `episode` and `outcome`, and reads `episode_ack`, `decision` and (real time) the
native command. Parameters of its own: phase, first_seed, first_episode, episodes, ticks, gui, lidar_phase_s and
lidar_turn_s. It stops after `ticks` control ticks (the last one truncates its episode) or `episodes` episodes since
activation; then every 0.5 s `outcome` has done = 1.

Each episode starts with a handshake: `episode` is re-sent every 0.2 s until `episode_ack` echoes its key; then the
first state is sent. An outcome has the stamp of its state.

Lock-step: stamps are simulated time. After a state is published, physics waits for the decision with its stamp and
episode; a command alone moves nothing. Everything is re-sent after 0.2 s. After 2 s without a decision the node logs an
error and deactivates. The final state of an episode is decided on as well, because it is s' of the last transition.

Real time: stamps are ROS time. Physics follows the wall clock in small steps, the newest command acts when it arrives,
and the drive's own timeout stops a robot without commands. Physics rests only between episodes. A sensor that has a
time of its own (a rate, a turn) sends each message when it is measured, with its own stamp; lock-step refuses it.
"""

from __future__ import annotations

import functools
import operator
import secrets
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt64

from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.nodes.frames import Transforms
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import Verdict
from safe_support_ql.robots.base import Floats
from safe_support_ql.simulation.pace import Pace
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Message, of_their_own

RESEND_S = 0.2
GIVE_UP_S = 2.0
DISCOVERY_S = 15.0  # longer limit for the first handshake after activation, until DDS has found the monitor
FINAL_S = 0.5  # real time: longest wait for the decision on a final state
DONE_S = 0.5

IDLE, HANDSHAKE, WAITING, RUNNING, DONE = "idle", "handshake", "waiting", "running", "done"


class Simulator(lifecycle.ManagedNode):
    """See the module. `mode` is one of the constants above; WAITING: for a decision, RUNNING: real-time physics."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("simulator")
        self.sim: Simulation | None = None
        self.mode = IDLE
        self.transforms = Transforms(self)

    def configure(self) -> None:
        """Build the world and the topics."""
        settings = self.load_config()
        robot = self.robot = settings.robot
        self.lockstep = self.param("clock") == "lockstep"
        self.sim = Simulation(robot, self.param("gui"))
        self.timing = (0.0, 0.0)  # of lidars: another phase and turn than they have
        self.follow_sensors()
        self.session = secrets.randbits(31)
        self.episode_id = self.param("first_episode") - 1
        self.stamp_ns = 0
        self.period_ns = round(1e9 * robot.period)
        self.visit = ""
        self.keys: deque[int] = deque(maxlen=16)  # of the last announcements: each is acknowledged as often as sent
        self.executed = -1
        self.codecs = {channel.name: native.ChannelCodec(channel) for channel in robot.channels}
        self.outputs = {
            name: self.advertise(
                codec.type, codec.channel.topic or name, topics.CHAIN if codec.channel.latched else topics.SENSOR
            )
            for name, codec in self.codecs.items()
        }
        self.outcomes = self.advertise(JointState, topics.OUTCOME, topics.RECORDED)
        self.episodes = self.advertise(DiagnosticArray, topics.EPISODE, topics.CHAIN)
        decision = functools.partial(tables.decode_decision, size=len(robot.action_names))
        self.subscribe(UInt64, topics.EPISODE_ACK, operator.attrgetter("data"), self.on_ack, topics.CHAIN)
        self.subscribe(DiagnosticArray, topics.DECISION, decision, self.on_decision, topics.ONCE)
        if not self.lockstep:
            self.commands = native.CommandCodec(robot.command, self.param("stamped_cmd"))
            self.subscribe(self.commands.type, robot.command.name, self.decode_command, self.on_command, topics.LATEST)
            # Small steps, so that a command acts soon after it arrives.
            self.every(min(robot.period / 8, 0.02), self.follow_the_clock)
            lifecycle.real_time_priority(lifecycle.ROBOT_PRIORITY)  # a real robot is not slowed down by a busy computer
        self.every(RESEND_S / 4, self.watch)

    def activate(self) -> None:
        """Begin the first episode of this activation."""
        self.phase = self.param("phase")
        self.next_seed = self.param("first_seed")
        self.tick_limit, self.episode_limit = self.param("ticks"), self.param("episodes")
        self.ticks = self.finished = 0
        self.patience_s = DISCOVERY_S
        self.pace.late = 0
        if (timing := (self.param("lidar_phase_s"), self.param("lidar_turn_s"))) != self.timing:
            self.retime(*timing)
        self.begin_episode()

    def deactivate(self) -> None:
        """Stop physics; when it continues, the drive obeys `silence` at first."""
        if self.mode == RUNNING and self.sim is not None:
            # Count also what was judged since the last complete tick.
            for name in ("physics_steps", "unsafe_visits", "unsafe_substeps"):
                self.values[name] = getattr(self.sim, name)
            self.send_outcome()
        self.mode = IDLE
        if self.pace.late:
            self.get_logger().warning(f"{self.pace.late} times behind the wall clock; that time was skipped")

    def release(self) -> None:
        """Close the world."""
        self.mode = IDLE
        if self.sim is not None:
            self.sim.close()
            self.sim = None

    def follow_sensors(self) -> None:
        """Let each sensor measure at its own times. Raises ValueError where that cannot be."""
        assert self.sim is not None
        self.pace = Pace(self.sim)
        if self.lockstep and (channels := of_their_own(self.sim.world)):
            raise ValueError(f"{', '.join(channels)}: measured at times of their own, which needs clock: realtime")

    def retime(self, phase_s: float, turn_s: float) -> None:
        """Give every lidar this phase and turn, where they are not 0. Nothing else in the world changes."""
        assert self.sim is not None
        spec = self.robot.world
        lidars = {
            channel: replace(lidar, phase_s=phase_s or lidar.phase_s, turn_s=turn_s or lidar.turn_s)
            for channel, lidar in spec.lidars.items()
        }
        self.sim.world.become(replace(spec, lidars=lidars))
        self.timing = phase_s, turn_s
        self.follow_sensors()

    # --- episodes ------------------------------------------------------------------------------------------------

    def begin_episode(self) -> None:
        """Put the robot into a new arena and announce it."""
        assert self.sim is not None
        self.episode_id += 1
        self.outcome = self.sim.reset(self.next_seed)
        self.next_seed += 1
        self.mode = HANDSHAKE
        self.state: dict[str, tuple[Floats, int]] = {}  # by channel: the newest vector and its stamp
        self.since = time.monotonic()
        self.announce()

    def announce(self) -> None:
        """Announce to the monitor that the robot was moved, so that earlier states are void."""
        self.advance_stamp()
        self.key = secrets.randbits(62)
        self.keys.append(self.key)
        self.announcement = tables.encode_episode(
            tables.Episode(
                self.key, self.episode_id, self.phase, self.outcome.seed, self.param("robot_id"), self.stamp_ns
            )
        )
        self.sent = time.monotonic()
        self.episodes.publish(self.announcement)

    def on_ack(self, key: int) -> None:
        """The monitor has forgotten the last episode: send the first state."""
        if key not in self.keys:
            self.refuse(topics.EPISODE_ACK, f"acknowledges key {key}, which was not announced")
            return
        if self.mode == HANDSHAKE and key == self.key:
            self.patience_s = GIVE_UP_S
            if not self.lockstep:
                assert self.sim is not None
                self.stamp_ns = self.get_clock().now().nanoseconds
                self.send_measured(self.pace.start(self.stamp_ns))
                self.sim.measured = self.newest()
            self.publish_state(0, 0)

    def publish_state(self, wall_us: int, sense_us: int) -> None:
        """Send the state with its outcome; in lock-step, all of it was measured at its stamp."""
        assert self.sim is not None
        if self.lockstep:
            self.state = {channel: (vector, self.stamp_ns) for channel, vector in self.sim.sense().items()}
        outcome = self.outcome
        self.visit = outcome.visit or self.visit
        # Another tick would be one too many: truncate the episode here.
        out_of_ticks = 0 < self.tick_limit <= self.ticks and not outcome.terminated
        self.final = outcome.terminated or outcome.truncated or out_of_ticks
        self.finished += self.final
        enough = (0 < self.tick_limit <= self.ticks) or (0 < self.episode_limit <= self.finished)
        self.last = self.final and enough
        self.values = {
            "session": self.session,
            "episode": self.episode_id,
            "phase": PHASES.index(self.phase),
            "seed": outcome.seed,
            "first": outcome.first,
            "tick": outcome.tick,
            "reward": outcome.reward,
            "terminated": outcome.terminated,
            "truncated": outcome.truncated or out_of_ticks,
            "reached": outcome.reached,
            "episode_return": outcome.episode_return,
            "min_margin": outcome.min_margin,
            "control_ticks": outcome.control_ticks,
            "physics_steps": outcome.physics_steps,
            "unsafe_visits": outcome.unsafe_visits,
            "unsafe_substeps": outcome.unsafe_substeps,
            "phase_ticks": self.ticks,
            "phase_episodes": self.finished,
            "idle": 0,
            "executed": self.executed,
            "done": 0,
            "wall_us": wall_us,
            "sense_us": sense_us,
        }
        self.mode = WAITING if self.lockstep or self.final else RUNNING
        self.sent = self.since = time.monotonic()
        if self.lockstep:
            self.send_state()
        else:
            self.send_outcome()  # real time: what was measured is sent

    def send_state(self) -> None:
        """Send the channels first, because the monitor waits for them, then the outcome for the recorder."""
        self.sent = time.monotonic()
        for name, (vector, stamp_ns) in self.state.items():
            # A goal is sent with the first state, and again whenever a message may have been lost.
            again = self.sent - self.since > RESEND_S / 2
            if not self.codecs[name].channel.latched or self.values["first"] or again:
                self.send(name, vector, stamp_ns)
        self.send_outcome()

    def send(self, channel: str, vector: Floats, stamp_ns: int) -> None:
        """Send one native message."""
        message = self.codecs[channel].encode(vector, stamp_ns)
        self.outputs[channel].publish(message)
        self.transforms.follow(message)

    def send_outcome(self) -> None:
        """Send the outcome. Counts are cumulative, so a lost message loses no visit."""
        self.outcomes.publish(tables.encode_outcome(self.values, self.stamp_ns, self.visit))

    def leave_episode(self) -> None:
        """End the episode after the decision on its final state, and begin the next one, if any."""
        if not self.last:
            self.begin_episode()
            return
        self.mode = DONE
        self.values["done"] = 1
        self.send_outcome()
        if not self.lockstep:
            self.announce()  # the end of the run: without this, silent sensors would latch the gate
        self.get_logger().info(f"done: {self.ticks} ticks, {self.finished} episodes of {self.phase}")

    def advance_stamp(self) -> None:
        """Set the stamp of the next state."""
        if self.lockstep:
            self.stamp_ns += self.period_ns
        else:
            self.stamp_ns = self.get_clock().now().nanoseconds

    # --- lock-step -----------------------------------------------------------------------------------------------

    def on_decision(self, verdict: Verdict) -> None:
        """Advance physics if this is the decision on the present state; ignore repetitions and others."""
        if self.mode not in (WAITING, RUNNING):
            return
        self.executed = verdict.sequence
        if self.mode != WAITING:
            return
        if verdict.episode != self.episode_id or verdict.stamp_ns != self.stamp_ns:
            return
        if self.final:
            self.leave_episode()
            return
        assert self.sim is not None
        before = time.perf_counter()
        self.sim.command(verdict.action.astype(np.float64))
        self.sim.advance(self.sim.substeps)
        stepped = time.perf_counter()
        self.outcome = self.sim.finish_tick()
        self.ticks += 1
        self.advance_stamp()
        self.publish_state(round(1e6 * (stepped - before)), round(1e6 * (time.perf_counter() - stepped)))

    def watch(self) -> None:
        """Re-send what may have been lost, and give up after GIVE_UP_S."""
        now = time.monotonic()
        if self.mode == DONE and now - self.sent > DONE_S:
            self.sent = now
            self.send_outcome()
        if self.mode not in (HANDSHAKE, WAITING) or now - self.sent < RESEND_S:
            return
        if self.mode == WAITING and not self.lockstep and now - self.since > FINAL_S:
            self.leave_episode()  # the journal shows that the final state was not decided on
            return
        if now - self.since > (self.patience_s if self.mode == HANDSHAKE else GIVE_UP_S):
            what = "acknowledged the episode" if self.mode == HANDSHAKE else "decided on the state it was sent"
            raise ValueError(
                f"no safety_monitor {what} for {now - self.since:.1f} s; it must be active, with the same 'clock' and "
                "with 'simulated' set"
            )
        if self.mode == HANDSHAKE:
            self.sent = now
            self.episodes.publish(self.announcement)
        else:
            self.send_state()

    # --- real time -----------------------------------------------------------------------------------------------

    def decode_command(self, message: Any) -> Floats:
        """The commanded action. Raises ValueError if it is none of this robot."""
        action = self.commands.decode(message)
        if len(action) != len(self.robot.action_names):
            wanted = ", ".join(self.robot.action_names)
            raise ValueError(f"{self.robot.command.name}: has {len(action)} values, expected {wanted}")
        return action

    def on_command(self, action: Floats) -> None:
        """Queue a command: it acts from the first physics step that begins after its arrival."""
        if self.mode in (RUNNING, WAITING):
            self.pace.command(action)

    def newest(self) -> dict[str, Floats]:
        """The newest vector of each channel."""
        return {channel: vector for channel, (vector, _) in self.state.items()}

    def send_measured(self, messages: list[Message]) -> None:
        """Send what the sensors measured, each with its own stamp."""
        for channel, vector, stamp_s in messages:
            self.state[channel] = vector, self.pace.instant(stamp_s)
            self.send(channel, *self.state[channel])

    def follow_the_clock(self) -> None:
        """Advance physics to the present, and finish a control tick at every period."""
        if self.mode != RUNNING or not self.active:
            return
        assert self.sim is not None
        for _ in self.pace.follow(self.send_measured):
            self.outcome = self.sim.finish_tick(self.newest())
            self.ticks += 1
            # As in a sensor, the stamp is the instant of the physics, even if the state is published later.
            self.stamp_ns = self.pace.instant(self.pace.seconds)
            self.publish_state(round(1e6 * (time.perf_counter() - self.pace.chunk_began)), 0)
            if self.mode != RUNNING:
                break


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Simulator)


if __name__ == "__main__":
    main()
