"""The list of faults, the reaction that each must get, and how a result is judged: another fault goes here.

Without ROS: nodes/injection.py applies a fault to a running graph, and nodes/fault_campaign.py observes the reaction.
Faults are derived from the channels that a robot declares, so a new robot has them as well. Wrong measurements of a
lidar or an odometry depend on the type of the message.

A fault is *covered* (no unsafe visit may happen) unless it is declared uncoverable, with the reason: the robot has no
passive safe state, or no sensor contradicts the false message. If possible, an uncoverable fault must be noticed.
"""

from __future__ import annotations

import enum
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql.config import Config
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.scan import HEADER, Scan
from safe_support_ql.robots.world import Channel

PHASES = ("collection", "deployment")
LONG_S = 2.0  # duration of a fault that is more than a single message
FLOOD_HZ = 1000.0
LATCH_S = 3.0  # duration of a recorder's fault: more than its timeout plus `latch_after_s`
WATCH_S = 1.0  # the monitor looks for foreign publishers this often
EPISODE_S = 10.0  # duration of what is there from the start of an episode: time to drive, or to open wrongly
MISMATCH_S = 4.0  # duration of a false motion, within which the gate must latch: it shows when speeds change
SHOWN_S = 1.0  # after this time in motion, a false motion must have shown
PERSON_S = 1.0  # a service answers within this
REQUEST, COMMAND = "request", "command"  # topics beside the robot's channels
HONEST = {"lidar_phase_s": 0.0, "lidar_turn_s": 0.0}  # parameters of the simulator, without a fault
INTERNAL = (  # topics between the nodes
    "outcome", "episode", "episode_ack", "candidates", "decision", "recorder/heartbeat", "learner/status", "gate_state",
)  # fmt: skip
MISMATCH = "mismatch"  # in the cause if measurement and prediction disagree

NO_PASSIVE_STATE = "no passive safe state: without state or command this robot falls"
STEERED_BY_IT = "no passive safe state: the plan follows the false measurement, whose error exceeds its room"
BYPASS = "nothing could contradict it: its commands reach the drive without passing the gate"


class Expect(enum.Enum):
    """The reaction that a fault must get."""

    REFUSED = "refused"  # the message is refused, counted and named; the previous one stays in use
    BACKUP = "backup"  # the plan runs while the fault lasts, and the gate recovers by itself
    LATCHED = "latched"  # the plan runs, and the gate latches until a reset
    DRIVE = "drive"  # no command comes any more: the drive's own timeout acts
    PARAMETER = "parameter"  # the parameter is refused, with the reason
    GOES_ON = "goes on"  # tolerated: the gate goes on deciding
    EITHER = "either"  # too short to be detected reliably: the gate goes on deciding, or latches with the cause


@dataclass(frozen=True)
class Fault:
    """One fault: `verb` is applied to `target` (a channel, REQUEST, COMMAND or a node) with `option`.

    `seconds` 0 means a single message. `cause` is a regular expression that the reported message must match, `limit_s`
    the longest time from the onset to the reaction. Several faults may be of one `kind`.
    """

    name: str
    kind: str
    verb: str
    target: str
    option: Any
    seconds: float
    expect: Expect
    cause: str
    limit_s: float
    uncoverable: str = ""
    may_latch: bool = False  # whether the gate may latch after the reaction, though it need not
    from_start: bool = False  # of an episode, and not once the robot moves

    @property
    def covered(self) -> bool:
        """Whether no unsafe visit may happen."""
        return not self.uncoverable


@dataclass
class Seen:
    """What was observed from the onset of a fault on; times in seconds since the onset, on the steady clock."""

    decisions: list[tuple[float, str, str]] = field(default_factory=list)  # (time, reason, message)
    states: list[tuple[float, str]] = field(default_factory=list)  # published states of the gate, with their causes
    logs: list[tuple[float, str]] = field(default_factory=list)  # log lines of the nodes
    answer: tuple[float, str] | None = None  # to a parameter change: (time, why it was refused)
    stood_s: float | None = None  # when the robot came to a stand
    silent_s: float | None = None  # when the drive's own timeout began to act
    refused: int = 0  # messages refused meanwhile, as counted in /diagnostics
    tries: int = 0
    moved_s: float = 0.0  # time in motion while the fault lasted
    visits: int = 0
    visit_s: float | None = None  # when the first visit began
    state: str = ""  # of the gate at the end
    trouble: str = ""  # why nothing can be judged: the graph did not come back, or the robot did not move


