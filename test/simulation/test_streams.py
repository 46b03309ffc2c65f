"""When the messages of a sensor come, what stamp they have, and which of them are lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Streams, of_their_own

ROBOT = config.load_robot("diff_drive").robot
STEP = 1 / 240


def arrivals(sim: Simulation, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """(arrival, stamp) of every message of each channel, in the first `seconds` of an episode."""
    sim.reset(3)
    streams, found = Streams(sim), defaultdict(list)
    messages = streams.start()
    for step in range(round(seconds / STEP) + 1):
        for channel, _, stamp_s in messages:
            found[channel].append((step * STEP, stamp_s))
        sim.advance(1)
        messages = streams.step()
    return found


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


def become(sim: Simulation, odometry_s: float = 0.0, **lidar: Any) -> None:
    world = ROBOT.world
    lidars = {"scan": replace(world.lidars["scan"], **lidar)}
    sim.world.become(replace(world, drive=replace(world.drive, odometry_s=odometry_s), lidars=lidars))  # type: ignore[call-arg]


def test_ideal_sensors_come_with_every_control_tick_and_the_goal_once(sim: Simulation) -> None:
    assert of_their_own(sim.world) == []
    found = arrivals(sim, 1.0)
    ticks = np.repeat(np.arange(11)[:, None] * 0.1, 2, axis=1)
    np.testing.assert_allclose(found["odom"], ticks, atol=1e-9)
    np.testing.assert_allclose(found["scan"], ticks, atol=1e-9)
    assert found["goal_pose"] == [(0.0, 0.0)]


def test_ideal_sensors_say_what_they_say_in_lock_step(sim: Simulation) -> None:
    sim.reset(3)
    sensed = sim.sense()
    sim.reset(3)
    for channel, vector, _ in Streams(sim).start():
        np.testing.assert_array_equal(vector, sensed[channel])


def test_each_sensor_has_its_own_rate(sim: Simulation) -> None:
    become(sim, 0.02, period_s=1 / 6.26, phase_s=0.05)
    assert of_their_own(sim.world) == ["odom", "scan"]
    found = arrivals(sim, 2.0)
    assert len(found["odom"]) == 101 and len(found["scan"]) == 13
    for channel, period, phase in (("odom", 0.02, 0.0), ("scan", 1 / 6.26, 0.05)):
        came, stamped = np.array(found[channel]).T
        np.testing.assert_array_equal(came, stamped)
        late = stamped - (phase + np.arange(len(stamped)) * period)
        assert (late > -1e-9).all() and (late < STEP).all()


@pytest.mark.parametrize("stamp", ["first", "last"])
def test_a_turn_arrives_when_its_last_ray_is_done(sim: Simulation, stamp: str) -> None:
    become(sim, turn_s=0.2, period_s=0.2, phase_s=0.03, stamp=stamp)
    came, stamped = np.array(arrivals(sim, 1.25)["scan"]).T
    ends = 0.03 + 0.2 * np.arange(1, 7)
    np.testing.assert_allclose(stamped, ends - (0.2 if stamp == "first" else 0.0), atol=1e-9)
    assert (came - ends > -1e-9).all() and (came - ends < STEP).all()


def test_lost_messages_leave_gaps(sim: Simulation) -> None:
    become(sim, lost=4)
    stamps = [stamp_s for _, stamp_s in arrivals(sim, 1.0)["scan"]]
    np.testing.assert_allclose(stamps, [0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0], atol=1e-9)


def test_a_turn_longer_than_its_period_is_refused(sim: Simulation) -> None:
    become(sim, turn_s=0.15)
    with pytest.raises(ValueError, match=r"scan: a turn takes 0.15 s .turn_time., must be at most 0.1 s"):
        Streams(sim)


def test_joints_come_with_every_control_tick() -> None:
    sim = Simulation(config.load_robot("cart_pole").robot)
    sim.reset(3)
    streams = Streams(sim)
    sensed = {message.channel: message.vector for message in streams.start()}
    assert sensed.keys() == sim.world.spec.sensors.keys()
    with pytest.raises(ValueError, match="cart_pole: joint_states is measured at once"):
        sim.world.part("joint_states", 0, np.zeros(1), np.random.default_rng(0))
