"""The simulated worlds in which a robot's claims are tested: its own world, and the mismatches that it names."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.claims import NOMINAL


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


def drawn(robot: Robot, seed: int) -> Robot:
    """`robot` in one of the worlds that it claims to cover, at random. Raises ValueError where it declares none."""
    draw = robots.claims_of(robot).drawn
    if draw is None:
        raise ValueError(f"{robot.name}: draws no worlds (Claims.drawn)")
    return driven(robot, **draw(np.random.default_rng([seed, 2])))


def driven(robot: Robot, **fields: Any) -> Robot:
    """`robot` in a world whose drive differs from its own in `fields`."""
    drive: Any = replace(robot.world.drive, **fields)
    truth = copy.copy(robot)
    truth.world = replace(robot.world, drive=drive)
    return truth
