"""The last check of a configuration, for any robot: at rest with nothing around, more than the plan is certified."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats, Model, Robot
from safe_support_ql.safety.rollout import rollout_margins

OFFSET = 1.0e3  # scaled margin lent to every constraint, so that none ends a rollout before its lowest point


def objection(robot: Robot) -> str:
    """The constraint that leaves only the plan at rest with nothing around, and by how much; '' where there is more.

    Judged without delay, as in lock-step: what fails here fails everywhere. Under the plan alone a robot at rest stays
    there, so nothing would ever be collected. Takes milliseconds, where compiling the certificate takes seconds.
    """
    model, rest = robot.model, robot.at_rest()
    middle = len(model.centres) // 2
    for centre in sorted(range(len(model.centres)), key=lambda c: abs(c - middle)):
        aimed = replace(model, centres=model.centres[[centre]])
        margins = _margins(aimed, rest, _moves(robot, rest, centre))
        if margins.max(initial=-np.inf) >= model.band:
            return ""
    return f"nothing can be certified even at rest with nothing around: {_lacking(robot, rest, middle)}"


def _moves(robot: Robot, rest: Estimate, centre: int) -> Floats:
    """The lattice [K, A] without what the plan about `centre` does at rest."""
    lattice = np.array(list(product(*robot.lattice)), np.float32)
    model = robot.model
    plan = np.array(model.backup(tuple(rest.state), model.centres[centre, 0], model.constants), np.float32)
    return np.asarray(lattice[(lattice != plan).any(axis=1)], np.float64)


def _margins(model: Model, rest: Estimate, actions: Floats) -> Floats:
    """Scaled margins [K] under the only centre of `model`."""
    past = np.zeros((1, 0, actions.shape[1]))
    return rollout_margins(model, rest.state, past, (0,), actions, rest.points)[:, 0]


def _lacking(robot: Robot, rest: Estimate, centre: int) -> str:
    """What the best action lacks under `centre`."""
    model, actions = robot.model, _moves(robot, rest, centre)
    alone = [_only(model, i, centre) for i in range(len(model.margin_names))]
    parts = np.array([_margins(one, rest, actions) for one in alone]) - OFFSET  # [n, K]
    best = int(np.argmax(parts.min(axis=0)))
    worst = int(np.argmin(parts[:, best]))
    lowest = parts[worst, best]
    if not np.isfinite(lowest):
        end = (len(model.tightening) - 1) * model.dt
        return f"no rollout reaches the terminal set within its {end:.3g} s; a longer horizon may"
    return (
        f"the scaled margin of '{model.margin_names[worst]}' is {lowest:.3g}, must be {model.band:g} (band): "
        f"{model.band - lowest:.3g} short"
    )


def _only(model: Model, i: int, centre: int) -> Model:
    """`model` with the constraint i alone, which OFFSET keeps from ending a rollout."""

    def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
        return (model.margins(x, points, constants)[i],)

    return replace(
        model,
        margins=margins,
        tightening=model.tightening[:, [i]] - OFFSET * model.scale[i],
        scale=model.scale[[i]],
        centres=model.centres[[centre]],
    )
