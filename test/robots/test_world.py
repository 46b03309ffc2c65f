"""Declared worlds: drives that could not move are refused, and a world can be had without its sensors' errors."""

import math
from dataclasses import replace
from typing import Any

import pytest

from safe_support_ql import config
from safe_support_ql.robots.world import JointDrive


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"control": "position"}, "control is 'position', must be 'effort' or 'velocity'"),
        ({"control": "velocity"}, "max_force is 0, must be more than 0"),
        ({"control": "velocity", "max_force": math.nan}, "max_force is nan, must be more than 0"),
        ({"gain": 0.0}, "gain is 0, must be a number other than 0"),
        ({"driven": ("b",)}, "driven has 'b', must be among joints: a"),
    ],
)
def test_a_drive_that_could_not_move_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JointDrive(**{"urdf": "cartpole.urdf", "driven": ("a",), "joints": ("a",), "timeout": 0.1} | fields)


@pytest.mark.parametrize("name", ["diff_drive", "cart_pole"])
def test_exactly_sensed_changes_the_errors_of_sensors_alone(name: str) -> None:
    world = config.load_robot(name).robot.world
    exact = world.exactly_sensed()
    if not world.lidars:
        assert exact == world
    else:
        assert exact.lidars["scan"].noise == 0.0 < world.lidars["scan"].noise
        assert exact.drive == replace(world.drive, odometry_drift=0.0) != world.drive
        assert replace(exact, drive=world.drive, lidars=world.lidars) == world
