"""Plays the faults of experiments/faults.py on a running graph, one after the other, and observes the reactions.

The graph consists of the real nodes as processes over DDS, in real time. Only topics are renamed, so that every sensor
message, request and command passes a relay of this node; injection.py applies the fault. Times are on the steady clock.
Unsafe visits are counted by the simulator on its ground truth.

A fault begins while the robot moves (`Robot.in_motion`), or is there from the start of an episode. All faults use the
same graph, with a new episode or a reset between them.
"""

import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import Log
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql import bringup
from safe_support_ql.bringup import Run
from safe_support_ql.config import Config
from safe_support_ql.experiments import faults
from safe_support_ql.experiments.faults import COMMAND, REQUEST, Expect, Result, Seen
from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.nodes.executor import ShortPathExecutor
from safe_support_ql.nodes.graph import START_S, Graph, Interrupted
from safe_support_ql.nodes.injection import Injector, Relay, RequestVector
from safe_support_ql.nodes.lifecycle_client import Died, Fault, Refused
from safe_support_ql.nodes.refusals import Refusals
from safe_support_ql.recording.parts import OutcomeTable, Verdict
from safe_support_ql.recording.summary import Progress, progress
from safe_support_ql.robots.base import Estimate
from safe_support_ql.robots.model import Floats

RELAY_S = 0.002  # period at which delayed messages are sent
WARM_S = 1.5  # time in an episode before its first fault
ATTEMPTS = 5  # to play a fault with the robot moving from its onset to its end
MOVE_S = 20.0  # longest wait for the robot to move, in one episode
BACK_S = 30.0  # longest wait for the gate to recover after a fault
AFTER_S = 0.3  # for effects that arrive late
SETTLE_S = 2.5  # after a fault for what it must end in
QUIET_S = 1.1  # the monitor logs refusals of a kind once a second
TRUE, ASKED = "_true", "_asked"  # endings of the topics before the relay
DRIVEN = "_driven"  # of the command behind it


