"""The interface of a robot: vectors in, certificate pieces, observation, task. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safe_support_ql.robots.actions import CandidateSource, Lattice, ShiftedLattice, Singles
from safe_support_ql.robots.model import Floats, Model
from safe_support_ql.robots.world import Channel, CommandTopic, WorldSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Inputs = Mapping[str, Floats]  # channel name -> its vector
LATE = 1.25  # control periods: so long after the last one a cycle begins in real time, even without a new state


@dataclass(frozen=True)
class Estimate:
    """What the monitor knows at one instant: state[S], points[M, d] (occupied, robot frame) and what the task needs.

    `objection` says why nothing may be certified on it, such as a sensor that shows too little; '' where nothing does.
    """

    state: Floats
    points: Floats
    task: Floats
    objection: str = ""


def outside(values: Floats, low: Floats, high: Floats) -> Floats:
    """How far each of values[n] lies outside [low, high]; 0 inside."""
    return np.asarray(np.maximum(np.maximum(low - values, values - high), 0.0))


class Robot(ABC):
    """One robot. Instances hold parameters only: no state, no global names."""

    name: str
    parameters: DataclassInstance  # everything that a user may set, declared with `param`
    world: WorldSpec
    passive_stop: bool  # whether it is safe without commands: a base that brakes by itself is, a balancing robot is not
    must_reach: bool  # success is to reach the goal; else it is to last until the time limit without an unsafe visit
    channels: tuple[Channel, ...]
    command: CommandTopic
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]  # [D]
    observation_scale: Singles  # [D], typical magnitude of each entry
    action_low: Floats
    action_high: Floats
    silence: Floats  # [A], the command that the drive obeys while nobody sends one
    lattice: tuple[tuple[float, ...], ...]  # discrete values per action dimension
    continuous_points: tuple[int, ...]  # lattice points per dimension when actions are continuous
    model: Model
    frame_id: str = "base_link"  # of what is drawn

    @property
    def period(self) -> float:
        """Control period in seconds."""
        return 1.0 / self.world.control_hz

    def candidates(self, continuous: bool) -> CandidateSource:
        """Where candidate actions come from: `lattice`, or `continuous_points` cells shifted over the whole range."""
        if continuous:
            return ShiftedLattice(
                tuple(self.action_low.tolist()), tuple(self.action_high.tolist()), self.continuous_points
            )
        return Lattice(self.lattice)

    @abstractmethod
    def estimate(self, inputs: Inputs) -> Estimate:
        """State from one vector per channel. Raises ValueError, naming the channel, on a value no robot could send."""

    @abstractmethod
    def at_rest(self) -> Estimate:
        """What `estimate` makes of the robot at rest, with nothing within reach of its sensors."""

    @abstractmethod
    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """Observation[D] of Q and the policy. The last command, the plan's centre[R] and the threshold are in it."""

    @abstractmethod
    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State[S] at `now` in the frame in which the estimate at `before` stood, to compare with a prediction."""

    def residuals(self, before: Inputs, now: Inputs, low: Floats, high: Floats) -> dict[str, float]:
        """How far the robot is at `now` from where it should be, by name, in units of W; above 1 is beyond W.

        low[S], high[S] bound the predictions of the members for `now`, in the frame of `before`.
        """
        return dict(
            zip(
                self.state_names,
                outside(self.relative(before, now), low, high) / self.model.detection.residual,
                strict=True,
            )
        )

    def disagreements(self, states: Sequence[Inputs]) -> dict[str, float]:
        """How far sensors contradict each other about the way through `states`, oldest first, in units of W.

        By name; empty where one sensor alone tells of motion. Unlike `residuals` it depends on no command.
        """
        return {}

    @abstractmethod
    def truth_margins(self, truth: Floats) -> Floats:
        """h[n] at ground truth (its world's vector, see simulation/); the safe set is all h >= 0."""

    @abstractmethod
    def reward(self, before: Floats, action: Floats, after: Floats, goal: Floats) -> tuple[float, bool]:
        """(reward, reached) of one control tick, from ground truth; `reached` ends the episode as a success."""

    @abstractmethod
    def controller(self, observations: Singles) -> Floats:
        """Actions[N, A] of the scripted controller (goal seeking; LQR to the goal) for observations[N, D]."""

    def towards(self, observation: Singles, truth: Floats, target: Floats) -> Singles:
        """`observation`[D] with its goal moved to `target` (x, y) in metres, for robots whose world has a map.

        `truth` is the world's vector, which knows where the robot stands on that map.
        """
        return observation

    @abstractmethod
    def in_motion(self, state: Floats, centre: Floats) -> bool:
        """Whether a fault that shows in motion alone would show at state[S], with the plan about centre[R]."""

    def objection(self) -> str:
        """Why no certificate holds with these parameters, and what would be right; '' where one does.

        A configuration with an objection is refused. Experiments that delete margins on purpose make their robots
        without asking.
        """
        return ""

    def place(self, states: Floats) -> Floats:
        """Where states [N, S] are drawn: [N, 3] in metres, in `frame_id`. Nothing is decided by it."""
        return np.zeros((len(states), 3))

    def initial_state(self, rng: np.random.Generator) -> Floats:
        """Start state [S] of an episode, for robots whose world has no arena to draw it."""
        raise ValueError(f"{self.name}: the start is drawn by the arena")

    def draw_goal(self, rng: np.random.Generator) -> Floats:
        """Goal vector of an episode, for robots whose world has no arena to draw it."""
        raise ValueError(f"{self.name}: the goal is drawn by the arena")
