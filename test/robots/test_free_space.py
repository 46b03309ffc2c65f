"""The points that bound free space: nothing unknown is entered, and no obstacle of the declared width is missed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql.robots.free_space import boundary, cast_from, completed, enter, proves

WIDE = 2 * math.pi / 180
BEARINGS = -math.pi + WIDE * np.arange(180)
REACH, POCKET, NARROWEST = 0.95, 0.39, 0.2


def kept(gap: float) -> float:
    """Of the range of two rays that are `gap` apart, where a right-angled corner may stand between them."""
    return math.cos(gap / 2) - math.sin(gap / 2)


def bound(ranges, error=0.0, turned=0.0, bearings=BEARINGS, origins=None):
    origins = np.zeros((len(ranges), 2)) if origins is None else origins
    n = len(ranges)
    bounds = np.full(n, error), np.full(n, turned)
    return boundary(ranges, bearings, origins, *bounds, WIDE, REACH, POCKET, NARROWEST)[:2]


def test_returns_bound_free_space_less_half_the_gap_and_the_error() -> None:
    points, unknown = bound(np.full(180, 0.8), error=0.03)
    assert len(points) == 180 and not unknown.any()
    np.testing.assert_allclose(np.hypot(*points.T), 0.8 * kept(WIDE) - 0.03)


def test_what_lies_beyond_reach_does_not_matter() -> None:
    points, _ = bound(np.full(180, 3.0))
    assert len(points) == 0


def test_a_wide_gap_begins_at_the_pocket_and_is_closed_all_around() -> None:
    ranges = np.full(180, 3.0)
    ranges[60:120] = np.nan
    points, unknown = bound(ranges)
    assert unknown.all()
    away = np.hypot(*points.T)
    assert away.min() == pytest.approx(POCKET) and away.max() > 0.9
    # Nowhere is the edge of the unknown sector open by more than SPACING.
    order = points[np.argsort(np.arctan2(points[:, 1], points[:, 0]))]
    arc = order[np.hypot(*order.T) < POCKET + 1e-6]
    assert np.hypot(*np.diff(arc, axis=0).T).max() < 0.06


def test_a_gap_narrower_than_any_obstacle_is_bridged() -> None:
    ranges = np.full(180, 0.8)
    ranges[60:62] = np.nan  # 6 degrees from ray to ray: 0.08 m at 0.8 m
    points, unknown = bound(ranges)
    assert not unknown.any()
    gap = 3 * WIDE
    assert np.hypot(*points.T).min() == pytest.approx(0.8 * kept(gap))
    ranges[:] = 5.0
    ranges[60:66] = np.nan  # an obstacle may hide there, farther away than 0.2 m / 14 degrees
    points, _ = bound(ranges)
    assert np.hypot(*points.T).min() == pytest.approx(NARROWEST / (7 * WIDE) * kept(7 * WIDE))


def test_without_any_ray_the_pocket_is_all_that_is_free() -> None:
    points, unknown = bound(np.full(180, np.nan))
    assert unknown.all()
    np.testing.assert_allclose(np.hypot(*points.T), POCKET)


def test_the_pocket_is_about_the_base_wherever_the_lidar_is() -> None:
    origins = np.tile([0.15, 0.05], (180, 1))
    points, _ = bound(np.full(180, np.nan), origins=origins)
    np.testing.assert_allclose(np.hypot(*points.T), POCKET)


@given(st.floats(0.0, 0.12), st.integers(0, 179), st.floats(0.4, 0.9))
@settings(deadline=None, max_examples=50)
def test_an_error_of_the_bearings_widens_what_a_ray_may_have_seen(turned: float, at: int, near: float) -> None:
    ranges = np.full(180, 3.0)
    ranges[at] = near
    points, _ = bound(ranges, turned=turned)
    seen = np.arctan2(points[:, 1], points[:, 0])
    off = np.abs((seen - BEARINGS[at] + math.pi) % (2 * math.pi) - math.pi)
    assert off.max() >= turned and len(points) == 1 + 2 * int(1.5 + turned / WIDE)


def test_a_partial_field_of_view_is_completed() -> None:
    for step in (0.02, -0.02):
        half = completed(step * np.arange(100), step)
        turns = np.diff(np.append(half, half[0] + math.copysign(2 * math.pi, step)))
        assert np.abs(turns).max() < 0.02 * 1.51 and (np.sign(turns) == np.sign(step)).all()
    assert len(completed(BEARINGS, WIDE)) == 180
    assert len(completed(np.append(BEARINGS, math.pi), WIDE)) == 181  # the first ray again


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_no_obstacle_of_the_declared_width_is_missed(seed: int) -> None:
    """A disc of that width, a lidar with blind sectors at random: the points are never farther away than the disc.

    Beyond the pocket; and no farther away than reach, beyond which nothing matters.
    """
    rng = np.random.default_rng(seed)
    away, bearing = rng.uniform(POCKET + 0.1, REACH + 0.05), rng.uniform(-math.pi, math.pi)
    centre, radius = away * np.array([math.cos(bearing), math.sin(bearing)]), NARROWEST / 2
    along = np.cos(BEARINGS) * centre[0] + np.sin(BEARINGS) * centre[1]
    inside = radius**2 - (away**2 - along**2)
    ranges = np.where((inside > 0) & (along > 0), along - np.sqrt(np.maximum(inside, 0.0)), 5.0)
    for _ in range(int(rng.integers(0, 4))):
        first, count = int(rng.integers(180)), int(rng.integers(1, 40))
        ranges[(first + np.arange(count)) % 180] = np.nan
    points, _ = bound(ranges)
    # From everywhere in the pocket, the nearest point is no farther away than the disc.
    for _ in range(20):
        spot = rng.uniform(-0.12, 0.12, 2)
        true = math.hypot(*(centre - spot)) - radius
        if true < REACH - 0.2:
            told = np.hypot(*(points - spot).T).min()
            assert told <= true + 0.01


def test_rays_of_a_turning_base_are_cast_from_where_it_was() -> None:
    rows = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, math.pi / 2]])
    origins, bearings = cast_from(rows, np.array([0.0, 0.0]), 0.1, 0.0, 1.0, 0.0, math.pi / 2)
    np.testing.assert_allclose(origins, [[0.0, 0.9], [0.1, 0.0]], atol=1e-12)
    np.testing.assert_allclose(bearings, [-math.pi / 2, 0.0])


def test_the_nearest_of_several_rays_stays_in_a_cell() -> None:
    grid = np.full(4, np.nan)
    enter(
        grid,
        np.zeros(4),
        np.zeros((4, 2)),
        np.array([0.0, 0.1, math.pi / 2, -math.pi / 2]),
        np.array([2.0, 1.0, np.inf, np.nan]),
    )
    np.testing.assert_equal(grid, [np.nan, np.nan, 1.0, np.inf])


def test_what_one_lidar_does_not_see_another_may() -> None:
    ranges = np.full(180, 0.8)
    ranges[:30] = np.nan
    *_, free = boundary(
        ranges, BEARINGS, np.zeros((180, 2)), np.zeros(180), np.zeros(180), WIDE, REACH, POCKET, NARROWEST
    )
    spots = 0.5 * np.column_stack([np.cos(BEARINGS[[90, 15, 34]]), np.sin(BEARINGS[[90, 15, 34]])])
    seen = proves(np.vstack([spots, [[0.79, 0.0]]]), BEARINGS, np.zeros((180, 2)), free, WIDE, 0.0)
    assert seen.tolist() == [True, False, True, False]
    assert not proves(spots, BEARINGS, np.zeros((180, 2)), free, WIDE, 0.15)[2], "its bearing may be another: 6 degrees"
