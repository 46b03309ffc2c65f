"""The messages of status, decision, episode and outcome: their fields, packed as tables of text and numbers.

Whatever a message of the right type holds, a decoder returns values that make sense, or raises ValueError.
"""

from __future__ import annotations

import array
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, astuple, dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from safe_support_ql.deployment.news import News
from safe_support_ql.nodes.candidates import LAST_EPISODE
from safe_support_ql.nodes.native import nanoseconds, stamp_of
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import OUTCOME_NAMES, OutcomeTable, Verdict
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision, State

LARGEST = 2**63 - 1  # of a number that a record or a message holds
STATES = tuple(state.value for state in State)
LEARNER_STATES = ("waiting", "training", "idle", "extracting", "exported", "error", "inactive")

# What an outcome may say: flags are 0 or 1, counts whole and not negative; NaN never.
_FLAGS = ("first", "terminated", "truncated", "reached", "idle", "done")
_REALS = {"reward": float(np.finfo(np.float32).max), "episode_return": float(np.finfo(np.float64).max),
          "min_margin": math.inf}  # fmt: skip
_WHOLE = np.array([name not in _REALS for name in OUTCOME_NAMES])
_MOST = np.array([
    1.0 if name in _FLAGS else len(PHASES) - 1.0 if name == "phase" else _REALS.get(name, float(LARGEST))
    for name in OUTCOME_NAMES
])  # fmt: skip
_LEAST = np.array([-_REALS[name] if name in _REALS else -1.0 if name == "executed" else 0.0 for name in OUTCOME_NAMES])


@dataclass(frozen=True)
class Episode:
    """An announced episode. `key` is new whenever the robot was moved, also by a restarted simulator."""

    key: int
    id: int
    phase: str
    seed: int
    robot_id: str
    start_ns: int  # stamp of its first state


# --- as messages ------------------------------------------------------------------------------------------------------

LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


def encode_status(
    name: str, stamp_ns: int, message: str, level: str, values: Mapping[str, object], hardware: str = ""
) -> DiagnosticArray:
    """A DiagnosticArray of one status; floats are written so that they are read back exactly."""
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


def decode_status(message: DiagnosticArray, what: str = "DiagnosticArray") -> dict[str, str]:
    """The values of the first status. Raises ValueError if there is none; `what` names the topic."""
    if not message.status:
        raise ValueError(f"{what}: status is empty, must have one entry")
    return {item.key: item.value for item in message.status[0].values}


def _text(table: Mapping[str, str], key: str, what: str, options: Collection[str]) -> str:
    if table.get(key) not in options:
        raise ValueError(f"{what}: {_found(table, key)}, must be one of: {', '.join(options)}")
    return table[key]


def _int(table: Mapping[str, str], key: str, what: str, low: int, high: int) -> int:
    try:
        value = int(table.get(key, ""))
    except ValueError:
        raise ValueError(f"{what}: {_found(table, key)}, must be a whole number") from None
    if not low <= value <= high:
        raise ValueError(f"{what}: {_found(table, key)}, must lie in [{low}, {high}]")
    return value


def _floats(table: Mapping[str, str], key: str, what: str, size: int | None = None) -> list[float]:
    try:
        values = [float(text) for text in table.get(key, "").split()]
    except ValueError:
        values = []
    if not values or (size is not None and len(values) != size) or any(math.isnan(value) for value in values):
        raise ValueError(f"{what}: {_found(table, key)}, must be {'' if size is None else f'{size} '}numbers")
    return values


def _found(table: Mapping[str, str], key: str) -> str:
    return f"'{key}' is {table[key]!r}" if key in table else f"lacks '{key}'"


def encode_decision(decision: Decision, certificate_us: int = 0) -> DiagnosticArray:
    """See Verdict. Level: OK if the request was executed, WARN for the plan, ERROR without proof or when latched."""
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


