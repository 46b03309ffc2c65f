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
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Bool, String, UInt64
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from safe_support_ql.nodes import lifecycle, messages
from safe_support_ql.robots.base import Floats
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.mismatch import Mismatch
from safe_support_ql.safety.picture import draw
from safe_support_ql.safety.reasons import STALLED
from safe_support_ql.safety.sent import TRANSPORT_NS
from safe_support_ql.safety.timing import Clock

LOCKSTEP_CHECK_S = 0.02
EARLY, LATE = 0.95, 1.25  # of a period: a state so much newer begins a cycle; without one it begins so much later
DRAW_S = 0.2
GHOST_S = 22.0  # a killed participant stays in the graph for its lease: 20 s by default, 4 s with config/fastdds.xml
GHOST_LOOK_S = 0.1
JUMP_S = 0.5  # of the clock against the steady one between two looks: no clock that is only slow or fast does that
E_STOPPED = Cause("e-stop", "send false on e_stop, then call the reset service")
REMEDY = {  # where the cause itself names none; by the reason of the newest decision
    "request": "",
    "plan_requested": "look at what the policy is shown: it asked for the plan",
    "uncertified_request": "none is needed: the plan ran instead; a policy that is often refused was trained elsewhere",
    "malformed_request": "look at the policy and its log",
    "no_request": "look at the policy's node and its log, and give it a processor",
    "recorder_stale": "look at the recorder's log and at the disk",
    "latched": "remove the cause, then call the reset service",
    "input_missing": "look at the sensor, its driver and its clock",
    "closed": "start the sensors and the simulator or the robot's driver",
}
LEVEL = {
    State.CLOSED: "warn",
    State.NOMINAL: "ok",
    State.INTERVENING: "warn",
    State.BACKUP: "warn",
    State.LATCHED: "error",
}


def foreign_command(names: str) -> Cause:
    """Somebody else could move the robot."""
    return Cause(f"another node publishes the robot's command: {names}", "stop it, then call the reset service")


def unheard(kinds: str) -> Cause:
    """There is an e-stop button that this node cannot hear."""
    return Cause(f"somebody publishes e_stop as {kinds}, which nobody hears", "publish std_msgs/msg/Bool")


