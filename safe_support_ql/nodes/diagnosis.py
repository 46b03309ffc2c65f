"""A gate as /diagnostics shows it: its state, its cause and remedy (texts of safety/reasons.py), and its counters."""

from __future__ import annotations

from safe_support_ql.safety.gate import Gate, State

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


def diagnose(gate: Gate, reason: str) -> dict[str, object]:
    """The values of the gate's status, where the newest decision had `reason`."""
    counters = gate.counters
    return {
        "state": gate.state.value,
        "reason": reason,
        "remedy": gate.cause.remedy or REMEDY[reason],
        "episode": gate.episode,
        "decisions": counters.decisions,
        "interventions": counters.interventions,
        "empty_supports": counters.empty_supports,
        "refused_inputs": counters.refused_inputs,
        "refused_requests": counters.refused_requests,
        "mismatches": counters.mismatches,
        "mismatch level": round(gate.mismatch.level, 2),
        "largest residual, in W": round(gate.mismatch.largest, 2),
        **{f"verdict {name}": count for name, count in counters.verdicts.items()},
    }
