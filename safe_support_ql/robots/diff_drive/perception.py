"""What a gate knows about the surroundings of the base: scans, brought to the instant of the state by the odometry.

Each lidar's newest scan bounds free space as seen from where each ray was cast. What it saw before decides how far a
ray without a return is believed (robots/evidence.py). See docs/certificate_diff_drive.md, section 6.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from safe_support_ql.robots.base import Estimate, History, Inputs, Perception, Stamped, outside
from safe_support_ql.robots.evidence import MOST_ASTRAY, Evidence, Memory
from safe_support_ql.robots.fence import Fence
from safe_support_ql.robots.footprint import from_outline, inside
from safe_support_ql.robots.free_space import SPACING, Rays, cast_from, ends, enter, proves
from safe_support_ql.robots.geometry import BREAK, Surfaces, match_scans, surfaces
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.odometry import NEVER, Track
from safe_support_ql.robots.scan import LidarSetup, Scan, bearings, masked, readings

if TYPE_CHECKING:
    from safe_support_ql.robots.diff_drive.robot import DiffDrive

COMPARED = 3  # scans over which a slow slip adds up
FARTHEST_S = 0.5  # two scans farther apart are not compared
FARTHEST_TURN = 0.6  # rad, nor if the base turned more in between
MOVED = 0.02  # m, or rad: a base that moved so far sees other ranges
FROZEN = "the same ranges in every scan though the base moved; start the lidar and its driver again"
FEWEST_RETURNS = 3  # per state: with fewer, an open hall and a dead lidar look the same
WELL_WITHIN = 0.8  # of the largest range: what was seen there must be seen again
STRAIGHT = 0.7  # of the bound on the error of a range: twice its standard deviation
MOST_LOST = 0.1  # m, by which a remembered point is nearer at most, or a base that circles would be walled in
AHEAD, AHEAD_BEYOND = 0.8, 0.1  # rad and m: unknown space so near the edge of the pocket ahead stops the base
TURNED_ABOUT = 3 * np.pi  # rad
CELLS = np.arange(128) * (2 * np.pi / 128)  # rad, bearings of what is remembered and may stand to either side
# Of these, how far aside: as a share of the error of their bearing, so many that no cell between is left out.
SPREAD = np.linspace(-1.0, 1.0, 1 + int(np.ceil(2 * MOST_ASTRAY / CELLS[1])))
NOWHERE = np.array([[1.0e3, 1.0e3]])  # m, stands for "no point within reach": the list of points is never empty


@dataclass(frozen=True)
class View:
    """One scan of one lidar, as its setup reads it; rows[N, 5] say where the base was at each ray (see Track)."""

    setup: LidarSetup
    scan: Scan
    ranges: Floats
    angles: Floats  # [N] in the base's frame at the ray
    groups: np.ndarray
    rows: Floats
    bend: Floats  # [N] s^2, see Track
    cast_ns: np.ndarray  # [N] when each ray was cast
    first_ns: int
    last_ns: int
    returned: int
    remark: str

    @property
    def step(self) -> float:
        """From one ray to the next, to the left."""
        return -self.scan.angle_increment if self.setup.upside_down else self.scan.angle_increment

    @property
    def wide(self) -> float:
        """Angle between two rays."""
        return abs(self.scan.angle_increment)


@dataclass(frozen=True)
class Seen:
    """A view for matching: ranges by bearing in the lidar's place at its last ray, when the base was `at`[5].

    angles[K] are the bearings of the rays themselves: they hardly ever are those of the cells that they fell into.
    """

    ranges: Floats
    angles: Floats
    surfaces: Surfaces
    at: Floats
    view: View


class Eye:
    """One lidar: its evidence, its newest view, and the scans that its motion is told from."""

    def __init__(self, setup: LidarSetup, width: float) -> None:
        """See Evidence for `width`."""
        self.setup = setup
        self.evidence = Evidence(width)
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else."""
        self.evidence.forget()
        self.view: View | None = None
        self.frozen = False  # whether scans have been the same to the bit since the base moved
        self.changed_at = np.zeros(3)  # pose by the odometry at the last scan that was another one
        self.seen_ns = NEVER  # stamp of the newest scan that was looked at
        self.fresh = False  # whether a view is new since disagreements were asked for
        self.chain: deque[Seen] = deque(maxlen=COMPARED + 1)