class SafetyMonitor(lifecycle.ManagedNode):
    """See the module."""

    stamp_ns: int
    pending_ns: int

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("safety_monitor")
        self.gate: Gate | None = None
        # For the life of the process: a cleanup neither releases the button nor resets a latch.
        self.e_stop = self.lossy_e_stop = False
        self.latched_by = NONE
        self.recorder_heard = False
        self.next_sequence = 0  # of the decisions of this process
        self.stopping_until = 0
        self.mismatch: Mismatch | None = None
        # Whatever its quality of service, a button must be heard, one that was pressed before this process began, too.
        # Each of these ends with the newest message of those that it hears; the one that may lose some keeps its own.
        # The first two keep a short press while the monitor is busy; the last one has the newest word, whatever waits.
        for quality in (messages.RECORDED, messages.BUTTON):
            self.subscribe(Bool, messages.E_STOP, self.on_e_stop, quality, lasting=True)
        self.subscribe(Bool, messages.E_STOP, self.on_lossy_e_stop, messages.ONCE, lasting=True)
        self.serve(SetBool, "~/e_stop", self.on_e_stop_service, lasting=True)

    def configure(self) -> None:
        """Compile the certificate and create the topics."""
        settings = self.load_config()
        robot = self.robot = settings.robot
        self.lockstep = self.param("clock") == "lockstep"
        continuous = self.param("continuous")
        self.codecs = [messages.ChannelCodec(channel) for channel in robot.channels]
        self.commands = messages.CommandCodec(robot.command, self.param("stamped_cmd"))
        self.candidate_codec = messages.CandidateCodec(robot, continuous)
        self.requests = messages.RequestCodec(robot)
        first_sequence = max(self.param("first_sequence"), self.next_sequence)
        clock = Clock(self.param("clock"))
        self.gate = Gate(robot, settings.gate, continuous, self.param("seed"), first_sequence, clock)
        self.gate.recorder.required = self.param("recorder_required") or self.recorder_heard
        if cause := self.latched_by or (E_STOPPED if self.pressed() else NONE):
            self.gate.latch(cause)
            if self.mismatch is not None:
                self.gate.mismatch.keep(self.mismatch)
        # A cycle ends with its period at the latest, whatever deadline is asked for.
        deadline = min(settings.gate.request_deadline_s or robot.period / 2, robot.period)
        self.deadline_ns = round(1e9 * (settings.gate.lockstep_timeout_s if self.lockstep else deadline))
        # The deadline is noticed by a timer, so a command may act that much later.
        look_s = LOCKSTEP_CHECK_S if self.lockstep else min(robot.period / 16, LOCKSTEP_CHECK_S)
        self.latency = None if self.lockstep else (0.0, deadline + look_s)
        # The command acts until the next cycle's, and that one may begin late.
        self.late_s = 0.0 if self.lockstep else (LATE - 1.0) * robot.period + look_s
        self.period_ns = round(1e9 * robot.period)
        self.stop_ns = round(1e9 * robot.model.dynamics.dt * len(robot.model.certificate.tightening))
        # Certificates are built on what acted since their state was measured: a state is used for so long.
        self.memory_ns = round(1e9 * max(channel.max_age for channel in robot.channels if not channel.latched))
        self.unsure_until = 0
        self.certificate_us = 0
        self.told: tuple[State, str] | None = None
        self.reason = "closed"
        self.unrecorded_since = 0
        self.episode_key = -1
        self.forget(0)

        self.command_output = self.advertise(self.commands.type, robot.command.name, messages.LATEST, native=True)
        self.candidate_output = self.advertise(PointCloud2, messages.CANDIDATES, messages.RECORDED)
        self.decision_output = self.advertise(DiagnosticArray, messages.DECISION, messages.RECORDED)
        self.ack_output = self.advertise(UInt64, messages.EPISODE_ACK, messages.CHAIN)
        self.state_output = self.advertise(String, messages.GATE_STATE, messages.LATCHED)
        self.diagnostics = self.advertise(DiagnosticArray, messages.DIAGNOSTICS, messages.CHAIN)
        self.markers = self.advertise(MarkerArray, messages.MARKERS, messages.LATEST)
        for codec in self.codecs:
            quality = messages.CHAIN if codec.channel.latched else messages.SENSOR
            self.subscribe(
                codec.type, codec.channel.name, functools.partial(self.on_channel, codec), quality, native=True
            )
        self.subscribe(JointState, messages.REQUEST, self.on_request, messages.ONCE)
        if self.param("simulated"):
            self.subscribe(DiagnosticArray, messages.EPISODE, self.on_episode, messages.CHAIN)
        self.subscribe(UInt64, messages.HEARTBEAT, self.on_heartbeat, messages.LATEST)
        self.serve(Trigger, "~/reset", self.on_reset)
        self.every(look_s, self.on_timer)
        self.every(1.0, self.on_second)
        self.every(DRAW_S, self.on_draw)
        # The first line that a process logs takes 40 ms, in which rclpy looks for who wrote it: not at the first fault.
        self.get_logger().info("the certificate is compiled")
        if not self.lockstep and (problem := lifecycle.real_time_priority(lifecycle.GATE_PRIORITY)):
            self.get_logger().warning(
                f"no real-time priority ({problem}): a busy machine may keep the gate from deciding in time; allow "
                "'rtprio' for this user in /etc/security/limits.conf"
            )

    def activate(self) -> None:
        """Open for inputs. Raises ValueError where someone else could move the robot."""
        if foreign := self._wait_for_ghosts():
            raise ValueError(
                f"another node publishes the robot's command '{self.command_output.topic_name}': {foreign}; "
                "stop it first"
            )
        if kinds := self._unheard():
            raise ValueError(str(unheard(kinds)))
        assert self.gate is not None
        if not self.linger():  # else the plan still runs, and goes on from what it knows
            self.gate.new_episode(self.gate.episode)
            self.episode_key = -1
            self.forget(0)
        self.stopping_until = 0
        self.next_cycle = time.monotonic_ns()
        self.clock_ahead_ns: int | None = None
        self.tell_state()

    def _wait_for_ghosts(self) -> str:
        """Who else publishes the command, once whoever has this node's own name had the time to leave the graph.

        A killed predecessor stays there for its lease; nobody can tell it from a living namesake before that is over.
        """
        own = f"{self.get_namespace().rstrip('/')}/{self.get_name()}"
        end, told = time.monotonic() + GHOST_S, False
        while True:
            names = self._strangers()
            # Nobody can wait here while a stop goes on: the plan of this node needs its callbacks.
            if set(names) != {own} or time.monotonic() > end or self.linger():
                return ", ".join(names)
            if not told:
                self.get_logger().info("waiting for a predecessor of this name to leave the graph")
                told = True
            time.sleep(GHOST_LOOK_S)  # DDS has threads of its own

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
        self.mismatch = self.gate.mismatch if self.latched_by else None
        try:
            if self.linger():
                self.run_plan()
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
            zero = self.robot.action_low.astype("float32") * 0
            self.command_output.publish(self.commands.encode(zero, self.stamp_ns))

    def running(self) -> bool:
        """Whether commands go out: active, or still stopping."""
        return self.active or time.monotonic_ns() < self.stopping_until

    # --- what comes in -------------------------------------------------------------------------------------------

    def on_channel(self, codec: messages.ChannelCodec, message: Any) -> None:
        """A native input: to the gate at once (real time), or when the whole state is there (lock-step)."""
        if not self.running():
            return
        assert self.gate is not None
        name, latched = codec.channel.name, codec.channel.latched
        now_ns = self.stamp_ns if self.lockstep else self.get_clock().now().nanoseconds
        stamp_ns = messages.nanoseconds(message.header.stamp) if codec.stamped else now_ns
        if stamp_ns < self.start_ns:
            return  # of the episode before
        if self.lockstep and not latched and stamp_ns <= self.stamp_ns:
            if stamp_ns == self.stamp_ns and codec is self.codecs[0]:
                self.repeat()
            return
        try:
            vector = codec.decode(message)
        except ValueError as error:
            self.get_logger().error(str(self.gate.refuse(name, Cause(str(error)))), throttle_duration_sec=1.0)
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

    def on_request(self, message: JointState) -> None:
        """An answer. A late one answers no open cycle: the gate counts it and nothing else happens."""
        if not self.active:
            return
        assert self.gate is not None
        try:
            id, action = self.requests.decode(message)
        except ValueError as error:
            self.gate.counters.refused_requests += 1
            self.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        decided_ns = time.monotonic_ns()
        decision = self.gate.request(id, action, decided_ns)
        if decision is not None:
            self.publish(decision, decided_ns)

    def on_episode(self, message: DiagnosticArray) -> None:
        """The simulator put the robot somewhere else: forget, then say so."""
        if not self.active:
            return
        assert self.gate is not None
        episode = messages.decode_episode(message)
        if episode.key != self.episode_key:
            if self.open:
                self.run_plan()
            self.gate.new_episode(episode.id)
            self.episode_key = episode.key
            self.forget(episode.start_ns)
        self.ack_output.publish(UInt64(data=episode.key))

    def on_heartbeat(self, message: UInt64) -> None:
        """Up to which decision the recorder has written."""
        if self.gate is not None:
            self.gate.recorder_alive(message.data, time.monotonic_ns())
            self.recorder_heard = True
            if not self.gate.recorder_problem(time.monotonic_ns()):
                self.unrecorded_since = 0

    def on_e_stop(self, message: Bool) -> None:
        """Latch at once; the reset service refuses until false was sent."""
        self.e_stop = message.data
        if self.e_stop:
            self._latch_at_once(E_STOPPED)

    def on_lossy_e_stop(self, message: Bool) -> None:
        """The same from a button that is not RELIABLE, and once more from every other."""
        self.lossy_e_stop = message.data
        if self.lossy_e_stop:
            self._latch_at_once(E_STOPPED)

    def pressed(self) -> bool:
        """Whether the last word on `e_stop` was true."""
        return self.e_stop or self.lossy_e_stop

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

    def on_e_stop_service(self, request: Any, response: Any) -> None:
        """The same as a service: true latches, false releases."""
        self.lossy_e_stop = False  # after false by hand the topic must say true anew
        self.on_e_stop(Bool(data=request.data))
        response.success = True
        response.message = str(E_STOPPED) if self.e_stop else "released; call the reset service to go on"

    def on_reset(self, request: Any, response: Any) -> None:
        """Leave the latch, or say why not."""
        if self.gate is None or not self.active:
            response.message = "the monitor is not active"
        elif self.pressed():
            response.message = "still e-stop: send false on e_stop first"
        elif foreign := self.foreign_publishers():
            response.message = f"still another publisher of the command: {foreign}"
        elif kinds := self._unheard():
            response.message = f"still {unheard(kinds)}"
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
            self._watch_delay(decided_ns)
            self.run_plan()  # the recorder lists the number of what was not sent as a gap
            return
        # Lock-step waits for the decision, a drive for the command.
        if not self.lockstep:
            self.command_output.publish(command)
            self._watch_delay(decided_ns)
        if self.gate.state is State.LATCHED:
            decision = dataclasses.replace(decision, message=str(self.gate.cause))
        elif decided_ns < self.unsure_until and self.gate.state is State.BACKUP:
            if decision.reason == "no_request" or not decision.message:  # else another cause is named
                self.gate.cause = STALLED
                decision = dataclasses.replace(decision, message=str(STALLED))
        self.decision_message = messages.encode_decision(decision, self.certificate_us)
        self.decision_output.publish(self.decision_message)
        if self.lockstep:
            self.command_output.publish(command)
        self.reason = decision.reason
        self._watch_recorder()
        self.tell_state()

    def _watch_delay(self, decided_ns: int) -> None:
        """The gate notes a command for when it was decided. One that left later than that may take is noted wrongly.

        So nothing is asked for until no state that was measured before can be certified upon any more.
        """
        now = time.monotonic_ns()
        if now - decided_ns > TRANSPORT_NS:
            self.unsure_until = now + TRANSPORT_NS + self.memory_ns

    def _watch_recorder(self) -> None:
        """Latch where a recorder was heard before and is lost for too long."""
        assert self.gate is not None
        now = time.monotonic_ns()
        problem = self.gate.recorder_problem(now) if self.recorder_heard else NONE
        if not problem:
            self.unrecorded_since = 0
        elif not self.unrecorded_since:
            self.unrecorded_since = now
        elif now - self.unrecorded_since > round(1e9 * self.gate.config.latch_after_s):
            self.gate.latch(problem.then("call the reset service"))

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
            self._watch_clock(now)
        if self.open and now - self.opened >= self.deadline_ns:
            self.run_plan()
        if not self.lockstep and (now >= self.next_cycle or self.fresh(now)):
            self.cycle()

    def _watch_clock(self, now: int) -> None:
        """A clock that jumps makes every stamp wrong; that inputs look old or new is only what follows."""
        assert self.gate is not None
        ahead_ns = self.get_clock().now().nanoseconds - now
        jumped_s = 0.0 if self.clock_ahead_ns is None else (ahead_ns - self.clock_ahead_ns) / 1e9
        self.clock_ahead_ns = ahead_ns
        # A closed gate has seen nothing yet, and a simulated clock begins with a jump.
        if abs(jumped_s) > JUMP_S and self.gate.state is not State.CLOSED:
            self._latch_at_once(
                Cause(f"the clock jumped by {jumped_s:+.1f} s", "synchronise the clocks, then call the reset service")
            )

    def fresh(self, now: int) -> bool:
        """Real time: whether a complete state waits, a period newer than that of the last cycle."""
        assert self.gate is not None
        newer = self.gate.inputs.instant_ns - self.begun_ns >= EARLY * self.period_ns
        return newer and not self.open and now - self.opened >= self.period_ns // 2

    def cycle(self) -> None:
        """Real time: one cycle begins; late is late, nothing is made up for."""
        assert self.gate is not None
        now = time.monotonic_ns()
        self.next_cycle = now + round(LATE * self.period_ns)
        if self.open:
            self.run_plan()
        self.begun_ns = self.gate.inputs.instant_ns
        self.begin(self.get_clock().now().nanoseconds)
        asking = self.active and self.gate.state is not State.LATCHED and now >= self.unsure_until
        if self.open and not asking:
            self.run_plan()

    # --- what others may know ------------------------------------------------------------------------------------

    def foreign_publishers(self) -> str:
        """Names of others that publish the command, '' if there are none."""
        return ", ".join(self._strangers())

    def _strangers(self) -> list[str]:
        own = (self.get_name(), self.get_namespace())
        infos = self.get_publishers_info_by_topic(self.command_output.topic_name)
        names = [(info.node_name, info.node_namespace) for info in infos]
        if own in names:
            names.remove(own)
        return sorted(f"{space.rstrip('/')}/{name}" for name, space in names)

    def tell_state(self) -> None:
        """Latched state and diagnostics, when the state or the reason for it changed."""
        assert self.gate is not None
        # Of the cause its first word, such as the channel's name: its figures change with every tick.
        why = "" if self.gate.state is State.NOMINAL else f"{self.reason} {self.gate.cause.what.partition(' ')[0]}"
        now = self.gate.state, why
        before, self.told = self.told, now
        if now == before or (before is not None and before[0] is now[0] is State.LATCHED):
            return
        if self.gate.state is State.LATCHED and self.gate.mismatch.spent and (foreign := self.foreign_publishers()):
            # What contradicts the predictions may be somebody else's commands.
            cause = foreign_command(foreign)
            self.gate.cause = Cause(f"{cause.what}; {self.gate.cause.what}", cause.remedy)
        if self.reason == "input_missing" and not self.lockstep:
            self._look_at_types()
        text = f"{now[0].value}: {self.gate.cause}" if self.gate.cause else now[0].value
        self.state_output.publish(String(data=text))
        if self.gate.state is State.LATCHED:
            self.get_logger().error(f"latched: {self.gate.cause}")
        self.send_diagnostics()

    def _unheard(self) -> str:
        """Types of e-stop buttons that this node cannot hear, '' if there are none."""
        return self._other_types(messages.E_STOP, "std_msgs/msg/Bool")

    def _other_types(self, topic: str, kind: str) -> str:
        """Types of the topic's publishers but `kind`: DDS matches nobody with them, and tells neither side."""
        infos = self.get_publishers_info_by_topic(topic)
        return ", ".join(sorted({info.topic_type for info in infos} - {kind}))

    def _look_at_types(self) -> None:
        """Refuse, by name, the inputs that cannot be heard."""
        assert self.gate is not None
        for codec in self.codecs:
            kind = codec.channel.type.replace("/msg/", "/").replace("/", "/msg/")
            if others := self._other_types(codec.channel.name, kind):
                problem = Cause(f"{codec.channel.name}: somebody publishes {others}, expected {kind}")
                self.get_logger().error(str(self.gate.refuse(codec.channel.name, problem)), throttle_duration_sec=1.0)

    def on_second(self) -> None:
        """Diagnostics, and a look for others that publish the command, or an e-stop of another type."""
        if self.gate is None:
            return
        self.send_diagnostics()
        if not self.active:
            return
        if foreign := self.foreign_publishers():
            self._latch_at_once(foreign_command(foreign))
        elif kinds := self._unheard():
            self._latch_at_once(unheard(kinds).then("call the reset service"))

    def on_draw(self) -> None:
        """Markers, where somebody looks at them and no request is due."""
        if self.gate is None or self.gate.newest is None or self.open or not self.markers.get_subscription_count():
            return
        text = f"{self.gate.state.value} {self.gate.cause}".strip()
        try:
            picture = draw(self.robot, *self.gate.newest)
            stamp_ns = self.gate.newest[1].stamp_ns
            self.markers.publish(messages.encode_markers(picture, self.robot.frame_id, stamp_ns, text))
        except Exception as error:  # a picture that cannot be drawn is no reason to stop a robot
            self.get_logger().error(f"no markers: {error}", throttle_duration_sec=10.0)

    def remedy(self) -> str:
        """What to do about the cause."""
        assert self.gate is not None
        return self.gate.cause.remedy or REMEDY[self.reason]

    def send_diagnostics(self) -> None:
        """Counters and state."""
        assert self.gate is not None
        counters = self.gate.counters
        values = {
            "state": self.gate.state.value,
            "reason": self.reason,
            "remedy": self.remedy(),
            "episode": self.gate.episode,
            "decisions": counters.decisions,
            "interventions": counters.interventions,
            "empty_supports": counters.empty_supports,
            "refused_inputs": counters.refused_inputs,
            "refused_requests": counters.refused_requests,
            "mismatches": counters.mismatches,
            "mismatch level": round(self.gate.mismatch.level, 2),
            "largest residual, in W": round(self.gate.mismatch.largest, 2),
            **{f"verdict {name}": count for name, count in counters.verdicts.items()},
        }
        name = f"{self.get_fully_qualified_name().lstrip('/')}: gate"
        stamp = self.get_clock().now().nanoseconds
        level = LEVEL[self.gate.state]
        robot = self.param("robot_id")
        self.diagnostics.publish(messages.encode_status(name, stamp, str(self.gate.cause), level, values, robot))


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(SafetyMonitor)


if __name__ == "__main__":
    main()