def decode_decision(message: DiagnosticArray, size: int | None = None) -> Verdict:
    """The decision, whose action has `size` numbers if that is given. Raises ValueError naming what is wrong."""
    what = "decision"
    table = decode_status(message, what)
    action = np.array(_floats(table, "action", what, size))
    if np.abs(action).max() > np.finfo(np.float32).max:
        raise ValueError(f"{what}: {_found(table, 'action')}, must be finite")
    certified, band, margin, centre = _floats(table, "candidate", what, 4)
    if certified not in (0.0, 1.0) or band not in (0.0, 1.0) or centre not in range(256):
        raise ValueError(f"{what}: {_found(table, 'candidate')}, must be two flags, a margin and an index")
    return Verdict(
        sequence=_int(table, "sequence", what, 0, LARGEST),
        id=_int(table, "id", what, 0, LARGEST),
        episode=_int(table, "episode", what, 0, LAST_EPISODE),
        stamp_ns=nanoseconds(message.header.stamp),
        action=action.astype(np.float32),
        index=_int(table, "index", what, -1, 2**15 - 1),
        verdict=_text(table, "verdict", what, VERDICTS),
        reason=_text(table, "reason", what, REASONS),
        message=message.status[0].message,
        state=_text(table, "state", what, STATES),
        intervention=_int(table, "intervention", what, 0, 1) == 1,
        empty_support=_int(table, "empty_support", what, 0, 1) == 1,
        certified=certified == 1.0,
        band=band == 1.0,
        margin=margin,
        centre=int(centre),
        certificate_us=_int(table, "certificate_us", what, 0, LARGEST),
    )


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
    what = "episode"
    table = decode_status(message, what)
    return Episode(
        key=_int(table, "key", what, 0, LARGEST),
        id=_int(table, "episode", what, 1, LAST_EPISODE),
        phase=_text(table, "phase", what, PHASES),
        seed=_int(table, "seed", what, 0, LARGEST),
        robot_id=table.get("robot", ""),
        start_ns=nanoseconds(message.header.stamp),
    )


def encode_outcome(values: Mapping[str, float], stamp_ns: int, visit: str) -> JointState:
    """A named vector of OUTCOME_NAMES; header.frame_id describes the newest unsafe visit, '' if there was none."""
    message = JointState(name=list(OUTCOME_NAMES))
    message.header.stamp = stamp_of(stamp_ns)
    message.header.frame_id = visit
    message.position = array.array("d", [float(values[name]) for name in OUTCOME_NAMES])
    return message


def decode_outcome(message: JointState) -> tuple[OutcomeTable, int, str]:
    """(values, stamp, visit). Raises ValueError naming the value that is missing or cannot be."""
    names, positions = list(message.name), message.position
    if len(names) != len(positions) or len(set(names)) != len(names):
        raise ValueError(f"outcome: {len(positions)} values for {len(set(names))} different names of {len(names)}")
    table = dict(zip(names, positions, strict=True))
    missing = [name for name in OUTCOME_NAMES if name not in table]
    if missing:
        raise ValueError(f"outcome: lacks {', '.join(missing)}")
    values = np.array([table[name] for name in OUTCOME_NAMES])
    wrong = ~((values >= _LEAST) & (values <= _MOST)) | (_WHOLE & (values != np.floor(values)))
    if wrong.any():
        i = int(np.argmax(wrong))
        kind = "a whole number" if _WHOLE[i] else "a number"
        raise ValueError(
            f"outcome: {OUTCOME_NAMES[i]} is {values[i]:g}, must be {kind} in [{_LEAST[i]:g}, {_MOST[i]:g}]"
        )
    return {name: table[name] for name in OUTCOME_NAMES}, nanoseconds(message.header.stamp), message.header.frame_id


def decode_gate_state(message: String) -> str:
    """The text "<state>: <cause>". Raises ValueError if the state is none of a gate."""
    if message.data.partition(":")[0] not in STATES:
        raise ValueError(f"gate_state: is {message.data!r}, must begin with one of: {', '.join(STATES)}")
    return str(message.data)


def encode_news(news: News) -> String:
    return String(data=json.dumps(asdict(news)))


def decode_news(message: String) -> News:
    """model/active. Raises ValueError where it is none."""
    try:
        news = News(**json.loads(message.data))
    except (ValueError, TypeError):
        raise ValueError(f"model/active: is {message.data[:80]!r}, must be the JSON of a policy") from None
    if not isinstance(news.epoch, int) or not all(isinstance(text, str) for text in astuple(news)[1:]):
        raise ValueError(f"model/active: is {message.data[:80]!r}, must hold a number and texts")
    return news


def decode_learner(message: DiagnosticArray) -> dict[str, str]:
    """The values of learner/status. Raises ValueError naming what is wrong."""
    what = "learner/status"
    table = decode_status(message, what)
    _text(table, "state", what, LEARNER_STATES)
    for key in ("records", "budget", "updates", "extraction_updates"):
        if key in table and not 0.0 <= _floats(table, key, what, 1)[0] < math.inf:
            raise ValueError(f"{what}: {_found(table, key)}, must be a finite number from 0 on")
    return table
