"""The certificate's rollout, vectorised in NumPy: the readable definition, and the oracle of the compiled one."""

from __future__ import annotations

from itertools import product

import numpy as np

from safe_support_ql.robots.model import Floats, Model

UNREACHED = -np.inf


def rollout_margins(
    model: Model, state: Floats, past: Floats, delays: tuple[int, ...], actions: Floats, points: Floats
) -> Floats:
    """Scaled margin [K, C] of every candidate under every centre (docs/method.md, certified(s, a)).

    For each ensemble member, past, delay and hold: earlier commands act for the delay, the candidate for the hold, then
    the backup policy, sampled once per tick and held in between, until S_f is reached. The margin is the smallest
    (h_i - m_{i,t}) / scale_i met on the way over all of them, the state itself (t = 0) included; -inf where S_f is not
    reached within the horizon or a number is not finite. state[S], actions[K, A], points[M, d]; delays in checks.
    past[P, D, A]: P possible sequences of the commands that act at the first D checks, D >= every delay.
    """
    certificate = model.certificate
    margins = np.full((len(actions), len(certificate.centres)), np.inf)
    with np.errstate(invalid="ignore"):  # a state that is no number is an answer here (-inf), not an accident
        for c in range(len(certificate.centres)):
            for before, delay, hold in product(past, delays, certificate.holds):
                one = _one(model, state, before[:delay], hold, actions, certificate.centre(c), points)
                margins[:, c] = np.minimum(margins[:, c], one)
    return margins


def _one(
    model: Model,
    state: Floats,
    past: Floats,
    hold: int,
    actions: Floats,
    centre: tuple[float, ...],
    points: Floats,
) -> Floats:
    certificate, dynamics = model.certificate, model.dynamics
    shape = (len(actions), len(dynamics.members))
    members = tuple(np.broadcast_to(column, shape) for column in dynamics.members.T)
    x = tuple(np.full(shape, value) for value in state)
    asked = tuple(np.broadcast_to(column[:, None], shape) for column in actions.T)
    command, delay = asked, len(past)
    margin = np.full(shape, np.inf)
    reached = np.zeros(shape, bool)
    for t, tightening in enumerate(certificate.tightening):
        h = certificate.margins(x, points, certificate.constants)
        for i, value in enumerate(h):
            scaled = (value - tightening[i]) / certificate.scale[i]
            # A comparison with NaN is false: `where` keeps "not finite" from ever raising a margin.
            margin = np.where(
                reached, margin, np.where(scaled < margin, scaled, np.where(np.isfinite(scaled), margin, UNREACHED))
            )
        if t >= delay + hold:
            reached = reached | certificate.terminal(x, centre, certificate.constants)
            if np.all(reached | (margin < 0)):
                break
        if t < delay:
            command = tuple(np.full(shape, value) for value in past[t])
        elif t < delay + hold:
            command = asked
        elif (t - delay - hold) % dynamics.checks_per_tick == 0:
            command = certificate.backup(x, centre, certificate.constants)
        x = dynamics.step(x, command, members, dynamics.dt)
    return np.asarray(np.where(reached, margin, np.minimum(margin, UNREACHED)).min(axis=1))
