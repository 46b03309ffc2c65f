"""What the drivers and the firmware of bases that can be bought do, for the stand-in; the gate reads nothing of it.

A profile in config/profiles/ is what a gate believes of a base, and the Driver of the same name what that base does, as
far as public sources say so: ROBOTIS's turtlebot3, hls_lfcd_lds_driver (jazzy) and OpenCR (V221004R1); iRobot's
create3_docs and create3_sim (jazzy, 3.0.3); turtlebot4_robot (jazzy); Slamtec's rplidar_ros (ros2). Nothing of it was
tried on the bases themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.scan import LidarSetup, Scan, masked
from safe_support_ql.robots.world import DifferentialDrive, WorldSpec
from safe_support_ql.simulation.world import World


class Firmware:
    """What the base's own computer makes of the newest command, at every physics sub-step."""

    def __init__(self, world: World) -> None:
        """`world`: what the base itself can feel of it."""
        self.world = world

    def obey(self, action: Floats) -> Floats:
        """The (speed, turn rate) that the motors are told."""
        return action


class OpenCR(Firmware):
    """TurtleBot3: whole cm/s and 0.01 rad/s, and a wheel turns at 61 rpm at most, also in a curve."""

    fastest = 0.033 * 2 * math.pi * 61 / 60  # m/s, of a wheel
    half_track = 0.08  # m

    def obey(self, action: Floats) -> Floats:
        """See Firmware. turtlebot3_node cuts the rest off, and does not round."""
        v, w = np.trunc(100.0 * action + np.sign(action) * 1e-6) / 100.0
        left, right = np.clip((v - w * self.half_track, v + w * self.half_track), -self.fastest, self.fastest)
        return np.array([(left + right) / 2, (right - left) / (2 * self.half_track)])


class Create3(Firmware):
    """Create 3 with `safety_override: none`: caps, backup limit, and the reflex of its bumper.

    Not here, because no public source has their numbers or this floor has no such thing: proximity slowdown, stall,
    stuck and panic, cliffs, wheel drop.
    """

    fastest, turn = 0.306, 1.9  # m/s of a wheel, rad/s
    half_track = 0.1165  # m
    backup = 0.15  # m, that it may back up at most, by what it drove ahead before
    away, least, most = -0.14, 0.05, 0.15  # the reflex: m/s, m, m

    def __init__(self, world: World) -> None:
        """It was just put there, and has driven nowhere."""
        super().__init__(world)
        self.room = 0.0  # m, that it may still back up
        self.fled: float | None = None  # m, that it has fled from a bump; None if it does not flee

    def obey(self, action: Floats) -> Floats:
        """See Firmware."""
        x, y, yaw, v, _, clearance = self.world.quick_truth(0.1)
        self.room = min(self.room + v * self.world.dt, self.backup)
        touches = clearance <= 0.0 and self._ahead(x, y, yaw)
        if self.fled is None and touches:
            self.fled = 0.0
        if self.fled is not None:
            self.fled -= v * self.world.dt
            if (self.fled < self.least or touches) and self.fled < self.most:
                return np.array([self.away, 0.0])
            self.fled = None
        v, w = action[0], min(max(action[1], -self.turn), self.turn)
        if v < 0.0 and self.room <= 0.0:
            return np.zeros(2)
        share = self.fastest / max(abs(v) + abs(w) * self.half_track, self.fastest)
        return np.array([share * v, share * w])

    def _ahead(self, x: float, y: float, yaw: float) -> bool:
        """Whether what it touches is ahead, where its bumper is."""
        arena, step = self.world.map, 0.01
        assert arena is not None
        nearer = arena.room(self.world.spec, np.array([x + step * np.cos(yaw), y + step * np.sin(yaw), yaw]))
        return nearer < arena.room(self.world.spec, np.array([x, y, yaw]))


