"""The gate: states, verdicts and reasons, and the machine that passes a certified action or runs the stored plan.

One cycle per control period: `begin` samples the newest inputs and certifies, then either `request` (an answer to the
newest id) or `expire` (no acceptable answer in time) decides, once. Time comes in as arguments, in nanoseconds:
`now` in the clock of the message stamps, `steady` in a clock that never jumps.

The gate is closed until a plan certifies in OPENING_STATES successive states: a plan that was never certified is not
started, so until then the gate sends the command of silence. Once it is open, the stored plan is what runs when all
else fails, and a reset does not interrupt it. It closes again where the plan cannot be trusted: the robot differs from
the models before its first motion showed that its sensors are right, or its state is missing for longer than a plan
lasts. Then it latches, is silent, and opens only after a reset.
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

# One state proves little: a pole that swings through the upright is certified for a moment, a sensor may jump.
OPENING_STATES = 3  # successive states, of different instants, at which a plan certifies before it is started

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
    "closed",  # no plan was certified for long enough yet
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
        self.opening_states = OPENING_STATES  # one where an experiment begins in the middle of a motion
        self.comparison = Comparison(robot, clock, self.sent, self.mismatch)
        self.state = State.CLOSED
        self.cause = Cause("no input seen yet")
        self.counters = Counters()
        self.episode = 0
        self.sequence = first_sequence
        self.id = 0
        self.newest: tuple[Estimate, CandidateSet, int] | None = None  # estimate, candidates, executed: to be drawn
        self.perception = robot.perception()
        self._blind = BlindState(robot.model, clock, self.sent)
        self._latency_s: tuple[float, float] | None = None  # of the newest cycle, and how late the next one may come
        self._late_s = 0.0
        self._decided_ns = 0
        self._missing_since_ns: int | None = None
        self._forget()

    def _forget(self) -> None:
        self.cycle: Cycle | None = None  # the open one
        if self.state is not State.LATCHED:  # else it may be what a reset has to ask about
            self.mismatch.reset()
        self.close()
        self.comparison.forget()
        self.perception.forget()
        self._valid_until_ns: int | None = None
        self._stamp_ns = 0
        self._missing = NONE

    def close(self) -> None:
        """There is no plan any more, only silence, until a plan certifies again; a latched gate stays closed.

        What the operator's release does, when the robot stands or is held.
        """
        self.opened = False  # whether what was certified runs: only then is there a plan to fall back to
        self._resumes = False  # whether a latched gate may open, because its plan ran where the robot was before
        self._confirmed = False  # by motion before that
        self._agreed = 0  # successive states at which a plan certified
        self._agreed_ns = -1  # stamp of the newest of them
        self.comparison.restart()
        self._blind.forget()
        self._tube: Tube | None = None

    # --- what comes in -------------------------------------------------------------------------------------------

    def receive(self, channel: str, vector: Floats, stamp_ns: int, now_ns: int, steady_ns: int) -> Cause:
        """Take an input, or refuse it and return why. A refused one changes nothing: the last one ages."""
        try:
            ends_ns = stamp_ns + round(1e9 * self.robot.admit(channel, vector))
        except ValueError as error:
            return self.refuse(channel, Cause.of(str(error)))
        problem = self.inputs.receive(channel, vector, stamp_ns, now_ns, steady_ns, ends_ns)
        self.counters.refused_inputs += bool(problem)
        if self.inputs.stepped:
            self._step_back(problem)
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
        """The robot was put somewhere else: forget plan, tube, band and inputs. A latch stays, and with it its plan.

        The plan of a latched gate that was open goes on there once it certifies, since "the plan until a reset" is what
        a latch means. Any other gate is closed, and motion has to confirm its sensors again: they may have been
        switched off on the way.
        """
        self.episode = episode
        self.inputs.forget()
        self._missing_since_ns = None
        resumes = self.state is State.LATCHED and (self.opened or self._resumes)
        confirmed = resumes and self.confirmed
        self._forget()
        self._resumes, self._confirmed = resumes, confirmed
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
        self._latency_s, self._late_s = latency_s, late_s
        seen = self._look(now_ns, steady_ns)
        if isinstance(seen, Cause):
            self._note_missing(seen, steady_ns)
            return None
        sample, estimate = seen
        self._missing, self._missing_since_ns = NONE, None
        # An answer that comes later than the certificate allowed for is none, whatever kept it.
        self._valid_until_ns = steady_ns + int(latency_s[1] * 1e9) if latency_s else None
        self._compare(sample, estimate)
        timing = self._timing(sample, estimate)
        if not self.opened:
            self.support.start(estimate, timing)
        in_tube = self._tube is not None and self._tube.holds(self.robot, sample.vectors)
        self.id += 1
        candidates = self.support.candidates(self.id, self._stamp_ns, self.episode, sample.vectors, estimate, timing)
        if not self.opened:
            self._count_opening(sample.stamp_ns, bool(candidates.certified[candidates.plan]))
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
            only = reasons.only_plan(self.support.cap, self.support.exhausted)
            why = unknown or reasons.noted(only, cycle.estimate)
            return self._decide(cycle, index, "plan_requested", False, why if cycle.candidates.only_plan else NONE)
        if not cycle.candidates.certified[index]:
            capped = self.support.cap < 1.0 and not self.support.capped(action[None])[0]
            why = reasons.capped(self.support.cap) if capped else NONE
            why = unknown or why or reasons.uncertified(action, cycle.candidates.margin[index], cycle.estimate)
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
        """Leave the latch, unless its cause persists. Returns (done, why not).

        A plan that runs is never dropped by it: where nothing is certified and the robot does not stand, it goes on.
        """
        if self.state is not State.LATCHED:
            return True, "the gate is not latched"
        if isinstance(seen := self._look(now_ns, steady_ns), Cause):
            return False, f"still {seen}"
        if seen[1].objection:
            return False, f"still {seen[1].objection}"
        if problem := self.recorder_problem(steady_ns):
            return False, f"still {problem}"
        if not self.opened:
            # Nothing runs that could be compared: that begins anew once the gate is open.
            self.mismatch.reset()
            self.support.surcharge = 0.0
            self.close()
        elif self.mismatch.level >= 1.0:
            return False, f"still a mismatch: {self.mismatch.what}"
        elif not self._rests(seen[1]) and (lacking := self._lacking(*seen)):
            return False, f"still {lacking}"
        self.state, self.cause = State.BACKUP if self.opened else State.CLOSED, reasons.RESET
        self._missing_since_ns = None
        return True, "reset"

    @property
    def confirmed(self) -> bool:
        """Whether motion confirmed the sensors, here or where the plan of a latched gate ran before."""
        return self._confirmed or self.comparison.confirmed

    @property
    def accepting(self) -> bool:
        """Whether a certified request of this cycle would be executed: neither closed, unless it opens, nor latched."""
        return self.state is not State.LATCHED and (self.opened or self._may_open())

    # --- inside --------------------------------------------------------------------------------------------------

    def _look(self, now_ns: int, steady_ns: int) -> tuple[Sample, Estimate] | Cause:
        """The inputs of one instant and the state that they show, or why there is none."""
        sample = self.inputs.sample(now_ns, steady_ns)
        if isinstance(sample, Cause):
            return sample
        try:
            return sample, self.perception.estimate(sample.vectors, sample.stamp_ns, sample.history)
        except ValueError as error:
            return Cause(str(error))

    def _timing(self, sample: Sample, estimate: Estimate) -> Timing:
        """What acts after the state was measured, at the latency of the newest cycle."""
        model, latency_s = self.robot.model, self._latency_s
        # When this command acts at the latest: one that is sent takes time to arrive.
        earliest_s, latest_s = (latency_s[0], latency_s[1] + TRANSPORT_NS / 1e9) if latency_s else (0.0, 0.0)
        before = delays(model, sample.age_s + earliest_s, sample.age_s + latest_s)
        # The next command may come late, and this one acts until then.
        held = holds(model, latest_s + self._late_s)
        past, known = self.sent.past(sample.steady_ns, max(before))
        return Timing(before, held, past, known and not self.comparison.apart_s and not estimate.objection)

    def _rests(self, estimate: Estimate) -> bool:
        """Whether the robot is where it needs no command: at rest, with a passive stop."""
        certificate = self.robot.model.certificate
        centre = certificate.centre(self.support.centre)
        at_rest = bool(certificate.terminal(tuple(estimate.state), centre, certificate.constants))
        return self.robot.passive_stop and at_rest

    def _lacking(self, sample: Sample, estimate: Estimate) -> Cause:
        """Why no plan certifies at this state; false where one does."""
        timing = self._timing(sample, estimate)
        if not timing.known:
            return reasons.unknown(estimate, self.comparison.apart_s, sample.age_s)
        return NONE if self.support.plans(estimate, timing).max() >= 0.0 else reasons.no_room(self.robot, estimate)

    def _count_opening(self, stamp_ns: int, certified: bool) -> None:
        """Successive states at which a plan certified; one that fails, or that is missing, starts the count anew."""
        if not certified:
            self._agreed = 0
        elif stamp_ns > self._agreed_ns or not self._agreed:
            self._agreed += 1
        self._agreed_ns = stamp_ns

    def _step_back(self, cause: Cause) -> None:
        """A clock of the stamps stepped back: nothing is compared across that, and no sensor counts as confirmed.

        The plan goes on, blind if need be: it goes by the steady clock.
        """
        self.comparison.forget()
        self.perception.forget()
        self._tube, self._confirmed, self._agreed = None, False, 0
        if self.state is not State.CLOSED:  # a closed gate moves nothing, and begins anew
            self.latch(cause.then("call the reset service"))

    def _note_missing(self, missing: Cause, steady_ns: int) -> None:
        self._missing = missing
        self._agreed = 0
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
        judge = self.watching and self.opened
        off = self.perception.disagreements(judge)
        counts = self.comparison.compare(sample, estimate.state, off, judge, self.state is State.LATCHED)
        if counts is None:
            return
        self.counters.mismatches += counts
        self.support.surcharge = self.config.mismatch_margin * self.mismatch.level
        if self.mismatch.spent:
            # What the sensors cannot show explains why it differs from the predictions.
            what, check = self.mismatch.what, self.perception.check(self.mismatch.name)
            cause = Cause.of(estimate.objection) if estimate.objection else reasons.mismatch(what, check)
            if not self.confirmed:
                if not estimate.objection:
                    seen = self.comparison
                    cause = reasons.unconfirmed(what, check, seen.informative, seen.needed)
                self.close()
            self.latch(cause)

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
        if not self.opened and not (certified and self._may_open()):
            return self._decide_closed(cycle)
        verdict = "certified_band" if candidates.band[index] else "certified"
        if not certified:
            verdict = "plan_held" if cycle.in_tube else "no_proof"
        self.opened = True
        executed = candidates.actions[index].astype(np.float64)
        self._move_tube(cycle, executed, certified)
        self.comparison.executed(not candidates.is_plan[index], self._decided_ns)
        self._blind.measured(cycle.estimate, cycle.sample.steady_ns)
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

    def _may_open(self) -> bool:
        """A latched gate starts no plan, unless it is one that ran when the gate latched."""
        return self._agreed >= self.opening_states and (self.state is not State.LATCHED or self._resumes)

    def _decide_closed(self, cycle: Cycle) -> Decision:
        """There is no plan to run: send silence, and say what is missing."""
        self.newest = None
        latched = self.state is State.LATCHED
        if not latched:
            self.state, self.cause = State.CLOSED, self._why_closed(cycle)
        self.counters.verdicts["no_proof"] += latched  # being closed is no alarm
        silence = self.robot.silence.astype(np.float32)
        return self._send(silence, -1, "no_proof", "latched" if latched else "closed", self.cause, False, None)

    def _why_closed(self, cycle: Cycle) -> Cause:
        if 0 < self._agreed < self.opening_states:
            return reasons.opening(self._agreed, self.opening_states)
        if cycle.candidates.certified.any():
            return reasons.NOT_ASKED
        if cycle.estimate.objection:
            return Cause.of(cycle.estimate.objection)
        return reasons.no_room(self.robot, cycle.estimate) if cycle.timing.known else self._unknown(cycle)

    def _decide_blind(self) -> Decision:
        """The state is missing: follow the plan along the nominal prediction, for as long as that means anything."""
        action = self.robot.silence.astype(np.float32)
        state = self._blind.at(self._decided_ns)
        if self.opened and not self.robot.passive_stop and (lost := self._blind.lost):
            # Uncoverable: nobody knows where the robot is, and a plan about a wrong state does more harm than none.
            self.close()
            state = None
            self.state, self.cause = State.LATCHED, reasons.lost_blind(self._missing, lost)
            self._missing = self.cause
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
