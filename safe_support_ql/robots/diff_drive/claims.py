"""What the base claims: worlds inside and outside the claim, calibration, search; the types are in robots/claims.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql.robots.claims import CalibrationSpec, Claims, Creep, Ensemble, Ranges, Search
from safe_support_ql.robots.diff_drive.adversary import adversary
from safe_support_ql.robots.diff_drive.margins import MARGINS
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import DifferentialDrive, WorldSpec


def claims(robot: DiffDrive) -> Claims:
    """The claims of `robot`."""
    p = robot.parameters
    return Claims(
        errors={
            "odom": np.array([0.0, 0.0, 0.0, 0.0, p.margin_speed_estimate, 0.0]),
            "scan": np.full(p.scan_rays, p.lidar_noise),
        },
        # 16 % plus three standard deviations of the odometry's own drift stay within the ensemble's 20 %.
        mismatches={
            "ground_fast": {"ground_speed": 1.16},
            "ground_slow": {"ground_speed": 0.84, "ground_turn": 1.16},
            "turn_slow": {"ground_speed": 1.16, "ground_turn": 0.84},
            "lag_long": {"lag": 1.2 * p.lag},
            "brakes_weak": {"acceleration": 0.8 * p.acceleration, "turn_acceleration": 0.8 * p.turn_acceleration},
        },
        failing=3.0,
        drawn=lambda rng: {
            "ground_speed": rng.uniform(0.84, 1.16),
            "ground_turn": rng.uniform(0.84, 1.16),
            "lag": rng.uniform(0.8, 1.2) * p.lag,
            "acceleration": rng.uniform(0.8, 1.0) * p.acceleration,
            "turn_acceleration": rng.uniform(0.8, 1.0) * p.turn_acceleration,
        },
        beyond=_beyond(robot.world, p),
        margins=MARGINS,
        adversary=adversary(p),
        calibration=CALIBRATION,
        search=Search(numbers={"drift": 2}, begin=begin),
    )


def _beyond(world: WorldSpec, p: Parameters) -> dict[str, WorldSpec]:
    drive = world.drive
    assert isinstance(drive, DifferentialDrive)
    return {
        "wheels_slip": replace(world, drive=replace(drive, wheel=replace(drive.wheel, friction=0.05))),
        "load": replace(  # ten times the mass, and its effect on the drive
            world,
            drive=replace(
                drive,
                chassis=replace(drive.chassis, mass=10 * drive.chassis.mass),
                lag=2.0 * p.lag,
                acceleration=0.4 * p.acceleration,
                turn_acceleration=0.4 * p.turn_acceleration,
            ),
        ),
        "lidar_tilted": replace(
            world, lidars={channel: replace(lidar, tilt=0.15) for channel, lidar in world.lidars.items()}
        ),
    }


# --- calibration --------------------------------------------------------------------------------------------------


def member(nominal: Floats, factors: Floats) -> Floats:
    """`nominal`[6], as in model.step, with factors[4] on (true speed, true turn rate, lag, slew limits)."""
    speed, turn, lag, slew = factors
    response = 1.0 - (1.0 - nominal[2]) ** (1.0 / lag)
    return np.array([speed * nominal[0], turn * nominal[1], response, slew * nominal[3], slew * nominal[4], nominal[5]])


def placed(robot: DiffDrive, start: Floats, x: Floats, arena: Any) -> Floats:
    """Truth vector of a predicted state x[5], placed on the map at the true start pose."""
    cos, sin = np.cos(start[2]), np.sin(start[2])
    east, north = start[0] + cos * x[0] - sin * x[1], start[1] + sin * x[0] + cos * x[1]
    pose = np.array([east, north, start[2] + x[2]])
    return np.array([*pose, x[3], x[4], arena.room(robot.world, pose)])


CALIBRATION = CalibrationSpec(
    model=("margin_model",),
    growth=("margin_growth",),
    others=("margin_terminal", "margin_speed_estimate", "between_members"),
    errors={"margin_speed_estimate": 3},
    speed=3,
    moving=0.1,
    creep=Creep(margin="margin_terminal", below="terminal_speed"),
    ranges=Ranges(margin="lidar_noise", near=0.3),
    ends_in_terminal=True,
    placed=placed,
    ensemble=Ensemble(
        names=("true speed", "true turn rate", "lag", "slew limits"),
        mismatches=(("motion_mismatch", ""), ("motion_mismatch", ""), ("lag_mismatch", ""), ("braking_mismatch", "")),
        member=member,
        measured=(3, 4),
        angle=2,
        scale=("residual_distance", "residual_distance", "scan_residual_turn", "residual_speed", "residual_turn_rate"),
    ),
)


# --- the search for an unsafe visit -------------------------------------------------------------------------------


def begin(world: Any, robot: DiffDrive, numbers: Mapping[str, Floats], rng: np.random.Generator) -> None:
    """Start near an obstacle. The scale of the odometry is off by `drift` (distance, turn) times three deviations."""
    world.set_arena(near_start(world.map, robot, rng))
    drive = robot.world.drive
    assert isinstance(drive, DifferentialDrive)
    speed, turn = 1.0 + 3.0 * drive.odometry_drift * numbers["drift"]
    truth = world.spec.drive
    world.drive = replace(truth, ground_speed=truth.ground_speed * speed, ground_turn=truth.ground_turn * turn)


def near_start(arena: Any, robot: DiffDrive, rng: np.random.Generator) -> Any:
    """`arena` with a start near an obstacle, mostly facing it, and the goal out of reach, so that no episode ends."""
    half = arena.half_side
    kept = robot.parameters.clearance  # m, also where walkers exempt a base that stands
    unit = float(robot.model.certificate.tightening[-1, 0])
    while True:
        x, y = rng.uniform(-half, half, (2, 32))
        left = arena.clearance(x, y) - robot.world.footprint_radius - kept
        # From half a tightening to six tightenings away, all equally likely; standing there is safe.
        wanted = rng.uniform(0.5, 6.0) * unit
        best = int(np.argmin(np.abs(left - wanted)))
        if left[best] <= 0.0 or abs(left[best] - wanted) > unit:
            continue
        around = np.linspace(-np.pi, np.pi, 64, endpoint=False)
        facing = around[np.argmin(arena.clearance(x[best] + 0.1 * np.cos(around), y[best] + 0.1 * np.sin(around)))]
        yaw = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else facing + rng.normal(0.0, 0.5)
        return replace(arena, start=np.array([x[best], y[best], yaw]), goal=np.full(2, 1e3))
