"""A catalogue of sensors that such bases carry, and of what goes wrong with them, for benchmarks/sensors.py.

Of each sensor two things: what is true in the simulated world, and what the robot's profile is told about it. Values of
real lidars are those that their drivers publish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import Scan
from safe_support_ql.robots.world import DifferentialDrive, Lidar, WorldSpec

Fault = Callable[[Floats, Floats, float], Floats]  # (ranges[N], bearings[N] on the base, seconds) -> what is sent [N]

SLOW = {"scan_age": 0.6}  # s; for a scan that comes five times a second, one of which may be lost


@dataclass(frozen=True)
class Sensors:
    """What one base carries. Fields that are not given are those of the shipped robot, which has one ideal lidar."""

    true: tuple[Mapping[str, Any], ...] = ({},)  # of each lidar, fields of Lidar
    told: tuple[Mapping[str, Any], ...] = ({},)  # of each lidar, fields of LidarSetup in the profile
    odometry_s: float = 0.0
    uneven: float = 0.0  # wheels, see DifferentialDrive
    settings: Mapping[str, Any] = field(default_factory=dict)  # other parameters of the profile
    header: Mapping[str, Any] = field(default_factory=dict)  # what its driver writes there, if that is not true
    turned_about: bool = (
        False  # the lidar turns clockwise, and its driver sends the last ray first, with the time as if
    )

    def overrides(self) -> dict[str, Any]:
        """The profile, as overrides of the shipped configuration."""
        lidars = {"lidars": [dict(one) for one in self.told]} if any(self.told) else {}
        return {f"parameters.{name}": value for name, value in {**lidars, **self.settings}.items()}

    def world(self, shipped: WorldSpec) -> WorldSpec:
        """The world with these sensors; `shipped` is that of the robot with this profile."""
        assert isinstance(shipped.drive, DifferentialDrive)
        fields = zip(shipped.lidars.items(), self.true, strict=True)
        lidars = {channel: replace(lidar, **changes) for (channel, lidar), changes in fields}
        return replace(
            shipped, drive=replace(shipped.drive, odometry_s=self.odometry_s, uneven=self.uneven), lidars=lidars
        )

    def sent(self, world: WorldSpec, fault: Fault | None) -> Callable[[str, Floats, float], Floats]:
        """(channel, vector, seconds) -> what the driver sends of it in `world`, with the fault of its lidars."""

        def send(channel: str, vector: Floats, seconds: float) -> Floats:
            if channel not in world.lidars:
                return vector
            scan = replace(Scan.of(vector), **self.header)
            if self.turned_about:
                scan = scan.turned_about()
            if fault is not None:
                return scan.changed(fault(scan.ranges, bearings(world.lidars[channel], scan), seconds))
            return scan.vector()

        return send


def bearings(lidar: Lidar, scan: Scan) -> Floats:
    """Where each ray [N] points on the base, in [-pi, pi), from straight ahead to the left."""
    turned = lidar.yaw + (-scan.angles if lidar.upside_down else scan.angles)
    return np.asarray((turned + np.pi) % (2 * np.pi) - np.pi)


def over(degrees: float, rays: int) -> dict[str, Any]:
    """So many rays over an angle, the middle one where the lidar points."""
    angle = math.radians(degrees)
    return {"rays": rays, "angle_min": -0.5 * angle, "angle_increment": angle / (rays - 1)}


OFF_AXLE = {"x": 0.1, "yaw": math.pi / 2}
TURNED = {"yaw": math.pi}
OVERHEAD = {"upside_down": True}
FRONT, REAR = (
    {"name": "front", "topic": "scan_front", "x": 0.1},
    {"name": "rear", "topic": "scan_rear", "x": -0.1} | TURNED,
)
PLACE = ("x", "y", "yaw")
LDS_01 = {
    "rays": 360, "angle_min": math.radians(359), "angle_increment": -0.0174532923847, "period_s": 0.2, "turn_s": 0.2,
    "stamp": "last", "range_min": 0.12, "range_max": 3.5, "nothing": 0.0, "x": -0.032,
}  # fmt: skip
ROOMY = {"corridor": 0.75, "obstacles_min": 4, "obstacles_max": 8}
WALKERS = {"walkers": 8, "walker_speed": 0.3, **ROOMY}

SENSORS: dict[str, Sensors] = {
    "ideal": Sensors(),
    "rolling 0.1 s, stamped last": Sensors(({"turn_s": 0.1, "stamp": "last"},), ({"stamp": "last"},)),
    "rolling 0.1 s, stamped first": Sensors(({"turn_s": 0.1},), ({"stamp": "first"},), settings={"scan_age": 0.35}),
    "5 Hz beside 50 Hz": Sensors(({"period_s": 0.2},), odometry_s=0.02, settings=SLOW),
    "10 Hz beside 10 Hz, 45 ms apart": Sensors(({"period_s": 0.1, "phase_s": 0.045},)),
    "one scan in twenty lost": Sensors(({"lost": 20},), settings={"scan_age": 0.35}),
    "0.1 m ahead, turned by 90 degrees": Sensors((OFF_AXLE,), (OFF_AXLE,)),
    "upside down": Sensors((OVERHEAD,), (OVERHEAD,)),
    "270 degrees": Sensors((over(270, 136),)),
    "range_min 0.20 m": Sensors(({"range_min": 0.2},)),
    "range_min 0.55 m": Sensors(({"range_min": 0.55},)),
    "two lidars, 180 and 270 degrees": Sensors(
        tuple({**over(degrees, rays), **{name: lidar[name] for name in PLACE if name in lidar}}
              for degrees, rays, lidar in ((180, 91, FRONT), (270, 136, REAR))),
        (FRONT, REAR),
    ),
    # Its driver stamps a scan after the last ray, and writes a time_increment far below the true one.
    "LDS-01": Sensors(
        (LDS_01,),
        ({"frame": "base_scan", "stamp": "last", "turn_time": 0.2, "nothing": "zero", "x": -0.032, "backwards": True},),
        odometry_s=1 / 30,
        settings={"scan_range": 3.5, **SLOW},
        header={"time_increment": 2.98699997074e-05, "scan_time": 0.0},
        turned_about=True,
    ),
    "LDS-01, not told backwards": Sensors(
        (LDS_01,),
        ({"frame": "base_scan", "stamp": "last", "turn_time": 0.2, "nothing": "zero", "x": -0.032},),
        odometry_s=1 / 30,
        settings={"scan_range": 3.5, **SLOW},
        header={"time_increment": 2.98699997074e-05, "scan_time": 0.0},
        turned_about=True,
    ),
    "RPLidar A1": Sensors(
        ({"rays": 360, "angle_min": math.pi, "angle_increment": -0.01745329238474369,
          "period_s": 1 / 6.26, "turn_s": 0.14786775410175323, "range_min": 0.15, "range_max": 12.0} | TURNED,),
        ({"frame": "laser", "backwards": True} | TURNED,),
        odometry_s=0.02,
        settings={"scan_range": 12.0, **SLOW},
        turned_about=True,
    ),
    "wider gaps": Sensors(settings=ROOMY),
    "wider gaps, 0.3 m/s declared": Sensors(settings=ROOMY | {"obstacle_speed": 0.3}),
    "8 walkers, 0.3 m/s, 0.3 declared": Sensors(settings=WALKERS | {"obstacle_speed": 0.3}),
    "8 walkers, 0.3 m/s, 0 declared": Sensors(settings=WALKERS),
    "8 walkers, 0.6 m/s, 0.3 declared": Sensors(settings=WALKERS | {"obstacle_speed": 0.3, "walker_speed": 0.6}),
    "left wheel 5 % larger": Sensors(uneven=0.05),
    "turned by 90 degrees, not told": Sensors(({"yaw": math.pi / 2},)),
    "0.1 m ahead, not told": Sensors(({"x": 0.1},)),
    "upside down, not told": Sensors((OVERHEAD,)),
    "rolling 0.1 s, last told first": Sensors(({"turn_s": 0.1, "stamp": "last"},)),
}  # fmt: skip


def unseen(share: float, value: float = math.inf) -> Fault:
    """A share of the full circle, straight ahead, always reads `value`: dark, shiny or tilted surfaces."""
    return lambda ranges, at, seconds: np.where(np.abs(at) <= share * np.pi, value, ranges)


def from_then_on(seconds: float, fault: Fault) -> Fault:
    """The fault begins that long after the start."""
    return lambda ranges, at, now: fault(ranges, at, now) if now >= seconds else ranges


def too_near(limit: float) -> Fault:
    """What is nearer than `limit` metres reads as nothing, and no header says so."""
    return lambda ranges, at, seconds: np.where(ranges < limit, math.inf, ranges)


FAULTS: dict[str, Fault] = {
    "all inf": unseen(1.0),
    "a quarter ahead inf": unseen(0.25),
    "a tenth ahead inf": unseen(0.1),
    "nearer than 0.55 m inf": too_near(0.55),
    "nearer than 0.30 m inf": too_near(0.30),
    "all inf from tick 30 on": from_then_on(3.0, unseen(1.0)),
    "a quarter inf from tick 30 on": from_then_on(3.0, unseen(0.25)),
    "a quarter ahead NaN": unseen(0.25, math.nan),
}
