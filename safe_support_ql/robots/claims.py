"""What a robot claims about its certificate and how that is tried: data and pure functions in its own claims.py.

`claims(robot)` of that module returns Claims. experiments/ interprets them and knows no robot; every part may be left
out, and an experiment refuses a robot that lacks the part it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import WorldSpec

Truth = Mapping[str, Any]  # errors of the adversary's world by name
Monitor = Callable[[Any], Robot]  # parameters -> the robot as its monitor knows it


# --- the adversary: the model's own arithmetic with chosen errors on top ------------------------------------------


class TrueWorld(ABC):
    """The world of the adversary, in which every error is exactly zero but those of `truth`.

    Two names mean the same for every robot: 'old', the age in periods of the state that the monitor is given, and
    'dies', the seconds for which the drive holds the last command of a monitor that dies.
    """

    attacks: int  # ticks that ask for the action of least margin; then only the plan runs

    def __init__(self, robot: Robot, truth: Truth, rng: np.random.Generator) -> None:
        """A start drawn from `rng`; subclasses draw `attacks` last."""
        self.robot, self.truth, self.rng = robot, truth, rng

    @abstractmethod
    def sense(self) -> dict[str, Floats]:
        """One vector per channel."""

    @abstractmethod
    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest true margin over one control period, or `checks` of the certificate, under action[A]."""

    @abstractmethod
    def settled(self, centre: tuple[float, ...]) -> bool:
        """Whether the plan about `centre` has ended: nothing can be lost any more."""

    @abstractmethod
    def actions(self) -> Floats:
        """Actions [K, A] along a line, among which the one of least margin is asked for."""

    def attacking(self, tick: int) -> bool:
        """Whether something is asked for in this tick."""
        return tick < self.attacks

    def age(self, tick: int) -> int:
        """How many periods old the state is that the monitor is given in this tick."""
        return int(self.truth.get("old", 0))


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Its world, and every error that the certificate covers, in the names of that world's `truth`."""

    world: Callable[[Robot, Truth, np.random.Generator], TrueWorld]
    monitor: Monitor  # the shipped robot, all margins in place, as it senses in that world
    unit: str  # of the margins that `world` returns
    error_forms: Mapping[str, tuple[Truth, ...]]  # each error at its bound, in each of its directions
    corners: Mapping[str, Truth]  # all errors at their bounds, for every corner of the certified box of parameters
    about_one: tuple[str, ...] = ()  # names in truth that are factors; all others count from zero
    no_error: tuple[str, ...] = ()  # names in truth that say what the adversary does
    compares: bool = True  # whether what `world` senses can be compared with predictions, so that the gate may latch


@dataclass(frozen=True)
class Case:
    """One margin: with it the adversary finds no unsafe visit, without it at least one.

    The monitor has the parameters `common` over those of Margins.zero, and with the margin `own` as well. `truth`: the
    world's errors. `share` says which part of the tightening the monitor has with the margin: its 'own', 'none'
    where the margin is part of the rollout itself, 'own and common' (without the margin that of `common`), or the
    'rest' that is left where all parameters are zero.
    """

    margin: str
    error: str
    deleting: str
    scenario: str
    truth: Truth = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    share: Literal["own", "none", "own and common", "rest"] = "own"
    why_not: str = ""  # why there is no scenario; then nothing is run
    monitor: Monitor | None = None  # instead of Margins.monitor
    unguarded: Monitor | None = None  # without the margin, where that takes more than other parameters


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The table of margins. `zero`: the parameters with which there is none."""

    zero: Mapping[str, Any]
    monitor: Monitor
    cases: tuple[Case, ...]


# --- calibration: the margins and parameters that recorded manoeuvres need ----------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What of the model is estimated from a manoeuvre. A factor of 1 is the nominal model.

    What a manoeuvre cannot tell apart is one factor: more force and less mass accelerate a cart alike.
    """

    names: tuple[str, ...]
    mismatches: tuple[tuple[str, str], ...]  # per factor (m, n): range (1 - m)/(1 + n) .. (1 + m)/(1 - n)
    member: Callable[[Floats, Floats], Floats]  # (nominal member, factors) -> member
    measured: tuple[int, ...]  # state coordinates that the robot measures; the others are ground truth
    scale: tuple[str, ...]  # per state coordinate: the parameter that says how large a difference counts as one
    angle: int | None = None  # the one that wraps around


@dataclass(frozen=True, kw_only=True)
class Creep:
    """The margin for what is left to drive once the speed is below a parameter; `position`: coordinates of truth."""

    margin: str
    below: str
    position: tuple[int, ...] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The margin for the error of a range, against the distance that is constraint `constraint`.

    Points farther away than `near` metres do not decide a plan.
    """

    margin: str
    near: float
    constraint: int = 0


@dataclass(frozen=True, kw_only=True)
class CalibrationSpec:
    """The margins by parameter name. `growth` holds the parts of w_bar, scaled together.

    `placed(robot, start, x, map)` is the truth vector of state x[S], predicted in the robot's own frame, where the true
    start was `start` and the world has that map; None where the state is the truth.
    """

    model: tuple[str, ...] = ()
    growth: tuple[str, ...]
    others: tuple[str, ...]  # also part of the tightening; set to zero where `model` or `growth` are looked at alone
    errors: Mapping[str, int]  # e_0: parameter -> index in state and truth
    speed: int  # index in truth of the speed that says "moving"
    moving: float  # m/s, from where on it does
    creep: Creep | None = None
    ranges: Ranges | None = None
    ends_in_terminal: bool = False  # no deviation grows in S_f, so the tightening is read where S_f was reached
    placed: Callable[[Any, Floats, Floats, Any], Floats] | None = None
    ensemble: Ensemble


# --- the search for an unsafe visit, and the viability kernel -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Search:
    """How `falsify` begins its episodes in the simulated world.

    `numbers`: how many numbers within [-1, 1] an attack has beyond those that all robots share, by name.
    `begin(world, robot, numbers, rng)` is called after a reset: it moves the start close to the boundary and changes
    the world as the attack's numbers say. `remembers`: half of the episodes start from true states that earlier ones
    met near the boundary; then episodes are no independent trials.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    begin: Callable[[Any, Any, Mapping[str, Floats], np.random.Generator], None] | None = None
    remembers: bool = False


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """What the viability kernel takes: a model that is odd, with n positions, their n rates, and one input."""

    limits: Floats  # [n]: the safe set is |position| <= these
    rates: Floats  # [n], from which nobody stops inside the safe set
    effort: float  # |input| is at most this
    inputs: Callable[[Floats], dict[str, Floats]]  # state[2 n] -> what the sensors say there, by channel
    truths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # worlds inside W: fields of world.drive


# --- all of it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a robot claims; each part is optional.

    `errors`: channel -> bound on |measured - true| of each entry. `mismatches`: worlds inside the ensemble by name, as
    the fields of world.drive that differ. `beyond`: worlds outside of the claim, which the gate has to notice.
    """

    errors: Mapping[str, Floats] = field(default_factory=dict)
    mismatches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beyond: Mapping[str, WorldSpec] = field(default_factory=dict)
    margins: Margins | None = None
    adversary: Adversary | None = None
    calibration: CalibrationSpec | None = None
    search: Search | None = None
    kernel: KernelSpec | None = None
