"""The outline of a base: what is refused, and its distance to points against a search by brute force."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from safe_support_ql.robots.footprint import corners_of, from_outline, inner, inside, outer, outline

BOX = ((0.4, 0.2), (-0.1, 0.2), (-0.1, -0.2), (0.4, -0.2))


def some_outline(seed: int) -> tuple[float, ...]:
    """Convex, with the axle somewhere in it."""
    rng = np.random.default_rng(seed)
    while True:
        points = rng.uniform(-0.4, 0.4, (rng.integers(3, 9), 2))
        hull = points[ConvexHull(points).vertices]
        try:
            return outline(tuple(map(tuple, hull.tolist())))
        except ValueError:
            continue


def along(corners: Any, step: float = 0.0005) -> Any:
    """Points on an outline [K, 2], `step` metres apart."""
    following = np.roll(corners, -1, axis=0)
    parts = [
        a + (b - a) * np.linspace(0.0, 1.0, 2 + int(np.hypot(*(b - a)) / step))[:, None]
        for a, b in zip(corners, following, strict=True)
    ]
    return np.concatenate(parts)


def test_corners_come_in_either_direction() -> None:
    assert sorted(map(tuple, corners_of(outline(BOX)))) == sorted(map(tuple, corners_of(outline(BOX[::-1]))))
    assert outer(outline(BOX)) == pytest.approx(np.hypot(0.4, 0.2)) and inner(outline(BOX)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        (BOX[:2], "has 2 corners, must have at least 3"),
        ((*BOX, (0.1,)), r"has a corner \[0.1\], must have two numbers"),
        ((*BOX, BOX[-1]), "less than 0.01 m apart"),
        ((BOX[0], BOX[2], BOX[1], BOX[3]), "not convex"),
        ((*BOX, (0.1, 0.0)), "not convex"),
        ((*BOX, (0.4, 0.0)), "on a straight line"),
        ((*BOX, *BOX), "not convex"),  # twice around
        (tuple((x + 0.2, y) for x, y in BOX), "does not contain the middle of the axle"),
    ],
)
def test_what_is_no_outline_is_refused(corners: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        outline(corners)


@numba.njit
def compiled(x: Any, y: Any, yaw: Any, points: Any, shape: Any, farthest: Any) -> Any:
    return from_outline(x, y, yaw, points, shape, farthest)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_the_distance_is_exact_and_signed_compiled_or_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, points = some_outline(seed), rng.uniform(-0.8, 0.8, (rng.integers(1, 6), 2))
    x, y, yaw = rng.uniform(-0.3, 0.3, 2).tolist() + [rng.uniform(-4.0, 4.0)]
    cos, sin = np.cos(yaw), np.sin(yaw)
    edge = np.array([x, y]) + along(corners_of(shape)) @ np.array([[cos, sin], [-sin, cos]])
    sampled = np.linalg.norm(edge - points[:, None], axis=2).min(axis=1)
    own = (points - [x, y]) @ np.array([[cos, -sin], [sin, cos]])
    expected = np.where(inside(own, shape), -sampled, sampled).min()
    found = float(from_outline(x, y, yaw, points, shape, outer(shape)))
    assert found == pytest.approx(expected, abs=3e-4)
    assert compiled(x, y, yaw, points, shape, outer(shape)) == pytest.approx(found, abs=1e-12)
    several = from_outline(np.full(3, x), np.full(3, y), np.full(3, yaw), points, shape, outer(shape))
    np.testing.assert_allclose(several, found, atol=1e-12)
