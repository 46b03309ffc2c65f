"""How far a robot's physical parameters are off: least squares on what one recorded manoeuvre did, tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from safe_support_ql.robots.base import Floats, Robot

SPREAD = 5.0  # standard deviations within a bound of `scale`, which no tick of an unchanged robot reaches
TOLD = 1.0 / 3.0  # a factor counts as told by a manoeuvre where its standard error is below this share of its range
LOWEST, HIGHEST = 0.2, 5.0  # factors looked at


@dataclass(frozen=True)
class Ensemble:
    """What of a robot's model is estimated. A factor of 1 is the nominal model.

    What a manoeuvre cannot tell apart is one factor: more force and less mass accelerate a cart alike.
    """

    names: tuple[str, ...]
    mismatches: tuple[tuple[str, str], ...]  # per factor (m, n): range (1 - m)/(1 + n) .. (1 + m)/(1 - n)
    member: Callable[[Floats, Floats], Floats]  # (nominal member, factors) -> member
    measured: tuple[int, ...]  # state coordinates that the robot measures; the others are ground truth
    angle: int  # the one that wraps around
    scale: tuple[str, ...]  # per state coordinate: the parameter that says how much of a difference counts as one


def _drive(nominal: Floats, factors: Floats) -> Floats:
    """(ground_v, ground_w, response, acceleration, turn_acceleration, dead_zone); response = 1 - exp(-dt / lag)."""
    speed, turn, lag, slew = factors
    response = 1.0 - (1.0 - nominal[2]) ** (1.0 / lag)
    return np.array([speed * nominal[0], turn * nominal[1], response, slew * nominal[3], slew * nominal[4], nominal[5]])


def _pole(nominal: Floats, factors: Floats) -> Floats:
    """(cart, pole, centre, inertia, gain, damping, dt); inertia follows mass and length."""
    authority, mass, length = factors
    return nominal * np.array([1.0, mass, length, mass * length**2, authority, 1.0, 1.0])


ENSEMBLES = {
    "diff_drive": Ensemble(
        ("true speed", "true turn rate", "lag", "slew limits"),
        (("motion_mismatch", ""), ("motion_mismatch", ""), ("lag_mismatch", ""), ("braking_mismatch", "")),
        _drive,
        (3, 4),
        2,
        ("residual_way", "residual_way", "scan_residual_turn", "residual_speed", "residual_turn_rate"),
    ),
    "cart_pole": Ensemble(
        ("force per cart mass", "pole per cart mass", "pole length"),
        (("gain_mismatch", "mass_mismatch"), ("mass_mismatch", "mass_mismatch"), ("length_mismatch", "")),
        _pole,
        (0, 1, 2, 3),
        1,
        ("position_error", "angle_error", "speed_error", "turn_error"),
    ),
}


def shipped(robot: Robot) -> Floats:
    """[P, 2]: the range of each factor that the robot's mismatches allow."""

    def value(name: str) -> float:
        return float(getattr(robot.parameters, name)) if name else 0.0

    pairs = [(value(m), value(n)) for m, n in ENSEMBLES[robot.name].mismatches]
    return np.array([((1.0 - m) / (1.0 + n), (1.0 + m) / (1.0 - n)) for m, n in pairs])


def fit(robot: Robot, states: Floats, commands: Floats) -> Floats:
    """Factors [P] with which the nominal model best explains states [T + 1, S] under commands [T, A], one a period.

    Each tick is predicted from the state measured before it, so an unstable robot does not amplify errors. The shipped
    range is the prior: its half is one standard deviation about 1. NaN where the manoeuvre does not tell a factor, as
    with a slew limit that was never reached.
    """
    ensemble, model = ENSEMBLES[robot.name], robot.model
    scale = np.array([getattr(robot.parameters, name) for name in ensemble.scale]) / SPREAD
    width = np.maximum(np.abs(shipped(robot) - 1.0).max(axis=1), 0.01)
    columns, states = tuple(commands.T), states.copy()
    states[:, ensemble.angle] = np.unwrap(states[:, ensemble.angle])

    def residuals(factors: Floats) -> Floats:
        x, member = tuple(states[:-1].T), tuple(ensemble.member(model.dynamics.members[0], factors))
        for _ in range(model.dynamics.checks_per_tick):
            x = model.dynamics.step(x, columns, member, model.dynamics.dt)
        missed = (np.stack(np.broadcast_arrays(*x), axis=1) - states[1:]) / scale
        return np.concatenate([missed.ravel(), (factors - 1.0) / width])

    found = least_squares(residuals, np.ones(len(ensemble.names)), bounds=(LOWEST, HIGHEST))
    slopes = np.asarray(found.jac, dtype=float)
    error = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    return np.where(error < TOLD * width, found.x, np.nan)
