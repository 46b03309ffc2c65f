"""A stand-in for hardware: PyBullet behind a robot's native topics, and nothing else of this package.

It publishes the channels as a robot's own drivers do, each sensor in its own time, and obeys the native command, with
the drive's own timeout. It knows no gate, no episode and no goal, and moves on whoever commands it. It judges the safe
set by its own ground truth, which nobody else hears: the log says it every LOG_S and at the end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safe_support_ql import bringup
from safe_support_ql.nodes import lifecycle, native, topics
from safe_support_ql.nodes.frames import Transforms
from safe_support_ql.recording.files import write_json
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.simulation.drivers import Driver
from safe_support_ql.simulation.pace import Pace
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Message

LOG_S = 10.0
LOOK_S = 5.0  # for another robot in this domain


class StandIn(Node):
    """See the module."""

    def __init__(
        self, robot: Robot, seed: int, mismatch: Mapping[str, Any], stamped_cmd: bool, driver: Driver | None = None
    ) -> None:
        """`mismatch`: fields of the drive that differ from what the model assumes. `driver`: publish and obey as it."""
        super().__init__("stand_in")
        self.robot, self.driver, self.sim = robot, driver, Simulation(robot)
        world = robot.world if driver is None else driver.world(robot.world, seed)
        drive: Any = world.drive
        self.sim.world.become(replace(world, drive=replace(drive, **mismatch)))
        self.sim.world.firmware = None if driver is None else driver.firmware(self.sim.world).obey
        self.sim.reset(seed)
        self.codecs = {c.name: native.ChannelCodec(c) for c in robot.channels if not c.latched}
        self.commands = native.CommandCodec(robot.command, stamped_cmd)
        self.pace = Pace(self.sim)
        self.visits: list[str] = []
        self.refused = 0

    def others(self) -> list[str]:
        """Topics of this robot that somebody else publishes already."""
        names = [codec.channel.topic or name for name, codec in self.codecs.items()]
        return [name for name in names if self.count_publishers(name)]

    def start(self) -> None:
        """Drive: from now on, physics follows the wall clock."""
        names = {name: codec.channel.topic or name for name, codec in self.codecs.items()}
        reliable = () if self.driver is None else self.driver.reliable
        self.outputs = {
            name: self.create_publisher(codec.type, names[name], topics.CHAIN if name in reliable else topics.SENSOR)
            for name, codec in self.codecs.items()
        }
        self.create_subscription(self.commands.type, self.robot.command.name, self.on_command, topics.LATEST)
        self.transforms = Transforms(self)
        self.newest: dict[str, Floats] = {}
        self.odometry: tuple[Floats, float] | None = None  # as measured, and its stamp
        self.send(self.pace.start(self.get_clock().now().nanoseconds))
        self.sim.measured = dict(self.newest)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(min(self.robot.period / 8, 0.02), self.follow_the_clock, clock=steady)
        self.create_timer(LOG_S, self.tell, clock=steady)

    def on_command(self, message: Any) -> None:
        """Acts from the first physics step after its arrival; what is no command of this robot is refused."""
        try:
            action = self.commands.decode(message)
            if len(action) != len(self.robot.action_names):
                raise ValueError(f"{self.robot.command.name}: has {len(action)} values")
        except ValueError as error:
            self.refused += 1
            self.get_logger().warning(f"command refused: {error}", throttle_duration_sec=1.0)
            return
        self.pace.command(action)

    def send(self, messages: list[Message]) -> None:
        """What the sensors measured, each with its own stamp."""
        for channel, measured, stamp_s in messages:
            vector = self.newest[channel] = self.written(channel, measured, stamp_s)
            if channel in self.outputs:
                message = self.codecs[channel].encode(vector, self.pace.instant(stamp_s))
                self.outputs[channel].publish(message)
                self.transforms.follow(message)

    def written(self, channel: str, vector: Floats, stamp_s: float) -> Floats:
        """What the driver writes of a measurement."""
        if self.driver is None:
            return vector
        if channel in self.sim.world.spec.lidars:
            return self.driver.scan(vector)
        if self.sim.world.spec.sensors[channel] != "odometry":
            return vector
        before, self.odometry = self.odometry or (vector, stamp_s), (vector, stamp_s)
        return self.driver.odometry(vector, before[0], stamp_s - before[1])

    def follow_the_clock(self) -> None:
        """Advance physics to the present."""
        for _ in self.pace.follow(self.send):
            if visit := self.sim.finish_tick(self.newest).visit:
                self.visits.append(visit)
                self.get_logger().error(f"unsafe visit: {visit}")

    def tell(self) -> None:
        """How it went so far."""
        self.get_logger().info(f"{self.pace.seconds:.0f} s, {self.sim.unsafe_visits} unsafe visits by ground truth")

    def summary(self) -> dict[str, Any]:
        """How it went."""
        return {
            "seconds": self.pace.seconds, "unsafe_visits": self.sim.unsafe_visits,
            "visits": self.visits, "refused_commands": self.refused, "late": self.pace.late,
        }  # fmt: skip


def run(
    robot: Robot, seed: int, mismatch: Mapping[str, Any], stamped_cmd: bool, json: Path | None, driver: Driver | None
) -> int:
    """Until a signal; 1 if there was an unsafe visit. Raises ValueError where another robot is there already."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stopped: list[int] = []
    for number in bringup.stop_signals():
        signal.signal(number, lambda which, frame: stopped.append(which))
    node = StandIn(robot, seed, mismatch, stamped_cmd, driver)
    try:
        end = time.monotonic() + LOOK_S
        while time.monotonic() < end and not stopped:
            rclpy.spin_once(node, timeout_sec=0.1)
        if others := node.others():
            raise ValueError(f"{others[0]} is published already: a robot is there, and this would be a second one")
        lifecycle.real_time_priority(lifecycle.ROBOT_PRIORITY)  # a real robot is not slowed down by a busy computer
        node.start()
        print("the stand-in drives; Ctrl-C stops it", flush=True)
        while not stopped:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.tell()
        if json is not None:
            write_json(json, node.summary())
        return int(node.sim.unsafe_visits > 0)
    finally:
        node.sim.close()
        node.destroy_node()
        rclpy.shutdown()
