"""What the gate says about its decisions: each text and remedy that a person at the robot reads, with its figures."""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import Estimate, Singles
from safe_support_ql.robots.model import Model
from safe_support_ql.safety.cause import Cause

MALFORMED = Cause("the request holds a NaN or has a wrong length")
NOT_ASKED = Cause(
    "nothing certified was asked for in time", "look at the policy's log, and give the monitor a processor"
)
NO_REQUEST = Cause("no request answered the newest candidate set in time")
ONLY_PLAN = Cause("only the plan is left: the inputs show no room for any other action")
RESET = Cause("reset", "wait for the next certified request")
STALLED = Cause("the monitor was stopped in the middle of a cycle", "give it a processor")


def mismatch(what: str) -> Cause:
    """The robot is not where the models predict it."""
    return Cause(f"mismatch: {what}", "check wheels, load and sensors, then call the reset service")


def uncertified(action: Singles, margin: float) -> Cause:
    """A request that the certificate refuses."""
    return Cause(f"requested action {np.round(action, 3).tolist()} has margin {margin:.3f}")


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


def no_room(model: Model, estimate: Estimate) -> Cause:
    """What keeps the gate from its first certificate at a state: which margin is too small, and by how much."""
    certificate = model.certificate
    h = np.array([float(v) for v in certificate.margins(tuple(estimate.state), estimate.points, certificate.constants)])
    needed = certificate.tightening[0]
    left = (h - needed) / certificate.scale
    worst = int(np.argmin(np.where(np.isfinite(left), left, -np.inf)))
    name, lack = certificate.margin_names[worst], float(needed[worst] - h[worst])
    if left[worst] >= 0.0:
        return Cause(
            "nothing is certified yet: no plan comes to rest in time", "bring the robot to rest, in free space"
        )
    digits = max(3, -int(np.floor(np.log10(lack)))) if np.isfinite(lack) else 3  # enough to show what lacks
    return Cause(
        f"nothing is certified yet: margin '{name}' is {h[worst]:.{digits}f}, too small by {lack:.{digits}f}",
        "bring the robot to where it is safe at rest",
    )
