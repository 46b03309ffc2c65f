"""From a scan to the points that bound the space that it proves free.

A ray with a return proves that the space up to it is free. One without is evidence only where its lidar has proved that
it sees there (evidence.py); otherwise it shows unknown space, as do masked rays and bearings without a ray.

Unknown rays between two others are bridged: an obstacle of the least declared width shows beside a gap that is narrower
than itself. What a wider gap hides begins at the pocket, a circle about the base: its edge is a boundary like any hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from safe_support_ql.robots.model import Floats

SPACING = 0.05  # m, largest distance between two points on the edge of unknown space
FULL = 2 * math.pi


def completed(bearings: Floats, step: float) -> Floats:
    """bearings[N] of rays about `step` apart, and behind them those that the full circle lacks [>= N]."""
    left = FULL - abs(bearings[-1] - bearings[0])  # where the base turned meanwhile, not a multiple of the step
    missing = math.ceil(left / abs(step) - 1.5)
    if missing <= 0:
        return bearings
    gap = math.copysign(left / (missing + 1), step)
    return np.concatenate([bearings, bearings[-1] + gap * np.arange(1, missing + 1)])


@dataclass(frozen=True)
class Rays:
    """The rays of one scan at one instant, N around the full circle; see `boundary`."""

    ranges: Floats
    bearings: Floats
    origins: Floats
    error: Floats
    turned: Floats
    wide: float

    @classmethod
    def around(
        cls, ranges: Floats, bearings: Floats, origins: Floats, error: Floats, turned: Floats, step: float
    ) -> Rays:
        """Of a scan with rays about `step` apart: those that the full circle lacks say nothing."""
        full = completed(bearings, step)
        if more := len(full) - len(ranges):
            ranges = np.concatenate([ranges, np.full(more, np.nan)])
            origins = np.concatenate([origins, np.tile(origins[-1], (more, 1))])
            error, turned = (np.concatenate([bound, np.full(more, bound.max())]) for bound in (error, turned))
        return cls(ranges, full, origins, error, turned, abs(step))


@numba.njit(error_model="numpy", cache=True)
def _lost(gap: float) -> float:
    """Of the range of two rays that are `gap` apart: how much nearer a right-angled corner between them may stand."""
    return 1.0 - math.cos(0.5 * gap) + math.sin(0.5 * gap)


@numba.njit(error_model="numpy", cache=True)
def boundary(ranges, bearings, origins, error, turned, wide, reach, pocket, narrowest, closed=False) -> Any:  # type: ignore[no-untyped-def]
    """(points[M, 2], unknown[M], free[N]): what bounds the free space of one scan, within `reach` of the base.

    For each ray of a full circle: ranges[N] in metres, NaN where it says nothing, and what it may count on where
    nothing returned; bearings[N] in radians; origins[N, 2], where the lidar was when the ray was cast; error[N], the
    bound on its range; turned[N], that on its bearing. `wide` is the angle between two rays; `pocket` is the radius of
    the circle about the base at which unknown space begins, `narrowest` the least width of an obstacle. `closed`:
    points stand no farther apart than SPACING, also between hits and along the edges of shadows. `unknown` marks points
    that bound space of which nothing is known; `free` is how far each ray proves that nothing is there, 0 where it is
    the edge of unknown space.
    """
    n = len(ranges)
    edge, least, across, blank = np.empty(n), ranges.copy(), np.full(n, _lost(wide)), np.isnan(ranges)
    cos, sin = np.cos(bearings), np.sin(bearings)
    for j in range(n):
        # From the lidar along the ray to the edge of the pocket.
        x, y = origins[j]
        along = x * cos[j] + y * sin[j]
        edge[j] = max(0.0, math.sqrt(max(0.0, along * along - x * x - y * y + pocket * pocket)) - along)
    if not blank.all():
        # Bridge each run of rays that say nothing, from one that says something to the next.
        first = int(np.argmin(blank))
        left = first
        for i in range(1, n + 1):
            right = (first + i) % n
            if blank[right]:
                continue
            run = (right - left - 1) % n
            if run:
                gap = (bearings[right] - bearings[left]) % FULL
                gap = min(gap, FULL - gap) if run < n // 2 else max(gap, FULL - gap)
                for k in range(run):
                    j = (left + 1 + k) % n
                    if narrowest / gap * (1.0 - _lost(gap)) - error[j] > edge[j]:
                        least[j], across[j] = min(ranges[left], ranges[right], narrowest / gap), _lost(gap)
            left = right
    lost = np.isnan(least)  # rays that say nothing, in gaps that are too wide to be bridged
    free, unknown = np.empty(n), lost.copy()
    reached = int(1.5 + turned.max() / wide)  # rays to either side, one of which may have looked here
    for j in range(n):
        if lost[j]:
            free[j] = edge[j]
            continue
        shortest, end = np.inf, np.inf
        for k in range(-reached, reached + 1):
            m = (j + k) % n
            if (abs(k) - 1.5) * wide > turned[m]:
                continue
            if lost[m]:
                end = min(end, edge[m])
            else:
                shortest = min(shortest, least[m] * (1.0 - across[m]) - error[m])
        free[j] = max(shortest, 0.0)
        if end < free[j]:
            free[j], unknown[j] = end, True
    most = n * (2 + int(math.ceil(2 * reach / SPACING))) if closed else 9 * n
    points, marks = np.empty((most, 2)), np.zeros(most, np.bool_)
    count, skipped = 0, 0.0
    for j in range(n):
        m = (j + 1) % n
        x, y = origins[j, 0] + free[j] * cos[j], origins[j, 1] + free[j] * sin[j]
        # Amid unknown space, one point of the pocket's edge stands for its neighbours.
        skipped += wide * pocket
        if lost[j] and lost[m] and lost[j - 1] and skipped < SPACING - wide * pocket:
            continue
        skipped = 0.0
        near = x * x + y * y < reach * reach
        if near:
            points[count] = x, y
            marks[count] = unknown[j]
            count += 1
        if closed or unknown[j] or unknown[m]:
            # The edge, from this ray's end to the next one's.
            dx, dy = origins[m, 0] + free[m] * cos[m] - x, origins[m, 1] + free[m] * sin[m] - y
            parts = int(math.ceil(math.sqrt(dx * dx + dy * dy) / SPACING))
            for k in range(1, parts):
                px, py = x + dx * k / parts, y + dy * k / parts
                if px * px + py * py < reach * reach and count < len(points):
                    points[count] = px, py
                    marks[count] = unknown[j] or unknown[m]
                    count += 1
    return points[:count], marks[:count], np.where(unknown, 0.0, free)


@numba.njit(error_model="numpy", cache=True)
def proves(points, bearings, origins, free, wide, turned) -> Any:  # type: ignore[no-untyped-def]
    """Whether each of points[M, 2] lies in the free space of another scan; see `boundary`, whose free[N] this takes."""
    n, inside = len(free), np.zeros(len(points), np.bool_)
    window = 1 + int(math.ceil(turned / wide - 1e-9))
    step = (bearings[n - 1] - bearings[0]) / (n - 1)
    for i in range(len(points)):
        x, y = points[i, 0] - origins[n // 2, 0], points[i, 1] - origins[n // 2, 1]
        around = ((math.atan2(y, x) - bearings[0]) / step) % (FULL / abs(step))
        inside[i] = True
        for k in range(-window, window + 1):
            m = (int(round(around)) + k) % n
            dx, dy = points[i, 0] - origins[m, 0], points[i, 1] - origins[m, 1]
            inside[i] = inside[i] and dx * dx + dy * dy < free[m] * free[m]
    return inside


@numba.njit(error_model="numpy", cache=True)
def cast_from(rows, angles, ahead, aside, x, y, yaw) -> Any:  # type: ignore[no-untyped-def]
    """(origins[N, 2], bearings[N]) of rays in the frame of a base at (x, y, yaw).

    Each was cast at angles[N] from (ahead, aside) on a base at rows[N, >= 3] = (x, y, yaw, ...).
    """
    n = len(angles)
    origins, bearings = np.empty((n, 2)), np.empty(n)
    cos, sin = math.cos(yaw), math.sin(yaw)
    turn, c, s = 0.0, 1.0, 0.0
    for j in range(n):
        if rows[j, 2] - yaw != turn:
            turn = rows[j, 2] - yaw
            c, s = math.cos(turn), math.sin(turn)
        dx, dy = rows[j, 0] - x, rows[j, 1] - y
        origins[j, 0] = cos * dx + sin * dy + c * ahead - s * aside
        origins[j, 1] = cos * dy - sin * dx + s * ahead + c * aside
        bearings[j] = angles[j] + turn
    return origins, bearings


@numba.njit(error_model="numpy", cache=True)
def ends(origins, bearings, ranges, near) -> Any:  # type: ignore[no-untyped-def]
    """Where rays ended [M, 2] that returned, no farther than `near` from the base."""
    points, count = np.empty((len(ranges), 2)), 0
    for j in range(len(ranges)):
        if 0.0 < ranges[j] < np.inf:
            x = origins[j, 0] + ranges[j] * math.cos(bearings[j])
            y = origins[j, 1] + ranges[j] * math.sin(bearings[j])
            if x * x + y * y < near * near:
                points[count] = x, y
                count += 1
    return points[:count]


@numba.njit(error_model="numpy", cache=True)
def enter(grid, beside, origins, bearings, ranges) -> None:  # type: ignore[no-untyped-def]
    """Enter rays into grid[K], ranges by bearing from -pi on: of several in one cell, the smallest.

    beside[K]: how far the bearing of that one is from the cell's own [rad].
    """
    k = len(grid)
    for j in range(len(ranges)):
        if np.isnan(ranges[j]):
            continue
        away = min(ranges[j], 1e3)  # of a ray without a return, only the direction matters
        x, y = origins[j, 0] + away * math.cos(bearings[j]), origins[j, 1] + away * math.sin(bearings[j])
        along = (math.atan2(y, x) + math.pi) * k / FULL
        whole = int(round(along))
        cell = whole % k
        distance = math.sqrt(x * x + y * y) if ranges[j] < np.inf else np.inf
        if not grid[cell] <= distance:
            grid[cell] = distance
            beside[cell] = (along - whole) * FULL / k if abs(along - whole) > 1e-9 else 0.0
