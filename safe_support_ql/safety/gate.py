"""The gate: an explicit state machine, free of ROS, that passes a certified action unchanged or runs the stored plan.

One cycle per control period: `begin` samples the newest inputs and certifies, then either `request` (an answer to the
newest id) or `expire` (no acceptable answer in time) decides, once. Time comes in as arguments, in nanoseconds:
`now` in the clock of the message stamps, `steady` in a clock that never jumps.

The gate is closed until something is certified for the first time: a plan that was never certified is not started, so
until then the gate sends the command of silence. Once it is open, the stored plan is what runs when all else fails.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from safe_support_ql.parameters import param
from safe_support_ql.robots.base import Estimate, Floats, Inputs, Robot, Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.mismatch import Mismatch
from safe_support_ql.safety.support import TRANSPORT_NS, Support, Timing

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


AGREED_TICKS = 3  # over which sensors are compared with each other
COMPARED_TICKS = 3  # states farther apart are not compared, as nothing would contradict them, nor certified upon
ONLY_PLAN = "only the plan is left: the inputs show no room for any other action"
TUBE_TICKS = 3  # the one-step residual counts this often: a contracting closed loop forgets older ones
HISTORY = 256  # newest inputs of a channel that are kept, to find those of one instant: a quarter second at 1 kHz
# Decisions whose age is remembered until they are recorded: 1000 a second for the longest recorder_timeout_s. Where
# there are more, the oldest kept one is older than that, so forgetting those before it hides nothing.
UNRECORDED = 60_000


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
class _Input:
    vector: Floats
    stamp_ns: int
    arrived_ns: int


@dataclass
class _Tube:
    """Where the stored plan may be: states[J, S] of every member in the frame of `origin`, `ticks` after it passed."""

    origin: Inputs
    states: Floats
    ticks: int


@dataclass(frozen=True)
class _Seen:
    """The state that the last cycle began with, and when that was on both clocks."""

    inputs: Inputs
    state: Floats
    stamp_ns: int
    steady_ns: int


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


class Gate:
    """See the module. Not thread-safe: one thread drives it."""

    def __init__(self, robot: Robot, config: GateConfig, continuous: bool, seed: int, first_sequence: int = 0) -> None:
        """Closed, until something is certified. Compiles the certificate (seconds)."""
        self.robot = robot
        self.config = config
        self.support = Support(robot, continuous, seed)
        self.state = State.CLOSED
        self.cause = "no input seen yet"
        self.counters = Counters()
        self.episode = 0
        self.sequence = first_sequence
        self.id = 0
        self.recorder_required = False
        self._channels = {channel.name: channel for channel in robot.channels}
        self._inputs: dict[str, deque[_Input]] = {}
        self._problems: dict[str, str] = {}
        self._recorder_ns: int | None = None
        self._foreign_number: int | None = None  # of the newest heartbeat, where it is none of this run
        self._unrecorded: deque[int] = deque(maxlen=UNRECORDED)  # steady ns of the last so many decisions
        self._decided_ns = 0
        self._missing_since_ns: int | None = None
        self.newest: tuple[Estimate, CandidateSet, int] | None = None  # estimate, candidates, executed: to be drawn
        self.mismatch = Mismatch(config.mismatch_ticks)
        self.watching = True  # for mismatch; experiments that delete margins on purpose must not be stopped by it
        self._forget()

    def _forget(self) -> None:
        self.opened = False  # whether anything that was certified has run: only then is there a plan to fall back to
        self._seen: _Seen | None = None
        self._chain: deque[Inputs] = deque(maxlen=AGREED_TICKS + 1)  # of states that were compared, the newest last
        self._apart_s = 0.0  # how far the newest state is from the one before, where the two could not be compared
        self._moving = False  # whether the last decision was for more than the plan
        self._moved_ns = 0  # until when (steady) more than the plan may have acted, before that decision
        if self.state is not State.LATCHED:  # else it may be what a reset has to ask about
            self.mismatch.reset()
        self._candidates: CandidateSet | None = None
        self._estimate: Estimate | None = None
        self._sampled: dict[str, Floats] = {}
        self._timing = Timing((0,), self.robot.model.certificate.holds, np.zeros((1, 0, len(self.robot.action_names))))
        self._tube: _Tube | None = None
        # Where the robot is by the nominal model: in lock-step at the next decision, else at that instant (steady ns).
        self._nominal: Floats | None = None
        self._nominal_ns = 0
        self._at_ns = 0  # instant of the newest state (steady)
        self._lockstep = False
        self._age_s = 0.0
        self._valid_until_ns: int | None = None
        self._started = False
        self._stamp_ns = 0
        self._missing = ""

    # --- what comes in -------------------------------------------------------------------------------------------

    def receive(self, channel: str, vector: Floats, stamp_ns: int, now_ns: int, steady_ns: int) -> str:
        """Take an input, or refuse it and return why ('' when taken). A refused one changes nothing: the last ages."""
        declared = self._channels[channel]
        history = self._inputs.get(channel)
        last = history[-1] if history else None
        problem = ""
        if vector.shape != (declared.size,):
            problem = f"{channel}: {vector.size} numbers, expected {declared.size}"
        elif declared.finite and not np.isfinite(vector).all():
            problem = f"{channel}: holds a NaN or infinity"
        elif stamp_ns > now_ns + int(self.config.future_tolerance_s * 1e9):
            problem = f"{channel}: stamp lies {(stamp_ns - now_ns) / 1e9:.3f} s in the future; synchronise the clocks"
        elif last is not None and stamp_ns <= last.stamp_ns and not declared.latched:
            problem = f"{channel}: stamp did not advance; a repeated or reordered message"
        if problem:
            return self.refuse(channel, problem)
        kept = deque(history or (), maxlen=1 if declared.latched else HISTORY)
        kept.append(_Input(np.array(vector, np.float64), stamp_ns, steady_ns))
        self._inputs[channel] = kept
        self._problems.pop(channel, None)
        return ""

    def refuse(self, channel: str, problem: str) -> str:
        """Note a message that could not even be read as a vector (wrong names, type, frame)."""
        self._problems[channel] = problem
        self.counters.refused_inputs += 1
        return problem

    def recorder_alive(self, recorded: int, steady_ns: int) -> None:
        """A heartbeat: every decision below number `recorded` is written. From the first one on it is required."""
        self.recorder_required = True
        self._foreign_number = recorded if recorded > self.sequence else None
        if self._foreign_number is not None:
            return  # what was not decided yet cannot be written: it says nothing about the decisions made here
        self._recorder_ns = steady_ns
        while self._unrecorded and self.sequence - len(self._unrecorded) < recorded:
            self._unrecorded.popleft()

    def new_episode(self, episode: int) -> None:
        """The robot was put somewhere else: forget plan, tube, band and inputs. A latch stays."""
        self.episode = episode
        self._inputs.clear()
        self._problems.clear()
        self._missing_since_ns = None
        self._forget()
        self.support.reset(self.support.centre)
        self.support.surcharge = self.config.mismatch_margin * self.mismatch.level
        if self.state is not State.LATCHED:
            self.state, self.cause = State.CLOSED, "a new episode begins"

    # --- one cycle -----------------------------------------------------------------------------------------------

    @property
    def instant_ns(self) -> int:
        """Stamp of the newest instant that every input has reached; 0 while one is missing."""
        timed = [name for name, channel in self._channels.items() if not channel.latched]
        if len(self._inputs) < len(self._channels):
            return 0
        return min(self._inputs[name][-1].stamp_ns for name in timed)

    def begin(
        self, now_ns: int, steady_ns: int, latency_s: tuple[float, ...] = (0.0,), late_s: float = 0.0
    ) -> CandidateSet | None:
        """Sample the newest inputs and certify; None where they are missing or make no sense, then call `expire`.

        `latency_s`: from now until the command acts, its smallest and largest value. `late_s`: how much later than a
        control period from now the next call may come.
        """
        self._candidates = None
        stamps = [items[-1].stamp_ns for name, items in self._inputs.items() if not self._channels[name].latched]
        self._lockstep = max(latency_s) == 0.0
        self._stamp_ns = now_ns if self._lockstep else max(stamps, default=self._stamp_ns)
        try:
            chosen, estimate = self._look(now_ns, steady_ns)
        except ValueError as error:
            self._missing = str(error)
            self._note_missing(steady_ns)
            return None
        self._missing, self._missing_since_ns = "", None
        sampled = {name: item.vector for name, item in chosen.items()}
        model = self.robot.model
        # By both clocks: a stamp clock that was set back must not make an old state look new. In lock-step (no latency)
        # the world waits, so only stamps count.
        timed = [item for name, item in chosen.items() if not self._channels[name].latched]
        ages = [now_ns - item.stamp_ns for item in timed]
        if not self._lockstep:
            ages += [steady_ns - item.arrived_ns for item in timed]
        age_s = max(0, *ages) / 1e9
        # Every whole number of checks that earlier commands may still act for. A command takes time to arrive, too.
        latest_s = max(latency_s) + (0.0 if self._lockstep else TRANSPORT_NS / 1e9)
        low, high = (age_s + min(latency_s)) / model.dynamics.dt, (age_s + latest_s) / model.dynamics.dt
        delays = tuple(range(int(np.floor(low + 1e-6)), int(np.ceil(high - 1e-6)) + 1))
        self._age_s = age_s
        # The next command may come late, too, and this one acts until then.
        longest = model.dynamics.checks_per_tick + int(np.ceil((latest_s + late_s) / model.dynamics.dt - 1e-6))
        # An answer that comes later than the certificate allowed for is none, whatever kept it.
        self._valid_until_ns = None if self._lockstep else steady_ns + int(max(latency_s) * 1e9)
        at = _Seen(sampled, estimate.state, min(item.stamp_ns for item in timed), steady_ns - round(1e9 * age_s))
        self._at_ns = at.steady_ns
        self._compare(at)
        past, known = self.support.past(at.steady_ns, max(delays))
        certifiable = known and not self._apart_s and not estimate.objection
        self._timing = Timing(delays, tuple(sorted({*model.certificate.holds, longest})), past, certifiable)
        if not self._started or not self.opened:
            self.support.start(estimate, self._timing)
            self._started = self._timing.known  # else again, with a state that certifies something
        self._in_tube = self._inside_tube(sampled)
        self._estimate, self._sampled = estimate, sampled
        self.id += 1
        self._candidates = self.support.candidates(
            self.id, self._stamp_ns, self.episode, sampled, estimate, self._timing
        )
        return self._candidates

    def request(self, id: int, action: Singles, steady_ns: int) -> Decision | None:
        """Decide on an answer to candidate set `id`; None (and counted) if it answers no open cycle."""
        candidates = self._candidates
        if candidates is None or id != candidates.id or self.late(steady_ns):
            self.counters.refused_requests += 1
            return None
        self._decided_ns = steady_ns
        if action.shape != candidates.actions[0].shape or not np.isfinite(action).all():
            return self._decide(
                candidates.plan, "malformed_request", True, "the request holds a NaN or has a wrong length"
            )
        index = candidates.find(np.asarray(action, np.float32))
        if index < 0:
            index = self._append(np.asarray(action, np.float32))
            candidates = self._candidates
            assert candidates is not None
        wanted_plan = bool(candidates.is_plan[index])
        if self.state is State.LATCHED:
            return self._decide(candidates.plan, "latched", not wanted_plan, self.cause)
        if problem := self.recorder_problem(steady_ns):
            return self._decide(candidates.plan, "recorder_stale", not wanted_plan, problem)
        if wanted_plan:
            why = ONLY_PLAN if self._timing.known else self._unknown()
            return self._decide(index, "plan_requested", False, why if candidates.only_plan else "")
        if not candidates.certified[index]:
            message = f"requested action {np.round(action, 3).tolist()} has margin {candidates.margin[index]:.3f}"
            if not self._timing.known:
                message = self._unknown()
            return self._decide(candidates.plan, "uncertified_request", True, message)
        return self._decide(index, "request", False, "")

    def expire(self, steady_ns: int) -> Decision:
        """No acceptable request came, or there is no state: run the plan."""
        self._decided_ns = steady_ns
        if self._candidates is None:
            return self._decide_blind()
        if self.late(steady_ns - int(self.robot.period * 1e9)):
            # The state is older than a period: k of it is no feedback any more.
            self._missing = "the monitor was stopped in the middle of a cycle; give it a processor"
            self._candidates = None
            return self._decide_blind()
        if self.state is State.LATCHED:
            return self._decide(self._candidates.plan, "latched", False, self.cause)
        return self._decide(
            self._candidates.plan, "no_request", False, "no request answered the newest candidate set in time"
        )

    def recorder_problem(self, steady_ns: int) -> str:
        """Why nobody knows that decisions are written: no heartbeat, or it lags behind; '' if all is well."""
        timeout_ns = int(self.config.recorder_timeout_s * 1e9)
        if not self.recorder_required:
            return ""
        if self._foreign_number is not None:
            return (
                f"the recorder confirms decisions up to {self._foreign_number}, but {self.sequence} is the next one "
                "here; it writes another run, or this monitor lacks first_sequence"
            )
        if self._recorder_ns is None:
            return "no heartbeat of the recorder yet; start it"
        if (age := steady_ns - self._recorder_ns) > timeout_ns:
            return f"the recorder's heartbeat is {age / 1e9:.1f} s old; look at its log and at the disk"
        if self._unrecorded and (age := steady_ns - self._unrecorded[0]) > timeout_ns:
            number = self.sequence - len(self._unrecorded)
            return f"the recorder lags: decision {number} is not written after {age / 1e9:.1f} s; give it a processor"
        return ""

    # --- latch ---------------------------------------------------------------------------------------------------

    def latch(self, cause: str) -> None:
        """Run the plan until a reset; the first cause is kept."""
        if self.state is not State.LATCHED:
            self.state, self.cause = State.LATCHED, cause

    def reset(self, now_ns: int, steady_ns: int) -> tuple[bool, str]:
        """Leave the latch, unless its cause persists. Returns (done, why not)."""
        if self.state is not State.LATCHED:
            return True, "the gate is not latched"
        try:
            self._look(now_ns, steady_ns)
        except ValueError as error:
            return False, f"still {error}"
        if problem := self.recorder_problem(steady_ns):
            return False, f"still {problem}"
        if self.mismatch.level >= 1.0:
            return False, f"still a mismatch: {self.mismatch.what}"
        self.state, self.cause = State.BACKUP, "reset; waiting for the next certified request"
        if not self.opened:
            self.state = State.CLOSED
        self._missing_since_ns = None
        return True, "reset"

    # --- inside --------------------------------------------------------------------------------------------------

    def _unknown(self) -> str:
        if self._estimate is not None and self._estimate.objection:
            return f"only the plan is left: {self._estimate.objection}"
        if self._apart_s:
            return (
                f"nothing is certified: the state before was {self._apart_s:.3f} s older, and too much may have acted "
                "since to compare the two; look at what delays the sensors"
            )
        return (
            f"nothing is certified: the state is {self._age_s:.3f} s old, and too many commands may have acted since; "
            "look at what delays the sensors"
        )

    def late(self, steady_ns: int) -> bool:
        """Whether the newest certificate is over: it was made for commands that go out before."""
        return self._valid_until_ns is not None and steady_ns > self._valid_until_ns

    def _find_missing(self, now_ns: int, steady_ns: int) -> str:
        for name, channel in self._channels.items():
            item = self._inputs[name][-1] if name in self._inputs else None
            said = f" ({self._problems[name]})" if name in self._problems else ""
            if item is None:
                return f"{name} was never received{said}"
            # The steady clock catches what a stopped or jumping stamp clock would hide.
            age, allowed = max(now_ns - item.stamp_ns, steady_ns - item.arrived_ns) / 1e9, channel.max_age
            if self._lockstep:
                # The world waits: a state of an earlier tick means that one of this tick was refused.
                age, allowed = (now_ns - item.stamp_ns) / 1e9, 0.0
            if not channel.latched and age > allowed:
                return f"{name} is {age:.2f} s old, allowed {allowed:.2f} s{said}"
        return ""

    def _look(self, now_ns: int, steady_ns: int) -> tuple[dict[str, _Input], Estimate]:
        """The inputs of one instant and the state they tell. Raises ValueError where there is none."""
        if missing := self._find_missing(now_ns, steady_ns):
            raise ValueError(missing)
        chosen = self._sample(self.instant_ns)
        return chosen, self.robot.estimate({name: item.vector for name, item in chosen.items()})

    def _sample(self, stamp_ns: int) -> dict[str, _Input]:
        """The inputs nearest to one instant. A newer speed beside an older scan would hide the way driven in between.

        Raises ValueError where a channel has none near enough.
        """
        sampled = {}
        for name, items in self._inputs.items():
            nearest = items[-1]
            for item in reversed(items):  # stamps advance
                if abs(item.stamp_ns - stamp_ns) > abs(nearest.stamp_ns - stamp_ns):
                    break
                nearest = item
            apart = abs(nearest.stamp_ns - stamp_ns) / 1e9
            if not self._channels[name].latched and apart > self.config.max_skew_s:
                raise ValueError(
                    f"{name} is {apart:.3f} s away from the other inputs, allowed {self.config.max_skew_s:.3f} s; "
                    "check the clocks and rates of the sensors"
                )
            sampled[name] = nearest
        return sampled

    def _note_missing(self, steady_ns: int) -> None:
        if self.state is State.CLOSED:
            self.cause = self._missing
            return
        if self._missing_since_ns is None:
            self._missing_since_ns = steady_ns
        if steady_ns - self._missing_since_ns > int(self.config.latch_after_s * 1e9):
            self.latch(f"{self._missing}; restore it, then call the reset service")

    def _append(self, action: Singles) -> int:
        assert self._candidates is not None and self._estimate is not None
        if np.any(action < self.robot.action_low - 1e-6) or np.any(action > self.robot.action_high + 1e-6):
            return self.support.size - 1  # an empty slot: never certified, so the plan runs
        self._candidates = self.support.append(self._candidates, self._estimate, self._timing, action)
        return self.support.size - 1

    def _decide(self, index: int, reason: str, intervention: bool, message: str) -> Decision:
        candidates = self._candidates
        assert candidates is not None
        # Later than the certificate allowed for, the plan still runs, but nothing certified it.
        if candidates.certified[index] and not self.late(self._decided_ns):
            verdict = "certified_band" if candidates.band[index] else "certified"
        elif not self.opened:
            return self._decide_closed(candidates)
        else:
            verdict = "plan_held" if self._in_tube else "no_proof"
        self.opened = True
        self._predict(index, verdict.startswith("certified"))
        assert self._estimate is not None
        executed = candidates.actions[index].astype(np.float64)
        self._note_motion(not candidates.is_plan[index])
        self._nominal, self._nominal_ns = self._estimate.state, self._at_ns
        if self._lockstep:
            self._nominal = self._advance(self._nominal[None], [executed])[0]
        self.support.executed(candidates, index, self._decided_ns)
        self._candidates = None
        self.newest = self._estimate, candidates, index
        self.state = self._state_after(reason, intervention)
        if self.state is not State.LATCHED:
            self.cause = message
        self.counters.interventions += intervention
        self.counters.verdicts[verdict] += 1
        self.counters.empty_supports += candidates.only_plan
        return self._decision(
            candidates.actions[index].copy(), index, verdict, reason, message, intervention, candidates
        )

    def _note_motion(self, moving: bool) -> None:
        if self._moving and not moving:
            self._moved_ns = self._decided_ns + TRANSPORT_NS
        self._moving = moving

    def _decide_closed(self, candidates: CandidateSet) -> Decision:
        """Nothing was ever certified, so there is no plan to run: send silence, and say what is missing."""
        self.newest = None
        self._candidates = None
        latched = self.state is State.LATCHED
        if not latched:
            self.state, self.cause = State.CLOSED, self._why_closed(candidates)
        silence = self.robot.silence.astype(np.float32)
        self.support.note(silence.astype(np.float64), self._decided_ns)
        return self._decision(silence, -1, "no_proof", "latched" if latched else "closed", self.cause, False, None)

    def _why_closed(self, candidates: CandidateSet) -> str:
        """Which margin keeps the gate from its first certificate, by how much, and what to do about it."""
        if candidates.certified.any():
            return "nothing certified was asked for in time; look at the policy's log, and give the monitor a processor"
        assert self._estimate is not None
        if self._estimate.objection or not self._timing.known:
            return self._estimate.objection or self._unknown()
        model = self.robot.model
        h = model.certificate.margins(tuple(self._estimate.state), self._estimate.points, model.certificate.constants)
        left = (np.array([float(value) for value in h]) - model.certificate.tightening[0]) / model.certificate.scale
        worst = int(np.argmin(np.where(np.isfinite(left), left, -np.inf)))
        name, value, needed = (
            model.certificate.margin_names[worst],
            float(h[worst]),
            float(model.certificate.tightening[0, worst]),
        )
        if left[worst] >= 0.0:
            return "nothing is certified yet: no plan comes to rest in time; bring the robot to rest, in free space"
        return (
            f"nothing is certified yet: margin '{name}' is {value:.3f}, it must be {needed:.3f} or more; bring the "
            "robot to where it is safe at rest"
        )

    def _decide_blind(self) -> Decision:
        """The state is missing: follow the plan along the nominal prediction, the only place where it is open-loop."""
        action = self.robot.silence.astype(np.float32)
        if self._nominal is not None:
            if not self._lockstep:
                self._follow(self._decided_ns)
            action = self.support.plan_action(self._nominal)
            if self._lockstep:
                self._nominal = self._advance(self._nominal[None], [action.astype(np.float64)])[0]
        self._note_motion(False)
        self.newest = None
        self._tube = None  # what runs blind is not the feedback law that was certified
        self.support.note(action.astype(np.float64), self._decided_ns)
        closed = self.state is State.CLOSED
        if self.state not in (State.CLOSED, State.LATCHED):
            self.state, self.cause = State.BACKUP, self._missing
        if not closed:
            self.counters.verdicts["no_proof"] += 1
        return self._decision(
            action, -1, "no_proof", "closed" if closed else "input_missing", self._missing, False, None
        )

    def _decision(
        self, action: Singles, index: int, verdict: str, reason: str, message: str, intervention: bool,
        candidates: CandidateSet | None,
    ) -> Decision:  # fmt: skip
        sequence, id = self.sequence, candidates.id if candidates else 0
        self.sequence += 1
        self._unrecorded.append(self._decided_ns)
        self.counters.decisions += 1
        return Decision(
            sequence, id, self.episode, self._stamp_ns, action, index, verdict, reason, message, self.state,
            intervention, candidates,
        )  # fmt: skip

    def _state_after(self, reason: str, intervention: bool) -> State:
        if self.state is State.LATCHED:
            return State.LATCHED
        if reason in ("request", "plan_requested"):
            return State.NOMINAL
        return State.INTERVENING if intervention else State.BACKUP

    def _compare(self, now: _Seen) -> None:
        """Is the robot where a member predicted it? Residuals beyond W shrink the support and, sustained, latch.

        A closed gate compares nothing: nothing of its own moves the robot, which somebody may be carrying.

        `_apart_s` says afterwards whether the newest state stands uncompared: nothing is certified upon it then.
        """
        last, model = self._seen, self.robot.model
        apart_s = (now.stamp_ns - last.stamp_ns) / 1e9 if last is not None else 0.0
        if last is not None and apart_s == 0.0:
            return  # nothing new
        self._seen, self._apart_s = now, 0.0
        chain, self._chain = self._chain, deque([now.inputs], AGREED_TICKS + 1)
        if not self.watching or last is None or not self.opened:
            return
        moved = self._moving or self._moved_ns > last.steady_ns
        checks, ticks = apart_s / model.dynamics.dt, round(apart_s / self.robot.period)
        fewest, most = int(np.floor(checks + model.detection.uneven)), int(np.ceil(checks - model.detection.uneven))
        comparable = 0.0 < apart_s <= COMPARED_TICKS * self.robot.period
        if comparable and self._lockstep:
            # The world waited for each command, which then acted from the state's instant on.
            past = np.repeat(self.support.newest(ticks), model.dynamics.checks_per_tick, 0)[None]
            comparable = past.shape[1] == fewest == most  # whole ticks
        elif comparable:
            past, comparable = self.support.past(last.steady_ns, most)
        if not comparable:
            self._apart_s = apart_s
            if moved:
                self.mismatch.missed(apart_s)
                self._judge(True)
            return
        # Every sequence of commands under every member: [P, J].
        shape = (len(past), len(model.dynamics.members))
        members = tuple(np.broadcast_to(column, shape) for column in model.dynamics.members.T)
        low, high = np.full(len(last.state), np.inf), np.full(len(last.state), -np.inf)
        if fewest == 0:
            low, high = last.state, last.state
        x = tuple(np.full(shape, value) for value in last.state)
        for t in range(most):
            command = tuple(np.broadcast_to(column[:, None], shape) for column in past[:, t].T)
            x = model.dynamics.step(x, command, members, model.dynamics.dt)
            if t + 1 >= fewest:
                ends = np.array(x).reshape(len(x), -1)
                low, high = np.minimum(low, ends.min(axis=1)), np.maximum(high, ends.max(axis=1))
        # A robot that only did what the plan says shows less, so that forgives less; a latch leaves it nothing else.
        told = moved or self.state is State.LATCHED
        residuals = self.robot.residuals(last.inputs, now.inputs, low, high)
        self._chain = chain
        chain.append(now.inputs)
        if len(chain) > AGREED_TICKS:
            residuals |= self.robot.disagreements(chain)
        self._judge(self.mismatch.observe(residuals, told))

    def _judge(self, counts: bool) -> None:
        self.counters.mismatches += counts
        self.support.surcharge = self.config.mismatch_margin * self.mismatch.level
        if self.mismatch.spent:
            self.latch(f"mismatch: {self.mismatch.what}; check wheels, load and sensors, then call the reset service")

    def _inside_tube(self, sampled: Inputs) -> bool:
        tube = self._tube
        if tube is None or tube.ticks * self.robot.model.dynamics.checks_per_tick >= len(
            self.robot.model.certificate.tightening
        ):
            return False  # none, or older than the rollout that it comes from
        now = self.robot.relative(tube.origin, sampled)
        slack = self.robot.model.detection.slack * min(tube.ticks, TUBE_TICKS)
        return bool(np.all(now >= tube.states.min(axis=0) - slack) and np.all(now <= tube.states.max(axis=0) + slack))

    def _predict(self, index: int, certified: bool) -> None:
        """Move the tube one tick on; a certified decision starts a new one at the present state."""
        assert self._candidates is not None and self._estimate is not None
        if not certified and not self._in_tube:
            self._tube = None  # what was never certified, or has left its tube, has no proof to hold on to
            return
        if certified or self._tube is None:
            states = np.tile(self._estimate.state, (len(self.robot.model.dynamics.members), 1))
            self._tube = _Tube(self._sampled, states, 0)
        action = self._candidates.actions[index].astype(np.float64)
        # Under the plan every member acts on its own state, as it did in the rollout.
        actions = [action]
        if self._tube.ticks > 0:
            actions = [self.support.plan_action(x).astype(np.float64) for x in self._tube.states]
        past = self._timing.past[0] if self._tube.ticks == 0 else self._timing.past[0, :0]
        self._tube.states = self._advance(self._tube.states, actions, past)
        self._tube.ticks += 1

    def _follow(self, until_ns: int) -> None:
        """Move the nominal state on to `until_ns`, under the commands that were sent since (real time).

        A plan that has to run blind acts on where the robot is now: k of a state that has passed is no feedback.
        """
        assert self._nominal is not None
        model, member = self.robot.model, tuple(self.robot.model.dynamics.members[0])
        check_ns = round(1e9 * model.dynamics.dt)
        x = tuple(self._nominal)
        at = max(
            self._nominal_ns, until_ns - len(model.certificate.tightening) * check_ns
        )  # a longer prediction says nothing
        while at < until_ns:
            passed = min(check_ns, until_ns - at)
            x = model.dynamics.step(x, tuple(self.support.sent_at(at + passed // 2)), member, passed / 1e9)
            at += passed
        self._nominal, self._nominal_ns = np.array(x), until_ns

    def _advance(self, states: Floats, actions: list[Floats], past: Floats | None = None) -> Floats:
        """States [n, S] one tick on, each under its own member and action (or all under the one given).

        past[D, A]: what acts at the first D checks instead.
        """
        model = self.robot.model
        members = tuple(model.dynamics.members[: len(states)].T)
        columns = tuple(np.broadcast_to(np.array(actions), (len(states), len(self.robot.action_names))).T)
        x = tuple(states.T)
        for t in range(model.dynamics.checks_per_tick):
            command = columns
            if past is not None and t < len(past):
                command = tuple(np.full(len(states), value) for value in past[t])
            x = model.dynamics.step(x, command, members, model.dynamics.dt)
        return np.stack(x, axis=1)


def parse_request(names: list[str], values: Floats, robot: Robot) -> tuple[int, Singles]:
    """(id, action) of a named vector ('id' and every action name). Raises ValueError naming what is wrong."""
    table: Mapping[str, float] = dict(zip(names, values, strict=False))
    missing = [name for name in ("id", *robot.action_names) if name not in table]
    if missing or len(names) != len(values):
        raise ValueError(f"request lacks {', '.join(missing) or 'values'}; it names {', '.join(names) or 'nothing'}")
    if not np.isfinite(table["id"]):
        raise ValueError("request: id is not a number")
    return int(table["id"]), np.array([table[name] for name in robot.action_names], np.float32)
