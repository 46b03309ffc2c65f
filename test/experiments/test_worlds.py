"""The worlds of a claim: only what a mismatch names differs, and the monitor's robot stays what it is."""

from __future__ import annotations

import pytest

from safe_support_ql import config
from safe_support_ql.experiments import worlds


def test_an_unknown_world_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="diff_drive: no mismatch 'heavy', must be one of: nominal, ground_fast"):
        worlds.in_world(config.load_robot("diff_drive").robot, "heavy")


def test_in_a_world_only_the_drive_differs_and_exact_sensors_have_no_errors() -> None:
    robot = config.load_robot("diff_drive").robot
    truth = worlds.in_world(robot, "ground_fast")
    assert truth.world.drive.ground_speed == 1.16 and robot.world.drive.ground_speed == 1.0  # type: ignore[union-attr]
    assert truth.world.lidar == robot.world.lidar and truth.model is robot.model
    exact = worlds.in_world(robot, "nominal", exact=True).world
    assert exact.lidar and exact.lidar.noise == 0.0 and exact.drive.odometry_drift == 0.0  # type: ignore[union-attr]
