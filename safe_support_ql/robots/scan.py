"""A planar scan as the vector of its channel, and how a lidar is set up; rules for one lidar's messages go here.

The vector of a LaserScan is HEADER, then one range per ray, as many as the message has: the message itself says where
its rays point. How the lidar is mounted, and what its driver writes and stamps, no message says: that is a LidarSetup.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from safe_support_ql.parameters import choice, param
from safe_support_ql.robots.model import Floats

HEADER = ("angle_min", "angle_max", "angle_increment", "time_increment", "scan_time", "range_min", "range_max")
FIELDS = (*HEADER, "ranges[]")  # of a LaserScan, for a Channel
ROUNDED = 1.0 + 1e-6  # messages hold 32 bit floats: a limit may arrive a little larger
AT_MOST = 1.0 - 1e-3  # of range_max: what lies beyond may be how a driver writes that nothing returned
TURNED = 2 * math.pi * 1.05  # rad, the widest field of view: some lidars send the first ray of the next turn, too
SLOWEST = 1.0  # s, of a turn
IN_METRES, NO_LIMIT = 500.0, 1.0e6  # m: no planar lidar sees farther, and a larger range_max is none
MOST_RAYS = 20_000  # around the full circle


@dataclass(frozen=True)
class LidarSetup:
    """What no message says about a lidar: its topic and frame, its mounting, and the conventions of its driver."""

    name: str = param("scan", "", doc="name of the lidar in messages to you")
    topic: str = param("scan", "", doc="topic of its scans")
    frame: str = param("base_link", "", doc="frame_id of its scans")
    x: float = param(0.0, "m", -2.0, 2.0, "place on the base, ahead of the middle of the axle")
    y: float = param(0.0, "m", -2.0, 2.0, "place on the base, to the left of the middle of the axle")
    yaw: float = param(0.0, "rad", -6.3, 6.3, "bearing of angle 0 of its scans: 0 is ahead, pi/2 to the left")
    upside_down: bool = param(False, "1", doc="mounted upside down: angles count to the right")
    nothing: str = choice(
        "inf", ("inf", "nan", "zero", "beyond", "value"), "what the driver writes where nothing returned"
    )
    nothing_value: float = param(0.0, "m", -1e6, 1e6, "that value, with nothing: value")
    stamp: str = choice("first", ("first", "last"), "the ray that the stamp of a scan belongs to")
    stamp_offset: float = param(0.0, "s", -0.5, 0.5, "time from the stamp to that ray")
    stamp_error: float = param(0.0, "s", 0.0, 0.2, "bound on the error of stamp_offset")
    backwards: bool = param(
        False,
        "",
        doc="its last ray is the first in time, though time_increment is positive: the driver turns scans about",
    )
    turn_time: float = param(0.0, "s", 0.0, SLOWEST, "time from the first ray to the last; 0: as in the message")
    mask: tuple[float, ...] = param(
        (),
        "rad",
        -6.3,
        6.3,
        "angles in its scans that the robot's own parts hide: from, to (to the left), from, to, ...",
    )

    @property
    def written(self) -> float:
        """What is written where nothing returned."""
        return {"inf": math.inf, "nan": math.nan, "zero": 0.0, "beyond": 1e3, "value": self.nothing_value}[self.nothing]

    @property
    def lever(self) -> float:
        """Distance from the middle of the axle in metres."""
        return math.hypot(self.x, self.y)


@dataclass(frozen=True)
class Scan:
    """One scan: its header, and ranges[N] in metres as the driver wrote them."""

    angle_min: float
    angle_max: float
    angle_increment: float
    time_increment: float
    scan_time: float
    range_min: float
    range_max: float
    ranges: Floats

    @classmethod
    def of(cls, vector: Floats) -> Scan:
        """The scan that a channel's vector holds."""
        values = dict(zip(HEADER, vector[: len(HEADER)].tolist(), strict=True))
        return cls(ranges=vector[len(HEADER) :], **values)

    def changed(self, ranges: Floats) -> Floats:
        """The vector of the channel with other ranges[N]."""
        return replace(self, ranges=ranges).vector()

    def vector(self) -> Floats:
        """The vector of the channel."""
        return np.concatenate([[getattr(self, name) for name in HEADER], self.ranges])

    def turned_about(self) -> Scan:
        """The same rays, the last one first; what the header says of time stays."""
        return replace(
            self, angle_min=self.angle_max, angle_max=self.angle_min, angle_increment=-self.angle_increment,
            ranges=self.ranges[::-1],
        )  # fmt: skip

    @property
    def angles(self) -> Floats:
        """Angle of every ray [N], in the scan's own frame."""
        return np.asarray(self.angle_min + np.arange(len(self.ranges)) * self.angle_increment)

    def bearings(self, setup: LidarSetup) -> Floats:
        """Bearing of every ray [N] on the base, rad: 0 is ahead, pi/2 to the left."""
        return setup.yaw + (-1.0 if setup.upside_down else 1.0) * self.angles

    def duration(self, setup: LidarSetup) -> float:
        """Seconds from the first ray to the last; negative if the rays come in the reverse order of time."""
        seconds = (len(self.ranges) - 1) * self.time_increment
        if setup.turn_time:
            seconds = math.copysign(setup.turn_time, self.time_increment)
        return -seconds if setup.backwards else seconds

    def begins(self, setup: LidarSetup) -> float:
        """Seconds from the stamp to ray 0."""
        duration = self.duration(setup)
        # The stamp belongs to the first or the last ray in time.
        return setup.stamp_offset - (max(duration, 0.0) if setup.stamp == "last" else min(duration, 0.0))

    def ends(self, setup: LidarSetup) -> float:
        """Seconds from the stamp to the last ray in time."""
        return self.begins(setup) + max(self.duration(setup), 0.0)


