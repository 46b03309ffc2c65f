"""Which world interprets which declared drive."""

from __future__ import annotations

from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.world import DifferentialDrive, JointDrive
from safe_support_ql.simulation.differential_drive import DriveWorld
from safe_support_ql.simulation.joints import JointWorld
from safe_support_ql.simulation.world import World

WORLDS: dict[type, type[World]] = {DifferentialDrive: DriveWorld, JointDrive: JointWorld}


def make_world(robot: Robot, gui: bool = False) -> World:
    """The world that `robot` declares."""
    return WORLDS[type(robot.world.drive)](robot, gui)