@dataclass(frozen=True)
class Driver:
    """One base. Fields of Lidar and DifferentialDrive that differ from what its profile's world has."""

    lidar: Mapping[str, Any]
    drive: Mapping[str, Any]
    periods: tuple[float, float]  # s, of a turn of the lidar: from, to; it differs from unit to unit
    firmware: type[Firmware]
    reliable: tuple[str, ...] = ()  # channels that are published RELIABLE, 10 deep; the others as sensor data
    posts: tuple[float, ...] = ()  # rad, angles in its scans at which its own parts are too near to return anything
    mean_twist: bool = False  # the twist of its odometry is the mean since the message before
    gaps: int = 0  # 1: time_increment is a turn over the gaps between its rays, and not over the rays

    def world(self, profile: WorldSpec, seed: int) -> WorldSpec:
        """The world of a robot with this profile, as it is with these drivers."""
        assert isinstance(profile.drive, DifferentialDrive)
        period = float(np.random.default_rng([seed, 3]).uniform(*self.periods))
        turning = {"period_s": period, "turn_s": period * (1 - 1 / self.lidar["rays"])}
        lidars = {name: replace(lidar, **self.lidar, **turning) for name, lidar in profile.lidars.items()}
        return replace(profile, drive=replace(profile.drive, **self.drive), lidars=lidars)

    def scan(self, vector: Floats) -> Floats:
        """The vector of a scan as its driver writes it.

        Both lidars turn clockwise, and their drivers turn the array about: the last ray was the first in time, but
        time_increment is positive.
        """
        scan = Scan.of(vector).turned_about()
        n = len(scan.ranges)
        turn = scan.scan_time * n / (n - 1)  # from a ray to the same ray
        scan = replace(scan, scan_time=turn, time_increment=turn / (n - self.gaps))
        return scan.changed(np.where(masked(scan, LidarSetup(mask=self.posts)), self.lidar["nothing"], scan.ranges))

    def odometry(self, vector: Floats, before: Floats, seconds: float) -> Floats:
        """The vector of an odometry message as its driver writes it, `seconds` after that of `before`."""
        if not self.mean_twist or seconds <= 0.0:
            return vector
        (x0, y0, yaw0), (x1, y1, yaw1) = (np.array([*v[:2], 2 * np.arctan2(v[2], v[3])]) for v in (before, vector))
        turned = (yaw1 - yaw0 + np.pi) % (2 * np.pi) - np.pi
        middle = yaw0 + turned / 2
        driven = (x1 - x0) * np.cos(middle) + (y1 - y0) * np.sin(middle)
        return np.array([*vector[:4], driven / seconds, turned / seconds])


DRIVERS = {  # by the name of the profile
    "turtlebot3_burger": Driver(
        # LDS-01: 360 rays from 0 on, its stamp taken when the last one is there, zeros for nothing; 300 +- 10 rpm.
        {"rays": 360, "angle_min": math.radians(359), "angle_increment": -math.radians(1), "stamp": "last",
         "range_min": 0.12, "range_max": 3.5, "nothing": 0.0, "x": -0.032},
        # Its firmware stops the base 0.5 s after turtlebot3_node has died, and never because no command comes.
        {"odometry_s": 0.05, "timeout": math.inf},
        (60 / 310, 60 / 290), OpenCR, ("odom",), mean_twist=True,
    ),
    "turtlebot4": Driver(
        # RPLidar A1, angle_compensate: 1080 rays over 359 degrees, at 6 to 8 Hz, its stamp taken at the first one.
        {"rays": 1080, "angle_min": math.pi, "angle_increment": -math.radians(359) / 1079, "stamp": "first",
         "range_min": 0.15, "range_max": 12.0, "nothing": math.inf, "x": -0.04, "yaw": math.pi / 2},
        # The timeout is that of create3_sim: iRobot's pages name none.
        {"odometry_s": 0.05, "timeout": 0.5, "acceleration": 0.9, "turn_acceleration": 7.725},
        (1 / 8, 1 / 6), Create3, ("scan",),
        posts=(-0.61, -0.49, 0.31, 0.45, -2.65, -2.53, 2.69, 2.83), gaps=1,
    ),
}  # fmt: skip
