"""The messages of sensors that have a time of their own: slower or faster than the control tick, late, lost, rolling.

In lock-step every channel is measured at every control tick, see `World.sense`. In real time each comes with its own
rhythm. A turn that takes time is measured part by part, from wherever the robot is at that moment, and its message is
there when the last part is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from safe_support_ql.robots.base import Floats
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.world import Rhythm, World

ROUNDING = 1e-9  # s


class Message(NamedTuple):
    """What arrives now: the vector of a channel, and its stamp in seconds since the start of the episode."""

    channel: str
    vector: Floats
    stamp_s: float


@dataclass
class _Turn:
    """The turn of one sensor that is measured, or waited for: its number, and the parts that are there."""

    rhythm: Rhythm
    number: int = 0
    parts: list[Floats] = field(default_factory=list)
    done: int = 0


def of_their_own(world: World) -> list[str]:
    """The channels that are not measured at once at every control tick, so that lock-step cannot have them."""
    return [channel for channel in world.spec.sensors if world.rhythm(channel).of_its_own]


class Streams:
    """What the sensors of a simulation send in one episode: `start` after each reset, `step` after each sub-step."""

    def __init__(self, sim: Simulation) -> None:
        """Nothing is measured before `start`. Raises ValueError where a turn takes longer than its period."""
        self._sim = sim
        self._latched = {channel.name for channel in sim.robot.channels if channel.latched}
        for channel in sim.world.spec.sensors:
            rhythm = sim.world.rhythm(channel)
            if rhythm.turn_s > (period := self._period(rhythm)) + ROUNDING:
                raise ValueError(
                    f"{channel}: a turn takes {rhythm.turn_s:g} s (turn_time), must be at most {period:g} s: "
                    "that often a scan is simulated"
                )

    def start(self) -> list[Message]:
        """Begin an episode: what arrives at once."""
        world, self._steps = self._sim.world, 0
        self._turns = {channel: _Turn(world.rhythm(channel)) for channel in world.spec.sensors}
        return self._due()

    def step(self) -> list[Message]:
        """What arrives at the end of this physics sub-step, in the order of the channels."""
        self._steps += 1
        return self._due()

    def _period(self, rhythm: Rhythm) -> float:
        return rhythm.period_s or self._sim.robot.period

    def _due(self) -> list[Message]:
        return [message for channel in self._turns for message in self._arriving(channel)]

    def _arriving(self, channel: str) -> Iterator[Message]:
        """A message for each turn that ends in this sub-step, unless it is lost."""
        turn = self._turns[channel]
        while (measured := self._turned(channel, turn)) is not None:
            turn.number, turn.parts, turn.done = turn.number + 1, [], 0
            if not turn.rhythm.lost or turn.number % turn.rhythm.lost:
                yield Message(channel, *measured)

    def _turned(self, channel: str, turn: _Turn) -> tuple[Floats, float] | None:
        """Vector and stamp of the present turn of a channel, None until it ends."""
        world, rng, now, rhythm = self._sim.world, self._sim.rng, self._steps * self._sim.world.dt, turn.rhythm
        begin = rhythm.phase_s + turn.number * self._period(rhythm)
        if begin > now + ROUNDING or (channel in self._latched and turn.number):
            return None
        if not rhythm.turn_s:
            return world.measure(channel, rng), now
        times = begin + np.linspace(0.0, rhythm.turn_s, rhythm.parts)
        upto = int(np.searchsorted(times, now + ROUNDING, side="right"))
        if upto > turn.done:
            turn.parts.append(world.part(channel, turn.done, now - times[turn.done : upto], rng))
            turn.done = upto
        if turn.done < rhythm.parts:
            return None
        return world.whole(channel, np.concatenate(turn.parts)), float(times[-1] if rhythm.stamped_last else begin)
