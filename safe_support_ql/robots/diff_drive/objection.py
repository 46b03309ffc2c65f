"""Refuses parameters of the base with which no certificate holds; a new such rule goes here."""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import LATE
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.model import Model, advance, columns

LONGEST_STOP = 10.0  # s, what the largest horizon may hold


def objection(p: Parameters, model: Model, period: float, reach: float) -> str:
    """See Robot.objection. Points farther away than `reach` [m] do not matter to a certificate."""
    if p.policy_rays > p.scan_rays:
        return f"policy_rays is {p.policy_rays}, must be at most scan_rays = {p.scan_rays}"
    braking = p.terminal_speed / (2 * p.acceleration * (1 - p.braking_mismatch))  # s, while the slew limit acts
    if p.outline:  # whose farthest corner may be as fast by turning
        braking = max(braking, braking * p.acceleration / (p.farthest * p.turn_acceleration))
    creep = (1 + p.motion_mismatch) * p.terminal_speed * (p.lag * (1 + p.lag_mismatch) + braking)
    gap = reach * 2 * np.pi / p.scan_rays
    if gap > 2 * p.obstacle_half_width_min:
        return (
            f"obstacle_half_width_min is {p.obstacle_half_width_min:g} m, must be half of the {gap:.3f} m between "
            "two rays at the end of a stop; or drive slower, or use more rays"
        )
    if p.drive_timeout < 2 * period:
        return f"drive_timeout is {p.drive_timeout:g} s, must be at least {2 * period:g} s: a command may be late"
    if creep > p.margin_terminal:
        return f"margin_terminal is {p.margin_terminal:g} m, must cover the {creep:.4f} m driven below terminal_speed"
    if 3 * p.scan_noise > p.lidar_noise + 1e-9:
        return f"lidar_noise is {p.lidar_noise:g} m, must be at least 3 scan_noise = {3 * p.scan_noise:g} m"
    if 0.0 < p.band <= p.noise_allowance:
        return f"noise_allowance is {p.noise_allowance:g} m, must be below band = {p.band:g} m: nothing would latch"
    if p.step_residual == 0.0:
        return "step_residual is 0 m, must be more: the band's budget would never be spent"
    return _stuck(p, model, period, reach) or _cramped(p, model, reach) or _slow(p, model)


def _stuck(p: Parameters, model: Model, period: float, reach: float) -> str:
    """Why nothing is ever certified at full speed, or why no command moves the base; '' if neither is the case."""
    if p.input_age < LATE * period:
        return f"input_age is {p.input_age:g} s, must be at least {LATE * period:g} s: a cycle may be that late"
    if p.dead_zone > p.speed:
        return f"dead_zone is {p.dead_zone:g} m/s, must be at most speed = {p.speed:g} m/s: no command would act"
    certificate, dynamics = model.certificate, model.dynamics
    # The horizon must hold the age of the state, the longest hold, and a stop from full speed.
    start = (0.0, 0.0, 0.0, max(p.speed, p.reverse_speed), p.turn_rate)
    x, members = columns(np.tile(start, (len(dynamics.members), 1))), columns(dynamics.members)
    checks, centre = p.checks_per_tick + max(certificate.holds), certificate.centre(0)
    most = checks + round(LONGEST_STOP / dynamics.dt)
    while not certificate.terminal(x, centre, certificate.constants).all():
        if checks > most:
            return f"a stop from full speed takes more than {LONGEST_STOP:g} s: lower speed, or raise acceleration"
        x = advance(dynamics, x, certificate.backup(x, centre, certificate.constants), members, 1)
        checks += 1
    if checks >= len(certificate.tightening):
        return (
            f"horizon is {p.horizon:g} s, must be at least {checks * dynamics.dt:g} s: a period for the state's age, "
            f"the longest hold (drive_timeout = {p.drive_timeout:g} s) and a stop from full speed"
        )
    far = (reach + p.lidar_noise) / (1 - np.pi / p.scan_rays)
    if p.scan_range < far:
        return f"scan_range is {p.scan_range:g} m, must be at least {_up(far)} m: a stop from full speed needs that"
    return ""


def _cramped(p: Parameters, model: Model, reach: float) -> str:
    """Why an arena may have no start that is certified; '' if every arena has one."""
    if p.arena_side < reach:
        side = _up(reach)
        return f"arena_side is {p.arena_side:g} m, must be at least {side} m: a stop from full speed needs that"
    if p.obstacles_min > p.obstacles_max:
        return f"obstacles_min is {p.obstacles_min}, must be at most obstacles_max = {p.obstacles_max}"
    if p.obstacle_half_width_min > p.obstacle_half_width_max:
        width = f"{p.obstacle_half_width_min:g} m, must be at most obstacle_half_width_max"
        return f"obstacle_half_width_min is {width} = {p.obstacle_half_width_max:g} m"
    # At the least clearance, measured by lidar, a standing base must be allowed to turn under its tightening.
    kept = p.corridor * (1 - np.pi / p.scan_rays) - p.lidar_noise
    tightening, held = model.certificate.tightening, p.checks_per_tick + max(model.certificate.holds)
    lost = tightening[min(held, len(tightening) - 1), 0] + p.band
    lost += p.farthest + p.clearance
    if lost > kept:
        radius = "the farthest corner" if p.outline else "footprint_radius"
        need = (lost + p.lidar_noise) / (1 - np.pi / p.scan_rays)
        return (
            f"corridor is {p.corridor:g} m, must be at least {_up(need)} m for a start in the simulated arenas to be "
            f"certified; or the sum of {radius} = {p.farthest:g} m, clearance = {p.clearance:g} m, band = {p.band:g} m "
            f"and margins must be {_up(lost - kept)} m less"
        )
    side = 2 * (np.sqrt(2.0) * p.obstacle_half_width_max + 2 * p.corridor)
    if p.obstacles_max and p.arena_side < side:
        wanted = f"{_up(side)} m for an obstacle and a corridor on each side"
        return f"arena_side is {p.arena_side:g} m, must be at least {wanted}"
    # Random starts and goals are hardly ever farther apart than nine tenths of the diagonal.
    far = 0.9 * np.sqrt(2.0) * (p.arena_side - 2 * p.corridor)
    if p.start_goal_distance > far:
        distance = f"{p.start_goal_distance:g} m, must be at most {_up(far - 1e-3)} m"
        return f"start_goal_distance is {distance} in an arena of {p.arena_side:g} m"
    return ""


def _slow(p: Parameters, model: Model) -> str:
    """Why full speed is never certified, however much room there is; '' if it is."""
    # What is left of a limit at full speed must exceed the band, by what the odometry may be wrong from tick to tick.
    limits = (
        ("speed", p.speed_margin, p.residual_speed, "m/s"),
        ("turn", p.turn_margin, p.residual_turn_rate, "rad/s"),
    )
    for (name, margin, error, unit), tightening in zip(limits, model.certificate.tightening[0, 1:], strict=True):
        if (lacks := p.band + error + float(tightening) - margin) > 1e-9:
            enough = _up(margin + lacks * (1 + p.motion_mismatch))
            return (
                f"{name}_margin is {margin:g} {unit}, so that full speed is never certified; {enough} {unit} is enough"
            )
    return ""


def _up(metres: float) -> float:
    """`metres` rounded up to the millimetre, so that the value in an objection is accepted."""
    return float(np.ceil(1e3 * metres) / 1e3)
