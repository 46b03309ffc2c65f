"""The kinds of claims a robot can make about its certificate, and how they are tested: a new kind goes here.

The claims of one robot are in its own claims.py, whose function `claims(robot)` returns Claims. experiments/ tests them
and knows no robot by name. Every part is optional; an experiment refuses a robot that lacks the part it needs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import WorldSpec

NOMINAL = "nominal"  # the robot's own world, beside its mismatches
# For each episode another world within the mismatches; there, too, one message in 20 lost, and sensors that fail.
DRAWN, LOSSY, FAULTY = "drawn", "drawn, lossy", "drawn, faulty"
Truth = Mapping[str, Any]  # errors of the adversary's world by name
Monitor = Callable[[Any], Robot]  # parameters -> the robot as its monitor knows it


# --- the adversary: the model's own arithmetic plus chosen errors -------------------------------------------------


class TrueWorld(ABC):
    """The world of the adversary: every error is exactly zero except those in `truth`.

    Four names mean the same for every robot: 'old', the age in periods of the state that the monitor is given;
    'behind', by channel, how many periods older than the state its messages are, and 'hidden', how many of these their
    stamps do not show; and 'dies', the seconds for which the drive holds the last command of a monitor that dies.
    """

    attacks: int  # ticks that request the action of least margin; after them only the plan runs

    def __init__(self, robot: Robot, truth: Truth, rng: np.random.Generator) -> None:
        """Draw a start from `rng`; subclasses draw `attacks` last."""
        self.robot, self.truth, self.rng = robot, truth, rng

    @abstractmethod
    def sense(self) -> dict[str, Floats]:
        """One vector per channel."""

    @abstractmethod
    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest true margin under action[A] over one control period, or over `checks` checks of the certificate."""

    @abstractmethod
    def settled(self, centre: tuple[float, ...]) -> bool:
        """Whether the plan about `centre` has come to its end, so that no true margin can shrink any more."""

    @abstractmethod
    def actions(self) -> Floats:
        """Actions [K, A] along a line; the one of least margin is requested."""

    def attacking(self, tick: int) -> bool:
        """Whether an action is requested in this tick."""
        return tick < self.attacks

    def age(self, tick: int) -> int:
        """Age in periods of the state that the monitor is given in this tick."""
        return int(self.truth.get("old", 0))


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The adversary's world, and every error that the certificate covers, by the names in that world's `truth`."""

    world: Callable[[Robot, Truth, np.random.Generator], TrueWorld]
    monitor: Monitor  # the shipped robot with all margins, as it senses in that world
    unit: str  # of the margins that `world` returns
    error_forms: Mapping[str, tuple[Truth, ...]]  # each error at its bound, in each direction
    corners: Mapping[str, Truth]  # all errors at their bounds, for every corner of the certified box of parameters
    about_one: tuple[str, ...] = ()  # names in truth that are factors; without error they are 1, all others 0
    no_error: tuple[str, ...] = ()  # names in truth that are no errors but say what the adversary does
    compares: bool = True  # whether predictions can be compared with what `world` senses, so that the gate may latch


@dataclass(frozen=True)
class Case:
    """One row of the table of margins: with the margin the adversary finds no unsafe visit, without it at least one.

    The monitor has the parameters Margins.zero, overridden by `common`; with the margin, also by `own`. `truth` holds
    the world's errors. `share` says which part of the tightening the monitor keeps with the margin: its 'own', 'none'
    if the margin is part of the rollout itself, 'own and common' (without the margin only that of `common`), or the
    'rest' that remains if all parameters are zero.
    """

    margin: str
    error: str = ""
    deleting: str = ""
    scenario: str = ""
    truth: Truth = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    share: Literal["own", "none", "own and common", "rest"] = "own"
    why_not: str = ""  # why there is no scenario; if set, nothing is run
    monitor: Monitor | None = None  # replaces Margins.monitor
    unguarded: Monitor | None = None  # the monitor without the margin, if other parameters alone do not remove it


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The table of margins. `zero`: the parameters that switch all margins off."""

    zero: Mapping[str, Any]
    monitor: Monitor
    cases: tuple[Case, ...]


