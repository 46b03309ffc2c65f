"""The worlds of a claim: only what a mismatch names differs, and the monitor's robot stays what it is."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import evaluate, worlds


def test_an_unknown_world_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="diff_drive: no mismatch 'heavy', must be one of: nominal, ground_fast"):
        worlds.in_world(config.load_robot("diff_drive").robot, "heavy")


def test_in_a_world_only_the_drive_differs_and_exact_sensors_have_no_errors() -> None:
    robot = config.load_robot("diff_drive").robot
    truth = worlds.in_world(robot, "ground_fast")
    assert truth.world.drive.ground_speed == 1.16 and robot.world.drive.ground_speed == 1.0  # type: ignore[union-attr]
    assert truth.world.lidars == robot.world.lidars and truth.model is robot.model
    exact = worlds.in_world(robot, "nominal", exact=True).world
    assert exact.lidars["scan"].noise == 0.0 and exact.drive.odometry_drift == 0.0  # type: ignore[union-attr]


@pytest.mark.parametrize("name", robots.names())
def test_a_drawn_world_depends_on_its_seed_alone_and_differs_in_every_field_that_it_draws(name: str) -> None:
    robot = config.load_robot(name).robot
    one, again, other = (worlds.drawn(robot, seed).world.drive for seed in (1, 1, 2))
    assert one == again != other
    draw = robots.claims_of(robot).drawn
    assert draw is not None
    for field in draw(np.random.default_rng(0)):
        assert getattr(one, field) != getattr(robot.world.drive, field), field
    assert {item.name for item in fields(one)} >= set(draw(np.random.default_rng(0)))


@pytest.mark.parametrize("world", ["drawn", "drawn, lossy"])
@pytest.mark.parametrize("name", robots.names())
def test_the_behavior_policy_is_safe_in_drawn_worlds_and_none_latches(name: str, world: str) -> None:
    settings = config.load_robot(name, {"parameters.episode_s": 6.0})
    results = evaluate.run(settings.raw, "behavior", False, range(800, 804), world)
    assert sum(result.unsafe_visits for result in results) == 0
    assert all(not getattr(result, "latched", "") for result in results), results
    assert sum(result.ticks for result in results) > 50
