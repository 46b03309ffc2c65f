"""The last checks of a configuration, for any robot: what is certified at rest with nothing around, and at starts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.base import Estimate, Robot
from safe_support_ql.robots.model import Floats, Model, advance, columns
from safe_support_ql.safety.gate import OPENING_STATES
from safe_support_ql.safety.rollout import rollout_margins

OFFSET = 1.0e3  # scaled margin lent to every constraint, so that none ends a rollout before its lowest point


def objection(robot: Robot) -> str:
    """The constraint that leaves only the plan at rest with nothing around, and by how much; '' where there is more.

    Or the start of an episode at which the gate would not open.

    Judged without delay, as in lock-step: what fails here fails everywhere. Under the plan alone a robot at rest stays
    there, so nothing would ever be collected. Takes milliseconds, where compiling the certificate takes seconds.
    """
    rest, certificate = robot.at_rest(), robot.model.certificate
    distance = np.linalg.norm(certificate.centres - certificate.centres.mean(axis=0), axis=1)
    order = np.argsort(distance, kind="stable").tolist()
    for centre in order:
        margins = _margins(_aimed(robot.model, centre), rest, _moves(robot, rest, centre))
        if margins.max(initial=-np.inf) >= certificate.band:
            return _fallen(robot)
    return f"nothing can be certified even at rest with nothing around: {_lacking(robot, rest, order[0])}"


def _fallen(robot: Robot) -> str:
    """The start of an episode at which the gate does not open: it sends silence, and the robot falls there."""
    if (start := _uncertified(robot, 1.0)) is None:
        return ""
    at = ", ".join(f"{name} = {value:.3g}" for name, value in zip(robot.state_names, start, strict=True))
    share = next((share for share in np.arange(9, 0, -1) / 10 if _uncertified(robot, share) is None), 0.0)
    names = [field.name for field in fields(robot.parameters) if field.name.startswith("start")]
    silent = OPENING_STATES - 1
    return (
        f"no plan is certified at the start {at}, or after {silent} periods of silence, while the gate is closed; "
        f"{', '.join(names) or 'outermost_starts'} times {share} would do"
    )


def _uncertified(robot: Robot, share: float) -> Floats | None:
    """The first of the robot's outermost starts, at this `share` of their distance from rest, where no gate opens."""
    rest = robot.at_rest().state
    starts = rest + share * (robot.outermost_starts() - rest)
    if not len(starts):
        return None
    certified = _certified(robot, _while_closed(robot, starts)).reshape(-1, len(starts)).all(axis=0)
    return None if certified.all() else np.asarray(starts[np.argmin(certified)], np.float64)


def _while_closed(robot: Robot, starts: Floats) -> Floats:
    """States [n N, S] at which a plan has to certify: starts[N, S], and where silence leads by any member."""
    dynamics = robot.model.dynamics
    states = [starts]
    for member in dynamics.members:
        x = columns(starts)
        for _ in range(OPENING_STATES - 1):
            silence, parameters = columns(np.tile(robot.silence, (len(starts), 1))), columns(member[None])
            x = advance(dynamics, x, silence, parameters, dynamics.checks_per_tick)
            states.append(np.stack(x, axis=1))
    return np.vstack(states)


def _certified(robot: Robot, states: Floats) -> NDArray[np.bool_]:
    """Whether the plan about some centre is certified at each of states[N, S], with nothing around."""
    model, points = robot.model, robot.at_rest().points
    past, found = np.zeros((1, 0, len(robot.action_names))), np.zeros(len(states), bool)
    for index in range(len(model.certificate.centres)):
        plan = model.certificate.backup(columns(states), model.certificate.centre(index), model.certificate.constants)
        actions = np.stack(np.broadcast_arrays(*plan, states[:, 0])[:-1], axis=1)
        # Every action with a state of its own: one rollout for all.
        margins = rollout_margins(_aimed(model, index), states.T[:, :, None], past, (0,), actions, points)
        found |= margins[:, 0] >= 0.0
    return found


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
