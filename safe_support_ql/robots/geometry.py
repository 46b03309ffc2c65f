"""Plane geometry that runs both vectorised and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload


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
