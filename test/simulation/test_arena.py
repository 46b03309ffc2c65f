"""Arenas keep the gaps they declare, are worth planning in, and are drawn where they are."""

import numpy as np

from safe_support_ql import config
from safe_support_ql.simulation.arena import make_arena

ROBOT = config.load_robot("diff_drive").robot


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
