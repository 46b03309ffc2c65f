"""How the carriage moves and what certifies an action.

Safe set: |x| <= limit. Backup policy k: brake (command speed 0). Terminal set S_f: slower than terminal_speed.
State (x [m], v [m/s]); action: the speed that the drive aims at [m/s].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_support_ql.parameters import param
from safe_support_ql.robots.model import Certificate, Detection, Dynamics, Model

CONTROL_HZ = 20


@dataclass(frozen=True)
class Parameters:
    """Everything that a user may set; SI units."""

    limit: float = param(0.5, "m", 0.1, 2.0, "safe set: |x| is at most this")
    speed: float = param(0.5, "m/s", 0.05, 1.0, "largest commanded speed")
    acceleration: float = param(4.0, "m/s^2", 0.1, 20.0, "of the nominal drive, when it speeds up and when it brakes")
    # Ensemble.
    gain_mismatch: float = param(0.1, "1", 0.0, 0.5, "true speed per commanded speed, +- this share")
    acceleration_mismatch: float = param(0.2, "1", 0.0, 0.5, "acceleration, +- this share")
    # Margins.
    position_error: float = param(0.002, "m", 0.0, 0.1, "e_0: error of the measured x")
    speed_error: float = param(0.005, "m/s", 0.0, 0.1, "e_0: error of the measured v")
    growth: float = param(0.012, "m/s", 0.0, 1.0, "how fast x departs from every member while the carriage moves")
    between_members: float = param(0.004, "m", 0.0, 0.1, "how much farther a drive between the members may get")
    command_delay: float = param(0.0005, "s", 0.0, 0.02, "a command acts this much later than assumed, at most")
    terminal_speed: float = param(0.01, "m/s", 0.0, 0.1, "S_f: |v| at most this")
    drive_timeout: float = param(0.1, "s", 0.05, 1.0, "the drive brakes by itself this long after a command")
    horizon: float = param(1.0, "s", 0.5, 10.0, "longest rollout")
    band: float = param(0.01, "m", 0.0, 0.2, "width of the hysteresis band")
    # Task.
    span: float = param(0.3, "m", 0.0, 2.0, "goals and starts are drawn within +- this")
    episode_s: float = param(8.0, "s", 1.0, 600.0, "time limit of an episode")


# The functions of the certificate work on numbers and on arrays alike: arithmetic and NumPy's functions, no `if`.


def step(x: tuple[Any, ...], u: tuple[Any, ...], member: tuple[Any, ...], dt: float) -> tuple[Any, ...]:
    """The state after dt seconds of u held; member = (true speed per commanded speed, acceleration)."""
    gain, acceleration = member
    most = acceleration * dt
    change = np.minimum(np.maximum(gain * u[0] - x[1], -most), most)
    speed = x[1] + change
    # It changes speed for |change| / acceleration seconds, and keeps the new one for the rest of dt.
    return x[0] + dt * speed - 0.5 * change * np.abs(change) / acceleration, speed


def backup(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> tuple[Any, ...]:
    """Brake; 0 times x has the shape of x."""
    return (0.0 * x[1],)


def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """How far it is to the end of the safe set."""
    return (constants[0] - np.abs(x[0]),)


def terminal(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> Any:
    """Slow enough: what the carriage rolls on from here is part of the tightening."""
    return np.abs(x[1]) <= constants[1]


def build_model(p: Parameters) -> Model:
    """The model with `p`."""
    dt = 1.0 / CONTROL_HZ
    # The nominal member first, then the corners of the box. between_members is for what lies between them.
    members = [[1.0, p.acceleration]]
    members += [
        [gain, p.acceleration * share]
        for gain in (1.0 - p.gain_mismatch, 1.0 + p.gain_mismatch)
        for share in (1.0 - p.acceleration_mismatch, 1.0 + p.acceleration_mismatch)
    ]
    weakest, strongest = min(row[1] for row in members), max(row[1] for row in members)
    # A difference of two speeds never grows, because every command pulls both to the same speed. So x departs by
    # speed_error per second at most, and by no more than `late` for commands that act command_delay later.
    late = 2.0 * strongest * p.command_delay
    departs = p.speed_error + late + p.growth
    t = dt * np.arange(round(p.horizon / dt) + 1, dtype=np.float64)
    tightening = (
        p.position_error
        + departs * t
        + p.between_members
        + dt**2 / 8.0 * strongest  # how far x may exceed both the check before and the check after
        + 0.5 * (p.terminal_speed + departs) ** 2 / weakest  # how far it rolls on inside S_f
    )
    # W: a prediction for the next state misses by both measurements, by late commands and by what the model misses.
    residual = np.array([2.0 * p.position_error + dt * departs, 2.0 * p.speed_error + late])
    return Model(
        dynamics=Dynamics(step=step, members=np.array(members), dt=dt, checks_per_tick=1),
        certificate=Certificate(
            backup=backup,
            margins=margins,
            terminal=terminal,
            constants=(p.limit, p.terminal_speed),
            centres=np.zeros((1, 1)),  # there is one way to brake
            margin_names=("rail",),
            tightening=tightening[:, None],
            scale=np.ones(1),  # scaled margins are metres
            holds=tuple(sorted({1, int(np.ceil(p.drive_timeout / dt - 1e-9))})),
            band=p.band,
            noise_allowance=p.position_error,
            step_residual=departs * dt,
            band_budget=0.05,
        ),
        detection=Detection(residual=residual, slack=residual, uneven=0.01),
    )
