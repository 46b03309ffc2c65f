"""What drivers and firmware of bases that can be bought do, against what their public sources say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.scan import Scan
from safe_support_ql.simulation.drivers import DRIVERS, Driver
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Message, Streams

STEP = 1 / 240


def base(name: str) -> tuple[Driver, Simulation]:
    """The base in its world, standing, with its firmware."""
    robot, driver = config.load(config.profile(name)).robot, DRIVERS[name]
    sim = Simulation(robot)
    sim.world.become(driver.world(robot.world, 3))
    sim.reset(3)
    sim.world.firmware = driver.firmware(sim.world).obey
    return driver, sim


def driven(sim: Simulation, command: list[float], seconds: float, silent: bool = False) -> Floats:
    """Its truth (x, y, yaw, v, w, clearance) after so long under the command, sent once or ten times a second."""
    for step in range(round(seconds / STEP)):
        if step % 24 == 0 and not (silent and step):
            sim.command(np.array(command))
        sim.advance(1)
    return sim.world.truth()


def scans(sim: Simulation, command: list[float], seconds: float) -> list[tuple[Message, float]]:
    """The messages of the lidar as measured, and when each came."""
    streams, found = Streams(sim), []
    streams.start()
    for step in range(1, round(seconds / STEP)):
        sim.command(np.array(command))
        sim.advance(1)
        found += [(message, step * STEP) for message in streams.step() if message.channel == "scan"]
    return found


def test_every_profile_has_its_drivers() -> None:
    assert sorted(DRIVERS) == config.profiles()


def test_the_lds_01_writes_its_header_as_its_driver_does() -> None:
    driver, sim = base("turtlebot3_burger")
    (message, came), *_ = scans(sim, [0.0, 0.0], 0.5)
    scan = Scan.of(driver.scan(message.vector))
    assert len(scan.ranges) == 360 and scan.angle_min == pytest.approx(0.0)
    assert scan.angle_max == pytest.approx(math.radians(359)) and scan.angle_increment == pytest.approx(math.radians(1))
    assert 60 / 310 <= scan.scan_time <= 60 / 290 and scan.time_increment == pytest.approx(scan.scan_time / 360)
    assert (scan.range_min, scan.range_max) == (0.12, 3.5)
    assert (scan.ranges == 0.0).any() and np.isfinite(scan.ranges).all(), "zeros for nothing"
    assert came - message.stamp_s < 2 * STEP, "stamped when all of it was read"


def test_the_rplidar_writes_its_header_as_its_driver_does() -> None:
    driver, sim = base("turtlebot4")
    (message, came), *_ = scans(sim, [0.0, 0.0], 0.5)
    scan = Scan.of(driver.scan(message.vector))
    # As echoed by robots: angle_min, angle_max and angle_increment of angle_compensate with three nodes a degree.
    assert scan.angle_min == pytest.approx(-3.1241390705) and scan.angle_max == pytest.approx(math.pi)
    assert len(scan.ranges) == 1080 and scan.angle_increment == pytest.approx(0.005806980, rel=1e-5)
    assert 1 / 8 <= scan.scan_time <= 1 / 6 and scan.time_increment == pytest.approx(scan.scan_time / 1079)
    assert (scan.range_min, scan.range_max) == (0.15, 12.0) and not (scan.ranges == 0.0).any()
    assert came - message.stamp_s == pytest.approx(scan.scan_time, abs=2 * STEP), "stamped when it began to wait"
    posts = np.degrees(scan.angles[np.isinf(scan.ranges)])
    for post in (-31.7, 21.7, -148.3, 158.3):  # of the tower, as seen from the lidar, which is turned by 90 degrees
        assert (np.abs(posts - post) < 1.0).any()


@pytest.mark.parametrize("name", DRIVERS)
def test_a_still_scan_shows_the_room_as_the_profile_says_it_is_mounted(name: str) -> None:
    driver, sim = base(name)
    setup = config.load(config.profile(name)).robot.parameters.lidars[0]  # type: ignore[attr-defined]
    (message, _), *_ = scans(sim, [0.0, 0.0], 0.5)
    scan = Scan.of(driver.scan(message.vector))
    seen = np.isfinite(scan.ranges) & (scan.ranges > 0.0)
    x, y, yaw = sim.world.truth()[:3]
    bearing = yaw + setup.yaw + scan.angles[seen]
    at = np.column_stack([x + setup.x * np.cos(yaw), y + setup.x * np.sin(yaw)]) + scan.ranges[seen, None] * (
        np.column_stack([np.cos(bearing), np.sin(bearing)])
    )
    assert sim.world.map is not None
    assert np.quantile(np.abs(sim.world.map.clearance(*at.T)), 0.95) < 0.05


@pytest.mark.parametrize("name", DRIVERS)
def test_the_last_ray_of_a_message_was_the_first_in_time(name: str) -> None:
    """Both lidars turn clockwise, and no message says so: it shows in where a base that turns sees the walls."""
    driver, sim = base(name)
    driven(sim, [0.0, 0.7], 1.0)
    streams, yaws, found = Streams(sim), [], []
    streams.start()
    while not found:
        sim.command(np.array([0.0, 0.7]))
        sim.advance(1)
        yaws.append(sim.world.truth()[2])
        found += [message for message in streams.step() if message.channel == "scan"]
    scan = Scan.of(driver.scan(found[0].vector))
    assert scan.time_increment > 0.0
    setup, (x, y), arena = sim.world.spec.lidars["scan"], sim.world.truth()[:2], sim.world.map
    assert arena is not None
    seen = np.isfinite(scan.ranges) & (scan.ranges > 0.0)
    past = np.interp(np.linspace(0, len(yaws) - 1, len(scan.ranges)), np.arange(len(yaws)), np.unwrap(yaws))

    def off(yaw: Floats) -> float:
        """How far from walls and obstacles the returns lie, if the base headed so at each ray."""
        bearing = (yaw + setup.yaw + scan.angles)[seen]
        return float(
            np.abs(
                arena.clearance(
                    x + setup.x * np.cos(yaw[seen]) + scan.ranges[seen] * np.cos(bearing),
                    y + setup.x * np.sin(yaw[seen]) + scan.ranges[seen] * np.sin(bearing),
                )
            ).mean()
        )

    assert off(past[::-1]) < 0.02 and off(past) > 0.03


def test_a_burger_cuts_commands_to_hundredths_and_each_wheel_to_its_motor() -> None:
    obey = base("turtlebot3_burger")[1].world.firmware
    assert obey is not None
    np.testing.assert_allclose(obey(np.array([0.129, -0.738])), [0.12, -0.73])
    np.testing.assert_allclose(obey(np.array([0.15, 0.75])), [0.15, 0.75])
    v, w = obey(np.array([0.22, 1.5]))
    assert v + 0.08 * w == pytest.approx(0.2108, abs=1e-4) and v < 0.16, "the outer wheel has no more"


def test_a_burger_never_stops_for_a_missing_command_and_a_create_does() -> None:
    speeds = {name: driven(base(name)[1], [0.1, 0.0], 1.5, silent=True)[3] for name in DRIVERS}
    assert speeds["turtlebot3_burger"] > 0.08 and abs(speeds["turtlebot4"]) < 0.01


def test_the_twist_of_a_burger_is_the_mean_since_the_message_before() -> None:
    driver = DRIVERS["turtlebot3_burger"]
    turned = np.array([0.01, 0.0, math.sin(0.02), math.cos(0.02), 9.0, 9.0])
    written = driver.odometry(turned, np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), 0.05)
    np.testing.assert_allclose(written, [*turned[:4], 0.2 * math.cos(0.02), 0.8])
    np.testing.assert_array_equal(DRIVERS["turtlebot4"].odometry(turned, turned, 0.05), turned)


def test_a_create_scales_what_its_wheels_cannot_do() -> None:
    obey = base("turtlebot4")[1].world.firmware
    assert obey is not None
    np.testing.assert_allclose(obey(np.array([0.46, 0.0])), [0.306, 0.0])
    v, w = obey(np.array([0.3, 1.5]))
    assert w / v == pytest.approx(5.0) and v + 0.1165 * w == pytest.approx(0.306)
    assert obey(np.array([0.0, 3.0]))[1] == pytest.approx(1.9)


def test_a_create_backs_up_only_where_it_came_from() -> None:
    _, sim = base("turtlebot4")
    start = sim.world.truth()[:2]
    assert np.hypot(*(driven(sim, [-0.1, 0.3], 2.0)[:2] - start)) < 1e-3, "it was just put there"
    there = driven(sim, [0.2, 0.0], 1.0)
    back = driven(sim, [-0.1, 0.0], 4.0)
    assert 0.1 < np.hypot(*(back[:2] - there[:2])) < 0.2 and abs(back[3]) < 0.01


def test_a_create_that_bumps_backs_up_by_itself() -> None:
    _, sim = base("turtlebot4")
    assert sim.world.map is not None
    wall = sim.world.map.half_side
    sim.world.set_arena(type(sim.world.map)(np.zeros((0, 5)), wall, np.array([wall - 0.3, 0.0, 0.0]), np.zeros(2)))
    xs = [driven(sim, [0.1, 0.0], 0.1)[0] for _ in range(40)]
    assert max(xs) == pytest.approx(wall - 0.175, abs=0.02)
    assert min(xs[int(np.argmax(xs)) :]) < max(xs) - 0.04, "though it is told to go on"
