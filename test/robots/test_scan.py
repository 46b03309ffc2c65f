"""What a LaserScan may say, as real drivers write it: refused by name, or read for what it is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.scan import LidarSetup, Scan, bearings, full_circle, masked, readings

ROBOT = config.load_robot("diff_drive").robot
assert isinstance(ROBOT, DiffDrive)
ROOM = full_circle(np.full(180, 3.0), 6.0, 0.12)
# As their drivers publish them (shared by users in issues): an RPLidar A1, and the LDS-01 of a TurtleBot 3.
A1 = Scan(-3.12413907, 3.14159274, 0.01745329, 0.00041189, 0.14786775, 0.15, 12.0, np.full(360, 2.0))
LDS = Scan(0.0, 6.26573181, 0.01745329, 2.987e-05, 0.0, 0.12, 3.5, np.full(360, 1.7))


@pytest.mark.parametrize("scan", [ROOM, A1, LDS, replace(ROOM, ranges=np.full(181, 3.0))])
def test_scans_of_any_geometry_are_admitted(scan: Scan) -> None:
    """One ray more than the angles say is what many drivers send."""
    ROBOT.admit("scan", scan.vector())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"angle_min": math.nan}, "angle_min is nan, must be a number"),
        ({"angle_max": 1.0}, "has 180 ranges, but angle_min, angle_max and angle_increment speak of"),
        ({"angle_increment": 0.0}, "angle_increment 0; must have at least 3 rays apart"),
        ({"ranges": np.zeros(0)}, "has 0 ranges"),
        ({"range_min": 0.55}, r"range_min is 0.55 m, must lie in \[0, 0.26"),
        ({"range_min": -0.1}, "range_min is -0.1 m"),
        ({"range_max": 0.5}, "range_max is 0.5 m, must be at least"),
        ({"range_max": 12000.0}, "are its ranges in millimetres"),
        ({"time_increment": 0.001, "scan_time": 0.1}, "longer than scan_time = 0.1 s; set turn_time"),
        ({"time_increment": 0.01}, "its rays take 1.79 s, must be at most 1 s"),
        ({"angle_max": -math.pi + 2e-9, "angle_increment": 1e-9, "ranges": np.ones(3)}, "must be at least 0.0003"),
        ({"angle_max": 3 * math.pi, "angle_increment": 4 * math.pi / 179}, "turn through .* more than a full circle"),
    ],
)
def test_a_scan_that_contradicts_itself_is_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^scan: .*{words}"):
        ROBOT.admit("scan", replace(ROOM, **change).vector())  # type: ignore[arg-type]


def test_rays_too_far_apart_are_refused() -> None:
    """An obstacle of the least declared width must not stand between two rays at the end of a stop."""
    few = full_circle(np.full(20, 3.0), 6.0)
    with pytest.raises(ValueError, match=r"angle_increment is 0.3142 rad, must be at most"):
        ROBOT.admit("scan", few.vector())


def test_a_lidar_off_the_axle_sees_less_of_the_ring_about_the_base() -> None:
    moved = config.load_robot("diff_drive", {"parameters.lidars": [{"x": 0.1}]}).robot
    ring = replace(ROOM, range_min=0.2).vector()
    ROBOT.admit("scan", ring)
    with pytest.raises(ValueError, match="range_min is 0.2 m"):
        moved.admit("scan", ring)


@pytest.mark.parametrize(
    ("value", "setup", "read"),
    [
        (math.inf, {}, math.inf),
        (-math.inf, {}, 0.0),
        (math.nan, {}, math.nan),
        (0.0, {}, math.nan),
        (-1.0, {}, math.nan),
        (7.0, {}, math.nan),
        (65.535, {}, math.nan),
        (6.0, {}, math.inf),  # range_max: a wall that far away and nothing look the same
        (0.0, {"nothing": "zero"}, math.inf),
        (math.nan, {"nothing": "nan"}, math.inf),
        (7.0, {"nothing": "beyond"}, math.inf),
        (5.5, {"nothing": "value", "nothing_value": 5.5}, math.inf),
        (0.05, {}, 0.05),  # nearer than range_min: something is there
    ],
)
def test_what_a_driver_writes_where_nothing_returned(value: float, setup: dict[str, object], read: float) -> None:
    ranges = ROOM.ranges.copy()
    ranges[90] = value
    found, remark = readings(replace(ROOM, ranges=ranges), LidarSetup(**setup))  # type: ignore[arg-type]
    np.testing.assert_equal(found[90], read)
    assert bool(remark) == (math.isnan(read) or read == 0.0)
    if remark:
        assert "1 rays at 0 degrees read" in remark


def test_the_remark_names_the_setting() -> None:
    ranges = ROOM.ranges.copy()
    ranges[10:15], ranges[30:32] = 0.0, 0.0
    _, remark = readings(replace(ROOM, ranges=ranges), LidarSetup())
    assert remark.startswith("7 rays at -160..-152, -120..-118 degrees read 0 and say nothing")
    assert "set 'nothing: zero'" in remark


def test_masks_are_angles_of_the_scan() -> None:
    own = masked(ROOM, LidarSetup(mask=(3.0, 3.3, -0.1, 0.1)))
    assert bearings(own, ROOM.angles) == "-180..-172, -4..4, 172..178"  # over the seam


@pytest.mark.parametrize(
    ("setup", "begins", "ends"),
    [
        (LidarSetup(), 0.0, 0.148),
        (LidarSetup(stamp="last"), -0.148, 0.0),
        (LidarSetup(stamp="last", stamp_offset=-0.01), -0.158, -0.01),
        (LidarSetup(turn_time=0.2), 0.0, 0.2),
    ],
)
def test_when_rays_were_cast(setup: LidarSetup, begins: float, ends: float) -> None:
    assert A1.begins(setup) == pytest.approx(begins, abs=1e-3)
    assert A1.ends(setup) == pytest.approx(ends, abs=1e-3)


def test_rays_in_the_reverse_order_of_time() -> None:
    back = replace(A1, time_increment=-A1.time_increment)
    assert back.begins(LidarSetup()) == pytest.approx(0.148, abs=1e-3)  # ray 0 is the last in time
    assert back.ends(LidarSetup()) == back.begins(LidarSetup())
    assert back.begins(LidarSetup(stamp="last")) == 0.0 == back.ends(LidarSetup(stamp="last"))


def test_a_mask_across_the_back_is_written_as_it_is_seen() -> None:
    own = masked(ROOM, LidarSetup(mask=(3.0, -3.0)))
    assert bearings(own, ROOM.angles) == "-180..-172, 172..178"


FRONT, REAR = {"name": "front", "topic": "scan_front"}, {"name": "rear", "topic": "scan_rear"}


@pytest.mark.parametrize(
    ("lidars", "words"),
    [
        ([{}, {"topic": "scan_rear"}], r"lidars\[1\]: name is 'scan', as that of lidars\[0\]; give each its own"),
        ([FRONT, REAR | {"topic": "scan_front"}], "topic is 'scan_front', as that of"),
        ([FRONT, REAR | {"frame": ""}], r"lidars\[1\]: name, topic and frame must not be empty"),
        ([{"name": "odom"}], "name is 'odom', must not be that of another input"),
        ([{"mask": [0.7]}], "mask has 1 angles, must have pairs"),
        ([{"mask": [0.8, 0.7]}], "mask from 0.8 to 0.7 rad hides more than half a circle"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused(lidars: list[dict[str, object]], words: str) -> None:
    config.load_robot("diff_drive", {"parameters.lidars": [FRONT, REAR]})
    with pytest.raises(ValueError, match=words):
        config.load_robot("diff_drive", {"parameters.lidars": lidars})
