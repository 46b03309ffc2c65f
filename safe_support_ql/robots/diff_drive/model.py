"""The model of the base: lag and slew limit of the drive, braking as backup policy, terminal set, tightening, W.

Safe set: clearance of the whole (circular) footprint, and limits on speed and turn rate. Backup policy k: command zero
speed and zero turn rate. Terminal set S_f: standing. State: (x, y, yaw, v, w) in the robot's frame at the instant of
the scan, so a rollout starts at (0, 0, 0, v, w).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.geometry import nearest
from safe_support_ql.robots.model import Certificate, Detection, Dynamics, Model


def step(x: tuple[Any, ...], u: tuple[Any, ...], member: tuple[Any, ...], dt: float) -> tuple[Any, ...]:
    """First-order lag with slew limit, then a unicycle about the mean velocity of the step.

    x = (x, y, yaw, v, w), v and w as the odometry measures them; u = (speed, turn rate) commanded;
    member = (ground_v, ground_w, response, acceleration, turn_acceleration, dead_zone): the first two are true motion
    per odometry unit, and `response` = 1 - exp(-dt / lag).
    """
    px, py, yaw, v, w = x
    ground_v, ground_w, response, acceleration, turn_acceleration, dead_zone = member
    wanted = u[0] * (np.abs(u[0]) >= dead_zone)  # compiled, np.where would turn a scalar into an array
    dv = np.minimum(np.maximum((wanted - v) * response, -acceleration * dt), acceleration * dt)
    dw = np.minimum(np.maximum((u[1] - w) * response, -turn_acceleration * dt), turn_acceleration * dt)
    turn = ground_w * (w + 0.5 * dw) * dt
    distance = ground_v * (v + 0.5 * dv) * dt
    middle = yaw + 0.5 * turn
    return px + distance * np.cos(middle), py + distance * np.sin(middle), yaw + turn, v + dv, w + dw


def backup(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> tuple[Any, ...]:
    """Brake: zero speed and zero turn rate in every state."""
    return 0.0 * x[3], 0.0 * x[4]


def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """True margins (clearance [m], speed [m/s], turn rate [rad/s])."""
    reach, speed_limit, turn_limit = constants[0], constants[1], constants[2]
    return nearest(x[0], x[1], points) - reach, speed_limit - np.abs(x[3]), turn_limit - np.abs(x[4])


def margins_from(x: tuple[Any, ...], seen: tuple[Any, ...], h: tuple[Any, ...], constants: Any) -> tuple[Any, ...]:
    """Lower bounds of `margins`: the clearance shrinks by no more than the distance driven."""
    dx, dy = x[0] - seen[0], x[1] - seen[1]
    clearance = h[0] - np.sqrt(dx * dx + dy * dy)
    return clearance, constants[1] - np.abs(x[3]), constants[2] - np.abs(x[4])


def terminal(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> Any:
    """Standing: a circular footprint that turns on the spot loses no clearance."""
    return np.abs(x[3]) <= constants[3]


def build_model(p: Parameters, period: float) -> Model:
    """The model with `p` for control periods of `period` seconds."""
    fast, slow = 1 + p.motion_mismatch, 1 - p.motion_mismatch
    drive = (p.acceleration, p.turn_acceleration, p.dead_zone)
    weak = (p.acceleration * (1 - p.braking_mismatch), p.turn_acceleration * (1 - p.braking_mismatch), p.dead_zone)
    dt = period / p.checks_per_tick
    late, early = p.lag * (1 + p.lag_mismatch), p.lag * (1 - p.lag_mismatch)
    nominal, slack, quick = (1.0 - np.exp(-dt / lag) for lag in (p.lag, late, early))
    # The nominal model; all corners with the longest distance per odometry unit; and of those with the shortest, the
    # two that lose most clearance beyond them. What the box may still lose is covered by between_members.
    far, near = product((fast,), (fast, slow), (slack, quick), (weak, drive)), product((slow,), (fast, slow))
    rows = [(v, w, lag, *brakes) for v, w, lag, brakes in far] + [(v, w, slack, *drive) for v, w in near]
    members = np.array([(1, 1, nominal, *drive), *rows])
    checks = int(np.ceil(p.horizon / dt))
    seconds = np.arange(checks + 1) * dt
    speed = max(0.1, (p.speed + p.speed_margin) * (1 - 1 / fast))
    top = p.speed + p.speed_margin - speed  # largest speed by odometry under a certified action
    between = 0.5 * fast * top * dt  # half the distance between two checks: the nearest point may lie there
    # A speed error persists while the slew limit acts: through two full reversals at most.
    slewing = 2 * (p.speed + p.reverse_speed) / (p.acceleration * (1 - p.braking_mismatch))
    estimate = fast * p.margin_speed_estimate * np.minimum(seconds, slewing)
    clearance = p.margin_model + p.between_members + between + p.margin_terminal + estimate + p.margin_growth * seconds
    # The safe set limits true speeds, and the state holds measured ones: they differ by at most the factor `fast`.
    turn = max(0.3, (p.turn_rate + p.turn_margin) * (1 - 1 / fast))
    w = (p.residual_distance, p.residual_distance, p.residual_turn, p.residual_speed, p.residual_turn_rate)
    residual = np.array(w)
    tightening = np.stack([clearance, np.full_like(seconds, speed), np.full_like(seconds, turn)], axis=1)
    return Model(
        dynamics=Dynamics(step=step, members=members, dt=dt, checks_per_tick=p.checks_per_tick),
        certificate=Certificate(
            backup=backup,
            margins=margins,
            margins_from=margins_from,
            terminal=terminal,
            constants=(
                p.footprint_radius + p.clearance,
                p.speed + p.speed_margin,
                p.turn_rate + p.turn_margin,
                p.terminal_speed,
            ),
            centres=np.zeros((1, 1)),
            margin_names=("clearance", "speed", "turn_rate"),
            tightening=tightening,
            scale=np.ones(3),
            holds=(p.checks_per_tick, int(np.ceil(p.drive_timeout / dt))),
            band=p.band,
            noise_allowance=p.noise_allowance,
            step_residual=p.step_residual,
            band_budget=p.band_budget,
        ),
        detection=Detection(residual=residual, slack=3.0 * residual, uneven=0.1),
    )
