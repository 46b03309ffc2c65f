"""The gate: states, verdicts and reasons, and the machine that passes a certified action or runs the stored plan.

One cycle per control period: `begin` samples the newest inputs and certifies, then either `request` (an answer to the
newest id) or `expire` (no acceptable answer in time) decides, once. Time comes in as arguments, in nanoseconds:
`now` in the clock of the message stamps, `steady` in a clock that never jumps.

The gate is closed until something is certified for the first time: a plan that was never certified is not started, so
until then the gate sends the command of silence. Once it is open, the stored plan is what runs when all else fails.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

import numpy as np

from safe_support_ql.parameters import param
from safe_support_ql.robots.base import Estimate, Floats, Robot, Singles
from safe_support_ql.safety import reasons
from safe_support_ql.safety.blind import BlindState
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import NONE, Cause
from safe_support_ql.safety.comparison import Comparison
from safe_support_ql.safety.heartbeat import Heartbeat
from safe_support_ql.safety.inputs import InputHistory, Sample
from safe_support_ql.safety.mismatch import Mismatch
from safe_support_ql.safety.sent import TRANSPORT_NS, Sent
from safe_support_ql.safety.support import Support
from safe_support_ql.safety.timing import Clock, Timing, delays, holds
from safe_support_ql.safety.tube import Tube

VERDICTS = ("certified", "certified_band", "plan_held", "no_proof")
REASONS = (
    "request",  # the request was executed
    "plan_requested",  # the policy itself asked for the plan
    "no_request",  # none came before the deadline
    "uncertified_request",  # it asked for something that the certificate refuses
    "malformed_request",  # NaN, wrong length
    "input_missing",  # an input is late, silent or was refused
    "recorder_stale",  # nobody writes what happens, or too late
    "latched",  # a latched cause is waiting for a reset
    "closed",  # nothing was certified yet
)


class State(enum.Enum):
    """Gate states; see `Gate._state_after`."""

    CLOSED = "closed"
    NOMINAL = "nominal"
    INTERVENING = "intervening"
    BACKUP = "backup"
    LATCHED = "latched"


@dataclass(frozen=True)
class GateConfig:
    """Timing of the gate."""

    request_deadline_s: float = param(0.0, "s", 0.0, 1.0, "real time: wait for a request this long; 0 = half a period")
    lockstep_timeout_s: float = param(
        1.0, "s", 0.05, 60.0, "lock-step: wait for a request this long, on the steady clock"
    )
    future_tolerance_s: float = param(0.05, "s", 0.0, 1.0, "a stamp further ahead than this is refused")
    recorder_timeout_s: float = param(  # two heartbeats of the recorder at least
        1.0, "s", 0.4, 60.0, "an older recorder heartbeat or unrecorded decision puts the gate into backup"
    )
    max_skew_s: float = param(0.05, "s", 0.0, 1.0, "inputs of one state may be this far apart in time")
    latch_after_s: float = param(1.0, "s", 0.05, 60.0, "inputs missing for longer than this latch the gate")
    mismatch_ticks: int = param(4, "1", 1, 100, "so many ticks with a residual beyond W latch the gate")
    mismatch_margin: float = param(0.02, "scaled margin", 0.0, 1.0, "each of them asks for this much more")

    def objection(self, period: float) -> str:
        """Why no run goes on with these times at a control period of `period` s, and what would be right; else ''."""
        if self.request_deadline_s > period:
            deadline = self.request_deadline_s
            return f"request_deadline_s is {deadline:g} s, must be at most {period:g} s: a cycle ends with its period"
        if self.latch_after_s < period:
            return f"latch_after_s is {self.latch_after_s:g} s, must be {period:g} s at least: a late state would latch"
        return ""


@dataclass(frozen=True)
class Decision:
    """What the gate executed in one cycle. `candidates` is None where the state was missing: the plan ran blind."""

    sequence: int
    id: int
    episode: int
    stamp_ns: int
    action: Singles
    index: int
    verdict: str
    reason: str
    message: str
    state: State
    intervention: bool
    candidates: CandidateSet | None


@dataclass
class Counters:
    """Cumulative counts of one gate, for status and diagnostics."""

    decisions: int = 0
    interventions: int = 0
    empty_supports: int = 0
    refused_inputs: int = 0
    refused_requests: int = 0
    mismatches: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))


@dataclass(frozen=True)
class Cycle:
    """What a decision is about: the state, what may be done at it, and whether it is inside the tube of the plan."""

    sample: Sample
    estimate: Estimate
    timing: Timing
    in_tube: bool
    candidates: CandidateSet


class Gate:
    """See the module. Not thread-safe: one thread drives it."""

    def __init__(
        self, robot: Robot, config: GateConfig, continuous: bool, seed: int, first_sequence: int = 0,
        clock: Clock = Clock.LOCKSTEP,
    ) -> None:  # fmt: skip
        """Closed, until something is certified. Compiles the certificate of a new kind of robot (seconds).

        A gate that is by mistake made for the wrong clock refuses its first cycle, see `begin`.
        """
        self.robot = robot
        self.config = config
        self.clock = clock
        self.support = Support(robot, continuous, seed)
        self.inputs = InputHistory(robot.channels, clock, config.future_tolerance_s, config.max_skew_s)
        self.sent = Sent(robot)
        self.recorder = Heartbeat(config.recorder_timeout_s)
        self.mismatch = Mismatch(config.mismatch_ticks)
        self.watching = True  # for mismatch; experiments that delete margins on purpose must not be stopped by it
        self.comparison = Comparison(robot, clock, self.sent, self.mismatch)
        self.state = State.CLOSED
        self.cause = Cause("no input seen yet")
        self.counters = Counters()
        self.episode = 0
        self.sequence = first_sequence
        self.id = 0
        self.newest: tuple[Estimate, CandidateSet, int] | None = None  # estimate, candidates, executed: to be drawn
        self._blind = BlindState(robot.model, clock, self.sent)
        self._decided_ns = 0
        self._missing_since_ns: int | None = None
        self._forget()

    def _forget(self) -> None:
        self.cycle: Cycle | None = None  # the open one
        self.opened = False  # whether anything that was certified has run: only then is there a plan to fall back to
        if self.state is not State.LATCHED:  # else it may be what a reset has to ask about
            self.mismatch.reset()
        self.comparison.forget()
        self._blind.forget()
        self._tube: Tube | None = None
        self._valid_until_ns: int | None = None
        self._started = False
        self._stamp_ns = 0
        self._missing = NONE

    # --- what comes in -------------------------------------------------------------------------------------------

    def receive(self, channel: str, vector: Floats, stamp_ns: int, now_ns: int, steady_ns: int) -> Cause:
        """Take an input, or refuse it and return why. A refused one changes nothing: the last one ages."""
        problem = self.inputs.receive(channel, vector, stamp_ns, now_ns, steady_ns)
        self.counters.refused_inputs += bool(problem)
        return problem

    def refuse(self, channel: str, problem: Cause) -> Cause:
        """Note a message that could not even be read as a vector (wrong names, type, frame)."""
        self.inputs.problems[channel] = problem
        self.counters.refused_inputs += 1
        return problem

    def recorder_alive(self, recorded: int, steady_ns: int) -> None:
        """A heartbeat: every decision below number `recorded` is written. From the first one on it is required."""
        self.recorder.alive(recorded, self.sequence, steady_ns)

    def new_episode(self, episode: int) -> None:
        """The robot was put somewhere else: forget plan, tube, band and inputs. A latch stays."""
        self.episode = episode
        self.inputs.forget()
        self._missing_since_ns = None
        self._forget()
        self.support.reset(self.support.centre)
        self.support.surcharge = self.config.mismatch_margin * self.mismatch.level
        if self.state is not State.LATCHED:
            self.state, self.cause = State.CLOSED, Cause("a new episode begins")

    # --- one cycle -----------------------------------------------------------------------------------------------

    def begin(
        self, now_ns: int, steady_ns: int, latency_s: tuple[float, float] | None = None, late_s: float = 0.0
    ) -> CandidateSet | None:
        """Sample the newest inputs and certify; None where they are missing or make no sense, then call `expire`.

        `latency_s`, in real time alone: from now until the command is sent, its smallest and largest value. `late_s`:
        how much later than a control period from now the next call may come. Raises ValueError where a latency does
        not go with the clock.
        """
        if (self.clock is Clock.REALTIME) != (latency_s is not None):
            raise ValueError(f"the gate's clock is {self.clock.value}; real time needs a latency, lock-step has none")
        self.cycle = None
        if self.clock is Clock.LOCKSTEP:
            self._stamp_ns = now_ns
        elif (newest_ns := self.inputs.newest_ns) is not None:
            self._stamp_ns = newest_ns
        seen = self._look(now_ns, steady_ns)
        if isinstance(seen, Cause):
            self._note_missing(seen, steady_ns)
            return None
        sample, estimate = seen
        self._missing, self._missing_since_ns = NONE, None
        # An answer that comes later than the certificate allowed for is none, whatever kept it.
        self._valid_until_ns = steady_ns + int(latency_s[1] * 1e9) if latency_s else None
        # When this command acts at the latest: one that is sent takes time to arrive.
        earliest_s, latest_s = (latency_s[0], latency_s[1] + TRANSPORT_NS / 1e9) if latency_s else (0.0, 0.0)
        before = delays(self.robot.model, sample.age_s + earliest_s, sample.age_s + latest_s)
        # The next command may come late, and this one acts until then.
        held = holds(self.robot.model, latest_s + late_s)
        self._compare(sample, estimate)
        past, known = self.sent.past(sample.steady_ns, max(before))
        timing = Timing(before, held, past, known and not self.comparison.apart_s and not estimate.objection)
        if not self._started or not self.opened:
            self.support.start(estimate, timing)
            self._started = timing.known  # else again, with a state that certifies something
        in_tube = self._tube is not None and self._tube.holds(self.robot, sample.vectors)
        self.id += 1
        candidates = self.support.candidates(self.id, self._stamp_ns, self.episode, sample.vectors, estimate, timing)
        self.cycle = Cycle(sample, estimate, timing, in_tube, candidates)
        return candidates

    def request(self, id: int, action: Singles, steady_ns: int) -> Decision | None:
        """Decide on an answer to candidate set `id`; None (and counted) if it answers no open cycle."""
        cycle = self.cycle
        if cycle is None or id != cycle.candidates.id or self.late(steady_ns):
            self.counters.refused_requests += 1
            return None
        self._decided_ns = steady_ns
        plan = cycle.candidates.plan
        if action.shape != cycle.candidates.actions[0].shape or not np.isfinite(action).all():
            return self._decide(cycle, plan, "malformed_request", True, reasons.MALFORMED)
        index = cycle.candidates.find(np.asarray(action, np.float32))
        if index < 0:
            cycle = self._append(cycle, np.asarray(action, np.float32))
            index = self.support.size - 1
        wanted_plan = bool(cycle.candidates.is_plan[index])
        if self.state is State.LATCHED:
            return self._decide(cycle, plan, "latched", not wanted_plan, self.cause)
        if problem := self.recorder_problem(steady_ns):
            return self._decide(cycle, plan, "recorder_stale", not wanted_plan, problem)
        unknown = NONE if cycle.timing.known else self._unknown(cycle)
        if wanted_plan:
            why = unknown or reasons.ONLY_PLAN
            return self._decide(cycle, index, "plan_requested", False, why if cycle.candidates.only_plan else NONE)
        if not cycle.candidates.certified[index]:
            why = unknown or reasons.uncertified(action, cycle.candidates.margin[index])
            return self._decide(cycle, plan, "uncertified_request", True, why)
        return self._decide(cycle, index, "request", False, NONE)

    def expire(self, steady_ns: int) -> Decision:
        """No acceptable request came, or there is no state: run the plan."""
        self._decided_ns = steady_ns
        cycle = self.cycle
        if cycle is None:
            return self._decide_blind()
        if self.late(steady_ns - int(self.robot.period * 1e9)):
            # The state is older than a period: k of it is no feedback any more.
            self._missing = reasons.STALLED
            return self._decide_blind()
        if self.state is State.LATCHED:
            return self._decide(cycle, cycle.candidates.plan, "latched", False, self.cause)
        return self._decide(cycle, cycle.candidates.plan, "no_request", False, reasons.NO_REQUEST)

    def late(self, steady_ns: int) -> bool:
        """Whether the newest certificate is over: it was made for commands that go out before."""
        return self._valid_until_ns is not None and steady_ns > self._valid_until_ns

    def recorder_problem(self, steady_ns: int) -> Cause:
        """Why nobody knows that decisions are written."""
        return self.recorder.problem(self.sequence, steady_ns)

    # --- latch ---------------------------------------------------------------------------------------------------

    def latch(self, cause: Cause) -> None:
        """Run the plan until a reset; the first cause is kept."""
        if self.state is not State.LATCHED:
            self.state, self.cause = State.LATCHED, cause

    def reset(self, now_ns: int, steady_ns: int) -> tuple[bool, str]:
        """Leave the latch, unless its cause persists. Returns (done, why not)."""
        if self.state is not State.LATCHED:
            return True, "the gate is not latched"
        if isinstance(seen := self._look(now_ns, steady_ns), Cause):
            return False, f"still {seen}"
        if seen[1].objection:
            return False, f"still {seen[1].objection}"
        if problem := self.recorder_problem(steady_ns):
            return False, f"still {problem}"
        if self.mismatch.level >= 1.0:
            return False, f"still a mismatch: {self.mismatch.what}"
        self.state, self.cause = State.BACKUP if self.opened else State.CLOSED, reasons.RESET
        self._missing_since_ns = None
        return True, "reset"

    # --- inside --------------------------------------------------------------------------------------------------

    def _look(self, now_ns: int, steady_ns: int) -> tuple[Sample, Estimate] | Cause:
        """The inputs of one instant and the state that they show, or why there is none."""
        sample = self.inputs.sample(now_ns, steady_ns)
        if isinstance(sample, Cause):
            return sample
        try:
            return sample, self.robot.estimate(sample.vectors)
        except ValueError as error:
            return Cause(str(error))

    def _note_missing(self, missing: Cause, steady_ns: int) -> None:
        self._missing = missing
        if self.state is State.CLOSED:
            self.cause = missing
            return
        if self._missing_since_ns is None:
            self._missing_since_ns = steady_ns
        if steady_ns - self._missing_since_ns > int(self.config.latch_after_s * 1e9):
            self.latch(Cause(missing.what, missing.remedy or "restore it").then("call the reset service"))

    def _compare(self, sample: Sample, estimate: Estimate) -> None:
        """Residuals beyond W shrink the support and, sustained, latch.

        A closed gate compares nothing: nothing of its own moves the robot, which somebody may be carrying.
        """
        counts = self.comparison.compare(
            sample, estimate.state, self.watching and self.opened, self.state is State.LATCHED
        )
        if counts is None:
            return
        self.counters.mismatches += counts
        self.support.surcharge = self.config.mismatch_margin * self.mismatch.level
        if self.mismatch.spent:
            # What the sensors cannot show explains why it differs from the predictions.
            self.latch(Cause.of(estimate.objection) if estimate.objection else reasons.mismatch(self.mismatch.what))

    def _unknown(self, cycle: Cycle) -> Cause:
        return reasons.unknown(cycle.estimate, self.comparison.apart_s, cycle.sample.age_s)

    def _append(self, cycle: Cycle, action: Singles) -> Cycle:
        """The cycle with a foreign action in its last slot."""
        if np.any(action < self.robot.action_low - 1e-6) or np.any(action > self.robot.action_high + 1e-6):
            return cycle  # an empty slot: never certified, so the plan runs
        candidates = self.support.append(cycle.candidates, cycle.estimate, cycle.timing, action)
        return replace(cycle, candidates=candidates)

    def _decide(self, cycle: Cycle, index: int, reason: str, intervention: bool, cause: Cause) -> Decision:
        candidates = cycle.candidates
        # Later than the certificate allowed for, the plan still runs, but nothing certified it.
        certified = bool(candidates.certified[index]) and not self.late(self._decided_ns)
        if not certified and not self.opened:
            return self._decide_closed(cycle)
        verdict = "certified_band" if candidates.band[index] else "certified"
        if not certified:
            verdict = "plan_held" if cycle.in_tube else "no_proof"
        self.opened = True
        executed = candidates.actions[index].astype(np.float64)
        self._move_tube(cycle, executed, certified)
        self.comparison.executed(not candidates.is_plan[index], self._decided_ns)
        self._blind.measured(cycle.estimate.state, cycle.sample.steady_ns)
        self._blind.executed(executed)
        self.support.executed(candidates, index)
        self.newest = cycle.estimate, candidates, index
        self.state = self._state_after(reason, intervention)
        if self.state is not State.LATCHED:
            self.cause = cause
        self.counters.interventions += intervention
        self.counters.verdicts[verdict] += 1
        self.counters.empty_supports += candidates.only_plan
        return self._send(candidates.actions[index].copy(), index, verdict, reason, cause, intervention, candidates)

    def _decide_closed(self, cycle: Cycle) -> Decision:
        """Nothing was ever certified, so there is no plan to run: send silence, and say what is missing."""
        self.newest = None
        latched = self.state is State.LATCHED
        if not latched:
            self.state, self.cause = State.CLOSED, self._why_closed(cycle)
        silence = self.robot.silence.astype(np.float32)
        return self._send(silence, -1, "no_proof", "latched" if latched else "closed", self.cause, False, None)

    def _why_closed(self, cycle: Cycle) -> Cause:
        if cycle.candidates.certified.any():
            return reasons.NOT_ASKED
        if cycle.estimate.objection:
            return Cause.of(cycle.estimate.objection)
        return reasons.no_room(self.robot.model, cycle.estimate) if cycle.timing.known else self._unknown(cycle)

    def _decide_blind(self) -> Decision:
        """The state is missing: follow the plan along the nominal prediction."""
        action = self.robot.silence.astype(np.float32)
        state = self._blind.at(self._decided_ns)
        if state is not None:
            action = self.support.plan_action(state)
            self._blind.executed(action.astype(np.float64))
        self.comparison.executed(False, self._decided_ns)
        self.newest = None
        self._tube = None  # what runs blind is not the feedback law that was certified
        closed = self.state is State.CLOSED
        if self.state not in (State.CLOSED, State.LATCHED):
            self.state, self.cause = State.BACKUP, self._missing
        if not closed:
            self.counters.verdicts["no_proof"] += 1
        return self._send(action, -1, "no_proof", "closed" if closed else "input_missing", self._missing, False, None)

    def _send(
        self, action: Singles, index: int, verdict: str, reason: str, cause: Cause, intervention: bool,
        candidates: CandidateSet | None,
    ) -> Decision:  # fmt: skip
        """The cycle ends with a command."""
        self.cycle = None
        self.support.previous = action.astype(np.float64)
        self.sent.note(self.support.previous, self._decided_ns)
        self.recorder.decided(self._decided_ns)
        sequence, id = self.sequence, candidates.id if candidates else 0
        self.sequence += 1
        self.counters.decisions += 1
        return Decision(
            sequence, id, self.episode, self._stamp_ns, action, index, verdict, reason, str(cause), self.state,
            intervention, candidates,
        )  # fmt: skip

    def _state_after(self, reason: str, intervention: bool) -> State:
        if self.state is State.LATCHED:
            return State.LATCHED
        if reason in ("request", "plan_requested"):
            return State.NOMINAL
        return State.INTERVENING if intervention else State.BACKUP

    def _move_tube(self, cycle: Cycle, action: Floats, certified: bool) -> None:
        """Move the tube one tick on; a certified decision starts a new one at the present state."""
        dynamics = self.robot.model.dynamics
        if certified:
            self._tube = Tube.start(dynamics, cycle.sample.vectors, cycle.estimate.state, action, cycle.timing.past[0])
        elif cycle.in_tube and self._tube is not None:
            self._tube = self._tube.move_on(dynamics, self.support.plan_action)
        else:
            self._tube = None  # what was never certified, or has left its tube, has no proof to hold on to
