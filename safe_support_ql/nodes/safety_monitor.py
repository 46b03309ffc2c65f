"""The gate as a node, and the only publisher of the robot's command.

Takes the robot's channels, `request`, `episode`, `recorder/heartbeat`, `e_stop`; publishes `candidates`, `decision`,
the command, `episode_ack`, `gate_state` (latched), `markers` and /diagnostics (1 Hz and on change). Services: `~/reset`
(std_srvs/Trigger) leaves a latch unless its cause persists, `~/e_stop` (std_srvs/SetBool) does what the topic does.
Parameters of its own: first_sequence, recorder_required, simulated. `episode` is heard where `simulated` is set only:
on a robot nobody may say that it stands somewhere else.

Lock-step: a cycle begins when every channel has the same new stamp and the goal is known; time is that stamp. The
steady timer only notices silence. A state that was decided on is answered with the stored decision again, one whose
cycle is open with its candidates. Real time: a cycle begins with the first complete state that is a control period
newer than that of the last cycle, and without one a quarter of a period late by the steady clock; it ends with the
first acceptable answer or at its deadline, half a period by default, and the command goes out at once.

Fails closed: an exception in any callback latches the gate with its cause and runs the plan. On deactivation and on
a signal the plan goes on for as long as a stop may take (real time); on a killed process the drive's own timeout does.
Activation is refused while anyone else publishes the command, after waiting for a dead predecessor to leave the graph,
and a foreign publisher that comes later latches. So does a recorder that is lost for longer than `latch_after_s`: the
plan runs at once, and nothing moves unrecorded. A latch outlives deactivation and cleanup: only the reset service ends
it.

In real time the gate stays closed and silent while nobody who listens can hear its command, by the graph; a drive that
comes later opens it. If that happens in motion the plan runs. A malformed message is refused, counted and named.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String, UInt64
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.nodes.candidates import CandidateCodec, RequestCodec
from safe_support_ql.nodes.dead_man import DeadMan
from safe_support_ql.nodes.diagnosis import LEVEL, diagnose
from safe_support_ql.nodes.e_stop import E_STOPPED, EStop
from safe_support_ql.nodes.markers import encode_markers
from safe_support_ql.nodes.watchdogs import (
    ClockWatch,
    DelayWatch,
    ListenerWatch,
    PolicyWatch,
    PublisherWatch,
    RecorderWatch,
    foreign_command,
    unheard_e_stop,
)
from safe_support_ql.recording.session import restrict
from safe_support_ql.recording.summary import progress
from safe_support_ql.robots.base import LATE, Singles
from safe_support_ql.robots.model import Floats
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.picture import draw
from safe_support_ql.safety.reasons import STALLED
from safe_support_ql.safety.timing import Clock

LOCKSTEP_CHECK_S = 0.02
EARLY = 0.95  # of a period: a state so much newer begins a cycle; without one it begins `LATE` periods after the last
DRAW_S = 0.2
ACKED = Duration(seconds=0.5)  # most of the time that readers have to take the last decisions; a dead one never does
UNDER_WAY_NS = 1_000_000_000  # a message of the episode before is not older; an older stamp is one of another clock


class SafetyMonitor(lifecycle.ManagedNode):
    """See the module."""

    stamp_ns: int
    pending_ns: int

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("safety_monitor")
        self.gate: Gate | None = None
        # For the life of the process: a cleanup neither releases the button nor resets a latch.
        self.latched_by = NONE
        self.recorder_watch = RecorderWatch()
        self.next_sequence = 0  # of the decisions of this process
        self.stopping_until = 0
        self.e_stop = EStop(self, self._latch_at_once)

    def configure(self) -> None:
        """Compile the certificate and create the topics."""
        settings = self.load_config()
        robot = self.robot = settings.robot
        self.lockstep = self.param("clock") == "lockstep"
        continuous = self.param("continuous")
        self.codecs = [native.ChannelCodec(channel) for channel in robot.channels]
        self.doubled: list[Cause] = []  # sensors that several nodes publish
        self.commands = native.CommandCodec(robot.command, self.param("stamped_cmd"))
        self.candidate_codec = CandidateCodec(robot, continuous)
        self.requests = RequestCodec(robot)
        first_sequence = max(self.param("first_sequence"), self.next_sequence, self._recorded())
        clock = Clock(self.param("clock"))
        self.gate = Gate(robot, settings.gate, continuous, self.param("seed"), first_sequence, clock)
        self.gate.recorder.required = self.param("recorder_required") or self.recorder_watch.heard
        if cause := self.latched_by or (E_STOPPED if self.e_stop.pressed() else NONE):
            self.gate.latch(cause)
        deadline = settings.gate.request_deadline_s or robot.period / 2
        self.deadline_ns = round(1e9 * (settings.gate.lockstep_timeout_s if self.lockstep else deadline))
        # The deadline is noticed by a timer, so a command may act that much later.
        look_s = LOCKSTEP_CHECK_S if self.lockstep else min(robot.period / 16, LOCKSTEP_CHECK_S)
        self.latency = None if self.lockstep else (0.0, deadline + look_s)
        # The command acts until the next cycle's, and that one may begin late.
        self.late_s = 0.0 if self.lockstep else (LATE - 1.0) * robot.period + look_s
        self.period_ns = round(1e9 * robot.period)
        self.stop_ns = round(1e9 * robot.model.horizon_s)
        oldest_s = max(channel.max_age for channel in robot.channels if not channel.latched)  # that a state may be
        self.delay_watch = DelayWatch(round(1e9 * oldest_s))
        self.certificate_us = 0
        self.told: tuple[State, str] | None = None
        self.reason = "closed"
        self.recorder_watch.begin()
        self.episode_key = -1
        self.forget(0)

        self.command_output = self.advertise(self.commands.type, robot.command.name, topics.LATEST, native=True)
        self.listener_watch = ListenerWatch(self, self.command_output, robot.command)
        self.dead_man: DeadMan | None = None
        self.first_cap = 1.0
        if not self.param("simulated"):  # a simulated robot is nobody's session
            session = settings.session
            self.first_cap = session.speed_cap
            restrict(self.gate, session)
            if session.dead_man:
                self.dead_man = DeadMan(self, session.dead_man_age, self.on_released)
        self.publisher_watch = PublisherWatch(self, self.command_output.topic_name, self.codecs)
        self.candidate_output = self.advertise(PointCloud2, topics.CANDIDATES, topics.RECORDED)
        self.decision_output = self.advertise(DiagnosticArray, topics.DECISION, topics.RECORDED)
        self.ack_output = self.advertise(UInt64, topics.EPISODE_ACK, topics.CHAIN)
        self.state_output = self.advertise(String, topics.GATE_STATE, topics.LATCHED)
        self.diagnostics = self.advertise(DiagnosticArray, topics.DIAGNOSTICS, topics.CHAIN)
        self.markers = self.advertise(MarkerArray, topics.MARKERS, topics.LATEST)
        for codec in self.codecs:
            quality = topics.CHAIN if codec.channel.latched else topics.SENSOR
            heard = functools.partial(self.on_channel, codec)
            topic = codec.channel.topic or codec.channel.name
            self.subscribe(codec.type, topic, codec.read, heard, quality, native=True)
        requests = self.subscribe(JointState, topics.REQUEST, self.requests.decode, self.on_request, topics.ONCE)
        self.policy_watch = PolicyWatch(self, requests.topic_name)
        if self.param("simulated"):
            self.subscribe(DiagnosticArray, topics.EPISODE, tables.decode_episode, self.on_episode, topics.CHAIN)
        number = operator.attrgetter("data")
        self.subscribe(UInt64, topics.HEARTBEAT, number, self.on_heartbeat, topics.CHAIN)
        self.serve(Trigger, "~/reset", self.on_reset)
        self.every(look_s, self.on_timer)
        self.every(1.0, self.on_second)
        self.every(DRAW_S, self.on_draw)
        # The first line of a process takes some of the time of a tick, see `on_configure`, too: not at the first fault.
        self.get_logger().info("the certificate is compiled")
        if not self.lockstep and (problem := lifecycle.real_time_priority(lifecycle.GATE_PRIORITY)):
            self.get_logger().warning(
                f"no real-time priority ({problem}): a busy machine may keep the gate from deciding in time; allow "
                "'rtprio' for this user in /etc/security/limits.conf"
            )

    def activate(self) -> None:
        """Open for inputs. Raises ValueError where someone else could move the robot."""
        # Nobody can wait while a stop goes on: the plan of this node needs its callbacks.
        if foreign := self.publisher_watch.foreign_but_ghosts(lambda: self.linger() > 0.0):
            raise ValueError(
                f"another node publishes the robot's command '{self.command_output.topic_name}': {foreign}; "
                "stop it first"
            )
        if kinds := self.publisher_watch.unheard_e_stops():
            raise ValueError(str(unheard_e_stop(kinds)))
        assert self.gate is not None
        if not self.linger():  # else the plan still runs, and goes on from what it knows
            self.gate.close()
            self.gate.new_episode(self.gate.episode)
            self.episode_key = -1
            self.forget(0)
        self.stopping_until = 0
        self._look_for_listeners()
        self.next_cycle = time.monotonic_ns()
        self.clock_watch = ClockWatch()
        self.tell_state()

    def deactivate(self) -> None:
        """Run the plan, at once and (real time, `on_timer`) for as long as a stop may take."""
        assert self.gate is not None
        self.stopping_until = time.monotonic_ns() + (0 if self.lockstep else self.stop_ns)
        if not self.open and not self.lockstep:  # in lock-step nothing moves without a decision
            self.begin(self.get_clock().now().nanoseconds)
        if self.open:
            self.run_plan()

    def linger(self) -> float:
        """A signal waits for the stop."""
        return max(0.0, (self.stopping_until - time.monotonic_ns()) / 1e9)

    def objection(self, transition: str) -> str:
        """Without its topics the node could not run the plan to its end."""
        if transition not in ("cleanup", "shutdown") or self.gate is None or self.lockstep:
            return ""
        if self.active:
            return f"before 'deactivate', after which the plan runs for {self.stop_ns / 1e9:.1f} s"
        return f"before the plan has run for {self.linger():.1f} s more" if self.linger() else ""

    def release(self) -> None:
        """A last stop, if a stop was cut short; then nothing is known any more but why the gate is latched."""
        if self.gate is None:
            return
        self.latched_by = self.gate.cause if self.gate.state is State.LATCHED else NONE
        try:
            if self.linger():
                self.run_plan()
            self.decision_output.wait_for_all_acked(ACKED)  # this process may end next, and with it what it sent
        finally:
            self.next_sequence = self.gate.sequence
            self.stopping_until = 0
            self.gate = None

    def fail(self, error: Exception) -> None:
        """Latch and run the plan; the node stays active, because the plan is safer than silence."""
        gate = self.gate
        if gate is None or not self.running():
            return
        gate.latch(Cause(f"the monitor failed: {error}", "look at its log, then call the reset service"))
        self.open = False
        if self._attempt("plan after a failure", self.run_plan) is not None:
            self.command_output.publish(self.commands.encode(self.robot.silence.astype("float32"), self.stamp_ns))

    def running(self) -> bool:
        """Whether commands go out: active, or still stopping."""
        return self.active or time.monotonic_ns() < self.stopping_until

    def _recorded(self) -> int:
        """The number after the last one in the record of this run: a monitor that is started again goes on there."""
        folder = self.param("run_dir")
        return progress(Path(folder)).first_sequence if folder and Path(folder).is_dir() else 0

    # --- what comes in -------------------------------------------------------------------------------------------

    def refuse(self, topic: str, why: str) -> None:
        """See ManagedNode; the gate names a refused input as the reason why the last one ages."""
        super().refuse(topic, why)
        if self.gate is None:
            return
        if topic == topics.REQUEST:
            self.gate.counters.refused_requests += 1
        for codec in self.codecs:  # a channel's name need not be its topic's
            if topic == (codec.channel.topic or codec.channel.name):
                self.gate.refuse(codec.channel.name, Cause.of(why))

    def on_channel(self, codec: native.ChannelCodec, reading: native.Reading) -> None:
        """A native input: to the gate at once (real time), or when the whole state is there (lock-step)."""
        if not self.running():
            return
        assert self.gate is not None
        name, latched = codec.channel.name, codec.channel.latched
        now_ns = self.stamp_ns if self.lockstep else self.get_clock().now().nanoseconds
        vector, stamp_ns = reading[0], now_ns if reading[1] is None else reading[1]
        if stamp_ns < self.start_ns and (self.lockstep or stamp_ns > self.start_ns - UNDER_WAY_NS):
            return  # of the episode before
        if self.lockstep and not latched and stamp_ns <= self.stamp_ns:
            if stamp_ns == self.stamp_ns and codec is self.codecs[0]:
                self.repeat()
            return
        if self.lockstep:
            self.collect(name, latched, vector, stamp_ns)
            return
        problem = self.gate.receive(name, vector, stamp_ns, now_ns, time.monotonic_ns())
        if problem:
            self.get_logger().warning(f"input refused: {problem}", throttle_duration_sec=1.0)
        elif self.fresh(time.monotonic_ns()):
            self.cycle()

    def collect(self, name: str, latched: bool, vector: Floats, stamp_ns: int) -> None:
        """Lock-step: a cycle begins once every channel has this stamp, so that a slow host makes no input look old."""
        assert self.gate is not None
        if latched:
            self.goals[name] = (vector, stamp_ns)
        else:
            if stamp_ns != self.pending_ns:
                self.pending.clear()
                self.pending_ns = stamp_ns
            self.pending[name] = vector
        if len(self.pending) + len(self.goals) < len(self.codecs):
            return
        steady = time.monotonic_ns()
        inputs = [(goal, value, set_ns) for goal, (value, set_ns) in self.goals.items()]
        inputs += [(channel, value, self.pending_ns) for channel, value in self.pending.items()]
        for channel, value, at_ns in inputs:
            if problem := self.gate.receive(channel, value, at_ns, max(at_ns, self.pending_ns), steady):
                self.get_logger().warning(f"input refused: {problem}", throttle_duration_sec=1.0)
        self.pending.clear()
        self.stamp_ns = self.pending_ns
        self.begin(self.stamp_ns)

    def on_released(self) -> None:
        """Nobody holds the dead-man switch any more: the plan, now."""
        if self.running() and self.open:
            self.run_plan()

    def on_request(self, request: tuple[int, Singles, str]) -> None:
        """An answer. A late one answers no open cycle: the gate counts it and nothing else happens."""
        if not self.active:
            return
        assert self.gate is not None
        id, action, source = request
        decided_ns = time.monotonic_ns()
        decision = self.gate.request(id, action, decided_ns)
        if decision is not None:
            self.publish(decision, decided_ns)
        self.policy_watch.asked(id, action, source, decided_ns)

    def on_episode(self, episode: tables.Episode) -> None:
        """The simulator put the robot somewhere else: forget, then say so."""
        if not self.active:
            return
        assert self.gate is not None
        if episode.key != self.episode_key:
            if self.open:
                self.run_plan()
            self.gate.new_episode(episode.id)
            self.episode_key = episode.key
            self.forget(episode.start_ns)
        self.ack_output.publish(UInt64(data=episode.key))

    def on_heartbeat(self, recorded: int) -> None:
        """Up to which decision the recorder has written."""
        if self.gate is None:
            return
        now, following = time.monotonic_ns(), self.gate.sequence
        foreign = recorded > following
        if foreign:
            self.refuse(topics.HEARTBEAT, f"confirms decisions up to {recorded}, but {following} is the next one here")
        # The last good one ages; only once it is too old is the refused one the cause.
        if not foreign or self.gate.recorder_problem(now):
            self.gate.recorder_alive(recorded, now)
        if not foreign:
            self.recorder_watch.on_heartbeat(self.gate)

    def _latch_at_once(self, cause: Cause) -> None:
        """The plan goes out now, not with the next cycle."""
        if self.gate is None:
            self.latched_by = self.latched_by or cause
            return
        if self.gate.state is State.LATCHED and not self.open:
            return  # the plan runs: a button that repeats itself costs no certificate each time
        self.gate.latch(cause)
        if self.active and not self.open and not self.lockstep:
            self.begin(self.get_clock().now().nanoseconds)
        if self.active and self.open:
            self.run_plan()
        self.tell_state()

    def on_reset(self, request: Any, response: Any) -> None:
        """Leave the latch, or say why not."""
        if self.gate is None or not self.active:
            response.message = "the monitor is not active"
        elif self.e_stop.pressed():
            response.message = "still e-stop: send false on e_stop first"
        elif foreign := self.publisher_watch.foreign():
            response.message = f"still another publisher of the command: {foreign}"
        elif kinds := self.publisher_watch.unheard_e_stops():
            response.message = f"still {unheard_e_stop(kinds)}"
        else:
            now_ns = self.stamp_ns if self.lockstep else self.get_clock().now().nanoseconds
            response.success, response.message = self.gate.reset(now_ns, time.monotonic_ns())
            if response.success:
                self.reason = "closed"
            self.tell_state()

    # --- the cycle -----------------------------------------------------------------------------------------------

    def forget(self, start_ns: int) -> None:
        """Nothing of this episode was seen yet."""
        self.start_ns = start_ns
        self.stamp_ns = start_ns - 1  # lock-step: newest state whose cycle began
        self.pending: dict[str, Floats] = {}
        self.pending_ns = -1
        self.goals: dict[str, tuple[Floats, int]] = {}
        self.open = False
        self.opened = 0
        self.begun_ns = 0  # real time: instant of the state whose cycle began last
        self.candidates_message: PointCloud2 | None = None
        self.decision_message: DiagnosticArray | None = None

    def begin(self, now_ns: int) -> None:
        """Certify and ask; without a state, decide blind."""
        assert self.gate is not None
        self.opened = time.monotonic_ns()
        cap = self.param("speed_cap")
        self.gate.support.cap = cap if cap >= 0.0 else self.first_cap
        candidates: CandidateSet | None = self.gate.begin(now_ns, self.opened, self.latency, self.late_s)
        self.certificate_us = (time.monotonic_ns() - self.opened) // 1000
        if candidates is None:
            self.run_plan()
            return
        self.open = True
        self.candidates_message = self.candidate_codec.encode(candidates)
        self.candidate_output.publish(self.candidates_message)

    def run_plan(self) -> None:
        """Decide for the plan, and send it."""
        assert self.gate is not None
        decided_ns = time.monotonic_ns()
        self.publish(self.gate.expire(decided_ns), decided_ns)

    def publish(self, decision: Decision, decided_ns: int) -> None:
        """The command, and beside it what was decided and why."""
        assert self.gate is not None
        self.open = False
        command = self.commands.encode(decision.action, decision.stamp_ns)
        # Stopped since it was decided: an answer's certificate is over, or the state too old for the plan's feedback.
        slack_ns = 0 if decision.reason in ("request", "plan_requested") else self.period_ns
        if decision.candidates is not None and self.gate.late(time.monotonic_ns() - slack_ns):
            self.delay_watch.sent(decided_ns)
            self.run_plan()  # the recorder lists the number of what was not sent as a gap
            return
        # Lock-step waits for the decision, a drive for the command.
        if not self.lockstep:
            self.command_output.publish(command)
            self.delay_watch.sent(decided_ns)
        if self.gate.state is State.LATCHED:
            decision = dataclasses.replace(decision, message=str(self.gate.cause))
        elif (why := self._not_asking(decided_ns)) and self.gate.state is State.BACKUP:
            if decision.reason == "no_request" or not decision.message:  # else another cause is named
                self.gate.cause = why
                decision = dataclasses.replace(decision, message=str(why))
        self.decision_message = tables.encode_decision(decision, self.certificate_us)
        self.decision_output.publish(self.decision_message)
        if self.lockstep:
            self.command_output.publish(command)
        self.reason = decision.reason
        if cause := self.recorder_watch.look(self.gate):
            self.gate.latch(cause)
        self.tell_state()

    def repeat(self) -> None:
        """Lock-step: the simulator asks again, so something was lost on the way."""
        if self.open and self.candidates_message is not None:
            self.candidate_output.publish(self.candidates_message)
        elif self.decision_message is not None:
            self.decision_output.publish(self.decision_message)

    def on_timer(self) -> None:
        """Deadlines on the steady clock, and in real time the beginning of each cycle."""
        if not self.running():
            return
        assert self.gate is not None
        now = time.monotonic_ns()
        if not self.lockstep:
            now_ns = self.get_clock().now().nanoseconds
            cause = self.clock_watch.look(now_ns, now)
            if cause:
                self.start_ns = min(self.start_ns, now_ns)  # else new states would count as old, if it jumped back
            # A closed gate has seen nothing yet, and a simulated clock begins with a jump.
            if cause and self.gate.state is not State.CLOSED:
                self._latch_at_once(cause)
        if self.open and now - self.opened >= self.deadline_ns:
            self.run_plan()
        if not self.lockstep and (now >= self.next_cycle or self.fresh(now)):
            self.cycle()

    def fresh(self, now: int) -> bool:
        """Real time: whether a complete state waits, a period newer than that of the last cycle."""
        assert self.gate is not None
        instant_ns = self.gate.inputs.instant_ns
        newer = instant_ns - self.begun_ns >= EARLY * self.period_ns
        newer = newer or 0 < instant_ns < self.begun_ns  # their clock stepped back
        return newer and not self.open and now - self.opened >= self.period_ns // 2

    def cycle(self) -> None:
        """Real time: one cycle begins; late is late, nothing is made up for."""
        assert self.gate is not None
        now = time.monotonic_ns()
        self.next_cycle = now + round(LATE * self.period_ns)
        if self.open:
            self.run_plan()
        self.begun_ns = self.gate.inputs.instant_ns
        # While somebody hears it, `on_second` looks: a look at the graph takes time from the cycle.
        unheard = self.listener_watch.unheard and self.listener_watch.look(now)
        released = self.dead_man.problem(now) if self.dead_man else NONE
        if (why := unheard or released) and self.gate.state is State.CLOSED:
            # Nothing moves yet, and nothing may, or nothing that is sent would arrive: ask for no motion, and say why.
            self.opened, self.reason, self.gate.cause = now, "closed", why
            self.tell_state()
            return
        self.begin(self.get_clock().now().nanoseconds)
        asking = self.active and self.gate.state is not State.LATCHED and not self._not_asking(now)
        if self.open and not asking:
            self.run_plan()

    def _not_asking(self, now: int) -> Cause:
        """Why no request would be executed as it was certified."""
        if self.delay_watch.unsure(now):
            return STALLED
        return self.listener_watch.unheard or (self.dead_man.problem(now) if self.dead_man else NONE)

    # --- what others may know ------------------------------------------------------------------------------------

    def tell_state(self) -> None:
        """Latched state and diagnostics, when the state or the reason for it changed."""
        assert self.gate is not None
        # Of the cause its first word, such as the channel's name: its figures change with every tick.
        why = f"{self.reason} {self.gate.cause.what.partition(' ')[0]}"
        if self.gate.state is State.NOMINAL:  # it may have asked for the plan because nothing else is left
            why = self.gate.cause.what
        now = self.gate.state, why
        before, self.told = self.told, now
        if now == before or (before is not None and before[0] is now[0] is State.LATCHED):
            return
        contradicted = self.gate.state is State.LATCHED and self.gate.mismatch.spent
        if contradicted and (foreign := self.publisher_watch.foreign()):
            # What contradicts the predictions may be somebody else's commands.
            cause = foreign_command(foreign)
            self.gate.cause = Cause(f"{cause.what}; {self.gate.cause.what}", cause.remedy)
        if self.reason == "input_missing" and not self.lockstep:
            self._refuse_unheard()
        text = f"{now[0].value}: {self.gate.cause}" if self.gate.cause else now[0].value
        self.state_output.publish(String(data=text))
        if self.gate.state is State.LATCHED:
            self.get_logger().error(f"latched: {self.gate.cause}")
        self.send_diagnostics()

    def _refuse_unheard(self) -> None:
        """Refuse, by name, the inputs that cannot be heard."""
        assert self.gate is not None
        for channel, problem in self.publisher_watch.unheard_inputs():
            self.get_logger().error(str(self.gate.refuse(channel, problem)), throttle_duration_sec=1.0)

    def on_second(self) -> None:
        """Diagnostics, and a look for others that publish the command, or an e-stop of another type."""
        if self.gate is None:
            return
        self._look_for_listeners()
        self.doubled = self.publisher_watch.doubled_inputs()
        self.send_diagnostics()
        if not self.active:
            return
        if notes := self.notes():
            self.get_logger().warning(" | ".join(map(str, notes)), throttle_duration_sec=5.0)
        if foreign := self.publisher_watch.foreign():
            self._latch_at_once(foreign_command(foreign))
        elif kinds := self.publisher_watch.unheard_e_stops():
            self._latch_at_once(unheard_e_stop(kinds).then("call the reset service"))

    def _look_for_listeners(self) -> None:
        if not self.lockstep:  # there the decision moves the robot
            self.listener_watch.look(time.monotonic_ns())

    def on_draw(self) -> None:
        """Markers, where somebody looks at them and no request is due."""
        if self.gate is None or self.gate.newest is None or self.open or not self.markers.get_subscription_count():
            return
        text = f"{self.gate.state.value} {self.gate.cause}".strip()
        try:
            picture = draw(self.robot, *self.gate.newest)
            stamp_ns = self.gate.newest[1].stamp_ns
            self.markers.publish(encode_markers(picture, self.robot.frame_id, stamp_ns, text))
        except Exception as error:  # a picture that cannot be drawn is no reason to stop a robot
            self.get_logger().error(f"no markers: {error}", throttle_duration_sec=10.0)

    def send_diagnostics(self) -> None:
        """Counters and state."""
        assert self.gate is not None
        name = f"{self.get_fully_qualified_name().lstrip('/')}: gate"
        stamp = self.get_clock().now().nanoseconds
        level, values = LEVEL[self.gate.state], diagnose(self.gate, self.reason)
        message, notes = str(self.gate.cause), self.notes()
        if notes:
            level, message = "warn" if level == "ok" else level, message or str(notes[0])
            values |= {f"warning {number}": note for number, note in enumerate(notes, 1)}
        robot = self.param("robot_id")
        self.diagnostics.publish(tables.encode_status(name, stamp, message, level, values, robot))

    def notes(self) -> list[Cause]:
        """What is wrong around the gate: who cannot hear the command, a second policy, and a second driver."""
        if not self.active:
            return []
        deaf, unheard = self.listener_watch.deaf, self.listener_watch.unheard
        found = [*deaf, NONE if unheard in deaf else unheard, self.policy_watch.lately(time.monotonic_ns())]
        return [*(note for note in found if note), *self.doubled]


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(SafetyMonitor)


if __name__ == "__main__":
    main()
