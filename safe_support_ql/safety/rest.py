"""The last check of a configuration, for any robot: at rest with nothing around, more than the plan is certified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Robot
from safe_support_ql.robots.model import Floats, Model
from safe_support_ql.safety.rollout import rollout_margins

OFFSET = 1.0e3  # scaled margin lent to every constraint, so that none ends a rollout before its lowest point


def objection(robot: Robot) -> str:
    """The constraint that leaves only the plan at rest with nothing around, and by how much; '' where there is more.

    Judged without delay, as in lock-step: what fails here fails everywhere. Under the plan alone a robot at rest stays
    there, so nothing would ever be collected. Takes milliseconds, where compiling the certificate takes seconds.
    """
    rest, certificate = robot.at_rest(), robot.model.certificate
    distance = np.linalg.norm(certificate.centres - certificate.centres.mean(axis=0), axis=1)
    order = np.argsort(distance, kind="stable").tolist()
    for centre in order:
        margins = _margins(_aimed(robot.model, centre), rest, _moves(robot, rest, centre))
        if margins.max(initial=-np.inf) >= certificate.band:
            return ""
    return f"nothing can be certified even at rest with nothing around: {_lacking(robot, rest, order[0])}"


def _aimed(model: Model, centre: int, **changes: Any) -> Model:
    """`model` with one centre alone, and other changes of its certificate."""
    certificate = replace(model.certificate, centres=model.certificate.centres[[centre]], **changes)
    return replace(model, certificate=certificate)


def _moves(robot: Robot, rest: Estimate, centre: int) -> Floats:
    """Discrete candidates [K, A] without what the plan about `centre` does at rest."""
    certificate = robot.model.certificate
    candidates = robot.candidates(False)(np.random.default_rng(0), rest.state)
    plan = np.array(
        certificate.backup(tuple(rest.state), certificate.centre(centre), certificate.constants), np.float32
    )
    return np.asarray(candidates[(candidates != plan).any(axis=1)], np.float64)


def _margins(model: Model, rest: Estimate, actions: Floats) -> Floats:
    """Scaled margins [K] under the only centre of `model`."""
    past = np.zeros((1, 0, actions.shape[1]))
    return rollout_margins(model, rest.state, past, (0,), actions, rest.points)[:, 0]


def _lacking(robot: Robot, rest: Estimate, centre: int) -> str:
    """What the best action lacks under `centre`."""
    certificate, actions = robot.model.certificate, _moves(robot, rest, centre)
    alone = [_only(robot.model, i, centre) for i in range(len(certificate.margin_names))]
    parts = np.array([_margins(one, rest, actions) for one in alone]) - OFFSET  # [n, K]
    best = int(np.argmax(parts.min(axis=0)))
    worst = int(np.argmin(parts[:, best]))
    lowest = parts[worst, best]
    if not np.isfinite(lowest):
        end = (len(certificate.tightening) - 1) * robot.model.dynamics.dt
        return f"no rollout reaches the terminal set within its {end:.3g} s; a longer horizon may"
    return (
        f"the scaled margin of '{certificate.margin_names[worst]}' is {lowest:.3g}, must be {certificate.band:g} "
        f"(band): {certificate.band - lowest:.3g} short"
    )


def _only(model: Model, i: int, centre: int) -> Model:
    """`model` with the constraint i alone, which OFFSET keeps from ending a rollout."""
    certificate = model.certificate

    def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
        return (certificate.margins(x, points, constants)[i],)

    return _aimed(
        model,
        centre,
        margins=margins,
        tightening=certificate.tightening[:, [i]] - OFFSET * certificate.scale[i],
        scale=certificate.scale[[i]],
    )
