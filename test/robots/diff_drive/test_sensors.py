"""The catalogue of sensors: every entry can be built, and a fault is where its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from safe_support_ql.parameters import build
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.diff_drive.sensors import FAULTS, SENSORS, Sensors, bearings
from safe_support_ql.robots.scan import Scan, full_circle
from safe_support_ql.robots.world import Lidar


def robot_with(sensors: Sensors) -> DiffDrive:
    values = {name.removeprefix("parameters."): value for name, value in sensors.overrides().items()}
    return DiffDrive(build(Parameters, values, "catalogue"))


@pytest.mark.parametrize("name", SENSORS)
def test_the_profile_of_an_entry_is_one_and_its_world_has_as_many_lidars(name: str) -> None:
    robot = robot_with(SENSORS[name])
    world = SENSORS[name].world(robot.world)
    assert world.lidars.keys() == robot.world.lidars.keys()
    told, true = robot.parameters.lidars, list(world.lidars.values())
    for setup, lidar in zip(told, true, strict=True):
        right = (setup.x, setup.y, setup.yaw, setup.upside_down) == (lidar.x, lidar.y, lidar.yaw, lidar.upside_down)
        assert right != name.endswith("not told")
        assert lidar.range_max == robot.parameters.scan_range and lidar.turn_s <= (lidar.period_s or robot.period)
        if lidar.turn_s:
            assert (setup.stamp == lidar.stamp) != name.endswith("told first")


@pytest.mark.parametrize("mounted", [{}, {"yaw": np.pi}, {"yaw": 1.0, "upside_down": True}, {"angle_min": 0.0}])
def test_a_fault_ahead_is_ahead_of_the_base(mounted: dict[str, float]) -> None:
    world = robot_with(SENSORS["ideal"]).world
    lidar: Lidar = replace(world.lidars["scan"], **mounted)  # type: ignore[arg-type]
    scan = replace(full_circle(np.full(180, 2.0), 6.0), angle_min=lidar.angle_min)
    sent = Sensors().sent(replace(world, lidars={"scan": lidar}), FAULTS["a quarter ahead inf"])
    spoilt = np.isinf(Scan.of(sent("scan", scan.vector(), 0.0)).ranges)
    assert 44 <= spoilt.sum() <= 46
    assert (np.abs(bearings(lidar, scan)[spoilt]) <= np.pi / 4 + 1e-9).all()
    assert (sent("odom", np.zeros(6), 0.0) == 0.0).all()


def test_faults_begin_and_reach_where_their_names_say() -> None:
    world = robot_with(SENSORS["ideal"]).world
    scan = full_circle(np.linspace(0.1, 5.0, 180), 6.0)

    def lost(name: str, seconds: float) -> int:
        ranges = Scan.of(Sensors().sent(world, FAULTS[name])("scan", scan.vector(), seconds)).ranges
        return int((~np.isfinite(ranges)).sum())

    assert lost("all inf", 0.0) == 180
    assert lost("all inf from tick 30 on", 2.9) == 0 and lost("all inf from tick 30 on", 3.0) == 180
    assert lost("nearer than 0.55 m inf", 0.0) == int((scan.ranges < 0.55).sum()) > 0
    assert lost("a quarter ahead NaN", 0.0) in (44, 45, 46)
    assert lost("a tenth ahead inf", 0.0) in (17, 18, 19)


def test_a_driver_writes_into_the_header_what_is_not_true() -> None:
    sensors = SENSORS["LDS-01"]
    world = sensors.world(robot_with(sensors).world)
    sent = Scan.of(sensors.sent(world, None)("scan", full_circle(np.ones(360), 3.5).vector(), 0.0))
    assert sent.scan_time == 0.0 and sent.time_increment * 359 < 0.1 < world.lidars["scan"].turn_s
