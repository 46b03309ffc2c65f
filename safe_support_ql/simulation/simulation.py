"""Episodes in a world: rewards, ends of episodes and unsafe visits, judged on ground truth at every sub-step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.world import make_world

VISIT_LIMIT_S = 1.0  # an unsafe visit that lasts this long ends the episode
ENOUGH = 0.3  # m; a larger clearance need not be exact


@dataclass(frozen=True)
class Outcome:
    """The outcome of one control tick. Counters are cumulative over the life of the Simulation.

    `reward`, `terminated` and `truncated` belong to the transition that ended now; `min_margin` is the smallest true
    margin of this episode; `visit` describes a visit that began in this tick, '' if none did.
    """

    seed: int
    first: bool
    tick: int
    reward: float
    terminated: bool
    truncated: bool
    reached: bool
    episode_return: float
    min_margin: float
    control_ticks: int
    physics_steps: int
    unsafe_visits: int
    unsafe_substeps: int
    visit: str


class Simulation:
    """Plays episodes: `reset`, then `sense` and `tick` (lock-step), or `command`, `advance`, `finish_tick`.

    `measured` is what the sensors showed at the newest control tick, by channel, None if nobody has looked yet. Rewards
    depend on it, as on a robot. Where sensors have times of their own, the caller says what they measured.
    """

    measured: dict[str, Floats] | None

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Build the world of `robot`."""
        self.robot = robot
        self.world = make_world(robot, gui)
        self.substeps = robot.world.physics_hz // robot.world.control_hz
        self.time_limit = int(round(robot.world.episode_s * robot.world.control_hz))
        self.control_ticks = self.physics_steps = self.unsafe_visits = self.unsafe_substeps = 0
        self.waits = 0  # how often somebody came within the clearance of the robot while it stood

    def reset(self, seed: int, arena: Arena | None = None) -> Outcome:
        """Begin a new episode, which depends on `seed` and, if there is one, on the `arena` that replaces its own."""
        self.seed = seed
        self.rng = np.random.default_rng([seed, 1])
        self.world.reset(self.rng, seed)
        if arena is not None:
            self.world.set_arena(arena)
        self.measured = None
        self._action = self.robot.silence
        self.tick_margins = self.robot.truth_margins(self.world.truth())
        self._tick = 0
        self._return = 0.0
        self._min_margin = float(self.tick_margins.min())
        self._unsafe_for = 0
        self._visit_over = self._waits = False
        self._visit = ""
        return self._outcome(True, 0.0, False, False)

    def sense(self) -> dict[str, Floats]:
        """One vector per channel, with noise: what was measured at this control tick."""
        if self.measured is None:
            self.measured = self.world.sense(self.rng)
        return dict(self.measured)

    def command(self, action: Floats) -> None:
        """Send a command to the drive."""
        self._action = np.array(action, np.float64)
        self.tick_margins = np.full(len(self.robot.model.certificate.margin_names), np.inf)
        self.world.command(self._action)

    def advance(self, substeps: int) -> None:
        """Step physics, and judge the safe set after each sub-step."""
        for _ in range(substeps):
            self.world.step()
            self.physics_steps += 1
            truth = self.world.quick_truth(ENOUGH)
            margins = self.robot.truth_margins(truth)
            waited, self._waits = self._waits, self.robot.waits(truth)
            self.waits += self._waits and not waited
            worst = float(margins.min())
            self.tick_margins = np.minimum(self.tick_margins, margins)  # since the last command
            self._min_margin = min(self._min_margin, worst)
            if worst < 0.0 or not np.isfinite(worst):
                self._note_unsafe(margins, truth)
            elif self._unsafe_for:
                self._visit_over, self._unsafe_for = True, 0

    def _note_unsafe(self, margins: Floats, truth: Floats) -> None:
        if self._unsafe_for == 0:
            self.unsafe_visits += 1
            values = dict(zip(self.robot.model.certificate.margin_names, np.round(margins, 4).tolist(), strict=False))
            self._visit = (
                f"margins {values} at truth {np.round(truth, 4).tolist()}, seed {self.seed}, tick {self._tick}"
            )
        self._unsafe_for += 1
        self.unsafe_substeps += 1
        self._visit_over = self._visit_over or self._unsafe_for * self.world.dt >= VISIT_LIMIT_S

    def finish_tick(self, measured: dict[str, Floats] | None = None) -> Outcome:
        """Finish the control tick: reward and end of the transition since the last call.

        `measured` is the newest vector of each channel; without it, every channel is measured now.
        """
        before = self.measured
        self.measured = self.world.sense(self.rng) if measured is None else dict(measured)
        reward, ended = (0.0, False) if before is None else self.robot.task(before, self._action, self.measured)
        reached = ended and self.robot.reached(self.world.truth(), self.world.goal)
        self._tick += 1
        self.control_ticks += 1
        self._return += reward
        outcome = self._outcome(False, reward, ended or self._visit_over, reached)
        self._visit = ""
        return outcome

    def tick(self, action: Floats) -> Outcome:
        """Simulate one complete control tick under `action`."""
        self.sense()
        self.command(action)
        self.advance(self.substeps)
        return self.finish_tick()

    def _outcome(self, first: bool, reward: float, terminated: bool, reached: bool) -> Outcome:
        return Outcome(
            seed=self.seed, first=first, tick=self._tick, reward=reward, terminated=terminated,
            truncated=not terminated and self._tick >= self.time_limit, reached=reached, episode_return=self._return,
            min_margin=self._min_margin, control_ticks=self.control_ticks, physics_steps=self.physics_steps,
            unsafe_visits=self.unsafe_visits, unsafe_substeps=self.unsafe_substeps, visit=self._visit,
        )  # fmt: skip

    def close(self) -> None:
        """Disconnect from PyBullet."""
        self.world.close()
