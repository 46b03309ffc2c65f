"""Every message of this package: names, QoS, and how vectors become messages and back. Nothing else encodes or decodes.

Relative topics (a namespace per robot works):

    <robot.channels>     native types      simulator | robot -> safety_monitor
    <robot.command>      native type       safety_monitor -> robot (real-time simulator)
    candidates           PointCloud2       safety_monitor -> behavior_policy, inference, recorder
    request              JointState        behavior_policy | inference -> safety_monitor
    decision             DiagnosticArray   safety_monitor -> simulator, recorder, panel
    episode              DiagnosticArray   simulator -> safety_monitor, recorder; re-sent until acknowledged
    episode_ack          UInt64            safety_monitor -> simulator: the `key` of the episode message
    outcome              JointState        simulator -> recorder, conductor, panel
    recorder/heartbeat   UInt64            recorder -> safety_monitor: every decision below this number is written
    learner/status       DiagnosticArray   learner -> conductor, panel
    gate_state           String, latched   safety_monitor: "<state>: <cause>"
    e_stop               Bool              anyone -> safety_monitor: true latches
    markers              MarkerArray       safety_monitor -> RViz, 5 Hz while somebody looks
    /diagnostics         DiagnosticArray   safety_monitor
"""

from __future__ import annotations

import array
import importlib
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.robots.world import Channel, CommandTopic
from safe_support_ql.safety.candidates import EXTRA_SLOTS, CandidateSet, candidate_count
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision
from safe_support_ql.safety.ledger import PHASES
from safe_support_ql.safety.picture import Picture
from safe_support_ql.safety.request import parse_request

CANDIDATES, REQUEST, DECISION = "candidates", "request", "decision"
EPISODE, EPISODE_ACK, OUTCOME = "episode", "episode_ack", "outcome"
HEARTBEAT, LEARNER_STATUS, GATE_STATE, E_STOP = "recorder/heartbeat", "learner/status", "gate_state", "e_stop"
MARKERS = "markers"
DIAGNOSTICS = "/diagnostics"  # the one absolute name: tools look for it there

LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