class Campaign:
    def __init__(self, run: Run, settings: Config, phase: str, processes: bringup.Processes) -> None:
        """rclpy must be initialised; `open` brings the graph up."""
        self.run, self.processes, self.phase = run, processes, phase
        self.robot = settings.robot
        self.policy = "behavior_policy" if run.policy == "behavior" else "inference"
        self.interrupted = False
        executor = ShortPathExecutor()  # the relay must be fast
        self.graph = Graph(run, self.robot, Progress(), processes, executor, self._meanwhile, self._renamed_topics())
        self.client = self.graph.client
        self.decisions: list[tuple[float, Verdict]] = []
        self.logs: list[tuple[float, str]] = []
        self.states: list[tuple[float, str]] = []
        self.inputs: dict[str, Floats] = {}
        self.state_now: Floats | None = None
        self.stood_at: float | None = None
        self.sensed_at = self.commanded_at = 0.0
        self.moved_s = 0.0  # in motion so far
        self.refused = 0
        self.visits: list[float] = []  # when each unsafe visit was reported
        self.outcome: dict[str, float] = {}  # the newest, empty before the first
        self.gate = ""
        self.seed = 0
        self.codecs: dict[str, Any] = {}
        self.relays = self._relays()
        node = self.graph.node
        # Not logged: the first line of a process takes as long as ticks of a fast robot, and the relay is part of it.
        refusals = Refusals(lambda text: self.logs.append((time.monotonic(), text)))
        hear = functools.partial(refusals.subscribe, node)
        hear(JointState, topics.OUTCOME, tables.decode_outcome, self._on_outcome, topics.LATEST)
        hear(String, topics.GATE_STATE, tables.decode_gate_state, self._on_gate, topics.LATCHED)
        hear(DiagnosticArray, topics.DECISION, tables.decode_decision, self._on_decision, topics.RECORDED)
        hear(DiagnosticArray, topics.LEARNER_STATUS, tables.decode_learner, lambda values: None, topics.CHAIN)
        hear(DiagnosticArray, topics.DIAGNOSTICS, tables.decode_status, self._on_diagnostics, topics.CHAIN)
        node.create_subscription(Log, "/rosout", self._on_log, topics.RECORDED)
        node.create_timer(RELAY_S, self._flush)
        self.injector = Injector(self.graph, self.relays, self.codecs)
        self.no_priority = lifecycle.real_time_priority(lifecycle.ROBOT_PRIORITY)  # the relay is part of the robot

    def _renamed_topics(self) -> dict[str, dict[str, str]]:
        """By node: the topics that lead through the relays."""
        sensed = {channel.name: channel.name + TRUE for channel in self.robot.channels}
        command = self.robot.command.name
        return {
            "simulator": sensed | {command: command + DRIVEN},
            self.policy: {topics.REQUEST: topics.REQUEST + ASKED},
        }

    def _relays(self) -> dict[str, Relay]:
        robot, node = self.robot, self.graph.node
        relays = {}
        for channel in robot.channels:
            codec = native.ChannelCodec(channel)
            quality = topics.CHAIN if channel.latched else topics.SENSOR
            relay = Relay(node, codec.type, channel.name + TRUE, channel.name, quality, quality)
            relay.heard = lambda message, codec=codec: self._sense(codec, message)  # type: ignore[misc]
            relays[channel.name], self.codecs[channel.name] = relay, codec
        command = self.codecs[COMMAND] = native.CommandCodec(robot.command, stamped=True)
        name = robot.command.name
        relays[COMMAND] = Relay(node, command.type, name, name + DRIVEN, topics.LATEST, topics.LATEST)
        relays[COMMAND].heard = lambda message: setattr(self, "commanded_at", time.monotonic())
        request = topics.REQUEST
        relays[REQUEST] = Relay(node, JointState, request + ASKED, request, topics.LATEST, topics.LATEST)
        self.codecs[REQUEST] = RequestVector()
        return relays

    def close(self) -> None:
        """Leave the graph, and give this process its ordinary priority again."""
        lifecycle.real_time_priority(0)
        self.injector.close()
        self.graph.close()

    # --- while it waits ----------------------------------------------------------------------------------------------

    def _meanwhile(self) -> None:
        """Raises Interrupted, and Fault if a node died that no fault stopped."""
        if self.interrupted:
            raise Interrupted
        for name in self.graph.dead():
            if name not in self.injector.down:
                words = self.processes.last_words(name)
                raise Fault(f"{name} died ({self.processes.how_it_ended(name)}): {words}")

    def _flush(self) -> None:
        for relay in self.relays.values():
            relay.flush()

    # --- observation -------------------------------------------------------------------------------------------------

    def _sense(self, codec: native.ChannelCodec, message: Any) -> None:
        self.inputs[codec.channel.name] = codec.decode(message)
        if codec.channel.name != self.robot.channels[0].name or len(self.inputs) < len(self.robot.channels):
            return
        estimate: Estimate = self.robot.estimate(self.inputs)
        self.state_now, self.sensed_at = estimate.state, time.monotonic()
        if self.decisions and self._in_motion(estimate.state):
            self.moved_s += self.robot.period
        certificate = self.robot.model.certificate
        stands = bool(certificate.terminal(tuple(estimate.state), self._centre(), certificate.constants))
        if not (self.robot.passive_stop and stands):
            self.stood_at = None
        elif self.stood_at is None:
            self.stood_at = time.monotonic()

    def _centre(self) -> tuple[float, ...]:
        """The centre of the plan of the newest decision; before the first decision, that of the first plan."""
        return self.robot.model.certificate.centre(self.decisions[-1][1].centre if self.decisions else 0)

    def _in_motion(self, state: Floats) -> bool:
        return self.robot.in_motion(state, np.array(self._centre()))

    def _on_decision(self, verdict: Verdict) -> None:
        self.decisions.append((time.monotonic(), verdict))

    def _on_gate(self, text: str) -> None:
        self.gate = text
        self.states.append((time.monotonic(), text))

    def _on_log(self, message: Log) -> None:
        if message.level >= Log.WARN or message.name.endswith("safety_monitor"):
            self.logs.append((time.monotonic(), message.msg))

    def _on_diagnostics(self, values: dict[str, str]) -> None:
        if "refused_inputs" in values:
            self.refused = int(values["refused_inputs"]) + int(values["refused_requests"])

    def _on_outcome(self, arrived: tuple[OutcomeTable, int, str]) -> None:
        table = arrived[0]
        same = table["session"] == self.outcome.get("session")
        new = int(table["unsafe_visits"] - (self.outcome["unsafe_visits"] if same else 0))
        self.visits += [time.monotonic()] * new
        self.outcome = table

    def moving(self) -> bool:
        """Whether the robot drives by its policy, long enough in its episode, and is in motion."""
        if self.state_now is None or not self.decisions or self.gate.startswith("latched"):
            return False
        at, newest = self.decisions[-1]
        warm = self.outcome.get("tick", 0) * self.robot.period >= WARM_S
        fresh = time.monotonic() - at < 2 * self.robot.period
        return warm and fresh and newest.reason == "request" and self._in_motion(self.state_now)

    # --- between two faults ------------------------------------------------------------------------------------------

    def new_episode(self) -> None:
        self.client.deactivate("simulator")
        self.seed += 1
        self.client.set("simulator", first_seed=self.seed, **self.injector.lidar)
        self.client.activate("simulator")

    def open(self) -> None:
        """Start and activate all nodes, and begin the first episode."""
        self.graph.start(lambda text: None)
        self.client.activate(self.policy)
        phase = "collection" if self.phase == "collection" else "simulate"
        self.client.set("simulator", phase=phase, first_seed=self.seed)
        self.client.activate("simulator")

    def recover(self) -> None:
        """Restart nodes and reset a latch. Raises Fault if the gate does not recover."""
        for relay in self.relays.values():
            relay.clear()
        for node in self.run.nodes:
            if node in self.injector.down:
                self._bring_back(node)
        if self.client.state("simulator") != State.PRIMARY_STATE_ACTIVE:
            self.new_episode()
        end, answer = time.monotonic() + BACK_S, ""
        while self.gate.startswith("latched") and time.monotonic() < end:
            response = self.client.call("safety_monitor", Trigger, "safety_monitor/reset", Trigger.Request())
            answer = response.message
            self.graph.spin(lambda: not self.gate.startswith("latched"), 0.5)
        if self.gate.startswith("latched"):
            raise Fault(f"the gate cannot be reset: {answer}")

    def _bring_back(self, node: str) -> None:
        """Restart, configure and activate a node that a fault stopped."""
        if not self.processes.alive(node):
            self.graph.progress = progress(self.run.folder)  # continue after the last recorded number
            self.graph.launch(node)
        self.injector.down.discard(node)
        if self.client.state(node, START_S) == State.PRIMARY_STATE_UNCONFIGURED:
            self.client.configure(node)
        if self.client.state(node) == State.PRIMARY_STATE_INACTIVE and node != "simulator":
            self.client.activate(node)

    # --- one fault ---------------------------------------------------------------------------------------------------

    def get_moving(self, quiet: bool) -> bool:
        """Wait until the robot moves, and until a refusal would be logged; try another episode if it does not move."""

        def ready() -> bool:
            return self.moving() and not (quiet and self.logs and time.monotonic() - self.logs[-1][0] < QUIET_S)

        for attempt in range(ATTEMPTS):
            if attempt:
                self.recover()  # the gate latched late, or the simulator gave up
                self.new_episode()
            if self.graph.spin(ready, MOVE_S):
                return True
        return False

    def play_fault(self, fault: faults.Fault, seen: Seen) -> None:
        """Play the fault while the robot moves; try again if it could not show. Fills in `seen`."""
        for _ in range(ATTEMPTS):
            seen.tries += 1
            self.arrange(fault)
            if not fault.from_start and not self.get_moving(quiet=fault.expect is Expect.REFUSED):
                seen.trouble = "the robot did not move"
                return
            episode, visits = self.outcome.get("episode"), len(self.visits)
            self.observe(fault, seen)
            own = fault.from_start or fault.target in ("simulator", "safety_monitor")  # ends episodes by its nature
            ended = not own and self.outcome.get("episode") != episode
            if len(self.visits) > visits or not (ended or faults.hidden(fault, seen)):
                return
            self.back(fault)
        seen.trouble = "each time, the episode ended or the robot hardly moved"

    def observe(self, fault: faults.Fault, seen: Seen) -> None:
        """Play the fault once: onset, duration, end, and the time after it."""
        decided, logged, refused, visits = len(self.decisions), len(self.logs), self.refused, len(self.visits)
        moved, asked = self.moved_s, time.monotonic()
        end = self.injector.begin(fault, seen)
        if fault.from_start:
            self.new_episode()
            moved = self.moved_s
        try:
            onset = self._wait_out(fault, seen, asked if fault.expect is Expect.DRIVE else time.monotonic())
        finally:
            end()
        seen.moved_s = self.moved_s - moved

        def settled() -> bool:
            if fault.expect is Expect.LATCHED:
                return self.gate.startswith("latched")
            if fault.verb == "malformed":
                return any(re.search(fault.cause, text) for _, text in self.logs[logged:])
            return fault.expect is not Expect.REFUSED or self.refused > refused

        self.graph.spin(settled, SETTLE_S)
        self.graph.spin(lambda: False, AFTER_S)
        seen.decisions = [(at - onset, v.reason, v.message) for at, v in self.decisions[decided:] if at >= onset]
        seen.states = [(at - onset, text) for at, text in self.states if at >= onset]
        seen.logs = [(at - onset, text) for at, text in self.logs[logged:] if at >= onset]
        seen.refused = self.refused - refused
        seen.visit_s = self.visits[visits] - onset if len(self.visits) > visits else None
        seen.state = "silent" if fault.expect is Expect.DRIVE else self.gate

    def _wait_out(self, fault: faults.Fault, seen: Seen, onset: float) -> float:
        """Wait for the end of the fault. Returns its onset: when the first message was altered or missing."""
        relay = self.relays.get(fault.target)
        if fault.seconds:
            self.graph.spin(lambda: False, fault.seconds)
        elif relay is not None:
            self.graph.spin(lambda: relay.began is not None, 2.0)
        if relay is not None:
            if relay.alter is not None and relay.began is None:
                seen.trouble = f"no message came on {fault.target}"
            onset = relay.began or onset
        if fault.target == "simulator":
            onset = max(onset, self.sensed_at + self.robot.period)
        if fault.expect is Expect.DRIVE:
            if self.stood_at is not None:
                seen.stood_s = max(0.0, self.stood_at - onset)
            if (silent_at := self.commanded_at + self.robot.world.drive.timeout) < time.monotonic():
                seen.silent_s = max(0.0, silent_at - onset)
        return onset

    def arrange(self, fault: faults.Fault) -> None:
        """Prepare what the fault needs before the robot moves."""
        if fault.verb == "clock":
            self.injector.start_clock()
            self.client.set("safety_monitor", use_sim_time=True)
            self.graph.spin(lambda: False, AFTER_S)  # until /clock is received, nodes see the year 1970
            self.recover()

    def back(self, fault: faults.Fault) -> None:
        """Undo what outlasts the fault, such as `arrange`."""
        if fault.from_start:
            self.new_episode()
        if self.injector.clock_timer is not None:
            self.client.set("safety_monitor", use_sim_time=False)
            self.injector.stop_clock()
        self.recover()


def conduct(
    campaign: Campaign, chosen: Sequence[faults.Fault], show: Callable[[Result], None], timed: bool = True
) -> list[Result]:
    """Play `chosen` in order, `show` each result, and stop the graph.

    Raises Interrupted, and Refused, Fault or Died if the graph does not start or does not recover.
    """
    results: list[Result] = []
    broken = 0
    try:
        campaign.open()
        for number, fault in enumerate(chosen, 1):
            before, seen = len(campaign.visits), Seen()
            try:
                campaign.play_fault(fault, seen)
                if number < len(chosen):
                    campaign.back(fault)
                broken = 0
            except (Fault, Refused, Died) as error:
                broken += 1
                if broken > ATTEMPTS:
                    raise
                seen.trouble = str(error)
            # Count visits from the end of the previous fault on, so that none is left out.
            seen.visits = len(campaign.visits) - before
            results.append(faults.judge(fault, seen, campaign.robot.name, campaign.phase, timed))
            show(results[-1])
    finally:
        campaign.graph.stop()
    return results
