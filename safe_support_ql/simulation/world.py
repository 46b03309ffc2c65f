"""What every PyBullet world has: a server of its own, the newest command and its timeout, truth, sensors.

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
    """PyBullet announces itself on both standard streams, from C, and would cut other people's tables in two."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C still holds goes nowhere as well
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(nowhere)


with silence():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

SOLVER_ITERATIONS = 20  # PyBullet's default of 50 costs a third more time and moves a driven metre by millimetres


class World(ABC):
    """One robot in its world. `step` is one physics sub-step; `goal` is that of the episode."""

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
        """The obstacles of the episode, None where the world has none."""
        return None

    @abstractmethod
    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """A new start and goal."""

    @abstractmethod
    def step(self) -> None:
        """One physics sub-step under the newest command, or the drive's own stop once that is too old."""

    @abstractmethod
    def truth(self) -> Floats:
        """Ground truth now, exact."""

    def quick_truth(self, enough: float) -> Floats:
        """Like `truth`, but the clearance may be a lower bound where that is at least `enough` metres."""
        return self.truth()

    @abstractmethod
    def set_state(self, state: Floats) -> None:
        """Put the robot at `state`, a truth vector; no command acts."""

    def set_arena(self, arena: Arena) -> None:
        """Replace the map by `arena` and put the robot at its start. Raises ValueError where the world has no map."""
        raise ValueError(f"{self.robot.name}: its world has no map")

    @abstractmethod
    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """One vector per channel."""

    def command(self, action: Floats) -> None:
        """The newest command; it holds until the next or the drive's timeout."""
        self._action = np.array(action, np.float64)
        self._since_command = 0.0

    def _commanded(self) -> Floats:
        """What the drive obeys in this sub-step: its command, or the robot's `silence` after the drive's timeout."""
        obeyed = self._action if self._since_command < self.spec.drive.timeout - 1e-9 else self.robot.silence
        self._since_command += self.dt
        return obeyed

    def _forget_command(self) -> None:
        self._action, self._since_command = self.robot.silence, np.inf

    @abstractmethod
    def become(self, spec: WorldSpec) -> None:
        """Change while it moves: friction, masses, drive and sensors from now on as in `spec`; shapes stay."""

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()


def make_world(robot: Robot, gui: bool = False) -> World:
    """The world that the drive of `robot` names."""
    made: World = pkgutil.resolve_name(robot.world.drive.world)(robot, gui)
    return made
