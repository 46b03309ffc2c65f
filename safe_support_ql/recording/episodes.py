"""Episodes on a robot: when one begins and ends, its rewards, and the unsafe visits that sensors show.

A robot has no simulator that puts it somewhere, knows the truth and says when an episode is over. Here an episode
begins where the robot is, with the next goal, and ends when that is reached or after the time limit. It is cut off when
the gate latches or closes, when a person pauses, when the goal is moved and when the odometry jumps. While there is no
goal, or a person is waited for, no policy may ask for anything: the robot stops under its plan.

An odometry that jumped began anew somewhere else, and goals in its frame are not where they were: nothing goes on
before a person says so (`resume`), or sends a new goal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.parts import OutcomeTable
from safe_support_ql.recording.session import Limits
from safe_support_ql.robots.base import Floats, Inputs, Robot

SETTLING = 3  # decisions after a new goal, until everybody knows it
CLOSED = ("closed", "latched")  # states of a gate under which no policy drives
JUMPED = "the odometry began anew somewhere else: send a new goal, or check that the goals hold there and resume"
AND_JUMPED = f"; {JUMPED}"
MOVED = "the goal was moved"
NOTHING_TO_DO = "no phase runs"
NO_GOAL = "no goal: publish one, or list run.goals in the configuration"


class Episodes:
    """See the module. One call of `after` for each decision of the gate, in their order."""

    def __init__(
        self, robot: Robot, goals: Sequence[Sequence[float]], session: int, first_episode: int, limits: Limits
    ) -> None:
        """`goals` are what episodes choose from; without any, the robot's own or those that somebody publishes.

        `session` tells this process from others, and episodes are numbered from `first_episode` on.
        """
        self.robot, self.limits = robot, limits
        self.time_limit = round(robot.world.episode_s * robot.world.control_hz)
        self._goals = [np.array(goal, np.float64) for goal in goals]
        self._session, self._episode = session, first_episode - 1
        self.goal: Floats | None = None
        self.paused = ""  # why a person's word is waited for; '' if it is not
        self.absent = ""  # why nothing may drive until that is over by itself, such as a released dead-man switch
        self.running = False
        self.ended = ""  # how the newest episode ended
        self._settled = 0
        self._before: tuple[Inputs, int] | None = None
        self._action = robot.silence
        self._seed, self._phase = 0, "collection"
        self._tick, self._return, self._min_margin = 0, 0.0, np.inf
        self._control_ticks = self._visits = self._unsafe_ticks = 0
        self._unsafe = False
        self.visit = ""  # describes the newest unsafe visit
        self._ticks = self._episodes = self._ticks_asked = self._episodes_asked = 0
        self.done = True

    def begin(self, phase: str, first_seed: int, episodes: int, ticks: int) -> None:
        """A phase of so many episodes or ticks (0: no limit); seed by seed, from the first one on."""
        self._phase, self._seed = phase, first_seed - 1
        self._episodes_asked, self._ticks_asked = episodes, ticks
        self._ticks = self._episodes = 0
        self.running, self.done = False, False

    def stop(self) -> None:
        """The phase ends here."""
        self.running, self.done = False, True

    def pause(self, why: str) -> None:
        """Stop until `resume`; the running episode is cut off."""
        self.paused = why

    def resume(self) -> None:
        """Go on: with the next episode."""
        self.paused = ""
        self.limits.renew()

    def take(self, goal: Floats) -> None:
        """Somebody published a goal that is not ours."""
        self._choose(goal)
        if self.paused == JUMPED:
            self.paused = ""

    @property
    def waiting(self) -> str:
        """Why no policy may drive; '' while an episode runs or begins."""
        if self.done:
            return NOTHING_TO_DO
        if self.paused:
            return f"paused: {self.paused}"
        if self.absent:
            return self.absent
        return "" if self.goal is not None else NO_GOAL

    # --- one decision ------------------------------------------------------------------------------------------------

    def after(self, inputs: Inputs, stamp_ns: int, action: Floats, gate_state: str, sequence: int) -> OutcomeTable:
        """The outcome of the state in which the gate decided; `action`[A] was executed then."""
        before, self._before = self._before, (inputs, stamp_ns)
        previous, self._action = self._action, np.array(action, np.float64)
        self._judge(inputs)
        seconds = 0.0 if before is None else (stamp_ns - before[1]) / 1e9
        jumped = before is not None and self.robot.carried(before[0], inputs, max(seconds, self.robot.period))
        if jumped:
            # What a person has paused stays so, also where a new goal ends what the jump began.
            self.pause(JUMPED if self.paused in ("", JUMPED) else f"{self.paused.removesuffix(AND_JUMPED)}{AND_JUMPED}")
            self.goal = None
        elif self.running and before is not None and not self.paused:
            self.paused = self.limits.drove(
                min(max(seconds, 0.0), 2 * self.robot.period), self.robot.travelled(before[0], inputs)
            )
        first, reward, reached, cut = not self.running, 0.0, False, ""
        if self.running and before is not None:
            self._tick += 1
            self._control_ticks += 1
            self._ticks += 1
            cut = self._cut(gate_state)
            if jumped or cut == MOVED:
                first = True  # what lies between these two states is no motion towards this goal
            else:
                reward, reached = self.robot.task(before[0], previous, inputs)
                self._return += reward
        over = reached or bool(cut)
        enough = 0 < self._ticks_asked <= self._ticks
        table = self._table(first, reward, reached, bool(cut) and not reached, sequence)
        if over:
            self.ended = "reached" if reached else cut
            self._episodes += 1
            self.running = False
            enough = enough or 0 < self._episodes_asked <= self._episodes
            self._choose(self.goal if cut == MOVED or self.paused or self.absent else self._next_goal())
        elif not self.running and not self.waiting and gate_state not in CLOSED:
            self._settled += 1
            if self._settled > SETTLING:
                self._start()
        table["idle"] = float(not (self.running or over))
        self.done = self.done or (enough and over)
        table["phase_episodes"], table["done"] = float(self._episodes), float(self.done)
        return table

    def _cut(self, gate_state: str) -> str:
        """Why the running episode ends now though the goal is not reached; '' if it goes on."""
        if self.paused or self.absent:
            return self.paused or self.absent
        if gate_state in CLOSED:
            return f"the gate is {gate_state}"
        if self._settled == 0:
            return MOVED
        if self._tick >= self.time_limit:
            return "time limit"
        return "enough ticks" if 0 < self._ticks_asked <= self._ticks else ""

    def _start(self) -> None:
        self._episode += 1
        self._seed += 1
        self._tick, self._return, self._min_margin = 0, 0.0, np.inf
        self.running, self.ended = True, ""

    def _choose(self, goal: Floats | None) -> None:
        self.goal, self._settled = goal, 0

    def _next_goal(self) -> Floats | None:
        """That of the next seed: another one than now, if there are several. None where somebody has to send it."""
        rng = np.random.default_rng([self._seed + 1, 7])
        if not self._goals:
            try:
                return self.robot.draw_goal(rng)
            except ValueError:  # its goals depend on where it is
                return None
        others = [goal for goal in self._goals if self.goal is None or not np.array_equal(goal, self.goal)]
        return (others or self._goals)[int(rng.integers(len(others or self._goals)))]

    def propose(self) -> None:
        """Choose a goal where there is none and nobody is waited for."""
        if self.goal is None and not self.paused and not self.done:
            self._choose(self._next_goal())

    def _judge(self, inputs: Inputs) -> None:
        """Count an unsafe visit that the sensors show, also between episodes."""
        truth = self.robot.sensed(inputs)
        margins = self.robot.truth_margins(truth)
        worst = float(margins.min())
        self._min_margin = min(self._min_margin, worst)
        unsafe = not worst >= 0.0
        if unsafe and not self._unsafe:
            self._visits += 1
            names = self.robot.model.certificate.margin_names
            values = dict(zip(names, np.round(margins, 4).tolist(), strict=False))
            self.visit = f"by its sensors: margins {values} at {np.round(truth, 4).tolist()}"
        self._unsafe_ticks += unsafe
        self._unsafe = unsafe

    def _table(self, first: bool, reward: float, reached: bool, truncated: bool, sequence: int) -> OutcomeTable:
        return {
            "session": self._session,
            "episode": max(self._episode, 1),
            "phase": PHASES.index(self._phase),
            "seed": max(self._seed, 0),
            "first": first,
            "tick": self._tick,
            "reward": reward,
            "terminated": reached,
            "truncated": truncated,
            "reached": reached,
            "episode_return": self._return,
            "min_margin": self._min_margin,
            "control_ticks": self._control_ticks,
            "physics_steps": 0,
            "unsafe_visits": self._visits,
            "unsafe_substeps": self._unsafe_ticks,
            "phase_ticks": self._ticks,
            "phase_episodes": self._episodes,
            "idle": 0,
            "executed": sequence,
            "done": 0,
            "wall_us": 0,
            "sense_us": 0,
        }
