"""The messages of status, decision, episode and outcome: their fields, packed as tables of text and numbers."""

from __future__ import annotations

import array
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import JointState

from safe_support_ql.nodes.native import nanoseconds, stamp_of
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import OUTCOME_NAMES, OutcomeTable, Verdict
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision


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


def decode_status(message: DiagnosticArray) -> dict[str, str]:
    """The values of the first status. Raises ValueError if there is none."""
    if not message.status:
        raise ValueError("DiagnosticArray: status is empty, must have one entry")
    return {item.key: item.value for item in message.status[0].values}


def _int(table: Mapping[str, str], key: str, what: str) -> int:
    try:
        return int(table[key])
    except (KeyError, ValueError):
        raise ValueError(f"{what}: '{key}' is {table.get(key)!r}, must be a whole number") from None


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


def encode_outcome(values: Mapping[str, float], stamp_ns: int, visit: str) -> JointState:
    """A named vector of OUTCOME_NAMES; header.frame_id describes the newest unsafe visit, '' if there was none."""
    message = JointState(name=list(OUTCOME_NAMES))
    message.header.stamp = stamp_of(stamp_ns)
    message.header.frame_id = visit
    message.position = array.array("d", [float(values[name]) for name in OUTCOME_NAMES])
    return message


def decode_outcome(message: JointState) -> tuple[OutcomeTable, int, str]:
    """(values, stamp, visit). Raises ValueError if a name is missing."""
    table = dict(zip(message.name, message.position, strict=False))
    missing = [name for name in OUTCOME_NAMES if name not in table]
    if missing:
        raise ValueError(f"outcome: lacks {', '.join(missing)}")
    return table, nanoseconds(message.header.stamp), message.header.frame_id