class LidarPerception(Perception):
    """See the module."""

    robot: DiffDrive

    def __init__(self, robot: DiffDrive, at_once: bool = False) -> None:
        """Nothing was seen yet. `at_once`: for a single state, whose scans are cast at its instant, and believed."""
        super().__init__(robot)
        self._at_once = at_once
        p = self.p = robot.parameters
        # Half as wide as the smallest obstacle at the end of a stop, see evidence.py.
        width = p.obstacle_half_width_min / robot.reach
        self.eyes = {setup.name: Eye(setup, width) for setup in p.lidars}
        self.track = Track()
        self.memory = Memory(robot.reach + p.obstacle_half_width_min, p.motion_mismatch)
        self._fence: Fence | None = None
        self.forget()
        if at_once:
            for eye in self.eyes.values():
                eye.evidence.trust()

    def forget(self) -> None:
        """See Perception."""
        self.track.forget()
        self.memory.forget()
        for eye in self.eyes.values():
            eye.forget()
        self._sought: tuple[float, float] | None = None  # (heading since when it turns to see, side it turns to)

    def fence(self, corners: tuple[tuple[float, ...], ...]) -> None:
        """See Perception."""
        fence = Fence(corners)
        if fence.room < self.robot.pocket:
            raise ValueError(
                f"leaves {fence.room:.2f} m about its middle, and the base needs {self.robot.pocket:.2f} m"
            )
        self._fence = fence

    def _remark(self, seeking: bool) -> str:
        """What a person should know where little is certified."""
        said = [eye.view.remark for eye in self.eyes.values() if eye.view is not None and eye.view.remark]
        for name, eye in self.eyes.items():
            if eye.view is not None and eye.evidence.blind.any():
                where = bearings(eye.evidence.blind[eye.view.groups], eye.view.scan.angles)
                said.append(
                    f"{name}: nothing returned at {where} degrees in a whole turn, though it did on both sides; "
                    "uncover the lidar there, or mask those angles"
                )
        if seeking and not said:
            said.append("nothing has returned yet from rays ahead; turn on the spot, with something within range")
        return "; ".join(said)

    def estimate(self, inputs: Inputs, stamp_ns: int, history: History) -> Estimate:
        """See Perception."""
        state, task = self.robot.motion(inputs)
        new = [item for item in history["odom"] if self.track.newest_ns < item.stamp_ns <= stamp_ns]
        new = [item for item in new if not self.robot.implausible(item.vector)]
        if self.track.jumps(new, 2 * (self.p.speed + self.p.speed_margin)):
            self.forget()  # the odometry began anew somewhere else
        self.track.follow(new)
        now = self.track.at(stamp_ns)
        for name, eye in self.eyes.items():
            self._look(eye, history[name], stamp_ns)
        views = [eye.view for eye in self.eyes.values() if eye.view is not None]
        for name, eye in self.eyes.items():
            if eye.view is None or (stamp_ns - eye.view.last_ns) / 1e9 > self.p.scan_age:
                raise ValueError(
                    f"{name}: no scan is newer than scan_age = {self.p.scan_age:g} s and between two of odom; raise "
                    "scan_age, or check the clocks"
                )
        points, unseen = self._points(now, stamp_ns)
        seek = self._seek(unseen, now)
        said = [self._remark(self._sought is not None), self._waiting(state, points)]
        if self._fence is not None:
            points = np.concatenate([points, self._fence.seen_from(task[:3], self.robot.reach)])
            if (depth := self._fence.depth(task[0], task[1])) < self.robot.pocket:
                said.append(f"an edge of session.geofence is {depth:.2f} m from the middle of the axle")
        remark = "; ".join(text for text in said if text)
        return Estimate(state, points, task, self._blindness(views, remark, task), self._scene(now), remark, seek)

    def _waiting(self, state: Floats, points: Floats) -> str:
        """That somebody stands so near to a standing base that it cannot start; '' where nobody does."""
        p = self.p
        certificate = self.robot.model.certificate
        if not p.obstacle_speed or not certificate.terminal(tuple(state), (), certificate.constants):
            return ""
        if p.outline:
            near = float(from_outline(0.0, 0.0, 0.0, points, p.outline, p.farthest))
        else:
            near = float(np.hypot(*points.T).min()) - p.footprint_radius
        if near >= p.clearance + certificate.tightening[0, 0] + p.band:
            return ""
        return (
            f"waiting: something is {max(near, 0.0):.2f} m from the footprint, and may come nearer; it goes on when "
            "that has left; if it is a wall, move the base away from it"
        )

    def _seek(self, unseen: Floats, now: tuple[float, ...]) -> Floats:
        """A turn towards what returns, while silent rays ahead, unproven, keep the base from going on [2 or 0].

        One that has turned about by one and a half turns in vain gives up: nothing is within range of these rays.
        """
        ahead = np.hypot(unseen[:, 0], unseen[:, 1]) < self.robot.pocket + AHEAD_BEYOND
        ahead &= np.abs(np.arctan2(unseen[:, 1], unseen[:, 0])) < AHEAD
        if not ahead.any():
            self._sought = None
            return np.zeros(0)
        if self._sought is None:
            self._sought = (now[2], self._side())
        since, side = self._sought
        return np.array([0.0, side * self.p.turn_rate]) if abs(now[2] - since) < TURNED_ABOUT and side else np.zeros(0)

    def _side(self) -> float:
        """Whether what returns is nearer ahead on the left (1) or on the right (-1); 0 where nothing returns."""
        views = [eye.view for eye in self.eyes.values() if eye.view is not None]
        at = np.concatenate([view.angles[np.isfinite(view.ranges) & (view.ranges > 0.0)] for view in views])
        at = (at + np.pi) % (2 * np.pi) - np.pi
        return float(np.sign(at[np.argmin(np.abs(at))]) or 1.0) if len(at) else 0.0

    def _blindness(self, views: list[View], remark: str, task: Floats) -> str:
        """Why nothing is certified at all: too few rays returned, or it is outside its fence; '' if neither."""
        if self._fence is not None and (depth := self._fence.depth(task[0], task[1])) < 0.0:
            return (
                f"{-depth:.2f} m outside of session.geofence by odometry; bring the base inside, or move the geofence"
            )
        returned, rays = sum(view.returned for view in views), sum(len(view.ranges) for view in views)
        if returned >= FEWEST_RETURNS:
            return ""
        if frozen := [name for name, eye in self.eyes.items() if eye.frozen]:
            return f"{', '.join(frozen)}: {FROZEN}"
        return (
            f"{', '.join(self.eyes)}: {returned} of {rays} rays returned a range, at least {FEWEST_RETURNS} must; "
            "uncover the lidar, check its power and its driver, or put something within its range"
            + (f"; {remark}" if remark else "")
        )

    # --- a new scan ----------------------------------------------------------------------------------------------

    def _look(self, eye: Eye, scans: Sequence[Stamped], stamp_ns: int) -> None:
        """Take the newest scan that the odometry covers."""
        first = self.track.first_ns
        for item in reversed(scans):
            if item.stamp_ns <= eye.seen_ns:
                return
            scan = Scan.of(item.vector)
            if self._at_once:
                self._take(eye, scan, item.stamp_ns, stamp_ns, 0.0)
                return
            begins = item.stamp_ns + round(1e9 * scan.begins(eye.setup))
            ends = item.stamp_ns + round(1e9 * scan.ends(eye.setup))
            if ends > stamp_ns or first is None or ends - round(1e9 * abs(scan.duration(eye.setup))) < first:
                continue
            self._take(eye, scan, item.stamp_ns, begins, scan.duration(eye.setup))
            return

    def _take(self, eye: Eye, scan: Scan, stamp_ns: int, begins: int, duration: float) -> None:
        """`begins`: when ray 0 was cast; `duration` [s] until the last ray, negative in the reverse order of time."""
        setup, n = eye.setup, len(scan.ranges)
        ends = begins + round(1e9 * max(duration, 0.0))
        cast_ns = begins + np.round(np.linspace(0.0, 1e9 * duration, n)).astype(np.int64)
        if duration:
            rows, bend = self.track.between(cast_ns)
        else:
            rows, bend = (np.repeat(one, n, axis=0) for one in self.track.between(cast_ns[:1]))
        if np.isnan(bend).any():
            return
        ranges, remark = readings(scan, setup)
        if self._is_frozen(eye, scan, rows[-1]):
            ranges[:], remark = np.nan, FROZEN
        returned = int(((ranges > 0.0) & (ranges < np.inf)).sum())
        own = masked(scan, setup)
        ranges[own] = np.nan
        sign = -1.0 if setup.upside_down else 1.0
        angles = setup.yaw + sign * scan.angles
        if parts := self._own_parts(scan, setup, ranges, angles):
            remark = f"{parts}; {remark}" if remark else parts
        groups = eye.evidence.groups(scan.angles)
        view = View(
            setup, scan, ranges, angles, groups, rows, bend, cast_ns, ends - round(1e9 * abs(duration)), ends, returned,
            f"{setup.name}: {remark}" if remark else "",
        )  # fmt: skip
        eye.view, eye.seen_ns, eye.fresh = view, stamp_ns, True
        at = rows[-1] if duration >= 0.0 else rows[0]
        eye.evidence.note(view.groups, np.isfinite(ranges) & (ranges > 0.0), ranges == np.inf, at[3], at[2])
        self._remember(eye, view, at)

    def _is_frozen(self, eye: Eye, scan: Scan, at: Floats) -> bool:
        """Whether this scan repeats the last one to the bit, and the base has moved since that was new.

        Such a lidar, or the driver that goes on publishing its last scan, shows what is where the base was. It counts
        as frozen until a scan differs, also when the base stands again. What is counted is how far it is, and not what
        it drove: at rest, a lidar without noise repeats itself, and the noise of an odometry adds up.
        """
        if eye.view is None or not np.array_equal(scan.ranges, eye.view.scan.ranges, equal_nan=True):
            eye.frozen, eye.changed_at = False, at[:3]
        elif np.isfinite(scan.ranges).sum() >= FEWEST_RETURNS:
            dx, dy, turn = at[:3] - eye.changed_at
            eye.frozen = eye.frozen or bool(max(np.hypot(dx, dy), abs(turn)) > MOVED)
        return eye.frozen

    def _own_parts(self, scan: Scan, setup: LidarSetup, ranges: Floats, angles: Floats) -> str:
        """Returns from inside the footprint, which can only be the robot's own parts."""
        near = np.where(np.isfinite(ranges), ranges, 1e3)
        x, y = setup.x + near * np.cos(angles), setup.y + near * np.sin(angles)
        if p := self.p.outline:
            within = inside(np.column_stack([x, y]), p)
        else:
            within = x * x + y * y < self.p.footprint_radius**2
        own = (near > 0.0) & within
        if not own.any():
            return ""
        return (
            f"{int(own.sum())} rays at {bearings(own, scan.angles)} degrees end inside the footprint, the nearest at "
            f"{ranges[own].min():.2f} m; mask these angles if they show the robot's own parts, or is the footprint too "
            "large?"
        )

    def _remember(self, eye: Eye, view: View, at: Floats) -> None:
        """Compare a new view with what was seen near the base, and remember what it shows."""
        setup = view.setup
        origins, seen_at = self._cast(view, at)
        sensor = np.array([setup.x, setup.y])
        if len(self.memory.points):
            turned = float(self._turned(view, at).max())
            rays = self.memory.compare(at, sensor, seen_at, view.ranges, view.wide, turned)
            eye.evidence.refute(view.groups[rays[view.ranges[rays] == np.inf]])
        seen = ends(origins, seen_at, view.ranges, WELL_WITHIN * min(self.p.scan_range, view.scan.range_max))
        self.memory.add(at, seen, view.wide)

    def _cast(self, view: View, now: Floats | tuple[float, ...]) -> tuple[Floats, Floats]:
        """(place of the lidar [N, 2], bearing [N]) of each ray, in the frame of the base at `now`."""
        origins, at = cast_from(view.rows, view.angles, view.setup.x, view.setup.y, now[0], now[1], now[2])
        return origins, at

    # --- free space at the instant of the state --------------------------------------------------------------------

    def _turned(self, view: View, now: Floats | tuple[float, ...]) -> Floats:
        """Bounds[N] on the errors of bearings at `now`, in radians (docs/certificate_diff_drive.md, section 6.3)."""
        p = self.p
        turned = p.motion_mismatch * (now[4] - view.rows[:, 4]) + p.turn_acceleration * view.bend
        if view.setup.stamp_error:
            turned += view.setup.stamp_error * self.track.fastest(view.first_ns)[1]
        return np.asarray(turned)

    def _error(self, view: View, now: Floats | tuple[float, ...], turned: Floats) -> Floats:
        """Bounds[N] on the errors of ranges at `now`, in metres; turned[N] are those of their bearings."""
        p = self.p
        error = p.lidar_noise + p.motion_mismatch * (now[3] - view.rows[:, 3]) + p.acceleration * view.bend
        if view.setup.stamp_error:
            error += view.setup.stamp_error * self.track.fastest(view.first_ns)[0]
        return np.asarray(error + view.setup.lever * turned)

    def _rays(self, eye: Eye, view: View, now: tuple[float, ...], now_ns: int) -> Rays:
        """The rays of a view as they bound free space at `now`: silent ones as far as they are believed."""
        turned = self._turned(view, now)
        largest = min(self.p.scan_range, view.scan.range_max)
        ranges = np.minimum(view.ranges, largest)
        proven = eye.evidence.proven(now[3], largest - self.robot.reach)[view.groups]
        # A lidar to which nothing returns at all may be dead, whatever it proved before.
        alive = self._at_once or view.returned >= FEWEST_RETURNS
        ranges[(view.ranges == np.inf) & ~(proven & alive)] = np.nan
        origins, at = self._cast(view, now)
        error = self._error(view, now, turned)
        if self.p.obstacle_speed:  # what may have come nearer since
            error += self.p.obstacle_speed * (now_ns - view.cast_ns) * 1e-9
        return Rays.around(ranges, at, origins, error, turned, view.step)

    def _points(self, now: tuple[float, ...], now_ns: int) -> tuple[Floats, Floats]:
        """(points[M, 2] that bound the free space about the base at `now`, those [K, 2] behind which is unknown)."""
        views = [self._rays(eye, eye.view, now, now_ns) for eye in self.eyes.values() if eye.view is not None]
        bounds = [self.robot.bounded(rays) for rays in views]
        found, unseen = [self._recalled(now)], [np.zeros((0, 2))]
        for i, (points, unknown, _) in enumerate(bounds):
            keep = np.ones(len(points), bool)
            for j, (rays, (_, _, free)) in enumerate(zip(views, bounds, strict=True)):
                if j != i and unknown.any():  # what one lidar does not see, another may
                    keep &= ~(unknown & proves(points, rays.bearings, rays.origins, free, rays.wide, rays.turned.max()))
            found.append(points[keep])
            unseen.append(points[keep & unknown])
        points = np.concatenate(found)
        return points if len(points) else NOWHERE, np.concatenate(unseen)

    def _recalled(self, now: tuple[float, ...]) -> Floats:
        """What was seen and is no longer [M, 2]: nearer, and to both sides, by what the odometry may have lost."""
        at, lost, astray = self.memory.recalled(now)
        away = np.maximum(np.hypot(at[:, 0], at[:, 1]), 1e-6)
        near = away < self.robot.reach
        if not near.any():
            return np.zeros((0, 2))
        at, away, lost, astray = at[near], away[near], lost[near] + self.p.lidar_noise, astray[near]
        at = at * np.maximum(1.0 - np.minimum(lost, MOST_LOST) / away, 0.0)[:, None]
        # To both sides, by bearing: of several in one cell, the nearest.
        reached = np.hypot(at[:, 0], at[:, 1])
        bearing = np.arctan2(at[:, 1], at[:, 0])[:, None] + astray[:, None] * SPREAD
        nearest = np.full(len(CELLS), np.inf)
        cells = np.round(bearing / CELLS[1]).astype(int) % len(CELLS)
        np.minimum.at(nearest, cells, np.where(astray * reached > 0.5 * SPACING, reached, np.inf)[:, None])
        seen = nearest < np.inf
        beside = nearest[seen, None] * np.column_stack([np.cos(CELLS[seen]), np.sin(CELLS[seen])])
        return np.concatenate([at, beside])

    def _scene(self, now: tuple[float, ...]) -> Floats:
        """Ranges about the base [scan_rays], for the policy."""
        grid = np.full(self.p.scan_rays, np.nan)
        for eye in self.eyes.values():
            assert eye.view is not None
            enter(grid, np.empty_like(grid), *self._cast(eye.view, now), eye.view.ranges)
        return np.where(np.isfinite(grid), np.minimum(grid, self.p.scan_range), self.p.scan_range)

    # --- motion by scans -------------------------------------------------------------------------------------------

    def disagreements(self, judge: bool) -> dict[str, float]:
        """The motion between scans, found by matching them, against that by odometry within its mismatch.

        The slip of a slow base between two scans is smaller than the uncertainty of scans; over several it adds up.
        """
        found: dict[str, float] = {}
        for name, eye in self.eyes.items():
            if not judge:
                eye.chain.clear()
            if not eye.fresh or eye.view is None:
                continue
            eye.fresh = False
            if not judge or eye.view.returned < FEWEST_RETURNS:  # an empty scan shows nothing about the motion either
                continue
            self._append(eye, eye.view)
            if len(eye.chain) < 2:
                continue
            label = name if len(self.eyes) > 1 else "scan"
            off, disagree = self._off(list(eye.chain)[-2:])
            found |= dict(zip((f"x by {label}", f"y by {label}", f"yaw by {label}"), off, strict=True))
            found[f"part of the {label}"] = disagree / self.p.scan_disagreement
            if len(eye.chain) > COMPARED:
                off, _ = self._off(list(eye.chain))
                names = (f"x by odometry and {label}", f"y by odometry and {label}", f"yaw by odometry and {label}")
                found |= dict(zip(names, off, strict=True))
        return found

    def check(self, residual: str) -> str:
        """See Perception: scans differ from the odometry as much by a wrong mounting as by slip."""
        if not any(residual.endswith(name) for name in ("scan", *self.eyes)):
            return ""
        return "x, y, yaw, upside_down, stamp, backwards, turn_time of the lidar in the configuration, wheels and load"

    def _append(self, eye: Eye, view: View) -> None:
        at = view.rows[-1]
        if eye.chain:
            last, before = eye.chain[-1].at, eye.chain[-1].view
            apart_s = (view.last_ns - before.last_ns) / 1e9
            if apart_s > FARTHEST_S or abs(at[2] - last[2]) > FARTHEST_TURN:
                eye.chain.clear()
        grid, beside = np.full(self.p.scan_rays, np.nan), np.zeros(self.p.scan_rays)
        # In the lidar's own place at the last ray.
        origins, bearing = self._cast(view, at)
        cos, sin = np.cos(view.setup.yaw), np.sin(view.setup.yaw)
        origins = (origins - [view.setup.x, view.setup.y]) @ np.array([[cos, -sin], [sin, cos]])
        enter(grid, beside, origins, bearing - view.setup.yaw, view.ranges)
        grid, angles = _filled(grid), self.robot.grid + beside
        eye.chain.append(Seen(grid, angles, surfaces(grid, angles, STRAIGHT * self.p.lidar_noise), at, view))

    def _off(self, chain: list[Seen]) -> tuple[Floats, float]:
        """(how far the last scan's pose lies outside what the odometry allows [3], in W; share that disagrees)."""
        p, setup = self.p, chain[0].view.setup
        first, last = chain[0].view, chain[-1].view
        m = p.motion_mismatch
        steps = np.array([_relative(one.at, other.at) for one, other in pairwise(chain)])
        scales = [(1.0, 1.0), *product((1.0 - m, 1.0 + m), repeat=2)]
        poses = np.array([_of_sensor(_chained(steps * [v, v, w]), setup) for v, w in scales])
        pose, deviation, disagree = match_scans(
            chain[0].surfaces,
            chain[-1].ranges,
            chain[-1].angles,
            chain[-1].surfaces.smooth,
            self.robot.grid,
            poses[0],
            p.scan_range,
            p.obstacle_speed > 0.0,
        )
        bound = np.array([p.scan_residual_distance, p.scan_residual_distance, p.scan_residual_turn])
        # What bringing the rays of a scan to one instant may add.
        both = [(view, self._turned(view, view.rows[-1])) for view in (first, last)]
        turned = sum(float(angles.max()) for _, angles in both)
        moved = sum(float(self._error(view, view.rows[-1], angles).max()) - p.lidar_noise for view, angles in both)
        bound = bound + np.array([moved, moved, turned])
        off = outside(pose, poses.min(axis=0), poses.max(axis=0)) / bound
        return np.where(deviation < 0.25 * bound, off, 0.0), disagree


