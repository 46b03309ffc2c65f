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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rhythm:
    """When a sensor measures: every `period_s` (0: at every control tick), first `phase_s` after the episode's start.

    Every `lost`-th message is lost (0: none). With `turn_s`, its `parts` are measured one after the other, the first
    at the beginning and the last at the end of a turn, and the stamp is that of the one or the other.
    """

    period_s: float = 0.0
    phase_s: float = 0.0
    lost: int = 0
    turn_s: float = 0.0
    parts: int = 1
    stamped_last: bool = False

    @property
    def of_its_own(self) -> bool:
        """Whether it does anything but measure all at once, at every control tick."""
        return bool(self.period_s or self.phase_s or self.lost or self.turn_s)


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
        self.timeout = spec.drive.timeout
        self.firmware: Callable[[Floats], Floats] | None = None  # what the base makes of a command, see drivers.py
        self._forget_command()

    @property
    def map(self) -> Arena | None:
        """The arena of the episode, None if the world has none."""
        return None

    @property
    def walkers(self) -> Floats:
        """Discs (x, y, radius) [W, 3] that move about on the map."""
        return np.zeros((0, 3))

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

    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """One vector per channel, all measured now."""
        return {channel: self.measure(channel, rng) for channel in self.spec.sensors}

    @abstractmethod
    def measure(self, channel: str, rng: np.random.Generator) -> Floats:
        """The vector of a channel, all of it measured now."""

    def rhythm(self, channel: str) -> Rhythm:
        """When the sensor of a channel measures; see streams.py."""
        return Rhythm()

    def part(self, channel: str, first: int, ago: Floats, rng: np.random.Generator) -> Floats:
        """Parts [n] of a turn, from number `first` on, measured ago[n] seconds before now, since the last sub-step."""
        raise ValueError(f"{self.robot.name}: {channel} is measured at once")

    def whole(self, channel: str, parts: Floats) -> Floats:
        """The vector of a channel from all parts of one turn."""
        raise ValueError(f"{self.robot.name}: {channel} is measured at once")

    def command(self, action: Floats) -> None:
        """Set the newest command; it acts until the next one or the drive's timeout."""
        self._action = np.array(action, np.float64)
        self._since_command = 0.0

    def _commanded(self) -> Floats:
        """The command that acts in this sub-step: the newest one, or `silence` after the drive's timeout."""
        obeyed = self._action if self._since_command < self.timeout - 1e-9 else self.robot.silence
        self._since_command += self.dt
        return obeyed if self.firmware is None else self.firmware(obeyed)

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
