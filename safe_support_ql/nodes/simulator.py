"""The simulator node: the simulated world behind the robot's own topics, and the source of rewards and episode ends.

It publishes the robot's channels, `episode` and `outcome`, and reads `episode_ack`, `decision` and (real time) the
native command. Parameters of its own: phase, first_seed, first_episode, episodes, ticks, gui. It stops after `ticks`
control ticks (the last one truncates its episode) or `episodes` episodes since activation; then every 0.5 s `outcome`
has done = 1.

Each episode starts with a handshake: `episode` is re-sent every 0.2 s until `episode_ack` echoes its key; then the
first state is sent. An outcome has the stamp of its state.

Lock-step: stamps are simulated time. After a state is published, physics waits for the decision with its stamp and
episode; a command alone moves nothing. Everything is re-sent after 0.2 s. After 2 s without a decision the node logs an
error and deactivates. The final state of an episode is decided on as well, because it is s' of the last transition.

Real time: stamps are ROS time. Physics follows the wall clock in small steps, the newest command acts when it arrives,
and the drive's own timeout stops a robot without commands. Physics rests only between episodes.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt64

from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.simulation.simulation import Simulation

RESEND_S = 0.2
GIVE_UP_S = 2.0
DISCOVERY_S = 15.0  # longer limit for the first handshake after activation, until DDS has found the monitor
FINAL_S = 0.5  # real time: longest wait for the decision on a final state
DONE_S = 0.5
LATE_S = 0.25  # real time: if physics is farther behind the wall clock than this, that time is skipped

IDLE, HANDSHAKE, WAITING, RUNNING, DONE = "idle", "handshake", "waiting", "running", "done"


class Simulator(lifecycle.ManagedNode):
    """See the module. `mode` is one of the constants above; WAITING: for a decision, RUNNING: real-time physics."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("simulator")
        self.sim: Simulation | None = None
        self.mode = IDLE

    def configure(self) -> None:
        """Build the world and the topics."""
        settings = self.load_config()
        robot = self.robot = settings.robot
        self.lockstep = self.param("clock") == "lockstep"
        self.sim = Simulation(robot, self.param("gui"))
        self.session = secrets.randbits(31)
        self.episode_id = self.param("first_episode") - 1
        self.stamp_ns = 0
        self.period_ns = round(1e9 * robot.period)
        self.visit = ""
        self.executed = -1
        self.codecs = [native.ChannelCodec(channel) for channel in robot.channels]
        self.outputs = [
            self.advertise(codec.type, codec.channel.name, topics.CHAIN if codec.channel.latched else topics.SENSOR)
            for codec in self.codecs
        ]
        self.outcomes = self.advertise(JointState, topics.OUTCOME, topics.RECORDED)
        self.episodes = self.advertise(DiagnosticArray, topics.EPISODE, topics.CHAIN)
        self.subscribe(UInt64, topics.EPISODE_ACK, self.on_ack, topics.CHAIN)
        self.subscribe(DiagnosticArray, topics.DECISION, self.on_decision, topics.ONCE)
        if not self.lockstep:
            self.commands = native.CommandCodec(robot.command, self.param("stamped_cmd"))
            self.subscribe(self.commands.type, robot.command.name, self.on_command, topics.LATEST)
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
        self.late = 0
        self.begin_episode()

    def deactivate(self) -> None:
        """Stop physics; when it continues, the drive obeys `silence` at first."""
        if self.mode == RUNNING and self.sim is not None:
            # Count also what was judged since the last complete tick.
            for name in ("physics_steps", "unsafe_visits", "unsafe_substeps"):
                self.values[name] = getattr(self.sim, name)
            self.send_outcome()
        self.mode = IDLE
        if self.late:
            self.get_logger().warning(f"{self.late} times behind the wall clock; that time was skipped")

    def release(self) -> None:
        """Close the world."""
        self.mode = IDLE
        if self.sim is not None:
            self.sim.close()
            self.sim = None

    # --- episodes ------------------------------------------------------------------------------------------------

    def begin_episode(self) -> None:
        """Put the robot into a new arena and announce it."""
        assert self.sim is not None
        self.episode_id += 1
        self.outcome = self.sim.reset(self.next_seed)
        self.next_seed += 1
        self.commanded: deque[tuple[float, Any]] = (
            deque()
        )  # real time: (arrival, action) of commands that do not act yet
        self.mode = HANDSHAKE
        self.since = time.monotonic()
        self.announce()

    def announce(self) -> None:
        """Announce to the monitor that the robot was moved, so that earlier states are void."""
        self.advance_stamp()
        self.key = secrets.randbits(62)
        self.announcement = tables.encode_episode(
            tables.Episode(
                self.key, self.episode_id, self.phase, self.outcome.seed, self.param("robot_id"), self.stamp_ns
            )
        )
        self.sent = time.monotonic()
        self.episodes.publish(self.announcement)

    def on_ack(self, message: UInt64) -> None:
        """The monitor has forgotten the last episode: send the first state."""
        if self.mode == HANDSHAKE and message.data == self.key:
            self.patience_s = GIVE_UP_S
            if not self.lockstep:
                self.stamp_ns = self.get_clock().now().nanoseconds
                self.started = time.monotonic()
                self.offset_ns = self.stamp_ns - round(1e9 * self.started)
                self.steps = 0
                self.heard = False
            self.publish_state(0)

    def publish_state(self, wall_us: int) -> None:
        """Sense, and send the state with its outcome."""
        assert self.sim is not None
        before = time.perf_counter()
        self.state = self.sim.sense()
        sense_us = round(1e6 * (time.perf_counter() - before))
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
            "executed": self.executed,
            "done": 0,
            "wall_us": wall_us,
            "sense_us": sense_us,
        }
        self.mode = WAITING if self.lockstep or self.final else RUNNING
        self.since = time.monotonic()
        self.send_state()

    def send_state(self) -> None:
        """Send the channels first, because the monitor waits for them, then the outcome for the recorder."""
        self.sent = time.monotonic()
        for codec, output in zip(self.codecs, self.outputs, strict=True):
            # A goal is sent with the first state, and again whenever a message may have been lost.
            if not codec.channel.latched or self.values["first"] or self.sent - self.since > RESEND_S / 2:
                output.publish(codec.encode(self.state[codec.channel.name], self.stamp_ns))
        self.send_outcome()

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

    def on_decision(self, message: DiagnosticArray) -> None:
        """Advance physics if this is the decision on the present state; ignore repetitions and others."""
        if self.mode not in (WAITING, RUNNING):
            return
        verdict = tables.decode_decision(message)
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
        self.outcome = self.sim.tick(verdict.action.astype(np.float64))
        wall_us = round(1e6 * (time.perf_counter() - before))
        self.ticks += 1
        self.advance_stamp()
        self.publish_state(wall_us)

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

    def on_command(self, message: Any) -> None:
        """Queue a command: it acts from the first physics step that begins after its arrival."""
        if self.mode in (RUNNING, WAITING):
            self.commanded.append((time.monotonic(), self.commands.decode(message)))

    def follow_the_clock(self) -> None:
        """Advance physics to the present, and finish a control tick at every period."""
        if self.mode != RUNNING or not self.active:
            return
        assert self.sim is not None
        rate = self.robot.world.physics_hz
        due = int((time.monotonic() - self.started) * rate) - self.steps
        if due > LATE_S * rate:
            self.started += (due - 1) / rate
            self.late += 1
            due = 1
        while due > 0 and self.mode == RUNNING:
            chunk = min(due, self.sim.substeps - self.steps % self.sim.substeps)
            while self.commanded:
                came, action = self.commanded[0]
                if (later := math.ceil((came - self.started) * rate) - self.steps) > 0:
                    chunk = min(chunk, later)
                    break
                self.sim.command(action)
                self.commanded.popleft()
            before = time.perf_counter()
            self.sim.advance(chunk)
            self.steps += chunk
            due -= chunk
            if self.steps % self.sim.substeps == 0:
                self.outcome = self.sim.finish_tick()
                self.ticks += 1
                # As in a sensor, the stamp is the instant of the physics, even if the state is published later.
                self.stamp_ns = self.offset_ns + round(1e9 * (self.started + self.steps / rate))
                self.publish_state(round(1e6 * (time.perf_counter() - before)))


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Simulator)


if __name__ == "__main__":
    main()