def warm_up() -> None:
    """Compile, or load, what only a second scan or a second lidar would call."""
    memory, angles, ranges = Memory(1.0, 0.0), np.array([0.0, 1.0, 2.0]), np.ones(3)
    for _ in range(2):
        memory.add(np.zeros(5), np.array([[0.5, 0.0]]), 1.0)
        memory.compare(np.zeros(5), np.zeros(2), angles, ranges, 1.0, 0.0)
    grid = np.linspace(-np.pi, np.pi, 16, endpoint=False)
    lines = surfaces(np.ones(16), grid, 1.0)
    match_scans(lines, np.ones(16), grid, lines.smooth, grid, np.zeros(3), 6.0, walkers=True)
    proves(np.ones((1, 2)), angles, np.zeros((3, 2)), ranges, 1.0, 0.0)


def _relative(before: Floats, now: Floats) -> Floats:
    """Pose[3] of row `now` in the frame of the base at row `before`."""
    cos, sin = np.cos(before[2]), np.sin(before[2])
    dx, dy = now[0] - before[0], now[1] - before[1]
    return np.array([cos * dx + sin * dy, cos * dy - sin * dx, now[2] - before[2]])


def _chained(steps: Floats) -> Floats:
    """The pose[3] after steps[N, 3], each in the frame of the previous one."""
    x, y, yaw = 0.0, 0.0, 0.0
    for dx, dy, turn in steps:
        cos, sin = np.cos(yaw), np.sin(yaw)
        x, y, yaw = x + cos * dx - sin * dy, y + sin * dx + cos * dy, yaw + turn
    return np.array([x, y, yaw])


def _of_sensor(pose: Floats, setup: LidarSetup) -> Floats:
    """How a lidar moved, in its own frame, when the base moved by pose[3]."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    x = pose[0] + (cos - 1.0) * setup.x - sin * setup.y
    y = pose[1] + sin * setup.x + (cos - 1.0) * setup.y
    cos, sin = np.cos(setup.yaw), np.sin(setup.yaw)
    return np.array([cos * x + sin * y, cos * y - sin * x, pose[2]])


def _filled(grid: Floats) -> Floats:
    """The grid with single empty cells filled from their neighbours: rays do not fall into cells evenly."""
    before, after = np.roll(grid, 1), np.roll(grid, -1)
    with np.errstate(invalid="ignore"):  # of two infinities, the difference is no number
        around = np.where(np.abs(before - after) < BREAK, 0.5 * (before + after), np.minimum(before, after))
    return np.where(np.isnan(grid), around, grid)
