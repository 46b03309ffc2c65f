"""Estimates a robot's physical parameters from one recorded manoeuvre, by least squares over its ticks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.claims import Ensemble
from safe_support_ql.robots.model import advance, columns

SPREAD = 5.0  # a parameter of `scale`, which no tick of an unchanged robot reaches, is this many standard deviations
TOLD = 1.0 / 3.0  # a manoeuvre shows a factor if its standard error is below this share of the factor's range
LOWEST, HIGHEST = 0.2, 5.0  # bounds of the search for a factor


def shipped(robot: Robot, ensemble: Ensemble) -> Floats:
    """[P, 2]: for each factor, the range that the robot's mismatches cover."""

    def value(name: str) -> float:
        return float(getattr(robot.parameters, name)) if name else 0.0

    pairs = [(value(m), value(n)) for m, n in ensemble.mismatches]
    return np.array([((1.0 - m) / (1.0 + n), (1.0 + m) / (1.0 - n)) for m, n in pairs])


def fit(robot: Robot, ensemble: Ensemble, states: Floats, commands: Floats) -> Floats:
    """Factors [P] with which the nominal model best explains states [T + 1, S] under commands [T, A], one a period.

    Each tick is predicted from the state measured before it, so an unstable robot does not amplify errors. The prior
    has mean 1, and half the shipped range as its standard deviation. A factor that the manoeuvre does not show is NaN,
    for example a slew limit that was never reached.
    """
    dynamics = robot.model.dynamics
    scale = np.array([getattr(robot.parameters, name) for name in ensemble.scale]) / SPREAD
    width = np.maximum(np.abs(shipped(robot, ensemble) - 1.0).max(axis=1), 0.01)
    held, states = columns(commands), states.copy()
    if ensemble.angle is not None:
        states[:, ensemble.angle] = np.unwrap(states[:, ensemble.angle])

    def residuals(factors: Floats) -> Floats:
        member = columns(ensemble.member(dynamics.members[0], factors))
        x = advance(dynamics, columns(states[:-1]), held, member, dynamics.checks_per_tick)
        missed = (np.stack(np.broadcast_arrays(*x), axis=1) - states[1:]) / scale
        return np.concatenate([missed.ravel(), (factors - 1.0) / width])

    found = least_squares(residuals, np.ones(len(ensemble.names)), bounds=(LOWEST, HIGHEST))
    slopes = np.asarray(found.jac, dtype=float)
    error = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    return np.where(error < TOLD * width, found.x, np.nan)
