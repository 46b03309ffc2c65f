"""Whether the parts of a robot fit together; another rule goes here. Without it, a mistake is a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.model import Columns, columns


def inconsistency(robot: Robot) -> str:
    """The first part of `robot` that is missing or does not fit the others, by its name; '' if there is none."""
    if missing := [name for name in Robot.__annotations__ if not hasattr(robot, name)]:
        return f"it has no '{missing[0]}', see Robot in robots/base.py"
    certificate, detection = robot.model.certificate, robot.model.detection
    states, actions = len(robot.state_names), len(robot.action_names)
    seen, margins = len(robot.observation_names), len(certificate.margin_names)
    one_per: dict[str, tuple[Any, int, str]] = {
        "at_rest().state": (robot.at_rest().state, states, "state_names"),
        "action_units": (robot.action_units, actions, "action_names"),
        "action_low": (robot.action_low, actions, "action_names"),
        "action_high": (robot.action_high, actions, "action_names"),
        "silence": (robot.silence, actions, "action_names"),
        "lattice": (robot.lattice, actions, "action_names"),
        "continuous_points": (robot.continuous_points, actions, "action_names"),
        "observation_units": (robot.observation_units, seen, "observation_names"),
        "observation_scale": (robot.observation_scale, seen, "observation_names"),
        "model.certificate.scale": (certificate.scale, margins, "margin_names"),
        "model.detection.residual": (detection.residual, states, "state_names"),
        "model.detection.slack": (detection.slack, states, "state_names"),
    }
    for name, (value, wanted, by) in one_per.items():
        found: object = len(list(value)) if np.iterable(value) else "no length"
        if found != wanted:
            return f"{name} has {found}, must have {wanted}: one for each of {by}"
    tables = {
        "tightening": certificate.tightening,
        "centres": certificate.centres,
        "members": robot.model.dynamics.members,
    }
    for name, table in tables.items():
        if np.ndim(table) != 2:
            return f"{name} has {np.ndim(table)} dimensions, must have 2"
    if certificate.tightening.shape[1] != margins:
        return (
            f"tightening has {certificate.tightening.shape[1]} columns, must have {margins}: one for each margin_name"
        )
    channels = {channel.name for channel in robot.channels}
    if odd := sorted(channels ^ robot.world.sensors.keys()):
        why = "is not filled" if odd[0] in channels else "is no channel"
        return f"world.sensors: '{odd[0]}' {why}; the channels are {', '.join(sorted(channels))}"
    return _functions(robot, states, actions, margins)


def _functions(robot: Robot, states: int, actions: int, margins: int) -> str:
    """The first function of the model that does not take arrays, or returns another number of values than it must."""
    dynamics, certificate, rest = robot.model.dynamics, robot.model.certificate, robot.at_rest()
    x = columns(np.tile(rest.state, (2, 1)))
    u = columns(np.zeros((2, actions)))
    member, centre, constants = columns(dynamics.members[[0, 0]]), certificate.centre(0), certificate.constants
    calls: dict[str, tuple[Callable[[], Columns], int]] = {
        "step": (lambda: dynamics.step(x, u, member, dynamics.dt), states),
        "backup": (lambda: certificate.backup(x, centre, constants), actions),
        "margins": (lambda: certificate.margins(x, rest.points, constants), margins),
        "terminal": (lambda: (certificate.terminal(x, centre, constants),), 1),
    }
    for name, (call, wanted) in calls.items():
        try:
            values = call()
        except Exception as error:  # whatever somebody else's function raises
            only = "it must hold arithmetic and NumPy's functions, and no `if`"
            return f"model: {name}() fails on arrays ({type(error).__name__}: {error}); {only}"
        if not isinstance(values, tuple) or len(values) != wanted:
            return f"model: {name}() must return a tuple of {wanted}, not {values!r:.60}"
    return ""
