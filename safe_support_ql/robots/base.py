"""The interface that every robot implements: estimate, observation, residuals, task and model. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from safe_support_ql.robots.actions import CandidateSource, Lattice, ShiftedLattice, Singles
from safe_support_ql.robots.model import Floats, Model
from safe_support_ql.robots.world import Channel, CommandTopic, WorldSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Inputs = Mapping[str, Floats]  # channel name -> its vector
LATE = 1.25  # control periods: in real time, a cycle starts at most this long after the previous one


@dataclass(frozen=True)
class Estimate:
    """What the monitor knows at one instant: state[S], points[M, d] (occupied, robot frame) and task vector.

    `objection` says why nothing may be certified from it, for example because a sensor shows too little; '' if nothing
    speaks against it. `scene` is what else the observation shows, for a base the ranges about it; `remark` is what a
    person should know about the inputs where little is certified; `seek` is the action that shows the sensors more,
    where they must see more before anything useful can be certified.
    """

    state: Floats
    points: Floats
    task: Floats
    objection: str = ""
    scene: Floats = field(default_factory=lambda: np.zeros(0))
    remark: str = ""
    seek: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Stamped:
    """One input of a channel: its vector, its stamp, and when it arrived (steady clock), in nanoseconds."""

    vector: Floats
    stamp_ns: int
    arrived_ns: int


History = Mapping[str, Sequence[Stamped]]  # channel name -> its newest inputs, the newest last


def outside(values: Floats, low: Floats, high: Floats) -> Floats:
    """How far each of values[n] lies outside [low[n], high[n]]; 0 inside."""
    return np.asarray(np.maximum(np.maximum(low - values, values - high), 0.0))


class Perception:
    """What one gate knows from more than the newest inputs; that of a robot which needs no more than these."""

    def __init__(self, robot: Robot) -> None:
        """Nothing was seen yet."""
        self.robot = robot

    def forget(self) -> None:
        """The robot stands somewhere else."""

    def fence(self, corners: tuple[tuple[float, ...], ...]) -> None:
        """Certify nothing that leaves a convex polygon in the frame of the odometry, [x, y] in metres.

        Raises ValueError saying what is wrong with it, or that this robot has no place.
        """
        raise ValueError(f"{self.robot.name} does not move from its place, and needs none")

    def estimate(self, inputs: Inputs, stamp_ns: int, history: History) -> Estimate:
        """The estimate at the instant `stamp_ns` of `inputs`; may be called twice. Raises ValueError as Robot does."""
        return self.robot.estimate(inputs)

    def disagreements(self, judge: bool) -> dict[str, float]:
        """How far sensors disagree about the motion since the last call; by name, in units of W.

        Empty where there was nothing to compare. Without `judge` the robot may have been carried: nothing is compared.
        """
        return {}

    def check(self, residual: str) -> str:
        """What a person should check where the residual of this name is too large; '' where that is nothing special."""
        return ""


class Robot(ABC):
    """One robot. An instance holds parameters, no state."""

    name: str
    parameters: DataclassInstance  # every setting of the robot, declared with `param`
    world: WorldSpec
    passive_stop: bool  # whether it is safe without commands: true if it brakes by itself, false if it must balance
    must_reach: bool  # success means reaching the goal; otherwise, no unsafe visit until the time limit
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
    silence: Floats  # [A], the command that the drive obeys after its timeout
    lattice: tuple[tuple[float, ...], ...]  # discrete values per action dimension
    continuous_points: tuple[int, ...]  # lattice points per dimension when actions are continuous
    model: Model
    frame_id: str = "base_link"  # frame of the markers

    @property
    def period(self) -> float:
        """Control period in seconds."""
        return 1.0 / self.world.control_hz

    @property
    def observation_bounds(self) -> tuple[Singles, Singles]:
        """(low[D], high[D]): no observation is outside. Infinite where the robot does not say more."""
        unknown = np.full(len(self.observation_names), np.inf, np.float32)
        return -unknown, unknown

    def candidates(self, continuous: bool) -> CandidateSource:
        """The source of candidate actions: `lattice`, or `continuous_points` cells shifted over the whole range."""
        if continuous:
            return ShiftedLattice(
                tuple(self.action_low.tolist()), tuple(self.action_high.tolist()), self.continuous_points
            )
        return Lattice(self.lattice)

    def perception(self) -> Perception:
        """What a gate estimates states with, as long as it lives."""
        return Perception(self)

    def admit(self, channel: str, vector: Floats) -> float:
        """How long after its stamp an input was measured, at its last part, in seconds.

        Raises ValueError naming the channel if the message contradicts itself, or is of a sensor that does not do.
        """
        return 0.0

    @abstractmethod
    def estimate(self, inputs: Inputs) -> Estimate:
        """Estimate from one vector per channel. Raises ValueError naming the channel if a value is impossible."""

    @abstractmethod
    def at_rest(self) -> Estimate:
        """The estimate for the robot at rest, with nothing within range of its sensors."""

    @abstractmethod
    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """Observation[D] for Q and the policy; it includes the last command, the plan's centre[R] and the threshold."""

    @abstractmethod
    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State[S] at `now`, in the frame of the estimate at `before`, for comparison with a prediction."""

    def residuals(self, before: Inputs, now: Inputs, low: Floats, high: Floats) -> dict[str, float]:
        """Residuals at `now` by name, in units of W; above 1 is beyond W.

        low[S], high[S] bound the predictions of the members for `now`, in the frame of `before`.
        """
        return dict(
            zip(
                self.state_names,
                outside(self.relative(before, now), low, high) / self.model.detection.residual,
                strict=True,
            )
        )

    @abstractmethod
    def truth_margins(self, truth: Floats) -> Floats:
        """True margins h[n] at ground truth (the world's vector, see simulation/); the safe set is all h >= 0."""

    def sensed(self, inputs: Inputs) -> Floats:
        """The world's truth vector as far as its sensors show it: what a robot without a simulator is judged by.

        Raises ValueError where they do not show it.
        """
        raise ValueError(f"{self.name}: does not say how its sensors show an unsafe visit (Robot.sensed)")

    def travelled(self, before: Inputs, after: Inputs) -> float:
        """How far it drove in between, in metres, by its sensors; 0 for a robot that stays in its place."""
        return 0.0

    def carried(self, before: Inputs, after: Inputs, seconds: float) -> bool:
        """Whether it cannot have moved itself from one place to the other in that time: carried, or measured anew."""
        return False

    def waits(self, truth: Floats) -> bool:
        """Whether, at ground truth, somebody stands within the clearance of the robot, which stands and so is safe."""
        return False

    @abstractmethod
    def task(self, before: Inputs, action: Floats, after: Inputs) -> tuple[float, bool]:
        """(reward, reached) of one control tick under action[A]; `reached` ends the episode as a success.

        It knows only what was measured before and after, the goal among it (that of `after`): so it is the same on a
        robot, in the simulator and from a record.
        """

    def reached(self, truth: Floats, goal: Floats) -> bool:
        """Whether, at ground truth, an episode that ended as a success was one."""
        return True

    @abstractmethod
    def controller(self, observations: Singles) -> Floats:
        """Actions[N, A] of the scripted controller (goal seeking; LQR to the goal) for observations[N, D]."""

    def towards(self, observation: Singles, truth: Floats, target: Floats) -> Singles:
        """`observation`[D] with its goal moved to `target` (x, y) [m] on the map, for robots whose world has one.

        `truth` is the world's vector, which holds the robot's pose on that map.
        """
        return observation

    @abstractmethod
    def in_motion(self, state: Floats, centre: Floats) -> bool:
        """Whether the robot moves enough at state[S], under the plan about centre[R], to show a fault of its motion."""

    def objection(self) -> str:
        """Why no certificate holds with these parameters, and what would be right; '' if one holds.

        A configuration with an objection is refused. Experiments that delete margins on purpose skip this test.
        """
        return ""

    def place(self, states: Floats) -> Floats:
        """Positions [N, 3] in metres, in `frame_id`, at which states [N, S] are drawn as markers."""
        return np.zeros((len(states), 3))

    def initial_state(self, rng: np.random.Generator) -> Floats:
        """Start state [S] of an episode, for robots whose world has no arena."""
        raise ValueError(f"{self.name}: the start is drawn by the arena")

    def outermost_starts(self) -> Floats:
        """States [N, S]: corners of what `initial_state` draws. Settings are refused if one has no certified plan."""
        return np.zeros((0, len(self.state_names)))

    def draw_goal(self, rng: np.random.Generator) -> Floats:
        """Goal vector of an episode, for robots whose world has no arena."""
        raise ValueError(f"{self.name}: the goal is drawn by the arena")