def reliable(depth: int) -> QoSProfile:
    """Reliable, volatile, keep last: a stopped subscriber blocks no publisher, so sequence numbers are counted."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


LATEST = reliable(1)
CHAIN = reliable(10)
RECORDED = reliable(1000)  # what must not be missed while a disk syncs or a certificate is compiled
SENSOR = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
# Readers on the path of a tick: lock-step sends again what was lost, real time has a next one, and acknowledgements
# wake two processes each.
ONCE = QoSProfile(depth=2, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
BUTTON = QoSProfile(
    depth=1000,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def stamp_of(ns: int) -> Time:
    """Nanoseconds as a stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def nanoseconds(stamp: Time) -> int:
    """A stamp as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def message_class(name: str) -> Any:
    """The class of 'package/msg/Type'. Raises ValueError naming it."""
    package, _, kind = name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        raise ValueError(f"message type '{name}' is not installed") from None


# --- native topics ---------------------------------------------------------------------------------------------------


class ChannelCodec:
    """Vectors <-> messages of one native input, by the attribute paths that the robot declares."""

    def __init__(self, channel: Channel) -> None:
        """Raises ValueError where the message type is not installed or lacks a field."""
        self.channel = channel
        self.type = message_class(channel.type)
        self._message = self.type()
        self.stamped = hasattr(self._message, "header")
        self._arrays = any(path.endswith("[]") for path in channel.fields)
        paths = [path.removesuffix("[]") for path in channel.fields]
        lengths = [channel.length if path.endswith("[]") else 1 for path in channel.fields]
        self._expected = list(zip(paths, lengths, strict=True))
        self._get = operator.attrgetter(*paths)
        self._constants = [(path, operator.attrgetter(path), value) for path, value in channel.constants.items()]
        self._limits = [(path, operator.attrgetter(path), limit) for path, limit in channel.limits.items()]
        try:
            self._get(self._message)
            for _, get, _ in self._limits:
                get(self._message)
            self._set = _setters(self._message, channel.fields)
            for path, value in channel.constants.items():
                assign(self._message, path, list(value) if isinstance(value, tuple) else value)
        except AttributeError as error:
            raise ValueError(f"channel {channel.name}: {channel.type}: {error}") from None

    def decode(self, message: Any) -> Floats:
        """The vector.

        Raises ValueError where a constant or the length of an array differs, as in another robot's message, or where an
        attribute lies outside its limits.
        """
        for path, get, wanted in self._constants:
            found = get(message)
            if not _same(found, wanted):
                raise ValueError(f"{self.channel.name}: {path} is {_short(found)}, expected {_short(wanted)}")
        for path, get, (low, high, why) in self._limits:
            found = get(message)
            if not low <= found <= high:  # so written, NaN is outside
                raise ValueError(f"{self.channel.name}: {path} is {found:.6g}, must lie in [{low:g}, {high:g}]: {why}")
        values = self._get(message)
        if not self._arrays:
            return np.array(values if isinstance(values, tuple) else (values,), np.float64)
        values = values if isinstance(values, tuple) else (values,)
        parts = [np.atleast_1d(np.asarray(value, np.float64)) for value in values]
        # Each on its own: where one array is short and the next long, the sum is right and every number is another's.
        for part, (path, length) in zip(parts, self._expected, strict=True):
            if part.size != length:
                raise ValueError(f"{self.channel.name}: {path} has length {part.size}, expected {length}")
        return np.concatenate(parts)

    def encode(self, vector: Floats, stamp_ns: int) -> Any:
        """The message; the same object each time, because publishing copies it."""
        if self.stamped:
            self._message.header.stamp = stamp_of(stamp_ns)
        _write(self._set, vector, self.channel.length)
        return self._message


class CommandCodec:
    """Actions <-> the native command."""

    def __init__(self, command: CommandTopic, stamped: bool) -> None:
        """`stamped` false: the type without a header, where there is one. Raises ValueError as ChannelCodec does."""
        plain = not stamped and bool(command.unstamped_type)
        kind, fields = (command.unstamped_type, command.unstamped_fields) if plain else (command.type, command.fields)
        self.type = message_class(kind)
        self._message = self.type()
        self._header = hasattr(self._message, "header")
        try:
            self._get = operator.attrgetter(*(path.removesuffix("[]") for path in fields))
            self._get(self._message)
            self._set = _setters(self._message, fields)
            if self._header:
                self._message.header.frame_id = command.frame_id
        except AttributeError as error:
            raise ValueError(f"command {command.name}: {kind}: {error}") from None

    def encode(self, action: Singles, stamp_ns: int) -> Any:
        """The message that commands `action`, with the stamp of the state it answers."""
        if self._header:
            self._message.header.stamp = stamp_of(stamp_ns)
        _write(self._set, action.astype(np.float64), len(action))
        return self._message

    def decode(self, message: Any) -> Floats:
        """The commanded action."""
        values = self._get(message)
        parts = values if isinstance(values, tuple) else (values,)
        return np.concatenate([np.atleast_1d(np.asarray(part, np.float64)) for part in parts])


def _setters(message: Any, fields: tuple[str, ...]) -> list[tuple[Any, str, str]]:
    """For every path: the object that holds the attribute, its name, and the array code ('' for a number)."""
    setters: list[tuple[Any, str, str]] = []
    for path in fields:
        parent, _, name = path.removesuffix("[]").rpartition(".")
        owner = operator.attrgetter(parent)(message) if parent else message
        value = getattr(owner, name)
        code = (value.typecode if isinstance(value, array.array) else "d") if path.endswith("[]") else ""
        setters.append((owner, name, code))
    return setters


def _write(setters: list[tuple[Any, str, str]], vector: Floats, length: int) -> None:
    at = 0
    for owner, name, code in setters:
        if code:
            setattr(owner, name, array.array(code, vector[at : at + length].astype(code).tobytes()))
            at += length
        else:
            setattr(owner, name, float(vector[at]))
            at += 1


def assign(message: Any, path: str, value: object) -> None:
    """Set the attribute at `path` ('header.frame_id')."""
    parent, _, name = path.rpartition(".")
    setattr(operator.attrgetter(parent)(message) if parent else message, name, value)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return isinstance(found, float | int) and math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(wanted, list | tuple):
        return list(found) == list(wanted)
    return bool(found == wanted)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


# --- candidates and requests -----------------------------------------------------------------------------------------


class CandidateCodec:
    """CandidateSet <-> PointCloud2: K points of float32 fields, the observation in the row's tail; one atomic message.

    Fields: every action name, margin, certified, band, is_plan, centre, offered; `observation` (offset K * point_step,
    count D), for which there is no place in the format but this. header.frame_id = "id/<id>/episode/<n>".
    """

    def __init__(self, robot: Robot, continuous: bool) -> None:
        """For the candidate sets of `robot`."""
        self.k = candidate_count(robot, continuous) + EXTRA_SLOTS
        self.a, self.d = len(robot.action_names), len(robot.observation_names)
        self.columns = self.a + 6
        names = [*robot.action_names, "margin", "certified", "band", "is_plan", "centre", "offered"]
        single = PointField.FLOAT32
        fields = [PointField(name=name, offset=4 * i, datatype=single, count=1) for i, name in enumerate(names)]
        step = 4 * self.columns
        fields.append(PointField(name="observation", offset=self.k * step, datatype=single, count=self.d))
        self._message = PointCloud2(
            height=1, width=self.k, fields=fields, point_step=step, row_step=self.k * step + 4 * self.d, is_dense=False
        )
        self._buffer = np.zeros(self.k * self.columns + self.d, np.float32)
        self._table = self._buffer[: self.k * self.columns].reshape(self.k, self.columns)

    def encode(self, candidates: CandidateSet) -> PointCloud2:
        """The message; the same object each time."""
        a, table = self.a, self._table
        table[:, :a] = candidates.actions
        table[:, a] = candidates.margin
        table[:, a + 1] = candidates.certified
        table[:, a + 2] = candidates.band
        table[:, a + 3] = candidates.is_plan
        table[:, a + 4] = candidates.centre
        table[:, a + 5] = candidates.offered
        self._buffer[self.k * self.columns :] = candidates.observation
        self._message.header.stamp = stamp_of(candidates.stamp_ns)
        self._message.header.frame_id = f"id/{candidates.id}/episode/{candidates.episode}"
        self._message.data = array.array("B", self._buffer.tobytes())
        return self._message

    def decode(self, message: PointCloud2) -> CandidateSet:
        """The set. Raises ValueError where the message is of another robot or layout."""
        parts = message.header.frame_id.split("/")
        if len(parts) != 4 or not (parts[1].isdigit() and parts[3].isdigit()):
            raise ValueError(f"candidates: frame_id is {message.header.frame_id!r}, expected 'id/<id>/episode/<n>'")
        size = self.k * self.columns + self.d
        if message.width != self.k or message.point_step != 4 * self.columns or len(message.data) != 4 * size:
            raise ValueError(
                f"candidates: {message.width} points of {message.point_step} bytes, {len(message.data)} in all; "
                f"expected {self.k} of {4 * self.columns}, {4 * size}: another robot or action space"
            )
        values = np.frombuffer(message.data, np.float32)
        table, a = values[: size - self.d].reshape(self.k, self.columns), self.a
        return CandidateSet(
            id=int(parts[1]),
            stamp_ns=nanoseconds(message.header.stamp),
            episode=int(parts[3]),
            observation=values[size - self.d :],
            actions=table[:, :a],
            margin=table[:, a],
            certified=table[:, a + 1] != 0.0,
            offered=table[:, a + 5] != 0.0,
            band=table[:, a + 2] != 0.0,
            is_plan=table[:, a + 3] != 0.0,
            centre=table[:, a + 4].astype(np.uint8),
        )


class RequestCodec:
    """(candidate id, action) <-> JointState, a named vector; header.frame_id names the node that asks."""

    def __init__(self, robot: Robot, source: str = "") -> None:
        """Requests of the node `source` for `robot`."""
        self.robot = robot
        self._message = JointState(name=["id", *robot.action_names])
        self._message.header.frame_id = source

    def encode(self, candidates: CandidateSet, action: Singles) -> JointState:
        """An answer to `candidates`. float64 holds the id up to 2^53 and float32 actions bit by bit."""
        self._message.header.stamp = stamp_of(candidates.stamp_ns)
        self._message.position = array.array("d", (candidates.id, *action.tolist()))
        return self._message

    def decode(self, message: JointState) -> tuple[int, Singles]:
        """Raises ValueError naming what is missing."""
        return parse_request(message.name, np.asarray(message.position, np.float64), self.robot)


# --- tables of text --------------------------------------------------------------------------------------------------


def encode_status(
    name: str, stamp_ns: int, message: str, level: str, values: Mapping[str, object], hardware: str = ""
) -> DiagnosticArray:
    """A DiagnosticArray of one status; floats are written so that they read back bit by bit."""
    status = DiagnosticStatus(
        level=LEVELS[level],
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    array_message = DiagnosticArray(status=[status])
    array_message.header.stamp = stamp_of(stamp_ns)
    return array_message


def decode_status(message: DiagnosticArray) -> dict[str, str]:
    """The values of the first status. Raises ValueError if there is none."""
    if not message.status:
        raise ValueError("a DiagnosticArray without a status")
    return {item.key: item.value for item in message.status[0].values}


def _int(table: Mapping[str, str], key: str, what: str) -> int:
    try:
        return int(table[key])
    except (KeyError, ValueError):
        raise ValueError(f"{what}: '{key}' is {table.get(key)!r}, must be a whole number") from None


@dataclass(frozen=True)
class Verdict:
    """A decision as it travels: a gate.Decision without its candidates, which were published under `id`."""

    sequence: int
    id: int  # 0: blind, there were no candidates
    episode: int
    stamp_ns: int
    action: Singles
    index: int
    verdict: str
    reason: str
    message: str
    state: str
    intervention: bool
    empty_support: bool
    certified: bool  # the executed candidate's flags, which an appended one brings along
    band: bool
    margin: float
    centre: int
    certificate_us: int  # time the monitor spent on the certificate, for benchmarks


def encode_decision(decision: Decision, certificate_us: int = 0) -> DiagnosticArray:
    """See Verdict. Level: OK for what was asked, WARN for the plan, ERROR where nothing is proven or it is latched."""
    plain = decision.reason in ("request", "plan_requested")
    level = "error" if decision.verdict == "no_proof" or decision.reason == "latched" else "ok" if plain else "warn"
    c, i = decision.candidates, decision.index
    flags: tuple[int, int, float, int] = (0, 0, -math.inf, 0)
    empty = False
    if c is not None:
        flags = (int(c.certified[i]), int(c.band[i]), float(c.margin[i]), int(c.centre[i]))
        empty = c.only_plan
    values = {
        "sequence": decision.sequence,
        "id": decision.id,
        "episode": decision.episode,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "state": decision.state.value,
        "index": i,
        "intervention": int(decision.intervention),
        "empty_support": int(empty),
        "action": " ".join(map(repr, decision.action.tolist())),
        "candidate": f"{flags[0]} {flags[1]} {flags[2]!r} {flags[3]}",
        "certificate_us": certificate_us,
    }
    return encode_status("safety_monitor: decision", decision.stamp_ns, decision.message, level, values)


def decode_decision(message: DiagnosticArray) -> Verdict:
    """Raises ValueError naming what is wrong."""
    table = decode_status(message)
    what = "decision"
    try:
        action = np.array([float(text) for text in table["action"].split()], np.float32)
        certified, band, margin, centre = table["candidate"].split()
        verdict, reason = table["verdict"], table["reason"]
        if verdict not in VERDICTS or reason not in REASONS:
            raise ValueError(f"{what}: verdict {verdict!r} or reason {reason!r} is unknown")
        return Verdict(
            sequence=_int(table, "sequence", what),
            id=_int(table, "id", what),
            episode=_int(table, "episode", what),
            stamp_ns=nanoseconds(message.header.stamp),
            action=action,
            index=_int(table, "index", what),
            verdict=verdict,
            reason=reason,
            message=message.status[0].message,
            state=table["state"],
            intervention=table["intervention"] == "1",
            empty_support=table["empty_support"] == "1",
            certified=certified == "1",
            band=band == "1",
            margin=float(margin),
            centre=int(centre),
            certificate_us=_int(table, "certificate_us", what),
        )
    except KeyError as error:
        raise ValueError(f"{what}: lacks {error}") from None


@dataclass(frozen=True)
class Episode:
    """An announced episode. `key` is new whenever a robot was put somewhere else, also by a restarted simulator."""

    key: int
    id: int
    phase: str
    seed: int
    robot_id: str
    start_ns: int  # no input of this episode is older


def encode_episode(episode: Episode) -> DiagnosticArray:
    """See Episode."""
    values = {
        "key": episode.key,
        "episode": episode.id,
        "phase": episode.phase,
        "seed": episode.seed,
        "robot": episode.robot_id,
    }
    return encode_status("simulator: episode", episode.start_ns, f"episode {episode.id} begins", "ok", values)


def decode_episode(message: DiagnosticArray) -> Episode:
    """Raises ValueError naming what is wrong."""
    table = decode_status(message)
    if table.get("phase") not in PHASES:
        raise ValueError(f"episode: phase is {table.get('phase')!r}, must be one of: {', '.join(PHASES)}")
    return Episode(
        key=_int(table, "key", "episode"),
        id=_int(table, "episode", "episode"),
        phase=table["phase"],
        seed=_int(table, "seed", "episode"),
        robot_id=table.get("robot", ""),
        start_ns=nanoseconds(message.header.stamp),
    )


OUTCOME_NAMES = (
    "session",  # a number drawn by each simulator process: counts below start from zero with it
    "episode",
    "phase",  # index into ledger.PHASES
    "seed",
    "first",
    "tick",  # of this episode
    "reward",  # of the control tick that led to the state of this stamp
    "terminated",
    "truncated",
    "reached",
    "episode_return",
    "min_margin",  # of this episode
    "control_ticks",  # this and the next three count over the simulator's life
    "physics_steps",
    "unsafe_visits",
    "unsafe_substeps",
    "phase_ticks",  # since the last activation, as is the next
    "phase_episodes",
    "executed",  # number of the newest decision that moved the robot, -1: none; a dead monitor's last word
    "done",  # 1: the asked ticks or episodes are done, nothing more comes
    "wall_us",  # physics and ground truth of this tick, for benchmarks
    "sense_us",  # sensors of this tick
)
OutcomeTable = dict[str, float]


def encode_outcome(values: Mapping[str, float], stamp_ns: int, visit: str) -> JointState:
    """A named vector of OUTCOME_NAMES; header.frame_id tells of the newest unsafe visit, '' if there was none."""
    message = JointState(name=list(OUTCOME_NAMES))
    message.header.stamp = stamp_of(stamp_ns)
    message.header.frame_id = visit
    message.position = array.array("d", [float(values[name]) for name in OUTCOME_NAMES])
    return message


def decode_outcome(message: JointState) -> tuple[OutcomeTable, int, str]:
    """(values, stamp, visit). Raises ValueError where a name is missing."""
    table = dict(zip(message.name, message.position, strict=False))
    missing = [name for name in OUTCOME_NAMES if name not in table]
    if missing:
        raise ValueError(f"outcome: lacks {', '.join(missing)}")
    return table, nanoseconds(message.header.stamp), message.header.frame_id


GREEN, ORANGE, RED, BLUE, WHITE = (
    ColorRGBA(r=r, g=g, b=b, a=1.0)
    for r, g, b in ((0.2, 0.8, 0.2), (1.0, 0.6, 0.0), (0.8, 0.1, 0.1), (0.2, 0.5, 1.0), (1.0, 1.0, 1.0))
)


def encode_markers(picture: Picture, frame_id: str, stamp_ns: int, state: str) -> MarkerArray:
    """For RViz: occupied points, candidates (certified green, in the band orange, refused red), the planned backup
    trajectory (blue), and the margins as text."""

    def marker(name: str, kind: int, places: Floats, colour: ColorRGBA, scale: float) -> Marker:
        made = Marker(ns=name, type=kind, action=Marker.ADD, color=colour)
        made.header.frame_id, made.header.stamp = frame_id, stamp_of(stamp_ns)
        made.pose.orientation.w = 1.0
        made.scale.x = made.scale.y = made.scale.z = scale
        made.points = [Point(x=x, y=y, z=z) for x, y, z in places.tolist()]
        if not made.points and kind != Marker.TEXT_VIEW_FACING:
            made.action = Marker.DELETE
        return made

    groups = (
        ("certified", GREEN, picture.certified & ~picture.band),
        ("certified_band", ORANGE, picture.band),
        ("refused", RED, ~picture.certified),
    )
    markers = [marker("occupied", Marker.POINTS, picture.occupied, WHITE, 0.03)]
    for name, colour, chosen in groups:
        ends = picture.after[chosen]
        lines = np.stack([np.broadcast_to(picture.now, ends.shape), ends], axis=1).reshape(-1, 3)
        markers.append(marker(name, Marker.LINE_LIST, lines, colour, 0.005))
    markers.append(marker("backup", Marker.LINE_STRIP, picture.backup, BLUE, 0.02))
    text = marker("margins", Marker.TEXT_VIEW_FACING, np.zeros((0, 3)), WHITE, 0.12)
    text.text = "\n".join(
        [state]
        + [
            f"{name} {value:.3f} (tightened by {picture.tightening[name][0]:.3f} to {picture.tightening[name][1]:.3f})"
            for name, value in picture.margins.items()
        ]
    )
    text.pose.position = Point(x=float(picture.now[0]), y=float(picture.now[1]), z=float(picture.now[2]) + 0.6)
    return MarkerArray(markers=[*markers, text])