@dataclass(frozen=True)
class Result:
    """One row of the campaign; `why` says what was wrong, '' if it passed."""

    name: str
    robot: str
    phase: str
    covered: bool
    unsafe_visits: int
    reaction_s: float | None
    state: str
    message: str
    passed: bool
    kind: str
    limit_s: float
    uncoverable: str
    time_to_loss_s: float | None
    tries: int  # more than one if the episode ended during the fault, or the robot hardly moved
    why: str


# --- how a fault alters a vector -------------------------------------------------------------------------------------

Alteration = Callable[[Floats, Floats, Any], Floats]  # (vector, the one before the fault, argument) -> vector


def _put(v: Floats, where: Any, value: Any) -> Floats:
    v = v.copy()
    v[where] = value
    return v


def _rays(v: Floats, change: Callable[[Floats], Floats], share: float = 1.0) -> Floats:
    """A scan with other ranges in the `share` of its rays that are in the middle: ahead, as it begins behind."""
    scan, n = Scan.of(v), len(v) - len(HEADER)
    part = slice(round(n * (1 - share) / 2), round(n * (1 + share) / 2))
    return scan.changed(_put(scan.ranges, part, change(scan.ranges[part])))


ALTERATIONS: Mapping[str, Alteration] = {
    "put": lambda v, first, x: _put(v, len(v) // 2, x),  # one entry is enough
    "scale": lambda v, first, x: v * x,
    "scale one": lambda v, first, x: _put(v, x[0], v[x[0]] * x[1]),
    "shift one": lambda v, first, x: _put(v, x[0], v[x[0]] + x[1]),
    "freeze": lambda v, first, x: first,
    "fill": lambda v, first, x: np.full_like(v, x),
    "scale ranges": lambda v, first, x: _rays(v, lambda r: r * x),
    "silent": lambda v, first, x: _rays(v, lambda r: np.full_like(r, np.inf), x),
    "nearer": lambda v, first, x: _rays(v, lambda r: np.where(r < x, np.inf, r)),
    "front": lambda v, first, x: _rays(v, lambda r: np.full_like(r, x), 0.5),
    "cut front": lambda v, first, x: _rays(v, lambda r: np.minimum(r, x), 0.5),
}


# --- the list --------------------------------------------------------------------------------------------------------


def catalogue(settings: Config, phase: str) -> list[Fault]:
    """Every fault of the robot in `phase`. Raises ValueError for an unknown phase."""
    if phase not in PHASES:
        raise ValueError(f"phase is '{phase}', must be one of: {', '.join(PHASES)}")
    robot = settings.robot
    faults: list[Fault] = []
    for channel in robot.channels:
        faults += _goal_faults(settings, channel) if channel.latched else _input_faults(settings, channel)
        faults += _lies(settings, channel)
    faults += _sensors_in_time(robot)
    faults += _request_faults(settings)
    faults += _internal_faults(robot)
    faults += _actuator_faults(robot)
    faults += _node_faults(settings, phase)
    faults += _host_faults(settings)
    return faults


def _answered(settings: Config) -> float:
    """Longest time until the decision on a message: the next cycle of the gate, and its wait for a request."""
    period = settings.robot.period
    return period + (settings.gate.request_deadline_s or period / 2)


def _input_faults(settings: Config, channel: Channel) -> list[Fault]:
    """Faults of the messages of any sensor."""
    robot = settings.robot
    name, period = channel.name, robot.period
    lost = "" if robot.passive_stop else NO_PASSIVE_STATE
    silent = period + channel.max_age  # time until an input counts as missing

    def once(kind: str, verb: str, option: Any, cause: str, expect: Expect = Expect.REFUSED) -> Fault:
        return Fault(f"{kind}: {name}, once", kind, verb, name, option, 0.0, expect, cause, _answered(settings))

    def long(
        kind: str, verb: str, option: Any, cause: str, expect: Expect = Expect.LATCHED, limit_s: float = silent
    ) -> Fault:
        reason = lost if expect is Expect.LATCHED else ""
        return Fault(f"{kind}: {name}, 2 s", kind, verb, name, option, LONG_S, expect, cause, limit_s, reason)

    def both(kind: str, verb: str, option: Any, cause: str) -> list[Fault]:
        return [once(kind, verb, option, cause), long(kind, verb, option, cause)]

    faults = []
    if channel.finite:
        faults += both("NaN", "vector", ("put", np.nan), f"{name}: holds a NaN or infinity")
        faults += both("infinity", "vector", ("put", np.inf), f"{name}: holds a NaN or infinity")
    if any(path.endswith("[]") for path in channel.fields) and not channel.any_length:
        faults += both("wrong length", "length", None, f"{name}: .* has length")
    faults += both("wrong name", "names", None, f"{name}: .* is (.*, expected|missing)")
    faults += [
        once("wrong type", "type", None, "", Expect.GOES_ON),  # DDS matches it with no subscription
        long("wrong type", "type", None, f"{name} is .* old"),
    ]
    if channel.finite:
        units = f"^{name}: "  # refused as physically impossible
        faults += [once("wrong units", "vector", ("scale", 1e3), units, Expect.BACKUP),
                   long("wrong units", "vector", ("scale", 1e3), units, limit_s=period)]  # fmt: skip
    else:
        alone, seconds = "only the plan", _answered(settings)
        faults += [once("wrong units", "vector", ("scale ranges", 1e3), alone, Expect.BACKUP),
                   long("wrong units", "vector", ("scale ranges", 1e3), alone, Expect.BACKUP, seconds)]  # fmt: skip
    faults += [
        once("late stamp", "stamp", -1.0, f"{name}: stamp did not advance"),
        long("late stamp", "stamp", -1.0, f"{name}: its clock stepped back by"),
        *both("future stamp", "stamp", 1.0, f"{name}: stamp lies .* in the future"),
        once("repeated stamp", "repeat", None, f"{name}: stamp did not advance"),
        long("repeated stamp", "repeat", None, f"{name}: stamp did not advance", Expect.REFUSED, _answered(settings)),
        once("reordered stamps", "swap", None, f"{name}: stamp did not advance"),
        long("reordered stamps", "swap", None, f"{name}: stamp did not advance", Expect.REFUSED, _answered(settings)),
        once("silence", "drop", None, "", Expect.GOES_ON),
        long("silence", "drop", None, f"{name} is .* old"),
        long("flood", "flood", FLOOD_HZ, "", Expect.GOES_ON, 2 * period),
        once("latency", "delay", (0.4 * channel.max_age,) * 2, "", Expect.GOES_ON),
        long("latency", "delay", (0.4 * channel.max_age,) * 2, "", Expect.GOES_ON, period + channel.max_age),
        replace(once("excessive latency", "delay", (1.5 * channel.max_age,) * 2, "", Expect.GOES_ON), kind="latency"),
        replace(long("excessive latency", "delay", (1.5 * channel.max_age,) * 2, f"{name} is .* old"), kind="latency"),
        once("jitter", "delay", (0.0, 0.4 * channel.max_age), "", Expect.GOES_ON),
        long("jitter", "delay", (0.0, 0.4 * channel.max_age), "", Expect.GOES_ON, period + channel.max_age),
    ]
    return faults


def _goal_faults(settings: Config, channel: Channel) -> list[Fault]:
    """Faults of a goal. It has no age: a bad one is refused, and the last good one stays."""
    name, limit_s = channel.name, _answered(settings)
    cases = [
        ("NaN", "vector", ("put", np.nan), f"{name}: holds a NaN or infinity"),
        ("wrong name", "names", None, f"{name}: .* is .*, expected"),
        ("future stamp", "stamp", 3600.0, f"{name}: stamp lies .* in the future"),
    ]
    return [
        Fault(f"{kind}: {name}, {text}", kind, verb, name, option, seconds, Expect.REFUSED, cause, limit_s)
        for kind, verb, option, cause in cases
        for text, seconds in (("once", 0.0), ("2 s", LONG_S))
    ] + [
        Fault(f"wrong type: {name}, {text}", "wrong type", "type", name, None, seconds, Expect.GOES_ON, "", limit_s)
        for text, seconds in (("once", 0.0), ("2 s", LONG_S))
    ]


def _lies(settings: Config, channel: Channel) -> list[Fault]:
    """Messages that are well-formed and in time, but false. The gate must notice that they contradict predictions."""
    robot = settings.robot
    name = channel.name
    lost, steered = ("", "") if robot.passive_stop else (NO_PASSIVE_STATE, STEERED_BY_IT)

    def lie(kind: str, option: Any, uncoverable: str = "") -> list[Fault]:
        def of(text: str, seconds: float, expect: Expect, why: str = "") -> Fault:
            title = f"{kind}: {name}, {text}"
            return Fault(title, kind, "vector", name, option, seconds, expect, MISMATCH, MISMATCH_S, why)

        return [
            of("once", 0.0, Expect.EITHER),
            of("2 s", LONG_S, Expect.EITHER, uncoverable),
            of(f"{MISMATCH_S:.0f} s", MISMATCH_S, Expect.LATCHED, uncoverable),
        ]

    def blind(kind: str, option: Any, expect: Expect, cause: str = MISMATCH) -> list[Fault]:
        return [
            Fault(f"{kind}: {name}, {text}", kind, "vector", name, option, seconds, expect, cause, _answered(settings),
                  # The rest of a scan proves less about the motion.
                  may_latch=bool(seconds))
            for text, seconds in (("once", 0.0), ("2 s", LONG_S))
        ]  # fmt: skip

    if channel.type.endswith("/LaserScan"):
        return [
            *blind("NaN sector", ("front", np.nan), Expect.EITHER),
            *blind("-Inf ranges", ("front", -np.inf), Expect.BACKUP, "only the plan"),
            *blind("blind", ("silent", 1.0), Expect.BACKUP, "rays returned a range"),
            replace(blind("blind", ("silent", 1.0), Expect.BACKUP, "rays returned a range")[1],
                    name=f"blind from the start: {name}", seconds=EPISODE_S, may_latch=False, from_start=True,
                    # The first decision of an episode is on what is there by then.
                    limit_s=_answered(settings) + robot.period),
            *blind("blind sector", ("silent", 0.25), Expect.EITHER),
            *blind("blind ring", ("nearer", 0.55), Expect.EITHER),
            *lie("shrunken ranges", ("scale ranges", 0.7)),
            *lie("frozen ranges", ("freeze", None)),
            *lie("tilted lidar", ("cut front", 0.8)),
        ]  # fmt: skip
    if channel.type.endswith("/Odometry"):
        speed = channel.fields.index("twist.twist.linear.x")
        return [
            *lie("frozen odometry", ("freeze", None)),
            *lie("jumping odometry", ("shift one", (channel.fields.index("pose.pose.position.x"), 1.0))),
            *lie("slipping wheels", ("scale one", (speed, 0.5))),
        ]
    if channel.type.endswith("/JointState"):
        return [
            *lie("frozen odometry", ("freeze", None), lost),
            *lie("jumping odometry", ("shift one", (0, 0.2)), steered),
        ]
    return []


def _sensors_in_time(robot: Robot) -> list[Fault]:
    """No faults but honest lidars: one that turns, and one that measures between two messages of the odometry.

    The simulator has them, because no relay could tell what a ray would have seen at another instant.
    """
    if not robot.world.lidars:
        return []
    return [
        Fault(name, name, "lidar", "", option, EPISODE_S, Expect.GOES_ON, "", 2 * robot.period, from_start=True)
        for name, option in (
            ("rolling scan", {"lidar_turn_s": robot.period}),
            ("scan out of phase", {"lidar_phase_s": 0.45 * robot.period}),
        )
    ]


def _request_faults(settings: Config) -> list[Fault]:
    """Faults of the requests."""
    robot = settings.robot
    period, limit_s = robot.period, _answered(settings)
    beyond = ("put", float(10.0 * np.abs(robot.action_high).max()))
    late = (1.5 * period,) * 2
    cases: list[tuple[str, str, Any, Expect, str]] = [
        ("NaN", "vector", ("put", np.nan), Expect.BACKUP, "request holds a NaN"),
        ("infinity", "vector", ("put", np.inf), Expect.BACKUP, "request holds a NaN"),
        ("wrong name", "names", None, Expect.BACKUP, "no request answered"),
        ("wrong length", "length", None, Expect.BACKUP, "no request answered"),
        ("wrong units", "vector", beyond, Expect.BACKUP, "requested action .* has margin"),
        ("silence", "drop", None, Expect.BACKUP, "no request answered"),
        ("latency", "delay", late, Expect.BACKUP, "no request answered"),
        ("repeated stamp", "repeat", None, Expect.GOES_ON, ""),
    ]
    rows = [
        (kind, verb, option, seconds, expect, cause)
        for kind, verb, option, expect, cause in cases
        for seconds in (0.0, LONG_S)
    ]
    for kind, verb in (("wrong type", "type"), ("reordered stamps", "swap")):
        rows += [(kind, verb, None, 0.0, Expect.GOES_ON, ""),
                 (kind, verb, None, LONG_S, Expect.BACKUP, "no request answered")]  # fmt: skip
    rows += [("flood", "flood", FLOOD_HZ, LONG_S, Expect.GOES_ON, "")]
    # Of two swapped requests, the second still arrives in time; the next one is missed.
    return [
        Fault(f"{kind}: request, {f'{seconds:g} s' if seconds else 'once'}", kind, verb, REQUEST, option, seconds,
              expect, cause, limit_s + (period if verb == "swap" else 0.0))
        for kind, verb, option, seconds, expect, cause in rows
    ]  # fmt: skip


def _internal_faults(robot: Robot) -> list[Fault]:
    """Messages between the nodes that hold nothing or nonsense: whoever hears one refuses it by its topic."""
    kind = "malformed message"
    return [
        Fault(f"{kind}: {topic}, {text}", kind, "malformed", topic, None, seconds, Expect.GOES_ON,
              f"{topic} refused", 2 * robot.period)
        for topic in INTERNAL
        for text, seconds in (("once", 0.0), ("2 s", LONG_S))
    ]  # fmt: skip


def _actuator_faults(robot: Robot) -> list[Fault]:
    """The drive applies half of every command, which a brake and a linear quadratic regulator survive."""
    return [
        Fault("changed load", "changed load", "vector", COMMAND, ("scale", 0.5), MISMATCH_S, Expect.LATCHED, MISMATCH,
              MISMATCH_S),
    ]  # fmt: skip


def _node_faults(settings: Config, phase: str) -> list[Fault]:
    """Each node is killed, stopped and restarted."""
    robot = settings.robot
    period = robot.period
    passive = robot.passive_stop
    silent = period + min(channel.max_age for channel in robot.channels if not channel.latched)
    stale = settings.gate.recorder_timeout_s + _answered(settings)
    stop = robot.model.dynamics.dt * len(robot.model.certificate.tightening)
    braking = robot.world.drive.timeout + stop
    lost = "" if passive else NO_PASSIVE_STATE
    policy = "behavior_policy" if phase == "collection" else "inference"
    monitor = (Expect.DRIVE, "", braking, lost)
    reactions: dict[str, tuple[Expect, str, float, str]] = {
        policy: (Expect.BACKUP, "no request answered", _answered(settings), ""),
        "recorder": (Expect.LATCHED, "recorder", stale, ""),
        "simulator": (Expect.LATCHED, "is .* old", silent, ""),  # its world stops with it
        "safety_monitor": monitor,
    }
    if phase == "collection":
        reactions["learner"] = (Expect.GOES_ON, "", 2 * period, "")
    return [
        Fault(f"{node} {what}", f"node {what}" if node != "safety_monitor" else f"monitor {what}", verb, node, None,
              LATCH_S if node == "recorder" else LONG_S, expect, cause,
              limit_s + (stop if reason and verb == "restart" else 0.0), reason)  # on SIGTERM, it first stops the robot
        for node, (expect, cause, limit_s, reason) in reactions.items()
        for what, verb in (("killed", "kill"), ("stopped", "stop"), ("restarted", "restart"))
    ]  # fmt: skip


def _host_faults(settings: Config) -> list[Fault]:
    """Faults of clocks, disk, processor, parameters, and of other publishers on the network."""
    robot = settings.robot
    period = robot.period
    lost = "" if robot.passive_stop else NO_PASSIVE_STATE
    silent = period + min(channel.max_age for channel in robot.channels if not channel.latched)
    stale = settings.gate.recorder_timeout_s + _answered(settings)
    nonsense = [("clock", "sundial"), ("seed", -1), ("first_sequence", "seven"), ("config", ""), ("stamped_cmd", 3)]
    return [
        *(
            Fault(f"nonsense parameter: {name}", "nonsense parameter", "parameter", "safety_monitor", (name, value),
                  0.0, Expect.PARAMETER, f"{name}|[Ww]rong parameter type", PERSON_S)
            for name, value in nonsense
        ),
        Fault("clock jumps ahead", "clock jump", "clock", "safety_monitor", 5.0, LONG_S, Expect.LATCHED,
              "the clock jumped", _answered(settings), lost),
        Fault("clock jumps back", "clock jump", "clock", "safety_monitor", -5.0, LONG_S, Expect.LATCHED,
              "the clock jumped", _answered(settings), lost),
        Fault("paused simulation", "paused simulation", "clock", "safety_monitor", None, LONG_S, Expect.LATCHED,
              "in the future", silent + settings.gate.future_tolerance_s, lost),
        Fault("full disk", "full disk", "disk", "recorder", None, LATCH_S, Expect.LATCHED, "recorder", stale),
        Fault("CPU hog", "CPU hog", "hog", "", None, LONG_S, Expect.GOES_ON, "", silent),
        Fault("foreign publisher, silent", "foreign publisher", "foreign", COMMAND, 0.0, LONG_S, Expect.LATCHED,
              "another node publishes", WATCH_S + period),
        Fault("foreign publisher, full speed", "foreign publisher", "foreign", COMMAND, 50.0, LONG_S, Expect.LATCHED,
              "another node publishes", WATCH_S + period, BYPASS),
    ]  # fmt: skip


def select(faults: Sequence[Fault], only: Sequence[str]) -> list[Fault]:
    """Faults whose name contains one of `only`; all if `only` is empty. Raises ValueError if a text matches none."""
    for text in only:
        if not any(text in fault.name for fault in faults):
            raise ValueError(f"--only {text}: no fault of this robot has this in its name; --list shows the names")
    return [fault for fault in faults if not only or any(text in fault.name for text in only)]


def uncoverable_kinds(faults: Sequence[Fault]) -> tuple[set[str], set[str]]:
    """(kinds of which no fault is covered, all kinds). A kind may be covered as a single message but not for 2 s."""
    covered = {fault.kind for fault in faults if fault.covered}
    kinds = {fault.kind for fault in faults}
    return kinds - covered, kinds


# --- judging ---------------------------------------------------------------------------------------------------------

PASSED_ON = ("request", "plan_requested")  # reasons of decisions that executed the request


def reaction(fault: Fault, seen: Seen) -> tuple[float, str] | None:
    """(seconds, message) of the first safe reaction that names the cause; None if there was none."""
    if fault.expect is Expect.PARAMETER:
        return seen.answer if seen.answer and re.search(fault.cause, seen.answer[1]) else None
    if fault.expect is Expect.DRIVE and fault.uncoverable:
        return None if seen.silent_s is None else (seen.silent_s, "no node is left to react: commands have stopped")
    if fault.expect is Expect.DRIVE:
        return None if seen.stood_s is None else (seen.stood_s, "no command: the drive stopped by its own timeout")
    latched = seen.state.startswith("latched")
    if fault.expect is Expect.GOES_ON or (fault.expect is Expect.EITHER and not latched):
        named = [text for _, text in seen.logs if re.search(fault.cause, text)]
        if not seen.decisions or (fault.verb == "malformed" and not named):
            return None
        return seen.decisions[0][0], named[0] if fault.verb == "malformed" else "tolerated: the gate goes on"
    if fault.expect is Expect.REFUSED:
        said = [(at, text) for at, text in seen.logs if re.search(fault.cause, text)]
        return said[0] if said and seen.refused else None
    safe = [d for d in seen.decisions if d[1] not in PASSED_ON or "only the plan" in d[2]]
    said = [(at, message) for at, _, message in safe] + [
        (max(at, safe[0][0]), text) for at, text in seen.states if safe
    ]
    return min(((at, text) for at, text in said if re.search(fault.cause, text)), default=None)


def hidden(fault: Fault, seen: Seen) -> bool:
    """Whether a false motion could not show because the robot hardly moved, for example before a phantom obstacle.

    Neither does it show that an honest lidar is believed; but a latch shows.
    """
    found = reaction(fault, seen)
    noticed = found is not None and found[0] <= fault.seconds
    must_show = fault.cause == MISMATCH and fault.expect is Expect.LATCHED
    must_drive = fault.verb == "lidar" and not seen.state.startswith("latched")
    return ((must_show and not noticed) or must_drive) and seen.moved_s < SHOWN_S


def judge(fault: Fault, seen: Seen, robot: str, phase: str, timed: bool = True) -> Result:
    """A row of the table. Without `timed`, order, state and visits are judged, but not the reaction time."""
    found = reaction(fault, seen)
    state = seen.state.partition(":")[0]
    why = [seen.trouble] if seen.trouble else []
    if seen.visits and fault.covered:
        why.append(f"{seen.visits} unsafe visits")
    if found is None and not seen.trouble:
        why.append(f"no reaction that names its cause ('{fault.cause}')" if fault.cause else "no reaction")
    elif found is not None and timed and found[0] > fault.limit_s:
        why.append(f"reacted after {found[0]:.3f} s, allowed {fault.limit_s:.3f} s")
    if fault.expect is Expect.LATCHED and state != "latched":
        why.append(f"the gate is {state or 'silent'}, not latched")
    free = (Expect.LATCHED, Expect.DRIVE, Expect.EITHER)
    if fault.expect not in free and state == "latched" and not fault.uncoverable and not fault.may_latch:
        why.append("latched, though it could have gone on")
    if fault.from_start and fault.expect is Expect.BACKUP and seen.moved_s:
        why.append(f"in motion for {seen.moved_s:.1f} s, though nothing can be certified")
    last = next((text for _, _, text in reversed(seen.decisions) if text), "")
    return Result(
        name=fault.name, robot=robot, phase=phase, covered=fault.covered, unsafe_visits=seen.visits,
        reaction_s=None if found is None else round(found[0], 4), state=state, message=found[1] if found else last,
        passed=not why, kind=fault.kind, limit_s=round(fault.limit_s, 4), uncoverable=fault.uncoverable,
        time_to_loss_s=None if seen.visit_s is None else round(seen.visit_s, 3), tries=seen.tries,
        why="; ".join(why),
    )  # fmt: skip


# --- showing ---------------------------------------------------------------------------------------------------------

HEAD = f"{'fault':<34}{'visits':>6}{'reacts':>8}  {'state':<8}message"


def row(result: Result) -> str:
    """One line of at most 80 columns; the whole message is in the JSON."""
    took = "-" if result.reaction_s is None else f"{result.reaction_s:.3f} s"
    mark = "" if result.passed else "FAIL "
    visits = f"{result.unsafe_visits}{'' if result.covered else '*'}"
    return f"{result.name[:33]:<34}{visits:>6}{took:>8}  {result.state[:7]:<8}{mark}{result.message}"[:80].rstrip()


def describe(fault: Fault, phase: str) -> str:
    """One line of --list."""
    text = f"{phase:<11}{fault.name:<39}{fault.expect.value:<10}{fault.limit_s:>6.2f} s"
    return f"{text}  uncoverable: {fault.uncoverable}" if fault.uncoverable else text


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The content of --json."""
    return {"faults": [asdict(result) for result in results]}


def closing(results: Sequence[Result], faults: Sequence[Fault]) -> str:
    """The text below the table."""
    bad = [result for result in results if not result.passed]
    lost, kinds = uncoverable_kinds(faults)
    lines = [f"FAILED {result.phase}, {result.name}: {result.why}" for result in bad]
    lines.append(
        f"{len(results) - len(bad)} of {len(results)} faults passed; * uncoverable: "
        f"{sum(not fault.covered for fault in faults)} of {len(faults)} faults, {len(lost)} of {len(kinds)} whole kinds"
    )
    return "\n".join(lines)


def tiny_policy(raw_config: Mapping[str, Any], path: str, ticks: int = 6000) -> None:
    """Train for `ticks` control ticks and write policy.onnx to `path`: not a good policy, but it drives.

    It must drive, because a false motion does not show while the robot hardly moves.
    """
    logging.disable(logging.WARNING)  # hide the exporter's remarks
    warnings.simplefilter("ignore")
    from safe_support_ql.experiments.train import train  # imports torch, which the campaign itself does not need

    short = {"hidden": 32, "extraction_updates": 2000, "updates_per_tick": 0.5}
    raw = dict(raw_config) | {
        "run": {**raw_config.get("run", {}), "ticks": ticks},
        "learner": {**raw_config.get("learner", {}), **short},
    }
    train(raw, False, 0, Path(path))
