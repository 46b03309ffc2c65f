"""Arenas keep the gaps they declare, are worth planning in, and are drawn where they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.footprint import inside
from safe_support_ql.simulation.arena import Arena, make_arena

ROBOT = config.load_robot("diff_drive").robot
ARENAS = ROBOT.world.arena
assert ARENAS is not None


def test_arenas_hold_what_they_promise() -> None:
    spec = ROBOT.world.arena
    assert spec is not None
    for seed in range(30):
        arena = make_arena(spec, seed)
        assert spec.count[0] <= len(arena.obstacles) <= spec.count[1]
        assert np.hypot(*(arena.goal - arena.start[:2])) >= spec.start_goal_distance
        for x, y in (arena.start[:2], arena.goal):
            assert arena.clearance(x, y) >= spec.corridor
        np.testing.assert_array_equal(make_arena(spec, seed).obstacles, arena.obstacles)


def test_driving_straight_at_the_goal_succeeds_in_less_than_half() -> None:
    spec = ROBOT.world.arena
    assert spec is not None
    free = 0
    for seed in range(900_000_000, 900_000_200):
        arena = make_arena(spec, seed)
        line = np.linspace(arena.start[:2], arena.goal, 200)
        free += arena.clearance(line[:, 0], line[:, 1]).min() > ROBOT.world.footprint_radius + 0.05
    assert free < 100


def test_outlines_lie_on_the_obstacles() -> None:
    spec = ROBOT.world.arena
    assert spec is not None
    for seed in range(10):
        arena = make_arena(spec, seed)
        outlines = arena.outlines()
        assert len(outlines) == len(arena.obstacles)
        for outline in outlines:
            np.testing.assert_allclose(arena.clearance(outline[:, 0], outline[:, 1]), 0.0, atol=1e-9)


# --- a footprint with corners -------------------------------------------------------------------------------------

RECTANGLE = (0.25, 0.18, -0.25, 0.18, -0.25, -0.18, 0.25, -0.18)
SHAPES = (RECTANGLE, (0.4, 0.17, -0.1, 0.17, -0.1, -0.17, 0.4, -0.17), (0.3, 0.0, -0.2, 0.2, -0.2, -0.2))


def edge_at(shape: tuple[float, ...], pose: Any, step: float = 0.001) -> Any:
    """Points [K, 2] on the outline at that pose, `step` metres apart."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    corners = np.array(pose[:2]) + np.array(shape).reshape(-1, 2) @ np.array([[cos, sin], [-sin, cos]])
    return np.concatenate([
        a + (b - a) * np.linspace(0.0, 1.0, 2 + int(np.hypot(*(b - a)) / step))[:, None]
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_room_of_a_footprint_is_that_of_its_nearest_point(shape: tuple[float, ...]) -> None:
    """Against a search by brute force; where they overlap, only the sign is compared."""
    rng = np.random.default_rng(5)
    spec = replace(ROBOT.world, footprint=shape)
    touching = 0
    for seed in range(40):
        arena = make_arena(ARENAS, seed)
        near = arena.obstacles[rng.integers(len(arena.obstacles))]
        for around in (arena.half_side * np.ones(2), near[:2], near[:2]):
            pose = np.array([*(around + rng.uniform(-0.6, 0.6, 2)), rng.uniform(-np.pi, np.pi)])
            edge = edge_at(shape, pose)
            sampled = float(arena.clearance(edge[:, 0], edge[:, 1]).min())
            found = arena.room(spec, pose)
            # An obstacle may lie wholly within the footprint, or the footprint within an obstacle.
            cos, sin = np.cos(pose[2]), np.sin(pose[2])
            own = (arena.obstacles[:, :2] - pose[:2]) @ np.array([[cos, -sin], [sin, cos]])
            if sampled > 0.0 and not inside(own, shape).any() and arena.clearance(*pose[:2]) >= 0.0:
                assert found == pytest.approx(sampled, abs=6e-4)
            else:
                touching += 1
                assert found <= 6e-4
    assert 20 < touching < 100


def test_an_obstacle_within_the_footprint_is_no_room() -> None:
    post = Arena(np.array([[0.1, 0.05, 0.0, 0.03, 0.0]]), 5.0, np.zeros(3), np.zeros(2))
    box = Arena(np.array([[0.1, 0.05, 0.3, 0.03, 0.02]]), 5.0, np.zeros(3), np.zeros(2))
    for arena in (post, box):
        assert arena.room(replace(ROBOT.world, footprint=RECTANGLE), np.zeros(3)) < 0.0
