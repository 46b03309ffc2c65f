"""A geofence: a convex polygon in the frame of the odometry that a base on a robot's session does not leave.

Its edges are obstacles to the certificate, as walls that a lidar sees are: so no plan needs to cross them. It holds by
odometry, and drifts with it.
"""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.footprint import convex, corners_of
from safe_support_ql.robots.free_space import SPACING
from safe_support_ql.robots.model import Floats


class Fence:
    """See the module."""

    def __init__(self, corners: tuple[tuple[float, ...], ...]) -> None:
        """`corners` [x, y] in metres, in either direction. Raises ValueError saying what is wrong with them."""
        self._corners = corners_of(convex(corners))
        edges = np.roll(self._corners, -1, axis=0) - self._corners
        lengths = np.hypot(*edges.T)
        self._inwards = np.column_stack([-edges[:, 1], edges[:, 0]]) / lengths[:, None]
        self._points = np.concatenate(
            [
                corner + np.linspace(0.0, 1.0, int(np.ceil(2 * length / SPACING)), endpoint=False)[:, None] * edge
                for corner, edge, length in zip(self._corners, edges, lengths, strict=True)
            ]
        )

    @property
    def room(self) -> float:
        """How far the middle of its corners lies inside, in metres."""
        return self.depth(*self._corners.mean(axis=0))

    def depth(self, x: float, y: float) -> float:
        """How far (x, y) lies inside, in metres; negative outside."""
        return float(((np.array([x, y]) - self._corners) * self._inwards).sum(axis=1).min())

    def seen_from(self, pose: Floats, reach: float) -> Floats:
        """Points [M, 2] of its edges within `reach` of a base at pose[3] = (x, y, yaw), in the frame of that base."""
        away = self._points - pose[:2]
        away = away[np.hypot(*away.T) < reach]
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        return away @ np.array([[cos, -sin], [sin, cos]])
