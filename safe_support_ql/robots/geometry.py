"""Plane geometry that robots share: distance to points, and matching of two lidar scans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

BESIDE = 3  # rays on either side of a point that its line is fitted to
BREAK = 0.25  # m, a larger step between neighbouring ranges is the edge of an object
FAR_OFF = 0.10  # m, a point farther from its line disagrees
NOISE = 0.015  # m, standard deviation of a point's distance from its line
KNOWN = 4.0  # a direction with less information (points along it) counts as unseen
FEW = 20  # least denominator of a share of points
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


def match_scans(before: Any, now: Any, angles: Any, guess: Any, reach: float) -> tuple[Any, Any, float]:
    """How a lidar moved between two scans of a static world: (pose[3], deviation[3], share of points that disagree).

    before[N], now[N]: ranges in metres, infinite where nothing was hit, NaN where a ray has no information; angles[N]
    evenly spaced over the circle. Pose (x [m], y [m], yaw [rad]) is that of `now` in the frame of `before`, found from
    `guess`[3] by Gauss-Newton steps on the distances of the new points to lines through the old ones (point-to-line ICP
    with association by bearing; Censi, "An ICP variant using a point-to-line metric", 2008). The standard deviation
    is infinite in directions that the scans do not determine, for example along a corridor. A point disagrees if it
    lies off every line, or if it was nearer than `reach` [m] and has disappeared.
    """
    n, step = len(angles), float(angles[1] - angles[0])
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    seen = np.isfinite(now)
    points = np.where(seen, now, 0.0)[:, None] * rays
    old = np.where(np.isfinite(before), before, 0.0)[:, None] * rays
    # Fit a line to a point and its neighbours if they belong to one surface, and not to two at different distances.
    window = (np.arange(-BESIDE, BESIDE + 1)[:, None] + np.arange(n)) % n
    ranges, beside = before[window], old[window]
    with np.errstate(invalid="ignore"):  # a comparison with NaN is false
        smooth = np.isfinite(ranges).all(axis=0) & (np.abs(np.diff(ranges, axis=0)).max(axis=0) < BREAK)
    centre = beside.mean(axis=0)
    x, y = np.moveaxis(beside - centre, -1, 0)
    xx, yy, xy = (x * x).sum(axis=0), (y * y).sum(axis=0), (x * y).sum(axis=0)
    along = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    normal = np.stack([-np.sin(along), np.cos(along)], axis=1)
    pose = np.array(guess, np.float64)
    for _ in range(ROUNDS):
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        moved = turned + pose[:2]
        nearest_ray = np.round((np.arctan2(moved[:, 1], moved[:, 0]) - angles[0]) / step).astype(int) % n
        use = seen & smooth[nearest_ray]
        line, at = normal[nearest_ray], centre[nearest_ray]
        distance = ((moved - at) * line).sum(axis=1)
        fits = use & (np.abs(distance) < FAR_OFF)
        lever = line[:, 1] * turned[:, 0] - line[:, 0] * turned[:, 1]
        jacobian = np.column_stack([line, lever])[fits]
        information = jacobian.T @ jacobian
        values, axes = np.linalg.eigh(information)
        known = values > KNOWN
        solve = (axes[:, known] / values[known]) @ axes[:, known].T
        change = solve @ (jacobian.T @ distance[fits])
        pose = pose - change
        if np.abs(change).max() < SETTLED:
            break
    spread = np.where(known, 1.0 / np.maximum(values, KNOWN), np.inf)
    with np.errstate(invalid="ignore"):
        deviation = np.sqrt(np.nansum(np.where(axes**2 > 1e-6, axes**2 * spread, 0.0), axis=1)) * NOISE
    # Conversely, an old surface that rays now pass through has disappeared.
    back = (centre - pose[:2]) @ np.array([[cos, -sin], [sin, cos]])
    away = np.hypot(back[:, 0], back[:, 1])
    ray = np.round((np.arctan2(back[:, 1], back[:, 0]) - angles[0]) / step).astype(int)
    nearest_hit = np.nan_to_num(now, nan=0.0, posinf=np.inf)[(ray + [[-1], [0], [1]]) % n].min(axis=0)
    there = smooth & (away < reach - BREAK)
    gone = there & (nearest_hit > away + BREAK)
    disagree = max((use & ~fits).sum() / max(use.sum(), FEW), gone.sum() / max(there.sum(), FEW))
    return pose, deviation, float(disagree)
