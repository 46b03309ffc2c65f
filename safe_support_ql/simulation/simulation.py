"""Episodes in a world: rewards, ends of episodes and unsafe visits, judged on ground truth at every sub-step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Floats, Robot
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
    """Plays episodes: `reset`, then `sense` and `tick` (lock-step), or `command`, `advance`, `finish_tick`."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Build the world of `robot`."""
        self.robot = robot
        self.world = make_world(robot, gui)
        self.substeps = robot.world.physics_hz // robot.world.control_hz
        self.time_limit = int(round(robot.world.episode_s * robot.world.control_hz))
        self.control_ticks = self.physics_steps = self.unsafe_visits = self.unsafe_substeps = 0

    def reset(self, seed: int) -> Outcome:
        """Begin a new episode, which depends on `seed` only."""
        self.seed = seed
        self._rng = np.random.default_rng([seed, 1])
        self.world.reset(self._rng, seed)
        self._before = self.world.truth()
        self._action = self.robot.silence
        self.tick_margins = self.robot.truth_margins(self._before)
        self._tick = 0
        self._return = 0.0
        self._min_margin = float(self.robot.truth_margins(self._before).min())
        self._unsafe_for = 0
        self._visit_over = False
        self._visit = ""
        return self._outcome(True, 0.0, False, False)

    def sense(self) -> dict[str, Floats]:
        """One vector per channel, with noise. Call it once per tick, because the odometry integrates between calls."""
        return self.world.sense(self._rng)

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

    def finish_tick(self) -> Outcome:
        """Finish the control tick: reward and end of the transition since the last call."""
        after = self.world.truth()
        reward, reached = self.robot.reward(self._before, self._action, after, self.world.goal)
        self._before = after
        self._tick += 1
        self.control_ticks += 1
        self._return += reward
        outcome = self._outcome(False, reward, reached or self._visit_over, reached)
        self._visit = ""
        return outcome

    def tick(self, action: Floats) -> Outcome:
        """Simulate one complete control tick under `action`."""
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