def full_circle(ranges: Floats, range_max: float, range_min: float = 0.0) -> Scan:
    """A scan of evenly spaced rays over the full circle, from -pi on, all cast at once."""
    step = 2 * math.pi / len(ranges)
    return Scan(-math.pi, math.pi - step, step, 0.0, 0.0, range_min, range_max, ranges)


@dataclass(frozen=True)
class Limits:
    """What a certificate needs of each lidar."""

    widest: float  # rad, largest angle between two rays
    hidden: float  # m, radius about the axle that footprint, clearance and margins hide
    farthest: float  # m, range that a stop from full speed needs


def contradiction(scan: Scan, setup: LidarSetup, limits: Limits) -> str:
    """What is wrong with the header of a scan, or with the lidar that it describes; '' if it does."""
    n, step = len(scan.ranges), abs(scan.angle_increment)
    # A range_max that no lidar has is what point clouds become scans with: `scan_range` is what counts then.
    known = [math.isfinite(getattr(scan, name)) or (name, scan.range_max) == ("range_max", math.inf) for name in HEADER]
    if not all(known):
        name = HEADER[known.index(False)]
        return f"{name} is {getattr(scan, name)}, must be a number"
    if n < 3 or step == 0.0:
        return f"has {n} ranges, angle_increment {scan.angle_increment:g}; must have at least 3 rays apart"
    says = (scan.angle_max - scan.angle_min) / scan.angle_increment
    if abs(says - (n - 1)) > 1.01:  # many drivers count one ray more or less
        return f"has {n} ranges, but angle_min, angle_max and angle_increment speak of {says + 1:.1f}"
    if n * step > TURNED:
        return f"its {n} rays turn through {n * step:.2f} rad, more than a full circle"
    if step > limits.widest * ROUNDED:
        return (
            f"angle_increment is {step:.4g} rad, must be at most {limits.widest:.4g}: an obstacle may stand between "
            "two rays; drive slower, declare wider obstacles, or use more rays"
        )
    if n > MOST_RAYS or step < 2 * math.pi / MOST_RAYS:
        return f"angle_increment is {step:.3g} rad for {n} rays, must be at least {2 * math.pi / MOST_RAYS:.2g}"
    hidden = limits.hidden - setup.lever
    if hidden <= 0.0:
        return (
            f"it stands {setup.lever:.3g} m from the middle of the axle, must be less than {limits.hidden:.3g}, inside "
            "footprint and clearance; check its x and y"
        )
    if not 0.0 <= scan.range_min <= hidden * ROUNDED:
        return (
            f"range_min is {scan.range_min:.4g} m, must lie in [0, {hidden:.4g}]: what is nearer is not seen, and "
            "footprint and clearance end there; set it in the driver, or use another lidar"
        )
    if scan.range_max < limits.farthest / ROUNDED:
        return (
            f"range_max is {scan.range_max:.4g} m, must be at least {limits.farthest:.4g}: a stop from full speed "
            "needs that; drive slower"
        )
    if IN_METRES < scan.range_max < NO_LIMIT:
        return f"range_max is {scan.range_max:.6g} m, must be at most {IN_METRES:g}: are its ranges in millimetres?"
    if scan.time_increment and scan.scan_time > 0.0 and not setup.turn_time:
        turn = n * abs(scan.time_increment)
        if turn > 1.1 * scan.scan_time:
            return (
                f"{n} rays with time_increment {scan.time_increment:.3g} s take {turn:.3g} s, longer than scan_time = "
                f"{scan.scan_time:.3g} s; set turn_time of this lidar"
            )
    if abs(scan.duration(setup)) > SLOWEST:
        return f"its rays take {abs(scan.duration(setup)):.3g} s, must be at most {SLOWEST:g} s; set turn_time"
    return ""