# --- calibration: the margins and parameters that recorded manoeuvres need ----------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The physical parameters that are estimated from a manoeuvre, as factors on the nominal model.

    Parameters that a manoeuvre cannot distinguish share one factor: a stronger force and a lighter cart look the same.
    """

    names: tuple[str, ...]
    mismatches: tuple[tuple[str, str], ...]  # per factor (m, n): range (1 - m)/(1 + n) .. (1 + m)/(1 - n)
    member: Callable[[Floats, Floats], Floats]  # (nominal member, factors) -> member
    measured: tuple[int, ...]  # state coordinates that the robot measures; the others come from ground truth
    scale: tuple[str, ...]  # per state coordinate: the parameter that is the unit of its differences
    angle: int | None = None  # index of the coordinate that wraps around


@dataclass(frozen=True, kw_only=True)
class Creep:
    """The margin for the distance driven after the speed fell below a parameter; `position`: indices in truth."""

    margin: str
    below: str
    position: tuple[int, ...] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The margin for the error of a range. The number `constraint` names the constraint that is a distance.

    Points farther away than `near` metres do not decide a plan.
    """

    margin: str
    near: float
    constraint: int = 0


@dataclass(frozen=True, kw_only=True)
class CalibrationSpec:
    """What calibration needs: the margins by parameter name. `growth` holds the parts of w_bar, scaled together.

    `placed(robot, start, x, map)` turns x[S], predicted in the robot's own frame, into a truth vector, given the true
    start `start` and the map of the world; None if the state is the truth vector already.
    """

    model: tuple[str, ...] = ()
    growth: tuple[str, ...]
    others: tuple[str, ...]  # other parts of the tightening; set to zero while `model` or `growth` are scaled
    errors: Mapping[str, int]  # e_0: parameter -> index in state and truth
    speed: int  # index of the speed in truth
    moving: float  # m/s, the speed from which the robot counts as moving
    creep: Creep | None = None
    ranges: Ranges | None = None
    ends_in_terminal: bool = False  # no deviation grows in S_f, so the tightening is read where S_f was reached
    placed: Callable[[Any, Floats, Floats, Any], Floats] | None = None
    ensemble: Ensemble


# --- the search for an unsafe visit, and the viability kernel -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Search:
    """How `falsify` begins its episodes in the simulated world.

    `numbers`: name -> how many numbers in [-1, 1] an attack has in addition to those that all robots share.
    `begin(world, robot, numbers, rng)` is called after a reset: it moves the start close to the boundary and changes
    the world according to the attack's numbers. `remembers`: half of the episodes start from true states near the
    boundary that earlier episodes met; episodes are then not independent trials.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    begin: Callable[[Any, Any, Mapping[str, Floats], np.random.Generator], None] | None = None
    remembers: bool = False


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """What the viability kernel needs: a model that is odd, with n positions, their n rates, and one input."""

    limits: Floats  # [n]: the safe set is |position| <= these
    rates: Floats  # [n], too fast to stop inside the safe set
    effort: float  # |input| is at most this
    inputs: Callable[[Floats], dict[str, Floats]]  # state[2 n] -> what the sensors measure there, by channel
    truths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # covered worlds: fields of world.drive


# --- all of it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a robot claims; each part is optional.

    `errors`: channel -> bound on |measured - true| of each entry. `mismatches`: worlds that the ensemble covers, by
    name, as the fields of world.drive that differ. `drawn`: one such world at random, all its fields at once.
    `failing`: for so many seconds a sensor may fail in it. `beyond`: worlds outside the claim, which the gate has to
    detect.
    """

    errors: Mapping[str, Floats] = field(default_factory=dict)
    mismatches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    drawn: Callable[[np.random.Generator], Mapping[str, Any]] | None = None
    failing: float = 0.0  # 0: a robot that is not seen falls
    beyond: Mapping[str, WorldSpec] = field(default_factory=dict)
    margins: Margins | None = None
    adversary: Adversary | None = None
    calibration: CalibrationSpec | None = None
    search: Search | None = None
    kernel: KernelSpec | None = None
