"""The model of the base: lag and slew limit of the drive, braking as backup policy, terminal set, tightening, W.

Safe set: clearance of the whole (circular) footprint, and limits on speed and turn rate. Backup policy k: command zero
speed and zero turn rate. Terminal set S_f: standing. State: (x, y, yaw, v, w) in the robot's frame at the instant of
the scan, so a rollout starts at (0, 0, 0, v, w).

Among obstacles that move by themselves the claim is passive safety: no clearance is asked of a base that stands.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numba.extending import register_jitable

from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.footprint import from_outline
from safe_support_ql.robots.free_space import SPACING
from safe_support_ql.robots.geometry import nearest
from safe_support_ql.robots.model import Certificate, Detection, Dynamics, Floats, Model

STANDS = 1.0e3  # m, stands for the clearance of a base that needs none because it stands


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


@register_jitable
def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """True margins (clearance [m], speed [m/s], turn rate [rad/s])."""
    reach, speed_limit, turn_limit = constants[0], constants[1], constants[2]
    return nearest(x[0], x[1], points) - reach, speed_limit - np.abs(x[3]), turn_limit - np.abs(x[4])


@register_jitable
def margins_from(x: tuple[Any, ...], seen: tuple[Any, ...], h: tuple[Any, ...], constants: Any) -> tuple[Any, ...]:
    """Lower bounds of `margins`: the clearance shrinks by no more than the distance driven."""
    dx, dy = x[0] - seen[0], x[1] - seen[1]
    clearance = h[0] - np.sqrt(dx * dx + dy * dy)
    return clearance, constants[1] - np.abs(x[3]), constants[2] - np.abs(x[4])


def terminal(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> Any:
    """Standing: a circular footprint that turns on the spot loses no clearance."""
    return np.abs(x[3]) <= constants[3]


# The same with corners: constants = (clearance, speed limit, turn limit, terminal speed, rho, *outline).
@register_jitable
def outline_margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """True margins (clearance [m], speed [m/s], turn rate [rad/s])."""
    clearance = from_outline(x[0], x[1], x[2], points, constants[5:], constants[4]) - constants[0]
    return clearance, constants[1] - np.abs(x[3]), constants[2] - np.abs(x[4])


@register_jitable
def outline_margins_from(x: tuple[Any, ...], seen: tuple[Any, ...], h: tuple[Any, ...], constants: Any) -> Any:
    """Lower bounds of `outline_margins`: no corner moves farther than the axle does and the farthest one turns."""
    dx, dy = x[0] - seen[0], x[1] - seen[1]
    turned = 2.0 * constants[4] * np.abs(np.sin(0.5 * (x[2] - seen[2])))
    return (
        h[0] - np.sqrt(dx * dx + dy * dy) - turned,
        constants[1] - np.abs(x[3]),
        constants[2] - np.abs(x[4]),
    )


@register_jitable
def outline_terminal(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> Any:
    """Standing: no corner is faster than the terminal speed."""
    return np.abs(x[3]) + constants[4] * np.abs(x[4]) <= constants[3]


def _passive(margins: Any, margins_from: Any) -> tuple[Any, Any]:
    """These margins, without the clearance of a base that stands, and lower bounds of them.

    For obstacles that move, see docs/certificate_diff_drive.md, section 4. Of a disc, constants[4] is its radius: where
    somebody may touch it, a disc that turns on the spot does not stand.
    """

    def passive(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
        h = margins(x, points, constants)
        return h[0] + STANDS * outline_terminal(x, constants, constants), h[1], h[2]

    def passive_from(x: tuple[Any, ...], seen: tuple[Any, ...], h: tuple[Any, ...], constants: Any) -> tuple[Any, ...]:
        known = (h[0] - STANDS * outline_terminal(seen, constants, constants), h[1], h[2])
        least = margins_from(x, seen, known, constants)
        return least[0] + STANDS * outline_terminal(x, constants, constants), least[1], least[2]

    return passive, passive_from


# (margins, lower bounds), by whether the footprint has corners and whether obstacles move.
MARGINS = {(False, False): (margins, margins_from), (True, False): (outline_margins, outline_margins_from)}
MARGINS |= {(corners, True): _passive(*MARGINS[corners, False]) for corners in (False, True)}


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
    seconds = np.asarray(np.arange(checks + 1) * dt, np.float64)
    speed = max(0.1, (p.speed + p.speed_margin) * (1 - 1 / fast))
    top = p.speed + p.speed_margin - speed  # largest speed by odometry under a certified action
    between = 0.5 * fast * top * dt  # half the distance between two checks: the nearest point may lie there
    # A speed error persists while the slew limit acts: through two full reversals at most.
    slewing = 2 * (p.speed + p.reverse_speed) / (p.acceleration * (1 - p.braking_mismatch))
    estimate = fast * p.margin_speed_estimate * np.minimum(seconds, slewing)
    clearance = p.margin_model + p.between_members + between + p.margin_terminal + estimate + p.margin_growth * seconds
    # The safe set limits true speeds, and the state holds measured ones: they differ by at most the factor `fast`.
    turn = max(0.3, (p.turn_rate + p.turn_margin) * (1 - 1 / fast))
    if p.obstacle_speed:
        clearance = clearance + _walking(p, dt, seconds, float(clearance[0]))
    if p.outline:
        clearance = clearance + _turning(p, dt, seconds, fast, p.turn_rate + p.turn_margin - turn, float(clearance[0]))
    seen, seen_from = MARGINS[bool(p.outline), p.obstacle_speed > 0.0]
    limits = (p.speed + p.speed_margin, p.turn_rate + p.turn_margin, p.terminal_speed)
    constants: tuple[float, ...] = (p.footprint_radius + p.clearance, *limits)
    if p.outline:
        constants = (p.clearance, *limits, p.farthest, *p.outline)
    elif p.obstacle_speed:
        constants += (p.farthest,)
    w = (p.residual_distance, p.residual_distance, p.residual_turn, p.residual_speed, p.residual_turn_rate)
    residual = np.array(w)
    tightening = np.stack([clearance, np.full_like(seconds, speed), np.full_like(seconds, turn)], axis=1)
    return Model(
        dynamics=Dynamics(step=step, members=members, dt=dt, checks_per_tick=p.checks_per_tick),
        certificate=Certificate(
            backup=backup,
            margins=seen,
            margins_from=seen_from,
            terminal=outline_terminal if p.outline or p.obstacle_speed else terminal,
            constants=constants,
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


def _walking(p: Parameters, dt: float, seconds: Floats, others: float) -> Floats:
    """What obstacles that move since the instant of the state add to the tightening of the clearance [T + 1].

    A base that stands at one check may have started since, so what comes near counts until the next one.
    """
    return np.asarray(p.obstacle_speed * (seconds + dt) + _chord(p.farthest + p.clearance + others))


def _chord(least: float) -> float:
    """How much nearer the line between two points of the boundary may be than both, which are `least` away [m]."""
    return float(least - np.sqrt(least**2 - SPACING**2 / 4))


def _turning(p: Parameters, dt: float, seconds: Floats, fast: float, top: float, others: float) -> Floats:
    """What errors of the heading and the outline's corners add to the tightening of the clearance [T + 1].

    `top`: largest turn rate by odometry under a certified action [rad/s]; `others`: the tightening without this, at the
    state itself. See docs/certificate_diff_drive.md, section 4.
    """
    slewing = 4 * p.turn_rate / (p.turn_acceleration * (1 - p.braking_mismatch))  # as for the speed
    at_once = p.margin_model_turn + p.between_members_turn + 0.5 * fast * top * dt
    lasting = fast * p.margin_turn_estimate * np.minimum(seconds, slewing) + p.margin_growth_turn * seconds
    # A corner may lie between two points of the boundary: nearer to the line between them than to either.
    chord = _chord(p.clearance + others + p.farthest * at_once)
    return np.asarray(p.farthest * (at_once + lasting) + chord)