def setup_objection(setups: tuple[LidarSetup, ...], others: tuple[str, ...]) -> str:
    """What is wrong with the entries for several lidars; '' if nothing is. `others`: names of other channels."""
    for i, setup in enumerate(setups):
        where = f"lidars[{i}]: "
        if not setup.name or not setup.topic or not setup.frame:
            return f"{where}name, topic and frame must not be empty"
        if setup.name in others:
            return f"{where}name is '{setup.name}', must not be that of another input: {', '.join(others)}"
        for j, before in enumerate(setups[:i]):
            for what in ("name", "topic"):
                if getattr(setup, what) == getattr(before, what):
                    return f"{where}{what} is '{getattr(setup, what)}', as that of lidars[{j}]; give each its own"
        if len(setup.mask) % 2:
            return f"{where}mask has {len(setup.mask)} angles, must have pairs: from, to, from, to, ..."
        for low, high in zip(setup.mask[::2], setup.mask[1::2], strict=True):
            if (high - low) % (2 * math.pi) > math.pi:
                return (
                    f"{where}mask from {low:g} to {high:g} rad hides more than half a circle; of each pair, the "
                    "second angle lies to the left of the first"
                )
    return ""


def readings(scan: Scan, setup: LidarSetup) -> tuple[Floats, str]:
    """(ranges[N], remark): inf where nothing returned, 0 where something is too near, NaN where a ray says nothing.

    The remark names rays that say nothing though they are not masked, by bearing and value; '' if there are none.
    """
    raw = scan.ranges
    ranges = np.where((raw > 0.0) & (raw < AT_MOST * scan.range_max), raw, np.nan)
    nothing = (raw == np.inf) | ((raw >= AT_MOST * scan.range_max) & (raw <= ROUNDED * scan.range_max))
    if setup.nothing == "nan":
        nothing |= np.isnan(raw)
    elif setup.nothing == "zero":
        nothing |= raw == 0.0
    elif setup.nothing == "beyond":
        nothing |= raw > scan.range_max
    elif setup.nothing == "value":
        nothing |= np.isclose(raw, setup.nothing_value, rtol=1e-4)
    ranges[nothing] = np.inf
    ranges[raw == -np.inf] = 0.0  # REP-117: too near
    odd, near = np.isnan(ranges), ranges == 0.0
    said = [_odd(scan, odd)] if odd.any() else []
    if near.any():
        said.append(f"{int(near.sum())} rays at {bearings(near, scan.angles)} degrees read -inf, too near to measure")
    return ranges, "; ".join(said)


def masked(scan: Scan, setup: LidarSetup) -> np.ndarray:
    """Whether each ray [N] ends on the robot's own parts."""
    hidden = np.zeros(len(scan.ranges), bool)
    for low, high in zip(setup.mask[::2], setup.mask[1::2], strict=False):
        hidden |= (scan.angles - low) % (2 * math.pi) <= (high - low) % (2 * math.pi)
    return hidden


def bearings(which: np.ndarray, angles: Floats) -> str:
    """The angles [N] of `which`[N] rays in degrees, as ranges: '-10..20, 45'."""
    runs = np.split(np.flatnonzero(which), np.flatnonzero(np.diff(np.flatnonzero(which)) > 1) + 1)
    ends = [(round(math.degrees(angles[run[0]])), round(math.degrees(angles[run[-1]]))) for run in runs if len(run)]
    said = [f"{low}..{high}" if low != high else f"{low}" for low, high in ends[:3]]
    return ", ".join(said) + (", ..." if len(ends) > 3 else "")


SETTING = {"nan": "nan", "0": "zero"}


def _odd(scan: Scan, odd: np.ndarray) -> str:
    first = float(scan.ranges[odd][0])
    value = "nan" if math.isnan(first) else f"{first:.4g}"
    setting = SETTING.get(value, "beyond" if first > scan.range_max else "")
    which = odd & ((scan.ranges == first) | (np.isnan(scan.ranges) & math.isnan(first)))
    return f"{int(which.sum())} rays at {bearings(which, scan.angles)} degrees read {value} and say nothing" + (
        f"; if the driver writes that where nothing returned, set 'nothing: {setting}' for it" if setting else ""
    )
