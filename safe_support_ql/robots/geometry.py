"""Plane geometry that robots share: distance to points, and matching of two lidar scans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.extending import overload

BESIDE = 3  # rays on either side of a point that its line is fitted to
BREAK = 0.25  # m, a larger step between neighbouring ranges is the edge of an object
FAR_OFF = 0.10  # m, a point farther from its line disagrees
NOISE = 0.015  # m, standard deviation of a point's distance from its line
KNOWN = 4.0  # a direction with less information (points along it) counts as unseen
FEW = 0.25  # of the directions: least denominator of a share of points
LARGEST = 1.0  # m, between the ends of what may walk
ROUNDS = 6
SETTLED = 1e-4  # m and rad, the search ends with a step smaller than this


def nearest(x: Any, y: Any, points: Any) -> Any:
    """Distance in metres from (x, y), floats or arrays of one shape, to the nearest of points[M, 2], M >= 1."""
    squared = (np.expand_dims(x, -1) - points[:, 0]) ** 2 + (np.expand_dims(y, -1) - points[:, 1]) ** 2
    return np.sqrt(squared.min(axis=-1))


@overload(nearest)
def _nearest_compiled(x: Any, y: Any, points: Any) -> Any:
    def scalar(x: Any, y: Any, points: Any) -> Any:
        best = np.inf
        for i in range(len(points)):
            dx, dy = x - points[i, 0], y - points[i, 1]
            best = min(best, dx * dx + dy * dy)
        return np.sqrt(best)

    return scalar


@dataclass(frozen=True)
class Surfaces:
    """A scan as lines: for each of N rays, whether its surface is smooth[N], a point centre[N, 2], a normal[N, 2]."""

    smooth: Any
    centre: Any
    normal: Any


def surfaces(ranges: Any, angles: Any, straight: float) -> Surfaces:
    """Lines through the neighbouring points of a scan; see match_scans for ranges[N] and angles[N].

    A line is fitted to a point and its neighbours if they belong to one surface, and not to two at different distances,
    nor to the two sides of a corner: their root mean square distance from the line is at most `straight` [m].
    """
    n = len(angles)
    points = np.where(np.isfinite(ranges), ranges, 0.0)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    window = (np.arange(-BESIDE, BESIDE + 1)[:, None] + np.arange(n)) % n
    around, beside = ranges[window], points[window]
    with np.errstate(invalid="ignore"):  # a comparison with NaN is false
        smooth = np.isfinite(around).all(axis=0) & (np.abs(np.diff(around, axis=0)).max(axis=0) < BREAK)
    centre = beside.mean(axis=0)
    x, y = np.moveaxis(beside - centre, -1, 0)
    xx, yy, xy = (x * x).sum(axis=0), (y * y).sum(axis=0), (x * y).sum(axis=0)
    bent = 0.5 * (xx + yy - np.sqrt((xx - yy) ** 2 + 4.0 * xy**2))  # sum of squared distances from the line
    smooth &= bent <= len(window) * straight**2
    along = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    return Surfaces(smooth, centre, np.stack([-np.sin(along), np.cos(along)], axis=1))


def match_scans(
    before: Surfaces, now: Any, angles: Any, flat: Any, grid: Any, guess: Any, reach: float, walkers: bool = False
) -> tuple[Any, Any, float]:
    """How a lidar moved between two scans of a static world: (pose[3], deviation[3], share of points that disagree).

    `before` are the surfaces of the older one; now[N]: ranges in metres, infinite where nothing was hit, NaN where a
    ray has no information; angles[N] are the bearings of the rays, each at most half a step from grid[N], which is
    evenly spaced over the circle; flat[N]: which of them lie on smooth surfaces. Pose (x [m], y [m], yaw [rad]) is that
    of `now` in the frame of `before`, found from `guess`[3] by Gauss-Newton steps on the distances of flat points to
    lines through the old ones (point-to-line ICP with association by bearing; Censi, "An ICP variant using a
    point-to-line metric", 2008). The standard deviation is infinite in directions that the scans do not determine, for
    example along a corridor. A point disagrees if it lies off every line, or if it was nearer than `reach` [m] and has
    disappeared.

    With `walkers`, small objects that moved, if the lidar moved as guessed, are left out: they may have walked, and
    show nothing about its motion.
    """
    seen = np.isfinite(now)
    points = np.where(seen, now, 0.0)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    old, rays = (before.smooth, before.centre, before.normal), (float(grid[0]), float(grid[1] - grid[0]))
    guess = np.array(guess, np.float64)
    if walkers:
        seen = seen & ~_walking(points, now, _distances(*old, points, seen, guess, *rays))
    found: tuple[Any, Any, float] = _match(*old, points, now, seen, flat, guess, *rays, reach)
    return found


@numba.njit(error_model="numpy", cache=True)
def _line(smooth, centre, normal, x, y, first, step) -> Any:  # type: ignore[no-untyped-def]
    """(index of the line that a point belongs to by its bearing, -1 without one; distance from it)."""
    k = int(round((math.atan2(y, x) - first) / step)) % len(smooth)
    if not smooth[k]:
        return -1, 0.0
    return k, (x - centre[k, 0]) * normal[k, 0] + (y - centre[k, 1]) * normal[k, 1]


@numba.njit(error_model="numpy", cache=True)
def _distances(smooth, centre, normal, points, seen, pose, first, step) -> Any:  # type: ignore[no-untyped-def]
    """How far each of the points [N], moved by pose[3], is from its line; NaN where it has none."""
    cos, sin, distance = math.cos(pose[2]), math.sin(pose[2]), np.full(len(points), np.nan)
    for i in range(len(points)):
        x, y = cos * points[i, 0] - sin * points[i, 1] + pose[0], sin * points[i, 0] + cos * points[i, 1] + pose[1]
        k, away = _line(smooth, centre, normal, x, y, first, step)
        if seen[i] and k >= 0:
            distance[i] = abs(away)
    return distance


@numba.njit(error_model="numpy", cache=True)
def _match(  # type: ignore[no-untyped-def]
    smooth, centre, normal, points, now, seen, flat, guess, first, step, reach
) -> Any:
    """See match_scans; only the points that are seen[N] count."""
    n, pose, cos, sin, used, fits = len(now), guess.copy(), 1.0, 0.0, 0, 0
    values, axes, row = np.zeros(3), np.eye(3), np.zeros(3)
    for _ in range(ROUNDS):
        cos, sin, used, fits = math.cos(pose[2]), math.sin(pose[2]), 0, 0
        information, slope = np.zeros((3, 3)), np.zeros(3)
        for i in range(n):
            if not seen[i]:
                continue
            x, y = cos * points[i, 0] - sin * points[i, 1], sin * points[i, 0] + cos * points[i, 1]
            k, distance = _line(smooth, centre, normal, x + pose[0], y + pose[1], first, step)
            if k < 0:
                continue
            used += 1
            if abs(distance) >= FAR_OFF:
                continue
            fits += 1
            if not flat[i]:  # points at the rim of a surface lie off its line by more than noise, all to one side
                continue
            row[0], row[1], row[2] = normal[k, 0], normal[k, 1], normal[k, 1] * x - normal[k, 0] * y
            for a in range(3):
                slope[a] += distance * row[a]
                for b in range(3):
                    information[a, b] += row[a] * row[b]
        values, axes = np.linalg.eigh(information)
        change = np.zeros(3)
        for j in range(3):
            if values[j] > KNOWN:
                along = axes[0, j] * slope[0] + axes[1, j] * slope[1] + axes[2, j] * slope[2]
                for a in range(3):
                    change[a] += axes[a, j] * along / values[j]
        pose -= change
        if np.abs(change).max() < SETTLED:
            break
    deviation = np.zeros(3)
    for a in range(3):
        for j in range(3):
            if axes[a, j] ** 2 > 1e-6:
                deviation[a] += axes[a, j] ** 2 / values[j] if values[j] > KNOWN else np.inf
    # Conversely, an old surface that rays now pass through has disappeared.
    there = gone = 0
    for i in range(n):
        x, y = centre[i, 0] - pose[0], centre[i, 1] - pose[1]
        away = math.sqrt(x * x + y * y)
        if not smooth[i] or away >= reach - BREAK:
            continue
        there += 1
        ray = int(round((math.atan2(cos * y - sin * x, cos * x + sin * y) - first) / step))
        nearest_hit = np.inf
        for beside in range(-1, 2):
            hit = now[(ray + beside) % n]
            nearest_hit = min(nearest_hit, 0.0 if np.isnan(hit) else hit)
        gone += nearest_hit > away + BREAK
    disagree = max((used - fits) / max(used, FEW * n), gone / max(there, FEW * n))
    return pose, np.sqrt(deviation) * NOISE, disagree


def _walking(points: Any, ranges: Any, distance: Any) -> Any:
    """Which rays [N] show small objects that moved: distance[N] from where they were, NaN where unknown."""
    with np.errstate(invalid="ignore"):  # a comparison with NaN is false
        joined = np.abs(ranges - np.roll(ranges, 1)) < BREAK  # with the ray before
    found = np.zeros(len(ranges), bool)
    if joined.all():
        return found
    order = (int(np.argmin(joined)) + np.arange(len(ranges))) % len(ranges)  # what lies across the seam is one object
    starts = np.flatnonzero(~joined[order])
    for rays in np.split(order, starts[1:]):
        off = distance[rays]
        off = off[~np.isnan(off)]
        small = np.hypot(*(points[rays[-1]] - points[rays[0]])) < LARGEST
        found[rays] = small and (not len(off) or off.mean() > NOISE)
    return found
