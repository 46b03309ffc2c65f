"""The interface of a robot: vectors in, certificate pieces, observation, task. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.world import Channel, CommandTopic, WorldSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Inputs = Mapping[str, Floats]  # channel name -> its vector

LATE = 1.25  # control periods: so long after the last one a cycle begins in real time, even without a new state


@dataclass(frozen=True)
class Model:
    """The nominal model, as elementwise functions: tuples of floats or of equally shaped arrays in, the same out.

    The certificate runs them vectorised in NumPy and compiles them with Numba, so they use arithmetic and
    np.minimum/maximum/sin/... only, and no branches on values.

    step(x, u, member, dt) -> x after dt seconds of u held;        x: S floats, u: A floats, member: P floats
    backup(x, centre, constants) -> u                              the backup policy k about a centre
    margins(x, points, constants) -> (h_1, ..., h_n)               each h_i >= 0 in the safe set, with a unit
    terminal(x, centre, constants) -> bool                         inside S_f, which k keeps invariant
    margins_from(x, seen, h, constants) -> (h_1, ..., h_n)         optional, for speed alone: bounds of margins(x, ...)
                                                                   from below, given h = margins(seen, ...)
    """

    step: Callable[..., tuple[Any, ...]]
    backup: Callable[..., tuple[Any, ...]]
    margins: Callable[..., tuple[Any, ...]]
    terminal: Callable[..., Any]
    members: Floats  # [J, P], the ensemble; the first row predicts the state while it is missing
    centres: Floats  # [C, 1], rest positions the plan may aim at; [[0]] where there is but one plan
    constants: tuple[float, ...]
    margin_names: tuple[str, ...]
    tightening: Floats  # [T + 1, n], m_{i,t} at check t of the rollout, in the unit of h_i; grows with t
    scale: Floats  # [n], units of h_i per unit of the scaled margin
    checks_per_tick: int  # the rollout is checked this often in a control period
    dt: float  # s, between checks: control period / checks_per_tick
    offered_longer: (
        int  # checks beyond the longest hold that an offered action passes, too, where one does; 0: no matter
    )
    holds: tuple[int, ...]  # checks for which the first action is held: one period, and the drive's own timeout
    band: float  # width b of the hysteresis band, in scaled margin
    noise_allowance: float  # how far a bounded sensor error moves the scaled margin of a robot that stands still
    step_residual: float  # scaled margin an in-band step may lose unseen: w_bar of docs/method.md
    band_budget: float  # scaled margin that in-band steps may spend before only the plan runs
    residual: Floats  # [S], W: how far a state may lie outside of what the members predict for it, one tick ahead
    slack: Floats  # [S], by how much the tube of a stored plan widens in a tick: W, and what an uneven period adds
    margins_from: Callable[..., tuple[Any, ...]] | None = None
    uneven: float = 0.0  # of a check: W has room for stamps so far off a whole number of checks


@dataclass(frozen=True)
class Estimate:
    """What the monitor knows at one instant: state[S], points[M, 2] (occupied, robot frame) and what the task needs."""

    state: Floats
    points: Floats
    task: Floats


def outside(values: Floats, low: Floats, high: Floats) -> Floats:
    """How far each of values[n] lies outside [low, high]; 0 inside."""
    return np.asarray(np.maximum(np.maximum(low - values, values - high), 0.0))


class Robot(ABC):
    """One robot. Instances hold parameters only: no state, no global names."""

    name: str
    parameters: DataclassInstance  # everything that a user may set, declared with `param`
    world: WorldSpec
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
    lattice: tuple[tuple[float, ...], ...]  # discrete values per action dimension
    continuous_points: tuple[int, ...]  # lattice points per dimension when actions are continuous
    model: Model
    frame_id: str = "base_link"  # of what is drawn
    # What the claim of safety covers, for a search that tries to break it: the bound on |measured - true| of each entry
    # of a channel; and named worlds inside the ensemble, as the fields of `world.drive` that differ.
    errors: Mapping[str, Floats] = {}
    mismatches: Mapping[str, Mapping[str, Any]] = {}
    # Worlds outside of that claim, which the gate has to notice at run time.
    beyond: Mapping[str, WorldSpec] = {}

    @property
    def period(self) -> float:
        """Control period in seconds."""
        return 1.0 / self.world.control_hz

    @abstractmethod
    def estimate(self, inputs: Inputs) -> Estimate:
        """State from one vector per channel. Raises ValueError, naming the channel, on a value no robot could send."""

    @abstractmethod
    def at_rest(self) -> Estimate:
        """What `estimate` makes of the robot at rest, with nothing within reach of its sensors."""

    @abstractmethod
    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: float, threshold: float
    ) -> Singles:
        """Observation[D] of Q and the policy; the last command, the plan's centre and the band threshold are in it."""

    @abstractmethod
    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State[S] at `now` in the frame in which the estimate at `before` stood, to compare with a prediction."""

    def residuals(self, before: Inputs, now: Inputs, low: Floats, high: Floats) -> dict[str, float]:
        """How far the robot is at `now` from where it should be, by name, in units of W; above 1 is beyond W.

        low[S], high[S] bound the predictions of the members for `now`, in the frame of `before`.
        """
        return dict(
            zip(self.state_names, outside(self.relative(before, now), low, high) / self.model.residual, strict=True)
        )

    def disagreements(self, states: Sequence[Inputs]) -> dict[str, float]:
        """How far sensors contradict each other about the way through `states`, oldest first, in units of W.

        By name; empty where one sensor alone tells of motion. Unlike `residuals` it depends on no command.
        """
        return {}

    @abstractmethod
    def truth_margins(self, truth: Floats) -> Floats:
        """h[n] at ground truth (the world's vector, see simulation/world.py); the safe set is all h >= 0."""

    @abstractmethod
    def reward(self, before: Floats, action: Floats, after: Floats, goal: Floats) -> tuple[float, bool]:
        """(reward, reached) of one control tick, from ground truth; `reached` ends the episode as a success."""

    @abstractmethod
    def controller(self, observations: Singles) -> Floats:
        """Actions[N, A] of the scripted controller (goal seeking; LQR to the goal) for observations[N, D]."""

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
