"""The outline of a base, seen from above: a convex polygon about the middle of its axle.

Its corners go round to the left, as one tuple (x_0, y_0, x_1, y_1, ...) in metres, in the frame of the base.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

from safe_support_ql.robots.model import Floats

LEAST_EDGE = 0.01  # m


def outline(corners: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """The outline with these `corners`, given in either direction. Raises ValueError saying what is wrong with them."""
    shape = convex(corners)
    if inner(shape) <= 0.0:
        raise ValueError("does not contain the middle of the axle, [0, 0]")
    return shape


def convex(corners: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """The convex polygon with these `corners`, as an outline is written. Raises ValueError as `outline` does."""
    if odd := [list(corner) for corner in corners if len(corner) != 2]:
        raise ValueError(f"has a corner {odd[0]}, must have two numbers: [x, y]")
    if len(corners) < 3:
        raise ValueError(f"has {len(corners)} corners, must have at least 3")
    points = np.array(corners)
    if _crossed(points).sum() < 0.0:
        points = points[::-1]
    edges = np.roll(points, -1, axis=0) - points
    if np.hypot(*edges.T).min() < LEAST_EDGE:
        raise ValueError(f"has corners less than {LEAST_EDGE:g} m apart")
    turns = _crossed(edges)
    directions = np.unwrap(np.arctan2(edges[:, 1], edges[:, 0]))
    if turns.min() <= 0.0 or directions[-1] - directions[0] > 2 * np.pi:
        raise ValueError("is not convex, or has corners on a straight line: take its convex hull")
    return tuple(points.ravel().tolist())


def _crossed(rows: Floats) -> Floats:
    """Of each of rows[N, 2] and the next one: positive where that turns to the left."""
    following = np.roll(rows, -1, axis=0)
    return np.asarray(rows[:, 0] * following[:, 1] - rows[:, 1] * following[:, 0])


def corners_of(shape: tuple[float, ...]) -> Floats:
    """The corners [N, 2] of an outline."""
    return np.array(shape).reshape(-1, 2)


def outer(shape: tuple[float, ...]) -> float:
    """rho: how far the farthest corner is from the middle of the axle, in metres."""
    return float(np.hypot(*corners_of(shape).T).max())


def inner(shape: tuple[float, ...]) -> float:
    """How far the nearest edge is from the middle of the axle, in metres; negative where that lies outside."""
    return -float(from_outline(0.0, 0.0, 0.0, np.zeros((1, 2)), shape, 1.0))


def from_outline(x: Any, y: Any, yaw: Any, points: Any, shape: Any, farthest: Any) -> Any:
    """Distance in metres from an outline at (x, y, yaw), floats or arrays of one shape, to the nearest of points[M, 2].

    Exact; negative where a point lies inside, by its depth. `farthest` is `outer(shape)`.
    """
    cos, sin = np.expand_dims(np.cos(yaw), -1), np.expand_dims(np.sin(yaw), -1)
    dx, dy = points[:, 0] - np.expand_dims(x, -1), points[:, 1] - np.expand_dims(y, -1)
    ahead, aside = cos * dx + sin * dy, cos * dy - sin * dx
    beyond, squared = -np.inf, np.inf
    for i in range(0, len(shape), 2):
        ex, ey = shape[(i + 2) % len(shape)] - shape[i], shape[(i + 3) % len(shape)] - shape[i + 1]
        rx, ry, edge = ahead - shape[i], aside - shape[i + 1], np.hypot(ex, ey)
        along = np.clip((rx * ex + ry * ey) / edge**2, 0.0, 1.0)
        squared = np.minimum(squared, (rx - along * ex) ** 2 + (ry - along * ey) ** 2)
        beyond = np.maximum(beyond, (rx * ey - ry * ex) / edge)
    return np.where(beyond > 0.0, np.sqrt(squared), beyond).min(axis=-1)


@overload(from_outline)
def _from_outline_compiled(x: Any, y: Any, yaw: Any, points: Any, shape: Any, farthest: Any) -> Any:
    def scalar(x: Any, y: Any, yaw: Any, points: Any, shape: Any, farthest: Any) -> Any:
        best, n = np.inf, len(shape)
        cos, sin = np.cos(yaw), np.sin(yaw)
        for i in range(len(points)):
            dx, dy = points[i, 0] - x, points[i, 1] - y
            enough = max(best, 0.0) + farthest
            if dx * dx + dy * dy >= enough * enough:
                continue  # no corner can be nearer than what was found
            ahead, aside = cos * dx + sin * dy, cos * dy - sin * dx
            beyond, squared = -np.inf, np.inf
            for j in range(0, n, 2):
                ex, ey = shape[(j + 2) % n] - shape[j], shape[(j + 3) % n] - shape[j + 1]
                rx, ry, edge = ahead - shape[j], aside - shape[j + 1], ex * ex + ey * ey
                along = min(max((rx * ex + ry * ey) / edge, 0.0), 1.0)
                squared = min(squared, (rx - along * ex) ** 2 + (ry - along * ey) ** 2)
                beyond = max(beyond, (rx * ey - ry * ex) / np.sqrt(edge))
            best = min(best, np.sqrt(squared) if beyond > 0.0 else beyond)
        return best

    return scalar


@numba.njit(error_model="numpy", cache=True)
def inside(points, shape) -> Any:  # type: ignore[no-untyped-def]
    """Which of points[M, 2], in the frame of the base, lie inside the outline."""
    found, n = np.ones(len(points), np.bool_), len(shape)
    for i in range(len(points)):
        for j in range(0, n, 2):
            ex, ey = shape[(j + 2) % n] - shape[j], shape[(j + 3) % n] - shape[j + 1]
            rx, ry = points[i, 0] - shape[j], points[i, 1] - shape[j + 1]
            found[i] = found[i] and rx * ey - ry * ex < 0.0
    return found
