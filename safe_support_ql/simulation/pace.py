"""Physics that follows the wall clock: commands act when they arrive, and sensors send when they measure."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from safe_support_ql.robots.base import Floats
from safe_support_ql.simulation.simulation import Simulation
from safe_support_ql.simulation.streams import Message, Streams

LATE_S = 0.25  # if physics is farther behind the wall clock than this, that time is skipped


class Pace:
    """A simulation in real time. `late` counts the times that were skipped; seconds are those of time.monotonic()."""

    def __init__(self, sim: Simulation) -> None:
        """Nothing runs before `start`. Raises ValueError as Streams does."""
        self._sim, self._streams = sim, Streams(sim)
        self._commanded: deque[tuple[float, Floats]] = deque()
        self.late = 0

    def start(self, now_ns: int) -> list[Message]:
        """Begin an episode now, at the stamp `now_ns`: what sensors send at once."""
        self._started, self._steps = time.monotonic(), 0
        self._offset_ns = now_ns - round(1e9 * self._started)
        self._commanded.clear()
        self.chunk_began = time.perf_counter()  # computing time, for benchmarks
        return self._streams.start()

    def command(self, action: Floats) -> None:
        """A command arrives: it acts from the first physics step that begins after that."""
        self._commanded.append((time.monotonic(), action))

    def instant(self, seconds: float) -> int:
        """The stamp of an instant of the episode, in nanoseconds."""
        return self._offset_ns + round(1e9 * (self._started + seconds))

    @property
    def seconds(self) -> float:
        """How long physics has run since the start."""
        return self._steps * self._sim.world.dt

    def follow(self, send: Callable[[list[Message]], None]) -> Iterator[None]:
        """Advance physics to the present, handing on what sensors send; yields whenever a control tick is complete."""
        rate, substeps = self._sim.robot.world.physics_hz, self._sim.substeps
        due = int((time.monotonic() - self._started) * rate) - self._steps
        if due > LATE_S * rate:
            self._started += (due - 1) / rate
            self.late += 1
            due = 1
        while due > 0:
            chunk = min(due, substeps - self._steps % substeps)
            while self._commanded:
                came, action = self._commanded[0]
                if (later := math.ceil((came - self._started) * rate) - self._steps) > 0:
                    chunk = min(chunk, later)
                    break
                self._sim.command(action)
                self._commanded.popleft()
            self.chunk_began = time.perf_counter()
            for _ in range(chunk):
                self._sim.advance(1)
                self._steps += 1
                send(self._streams.step())
            due -= chunk
            if self._steps % substeps == 0:
                yield
