"""The base class of every PyBullet world: its server, the newest command and its timeout, truth, sensors.

Each kind of drive in robots/world.py names its world, in a file beside this one or in a robot's own package, which
says what its truth vector and its sensors hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pybullet_data

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.world import WorldSpec
from safe_support_ql.simulation.arena import Arena


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress the messages that PyBullet writes to both standard streams from C code."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # discard what is still in C's buffers
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(nowhere)


with silence():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

SOLVER_ITERATIONS = 20  # PyBullet's default of 50 costs a third more time and moves a driven metre by millimetres


class World(ABC):
    """One robot in its world. `goal` is the goal of the episode."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Connect to a PyBullet server of its own."""
        self.robot, self.spec = robot, robot.world
        spec = self.spec
        self.dt = 1.0 / spec.physics_hz
        with silence():
            self.client = BulletClient(pybullet.GUI if gui else pybullet.DIRECT)
        self.client.setAdditionalSearchPath(pybullet_data.getDataPath())
        self.client.setGravity(0.0, 0.0, -9.81)
        self.client.setTimeStep(self.dt)
        self.client.setPhysicsEngineParameter(numSolverIterations=SOLVER_ITERATIONS)
        self.goal: Floats = np.zeros(2)
        self._forget_command()

    @property
    def map(self) -> Arena | None:
        """The arena of the episode, None if the world has none."""
        return None

    @abstractmethod
    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """Set a new start and goal."""

    @abstractmethod
    def step(self) -> None:
        """Simulate one physics sub-step under the newest command, or under `silence` once that is too old."""

    @abstractmethod
    def truth(self) -> Floats:
        """Ground truth now, exact."""

    def quick_truth(self, enough: float) -> Floats:
        """Like `truth`, but a clearance of `enough` metres or more may be a lower bound."""
        return self.truth()

    @abstractmethod
    def set_state(self, state: Floats) -> None:
        """Put the robot at `state`, a truth vector, without any command."""

    def set_arena(self, arena: Arena) -> None:
        """Replace the map by `arena` and put the robot at its start. Raises ValueError if the world has no map."""
        raise ValueError(f"{self.robot.name}: its world has no map")

    @abstractmethod
    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """One vector per channel."""

    def command(self, action: Floats) -> None:
        """Set the newest command; it acts until the next one or the drive's timeout."""
        self._action = np.array(action, np.float64)
        self._since_command = 0.0

    def _commanded(self) -> Floats:
        """The command that acts in this sub-step: the newest one, or `silence` after the drive's timeout."""
        obeyed = self._action if self._since_command < self.spec.drive.timeout - 1e-9 else self.robot.silence
        self._since_command += self.dt
        return obeyed

    def _forget_command(self) -> None:
        self._action, self._since_command = self.robot.silence, np.inf

    @abstractmethod
    def become(self, spec: WorldSpec) -> None:
        """Change friction, masses, drive and sensors to those of `spec` during an episode; shapes stay."""

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()


def make_world(robot: Robot, gui: bool = False) -> World:
    """The world that the drive of `robot` names. Raises ValueError if there is no such class."""
    named = robot.world.drive.world
    try:
        world = pkgutil.resolve_name(named)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{robot.name}: its drive names the world '{named}', but {error}") from error
    made: World = world(robot, gui)
    return made
