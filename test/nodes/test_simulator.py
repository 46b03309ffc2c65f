"""The simulator alone: in real time each sensor's messages come when they are due; lock-step has no such sensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter

from safe_support_ql import config
from safe_support_ql.nodes import simulator
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.scan import Scan
from safe_support_ql.simulation.simulation import Simulation


class Rolling(Simulation):
    """Its lidar takes a control tick for a turn, and its odometry comes four times as often."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        super().__init__(robot, gui)
        spec = robot.world
        lidars = {channel: replace(lidar, turn_s=0.1, stamp="last") for channel, lidar in spec.lidars.items()}
        self.world.become(replace(spec, drive=replace(spec.drive, odometry_s=0.025), lidars=lidars))  # type: ignore[call-arg]


@pytest.fixture
def node(ros_domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[simulator.Simulator]:
    """Not configured; in its world sensors have a time of their own."""
    rclpy.init()
    monkeypatch.setattr(simulator, "Simulation", Rolling)
    config.save(config.load_robot("diff_drive"), tmp_path / "config.yaml")
    node = simulator.Simulator()
    node.set_parameters([Parameter("config", value=str(tmp_path / "config.yaml"))])
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_lock_step_refuses_a_sensor_that_has_a_time_of_its_own(node: simulator.Simulator) -> None:
    node.set_parameters([Parameter("clock", value="lockstep")])
    with pytest.raises(ValueError, match="odom, scan: measured at times of their own, which needs clock: realtime"):
        node.configure()


def test_in_real_time_every_message_is_sent_with_its_own_stamp(
    node: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent, outcomes = [100.0], defaultdict(list), []
    monkeypatch.setattr(simulator.time, "monotonic", lambda: clock[0])

    def send(channel: str, vector: Floats, stamp_ns: int) -> None:
        sent[channel].append((stamp_ns / 1e9, vector))

    node.set_parameters([Parameter("clock", value="realtime")])
    node.trigger_configure()
    monkeypatch.setattr(node, "send", send)
    monkeypatch.setattr(node, "send_outcome", lambda: outcomes.append(node.stamp_ns / 1e9))
    node.trigger_activate()
    node.on_ack(node.key)
    for _ in range(52):
        clock[0] += 0.02
        node.follow_the_clock()
    start = outcomes[0]
    ticks = 0.1 * np.arange(11)
    np.testing.assert_allclose(np.array(outcomes) - start, ticks, atol=1e-6)
    assert [stamp - start for stamp, _ in sent["goal_pose"]] == [0.0]
    stamps = np.array([stamp for stamp, _ in sent["odom"]])
    np.testing.assert_allclose(stamps - start, 0.025 * np.arange(42), atol=1e-6)
    assert set(outcomes) <= set(stamps), "to the nanosecond: the recorder joins by stamp"
    np.testing.assert_allclose([stamp - start for stamp, _ in sent["scan"]], ticks[1:], atol=1e-6)
    scan = Scan.of(sent["scan"][0][1])
    assert len(scan.ranges) == 180 and scan.time_increment == pytest.approx(0.1 / 179)


def test_a_lidar_measures_at_other_times_from_the_next_activation_on(
    node: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent = [100.0], []
    monkeypatch.setattr(simulator, "Simulation", Simulation)  # the shipped sensors
    monkeypatch.setattr(simulator.time, "monotonic", lambda: clock[0])
    node.trigger_configure()
    monkeypatch.setattr(node, "send", lambda *message: sent.append(message))

    def drive(phase_s: float, turn_s: float) -> tuple[Scan, float]:
        """The first whole scan of an episode, and its stamp since the first odometry."""
        node.set_parameters([Parameter("lidar_phase_s", value=phase_s), Parameter("lidar_turn_s", value=turn_s)])
        node.trigger_activate()
        sent.clear()
        node.on_ack(node.key)
        for _ in range(20):
            clock[0] += 0.02
            node.follow_the_clock()
        node.trigger_deactivate()
        (start, *_), ((vector, stamp), *_) = (
            [(vector, stamp_ns / 1e9) for name, vector, stamp_ns in sent if name == channel]
            for channel in ("odom", "scan")
        )
        return Scan.of(vector), stamp - start[1]

    for phase_s, turn_s in ((0.0, 0.1), (0.045, 0.0), (0.0, 0.0)):
        scan, stamp = drive(phase_s, turn_s)
        # What is due is measured at the end of the physics sub-step.
        assert phase_s <= stamp < phase_s + 1 / 240 and scan.time_increment == pytest.approx(turn_s / 179)
        assert scan.scan_time == turn_s


def test_lock_step_refuses_another_time_for_the_lidar(
    node: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "Simulation", Simulation)
    node.set_parameters([Parameter("clock", value="lockstep"), Parameter("lidar_turn_s", value=0.1)])
    node.configure()
    with pytest.raises(ValueError, match="scan: measured at times of their own, which needs clock: realtime"):
        node.activate()
