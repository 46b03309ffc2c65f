"""The simulated worlds in which a robot's claims are tested: its own world, and the mismatches that it names."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from safe_support_ql import robots
from safe_support_ql.robots.base import Robot

NOMINAL = "nominal"


def names(robot: Robot) -> tuple[str, ...]:
    """Names of the worlds that `robot` claims to cover."""
    return (NOMINAL, *robots.claims_of(robot).mismatches)


def in_world(robot: Robot, world: str, exact: bool = False) -> Robot:
    """`robot` in that world, for the simulation only. Raises ValueError for an unknown world.

    `exact`: its sensors measure exactly, for experiments that add errors of their own.
    """
    if world not in names(robot):
        raise ValueError(f"{robot.name}: no mismatch '{world}', must be one of: {', '.join(names(robot))}")
    changed = {} if world == NOMINAL else robots.claims_of(robot).mismatches[world]
    truth = driven(robot, **changed)
    if exact:
        truth.world = truth.world.exactly_sensed()
    return truth


def driven(robot: Robot, **fields: Any) -> Robot:
    """`robot` in a world whose drive differs from its own in `fields`."""
    drive: Any = replace(robot.world.drive, **fields)
    truth = copy.copy(robot)
    truth.world = replace(robot.world, drive=drive)
    return truth
