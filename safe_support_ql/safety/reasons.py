"""What the gate says about its decisions: each text and remedy that a person at the robot reads, with its figures."""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import Estimate, Robot, Singles
from safe_support_ql.robots.model import Floats, Model
from safe_support_ql.safety.cause import Cause

MALFORMED = Cause("the request holds a NaN or has a wrong length")
NOT_ASKED = Cause(
    "nothing certified was asked for in time", "look at the policy's log, and give the monitor a processor"
)
NO_REQUEST = Cause("no request answered the newest candidate set in time")
ONLY_PLAN = Cause("only the plan is left: the inputs show no room for any other action")
LOST = "bring the robot to rest where it is safe, then call the reset service"
RESET = Cause("reset", "wait for the next certified request")
STALLED = Cause("the monitor was stopped in the middle of a cycle", "give it a processor")


def mismatch(what: str, check: str) -> Cause:
    """The robot is not where the models predict it. `check`: what the robot knows of this residual, or ''."""
    return Cause(f"mismatch: {what}", f"check {check or 'wheels, load and sensors'}, then call the reset service")


def unconfirmed(what: str, check: str, ticks: int, needed: int) -> Cause:
    """The robot is not where the models predict it, and never was for long: a sensor's zero may be wrong."""
    return Cause(
        f"mismatch: {what}, not confirmed by motion yet: after {ticks} of {needed} informative ticks",
        f"check {check or 'the zero of the encoders and what holds the robot'}, then call the reset service",
    )


def opening(states: int, needed: int) -> Cause:
    """A plan certifies, but not for long enough yet."""
    return Cause(f"certified in {states} of {needed} successive states", "wait, and hold the robot still")


def lost_blind(missing: Cause, lost: str) -> Cause:
    """The state has been missing for so long that no plan helps a robot without a passive stop."""
    return Cause(
        f"{missing.what}: {lost}, so there is silence", f"{missing.remedy}, then {LOST}".removeprefix(", then ")
    )


def noted(cause: Cause, estimate: Estimate) -> Cause:
    """With what a person should know about the inputs, for example which rays of a scan say nothing."""
    note = Cause.of(estimate.remark)
    return Cause(f"{cause.what} ({note.what})", note.remedy or cause.remedy) if note else cause


def uncertified(action: Singles, margin: float, estimate: Estimate) -> Cause:
    """A request that the certificate refuses."""
    return noted(Cause(f"requested action {np.round(action, 3).tolist()} has margin {margin:.3f}"), estimate)


def only_plan(cap: float, exhausted: bool) -> Cause:
    """Nothing else is left; under a cap, or with the band's budget spent, that may be all the reason."""
    if exhausted:
        return Cause(
            "only the plan is left: it was near something for so long that the budget of the hysteresis band is spent",
            "move it away from there by hand, or end this run and resume it",
        )
    if cap == 1.0:
        return ONLY_PLAN
    return Cause(
        f"only the plan is left: the inputs show no room, or nothing is as slow as {cap:.0%}, the operator's speed_cap",
        "raise it (safe-support-ql operator cap), or give it room",
    )


def capped(cap: float) -> Cause:
    """A request beyond what the operator allows."""
    return Cause(
        f"the request is beyond {cap:.0%} of its range, which is what the operator allows",
        "ask for less, or raise speed_cap (safe-support-ql operator cap)",
    )


def unknown(estimate: Estimate, apart_s: float, age_s: float) -> Cause:
    """Nothing was certified because nobody knows enough: the state has an objection, or too much may have acted."""
    if estimate.objection:
        objection = Cause.of(estimate.objection)
        return Cause(f"only the plan is left: {objection.what}", objection.remedy)
    if apart_s:
        return Cause(
            f"nothing is certified: the state before was {apart_s:.3f} s older, and too much may have acted since to "
            "compare the two",
            "look at what delays the sensors",
        )
    return Cause(
        f"nothing is certified: the state is {age_s:.3f} s old, and too many commands may have acted since",
        "look at what delays the sensors",
    )


def no_room(robot: Robot, estimate: Estimate) -> Cause:
    """Why no plan certifies at a state: which margin is too small, by how much, and what state would do."""
    certificate = robot.model.certificate
    h = _margins(robot.model, estimate.state, estimate)
    needed = certificate.tightening[0]
    left = (h - needed) / certificate.scale
    worst = int(np.argmin(np.where(np.isfinite(left), left, -np.inf)))
    name, lack = certificate.margin_names[worst], float(needed[worst] - h[worst])
    if left[worst] >= 0.0:
        cause = Cause(
            "nothing is certified: until it has come to rest, every plan needs more room than there is",
            "bring the robot to rest, with more room about it",
        )
        return noted(cause, estimate)
    digits = max(3, -int(np.floor(np.log10(lack)))) if np.isfinite(lack) else 3  # enough to show what lacks
    cause = Cause(
        f"nothing is certified: margin '{name}' is {h[worst]:.{digits}f}, too small by {lack:.{digits}f}",
        _where(robot, estimate, worst) or "bring the robot to where it is safe at rest",
    )
    return noted(cause, estimate)


def _margins(model: Model, state: Floats, estimate: Estimate) -> Floats:
    certificate = model.certificate
    return np.array([float(h) for h in certificate.margins(tuple(state), estimate.points, certificate.constants)])


def _where(robot: Robot, estimate: Estimate, margin: int) -> str:
    """Which entry of the state has to change, and how far, for this margin to be large enough; '' if no single one."""
    certificate, rest = robot.model.certificate, robot.at_rest().state
    units = dict(zip(robot.observation_names, robot.observation_units, strict=True))
    for i, name in enumerate(robot.state_names):

        def holds(value: float, i: int = i) -> bool:
            state = estimate.state.copy()
            state[i] = value
            return bool(_margins(robot.model, state, estimate)[margin] >= certificate.tightening[0, margin])

        near, far = float(rest[i]), float(estimate.state[i])
        if not holds(near):
            continue
        unit = f" {units[name]}" if name in units else ""
        for _ in range(30 if np.isfinite(far) else 0):
            middle = 0.5 * (near + far)
            near, far = (middle, far) if holds(middle) else (near, middle)
        near = float(rest[i]) + np.trunc(1e3 * (near - rest[i])) / 1e3  # towards rest
        return (
            f"bring {name} from {estimate.state[i]:.3f}{unit} to {near:.3f}{unit} or nearer to {rest[i]:g}, or correct "
            "the zero of its sensor if it is there"
        )
    return ""
