"""What each margin is for: with it 0 unsafe visits, without it at least 1, everything else exact.

The truth here is the model's own arithmetic, not PyBullet, because only so can every other error be exactly zero: the
state is measured without error, space is known without a lidar, the truth is judged at the certificate's own check
points, and all other margins are deleted. One error is then put on top at its bound. The adversary asks for the action
whose certificate margin is closest to zero, found on a fine grid, and then for the plan until it is at rest.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.robots.base import Estimate, Floats, Robot
from safe_support_ql.robots.cart_pole import CartPole
from safe_support_ql.robots.diff_drive import DiffDrive
from safe_support_ql.safety.gate import Gate, GateConfig

EPISODES = 30  # with the margin; without it up to five times as many, until the first visit
ROUNDING = 1e-9  # in the unit of h; a margin below minus this is a visit


@dataclass(frozen=True)
class Case:
    """One margin. `own`: parameters that the monitor has with it, over `common`; without it those of `common` alone.

    `truth`: what the true world does, see Base.tick and Pole.tick. `tightened`: whether the margin is part of the
    tightening (then its own share of it is kept, and nothing else), or else of the rollout itself.
    """

    margin: str
    error: str
    deleting: str
    scenario: str
    truth: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    tightened: bool = True
    why_not: str = ""  # why there is no scenario; then nothing is run


# --- a base on a plane with a post, or the corner of a wall -----------------------------------------------------------


class SeeingBase(DiffDrive):
    """Knows the post exactly: `post`[2] in the robot's frame when it was sensed travels as the scan's first ranges."""

    def occupied(self, scan: Floats) -> Floats:
        """The post itself."""
        return scan[None, :2].copy()


class LidarBase(DiffDrive):
    """With its lidar, but without the allowance for a corner between two rays."""

    def occupied(self, scan: Floats) -> Floats:
        """Ranges stretched by what the allowance takes off again."""
        return super().occupied(scan / (1.0 - np.pi / self.parameters.scan_rays))


BASE_ZERO: Mapping[str, Any] = {
    "motion_mismatch": 0.0, "lag_mismatch": 0.0, "braking_mismatch": 0.0, "between_members": 0.0, "margin_model": 0.0,
    "margin_growth": 0.0,
    "margin_terminal": 0.0, "margin_speed_estimate": 0.0, "lidar_noise": 0.0, "band": 0.0, "noise_allowance": 0.0,
    "step_residual": 0.0, "terminal_speed": 0.001, "drive_timeout": 0.1,
}  # fmt: skip


class Base:
    """The true base: the model's member, exactly; x[5] = (x, y, yaw, v, w) and a post in the world."""

    def __init__(self, robot: Any, truth: Mapping[str, Any], rng: np.random.Generator) -> None:
        """Start standing (or at `speed`) towards a post, or past it."""
        self.robot, self.truth, self.rng = robot, dict(truth), rng
        self.x = np.array([0.0, 0.0, 0.0, self.truth.get("speed", 0.0), 0.0])
        self.curve = float(rng.choice(truth["curves"])) if "curves" in truth else 0.0  # rad/s, asked for at every speed
        reach = float(robot.model.constants[0])
        if "speed" in truth:  # beside the post, which it passes in the middle of two checks
            half = 0.5 * truth["speed"] * robot.model.dt
            graze = np.hypot(half, reach) - reach  # at the checks beside the post it is this much clearer than between
            self.post = np.array([(2 * rng.integers(6, 10) + 1) * half, reach - rng.uniform(0.0, graze)])
        else:
            self.post = np.array([rng.uniform(0.7, 1.1), 0.0])
            self.post[1] = rng.uniform(-0.02, 0.02) if "corner" in truth else 0.0
        if self.curve:  # where the arc of full speed and that turn rate leads
            away = self.post[0]
            half = np.arcsin(0.5 * away * self.curve / robot.parameters.speed)
            self.post = away * np.array([np.cos(half), np.sin(half)])
        if "turning" in truth:
            self.x[3:] = truth["turning"]
            self.post = np.array(truth["post"]) + rng.uniform(-0.03, 0.03, 2)
        self.slip = float(self.truth.get("jump", 0.0))
        self.rays = not isinstance(robot, SeeingBase)  # else it knows the post

    def sense(self) -> dict[str, Floats]:
        """Odometry (its pose is used by nothing here), the post or a scan, a goal."""
        to = self.post - self.x[:2]
        cos, sin = np.cos(self.x[2]), np.sin(self.x[2])
        seen = np.array([cos * to[0] + sin * to[1], -sin * to[0] + cos * to[1]])
        rays = self.robot.parameters.scan_rays
        angles = -np.pi + np.arange(rays) * (2 * np.pi / rays)
        scan = np.full(rays, np.inf)
        if "corner" in self.truth:  # the edge of a box, its diagonal along x; the wall hides everything behind it
            sides = []
            for sign in (1.0, -1.0):
                along = np.cos(angles) + sign * np.sin(angles)
                with np.errstate(divide="ignore"):
                    sides.append(np.where(along > 1e-9, (seen[0] + sign * seen[1]) / along, np.inf))
            scan = np.maximum(*sides)
        elif isinstance(self.robot, LidarBase):  # a wall across the way
            with np.errstate(divide="ignore"):
                scan = np.where(np.cos(angles) > 1e-9, seen[0] / np.cos(angles), np.inf)
        else:  # the post's own range is as wrong as a ray's
            scan[:2] = seen * (1.0 + self.truth.get("range_error", 0.0) / np.hypot(*seen))
        scan = np.where(scan > self.robot.parameters.scan_range, np.inf, scan)
        v = self.x[3] - self.truth.get("odometry_lost", 0.0)
        pose = (self.x[0], self.x[1], np.sin(self.x[2] / 2), np.cos(self.x[2] / 2))
        return {
            "odom": np.array([*pose, v, self.x[4]]),
            "scan": scan + (self.truth.get("range_error", 0.0) if self.rays else 0.0),
            "goal_pose": np.array([100.0, 0.0]),
        }

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest clearance margin of one control period, or of `checks`, under `action`."""
        model, p = self.robot.model, self.robot.parameters
        truth = self.truth
        lag = p.lag * truth.get("lag", 1.0)
        weak = truth.get("braking", 1.0)
        ground = truth.get("ground", 1.0)
        turn = truth.get("turn", 1.0)
        member = (
            ground,
            turn,
            1.0 - np.exp(-model.dt / lag),
            p.acceleration * weak,
            p.turn_acceleration * weak,
            p.dead_zone,
        )
        least = np.inf
        for _ in range(checks or model.checks_per_tick):
            before = self.x
            self.x = np.array(model.step(tuple(before), tuple(action), member, model.dt), np.float64)
            moving = abs(self.x[3]) > p.terminal_speed
            if moving and self.slip and action[0] <= 0.0:
                self.x[0] += self.slip  # once: it slides on when it brakes
                self.slip = 0.0
            if moving:
                self.x[0] += truth.get("drift", 0.0) * model.dt
            elif not truth.get("creep") and action[0] == 0.0:
                self.x[3] = 0.0
            parts = np.linspace(0.0, 1.0, 13)[1:] if "speed" in truth else np.ones(1)
            for part in parts:
                way = (before[3] + 0.5 * part * (self.x[3] - before[3])) * part * model.dt * ground
                at = self.x[:2] if part == 1.0 else before[:2] + way * np.array([np.cos(before[2]), np.sin(before[2])])
                least = min(least, float(np.hypot(*(self.post - at)) - model.constants[0]))
        return least

    def settled(self, centre: float) -> bool:
        """Standing still."""
        return abs(self.x[3]) < 1e-4

    def actions(self) -> Floats:
        """Straight on, or along its curve, at every speed, or at the one that it has."""
        if "speed" in self.truth:
            return np.array([[self.truth["speed"], 0.0]])
        if "turning" in self.truth:
            return np.array([[self.robot.parameters.speed, -self.robot.parameters.turn_rate]])
        speeds = np.linspace(self.robot.parameters.dead_zone, self.robot.parameters.speed, 111)
        return np.column_stack([speeds, np.full(len(speeds), self.curve)])


# --- a cart-pole ------------------------------------------------------------------------------------------------------

POLE_ZERO: Mapping[str, Any] = {
    "mass_mismatch": 0.0, "length_mismatch": 0.0, "gain_mismatch": 0.0, "position_error": 0.0, "angle_error": 0.0,
    "speed_error": 0.0, "turn_error": 0.0, "position_disturbance": 0.0, "angle_disturbance": 0.0,
    "speed_disturbance": 0.0, "turn_disturbance": 0.0, "command_delay": 0.0, "saturated_ticks": 1, "nonlinearity": 1.0,
    "between_members": 0.0, "band": 0.0,
}  # fmt: skip


class Pole:
    """The true cart-pole: the model's nominal member times `truth['factors']`, exactly."""

    def __init__(self, robot: Any, truth: Mapping[str, Any], rng: np.random.Generator) -> None:
        """Start anywhere in the safe set, not too fast; the signs of the errors are drawn once."""
        self.robot, self.truth, self.rng = robot, truth, rng
        self.x = truth.get("starts", 1.0) * rng.uniform(-1.0, 1.0, 4) * np.array([1.0, 0.2, 0.8, 0.5])
        self.signs = rng.choice([-1.0, 1.0], 8)
        factors = np.array(truth.get("factors", np.ones(4)))  # cart mass, pole mass, length, gain
        cart, pole, length, gain = factors
        nominal = robot.model.members[0]
        self.member = nominal * np.array([cart, pole, length, pole * length**2, gain, 1.0, 1.0])
        self.before = 0.0

    def sense(self) -> dict[str, Floats]:
        """The state with its error, and a goal."""
        return {"joint_states": self.x + self.signs[:4] * self.truth.get("e0", 0.0), "goal_pose": np.zeros(1)}

    def tick(self, action: Floats) -> float:
        """Smallest scaled margin of one control period under `action`."""
        model, member = self.robot.model, tuple(self.member)
        late = self.truth.get("late", 0.0)
        x = tuple(self.x)
        if late:
            x = model.step(x, (self.before,), member, late)
        points = np.linspace(0.0, model.dt - late, 6)[1:] if self.truth.get("between") else [model.dt - late]
        met = [np.array(model.step(x, tuple(action), member, dt)) for dt in points]
        self.x = met[-1] + self.signs[4:] * self.truth.get("w", 0.0)
        met[-1] = self.x
        self.before = float(action[0])
        return float(min((self.robot.truth_margins(state) / model.scale).min() for state in met))

    def settled(self, centre: float) -> bool:
        """Inside S_f."""
        model = self.robot.model
        return bool(model.terminal(tuple(self.x), centre, model.constants))

    def actions(self) -> Floats:
        """Every force."""
        return np.linspace(self.robot.action_low[0], self.robot.action_high[0], 81)[:, None]


# --- one scenario -----------------------------------------------------------------------------------------------------


def least_certified(gate: Gate, estimate: Estimate, actions: Floats) -> Floats | None:
    """Of a family of actions[K, A] along a line, that of least margin that the gate accepts; None where there is none.

    Refined between the last accepted and the first refused one.
    """
    support, model = gate.support, gate.support.robot.model
    in_band = support.in_band and support.spent + model.step_residual <= model.band_budget and not support.surcharge
    least = support.threshold if in_band else model.band + support.surcharge
    for _ in range(3):
        margin, _ = support._certify(estimate, gate._timing, actions.astype(np.float32))
        if not (margin >= least).any():
            return None
        best = int(np.argmin(np.where(margin >= least, margin, np.inf)))
        beside = [i for i in (best - 1, best + 1) if 0 <= i < len(actions) and margin[i] < least]
        chosen = actions[best]
        if not beside:
            return chosen
        actions = np.linspace(chosen, actions[beside[0]], 21)
    return chosen


def encounter(gate: Gate, truth: Mapping[str, Any], rng: np.random.Generator, number: int) -> float:
    """Play episode `number` (each larger than the last) of the adversary against `truth`.

    Returns its smallest margin, inf where the certificate accepts nothing at the start; below -ROUNDING it was unsafe,
    and ends there.
    """
    robot = gate.robot
    period = int(1e9 / robot.world.control_hz)
    world: Any = (Base if isinstance(robot, DiffDrive) else Pole)(robot, truth, rng)
    attacks = int(rng.integers(1, 12)) if isinstance(world, Base) else int(rng.integers(1, 6))
    old = int(truth.get("old", 0))  # periods
    latency = (0.0, 1e-9) if old else (0.0,)  # in lock-step nothing is ever old, so not lock-step
    sensed = [world.sense()]
    for _ in range(old):  # nobody commands yet
        world.tick(np.zeros(len(robot.action_names)))
        sensed.append(world.sense())
    if old and isinstance(world, Pole):
        attacks = 1  # k needs the state that is: only the candidate's may be old
    gate.new_episode(number)
    least = np.inf
    for tick in range(400):
        now = (1000 * number + tick + 2 + old) * period  # a steady clock never goes back
        age = old if tick < attacks or isinstance(world, Base) else 0
        # An old state carries its own stamp, or, where that margin is deleted, a false one.
        stamp = now - age * period if age and truth["stamped"] else now
        inputs = sensed[-1 - age]
        for channel, vector in inputs.items():
            gate.receive(channel, vector, stamp, now, now)
        candidates = gate.begin(now, now, latency)
        assert candidates is not None, gate.cause
        if tick == 0 and not candidates.certified.any():
            break  # no start that the certificate accepts
        decision = None
        if tick < attacks or (isinstance(world, Base) and abs(world.x[3]) < 0.3 and tick < 40):
            action = least_certified(gate, robot.estimate(inputs), world.actions())
            if action is not None:
                decision = gate.request(candidates.id, action.astype(np.float32), now)
        acted = decision is not None and decision.verdict.startswith("certified")
        decision = decision or gate.expire(now)
        least = min(least, world.tick(decision.action.astype(np.float64)))
        sensed.append(world.sense())
        if truth.get("dies") and acted and decision.candidates.margin[decision.index] < 0.005:  # type: ignore[union-attr]  # certified
            # The monitor dies: the drive holds the command for its own timeout, then stops.
            more = int(np.ceil(truth["dies"] / robot.model.dt)) - robot.model.checks_per_tick
            return min(least, world.tick(decision.action.astype(np.float64), more), world.tick(np.zeros(2), 20))
        if least < -ROUNDING:
            break
        if not acted and tick > attacks and world.settled(float(robot.model.centres[gate.support.centre, 0])):
            break
    return float(least)


def duel(robot: Robot, case: Case, seed: int, episodes: int) -> float:
    """Smallest margin of `episodes`; below -ROUNDING it was unsafe, and they end there."""
    rng = np.random.default_rng(seed)
    gate = Gate(robot, GateConfig(), True, seed)
    gate.watching = False
    least = np.inf
    for episode in range(episodes):
        least = min(least, encounter(gate, case.truth, rng, episode))
        if least < -ROUNDING:
            break
    return float(least)


# --- the tables -------------------------------------------------------------------------------------------------------

AT_WALL = "drives at a post with the speed of least margin, then brakes"
BASE_CASES = (
    Case(
        "motion_mismatch", "20 % more way than the odometry says", "the ensemble has no faster ground", AT_WALL,
        {"ground": 1.2}, {"motion_mismatch": 0.2}, tightened=False,
    ),
    Case(
        "lag_mismatch", "lag of the drive 30 % longer", "the ensemble has the nominal lag alone", AT_WALL,
        {"lag": 1.3}, {"lag_mismatch": 0.3}, tightened=False,
    ),
    Case(
        "braking_mismatch", "slew limit 20 % lower", "the ensemble brakes as the nominal drive does", AT_WALL,
        {"braking": 0.8}, {"braking_mismatch": 0.2}, tightened=False,
    ),
    Case(
        "between_members", "a drive inside all mismatches that is none of the members",
        "the members stand for the whole box", "turns in beside a post; no command comes any more",
        {
            "turning": (0.17, -0.68), "post": (0.07, -0.28), "dies": 0.25,
            "ground": 0.8, "turn": 1.2, "lag": 0.7, "braking": 0.8,
        },
        {"between_members": 0.01},
        {"motion_mismatch": 0.2, "lag_mismatch": 0.3, "braking_mismatch": 0.2, "drive_timeout": 0.25},
    ),
    Case(
        "margin_model", "one slip of 0.005 m when it brakes", "no clearance for what the model misses at once", AT_WALL,
        {"jump": 0.005}, {"margin_model": 0.005},
    ),
    Case(
        "margin_growth", "it drifts 0.02 m/s towards the post while it moves", "errors do not grow along the rollout",
        AT_WALL, {"drift": 0.02}, {"margin_growth": 0.02},
    ),
    Case(
        "margin_terminal", "it creeps on from terminal_speed, 0.02 m/s", "S_f counts as standing still", AT_WALL,
        {"creep": True}, {"margin_terminal": 0.008}, {"terminal_speed": 0.02},
    ),
    Case(
        "margin_speed_estimate", "the odometry reports 0.06 m/s too little", "its speed counts as exact", AT_WALL,
        {"odometry_lost": 0.06}, {"margin_speed_estimate": 0.06},
    ),
    Case(
        "lidar_noise", "every range 0.03 m too long", "ranges count as exact", "drives at a wall, seen by its lidar",
        {"range_error": 0.03}, {"lidar_noise": 0.03}, tightened=False,
    ),
    Case(
        "gap between rays", "a right-angled corner stands out between two rays", "hits are joined by straight lines",
        "drives at the corner of a box, seen by its lidar", {"corner": True}, tightened=False,
    ),
    Case(
        "between checks", "the nearest point lies between two checks", "only the checks themselves count",
        "passes a post at full speed, its nearest point midway between two checks", {"speed": 0.6},
    ),
    Case(
        "drive_timeout", "the monitor dies and the drive holds its command for 0.25 s", "commands act for one period",
        "drives at a post; no command comes any more", {"dies": 0.25}, {"drive_timeout": 0.25}, tightened=False,
    ),
    Case(
        "age of the state, input_age", "the state is one period old", "a state counts as new", AT_WALL, {"old": 1},
        tightened=False,
    ),
    Case(
        "actuation delay", "", "", "",
        why_not="none of its own: for how long earlier commands still act is rolled out, by the age of the state and "
        "the wait for an answer alike (see the row of the age); a dead time of the drive itself is not covered",
    ),
    Case(
        "saturation of the plan", "", "", "",
        why_not="the plan is zero, inside every command limit, so it is never clipped; the slew limit is part of the "
        "model, and its error is braking_mismatch",
    ),
    Case(
        "max_skew_s", "", "", "",
        why_not="no margin to delete: the certificate assumes that speed and scan belong to one instant; max_skew_s "
        "bounds how far apart the gate accepts them, and what they may then be wrong by is not covered",
    ),
    Case(
        "residual_way, residual_turn, residual_speed, residual_turn_rate", "", "", "",
        why_not="W of the comparison: decide what counts as a mismatch and whether a plan counts as held; no "
        "certificate reads them",
    ),
    Case(
        "scan_residual_way, scan_residual_turn, scan_disagreement", "", "", "",
        why_not="W of the comparison by scans, as above",
    ),
    Case("footprint_radius, clearance", "", "", "", why_not="define the safe set; no error stands behind them"),
    Case(
        "speed_margin, turn_margin", "", "", "",
        why_not="define the safe set; saturation times the largest mismatch, 0.72 m/s and 1.8 rad/s, stays inside",
    ),
    Case(
        "band, band_budget, noise_allowance, step_residual", "", "", "",
        why_not="decide when the plan takes over, not whether the plan is safe; without them it certifies less",
    ),
)  # fmt: skip

AT_EDGE = "forces of least margin from random states, then the plan until S_f"


def _pole_cases() -> tuple[Case, ...]:
    nominal = robots.make("cart_pole", {}).parameters  # type: ignore[attr-defined]  # every robot keeps its Parameters
    # A part of every margin for errors: without it none of them is meant to hold while the plan saturates.
    growth = {"saturated_ticks": nominal.saturated_ticks, "nonlinearity": nominal.nonlinearity}
    states = (("position", "x", "m"), ("angle", "theta", "rad"), ("speed", "x'", "m/s"), ("turn", "theta'", "rad/s"))
    cases = [
        Case(
            "mass_mismatch", "cart 20 % heavier", "the ensemble has the nominal masses alone", AT_EDGE,
            {"factors": (1.2, 1.0, 1.0, 1.0)}, {"mass_mismatch": 0.2}, tightened=False,
        ),
        Case(
            "length_mismatch", "pole 20 % shorter", "the ensemble has the nominal length alone", AT_EDGE,
            {"factors": (1.0, 1.0, 0.8, 1.0)}, {"length_mismatch": 0.2}, tightened=False,
        ),
        Case(
            "gain_mismatch", "20 % less force than commanded", "the ensemble has the nominal gain alone", AT_EDGE,
            {"factors": (1.0, 1.0, 1.0, 0.8)}, {"gain_mismatch": 0.2}, tightened=False,
        ),
    ]  # fmt: skip
    for i, (name, symbol, unit) in enumerate(states):
        for key, kind, what in (("e0", "error", "measured {} is off by {:g} {}, always to one side"),
                                ("w", "disturbance", "{} moves by {:g} {} more in every tick")):  # fmt: skip
            bound = getattr(nominal, f"{name}_{kind}")
            cases.append(
                Case(
                    f"{name}_{kind}",
                    what.format(symbol, bound, unit),
                    f"its bound counts as 0 {unit}",
                    AT_EDGE,
                    {key: bound * np.eye(4)[i]},
                    {f"{name}_{kind}": bound},
                    growth,
                )  # fmt: skip
            )
    cases += [
        Case(
            "command_delay, late_swings", "every command acts 0.5 ms late", "commands act at once", AT_EDGE,
            {"late": nominal.command_delay}, {"command_delay": nominal.command_delay}, growth,
        ),
        Case(
            "saturated_ticks, nonlinearity", "theta is pushed in every tick, while the plan saturates, too",
            "errors grow as in the unsaturated loop", AT_EDGE,
            {"w": np.array([0.0, nominal.angle_disturbance, 0.0, 0.0])}, growth,
            {"angle_disturbance": nominal.angle_disturbance},
        ),
        Case(
            "between checks", "an extreme lies between two checks", "only the checks themselves count", AT_EDGE,
            {"between": True},
        ),
        Case(
            "saturation of the plan", "the actuator clips at 10 N", "the rollout of the plan is not clipped", AT_EDGE,
            tightened=False,
        ),
        Case(
            "age of the state, input_age", "the state behind an action is four periods old", "a state counts as new",
            "a force of least margin upon an old state, from random ones; then the plan, whose states are new",
            {"old": 4}, tightened=False,
        ),
        Case(
            "max_skew_s", "", "", "",
            why_not="one message holds the whole state, so nothing in it is apart in time; an old goal is no danger",
        ),
        Case(
            "lidar", "", "", "",
            why_not="it has none: joint_states is its only sensor, and the rows *_error bound that",
        ),
        Case(
            "W of the comparison", "", "", "",
            why_not="no parameter: computed from *_error and *_disturbance; decides what counts as a mismatch and "
            "whether a plan counts as held, and no certificate reads it",
        ),
        Case(
            "between_members", "", "", "",
            why_not="a reserve for models between the members: no scenario was found in which deleting it is unsafe",
        ),
        Case(
            "drive_timeout", "", "", "",
            why_not="no passive safe state: without commands the pole falls, with or without it (uncoverable)",
        ),
        Case(
            "band, band_budget", "", "", "",
            why_not="decide when the plan takes over, not whether the plan is safe; without them it certifies less",
        ),
    ]  # fmt: skip
    return tuple(cases)


def cases(robot: Robot) -> tuple[Case, ...]:
    """The margins of `robot`. Raises ValueError where nobody wrote them down."""
    if isinstance(robot, DiffDrive):
        return BASE_CASES
    if isinstance(robot, CartPole):
        return _pole_cases()
    raise ValueError(f"{robot.name}: no table of margins")


def monitors(case: Case, base: bool) -> tuple[Robot, Robot]:
    """The robot as the monitor knows it, with the margin of `case` and without; every other margin is deleted."""
    zero = BASE_ZERO if base else POLE_ZERO

    def make(extra: Mapping[str, Any], kind: type[Robot] = SeeingBase) -> Any:
        made: Any = robots.make("diff_drive" if base else "cart_pole", {**zero, **case.common, **extra}, case.margin)
        return kind(made.parameters) if base else made  # type: ignore[call-arg]  # as a DiffDrive is made

    with_, without = make(case.own), make({})
    if "range_error" in case.truth:
        with_, without = make(case.own, LidarBase), make({}, LidarBase)
    if "corner" in case.truth:
        with_, without = make({}, DiffDrive), make({}, LidarBase)
    own, left = with_.model.tightening - without.model.tightening, np.zeros_like(without.model.tightening)
    if case.margin.startswith("saturated_ticks"):  # a part of the margin for errors, which is there in both
        left = without.model.tightening - robots.make("cart_pole", zero).model.tightening
        own = own + left
    if case.margin == "between checks":
        own = without.model.tightening  # what is left when all others are zero
    if not case.tightened:
        own = np.zeros_like(own)
    with_.model = replace(with_.model, tightening=np.ascontiguousarray(own))
    without.model = replace(without.model, tightening=np.ascontiguousarray(left))
    if case.margin == "saturation of the plan":
        without.model = replace(without.model, backup=unclipped)
    return with_, without


def unclipped(x: tuple[Any, ...], centre: float, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """The cart-pole's plan before the actuator's limit."""
    return (-(constants[3] * (x[0] - centre) + constants[4] * x[1] + constants[5] * x[2] + constants[6] * x[3]),)


def run_case(robot: Robot, case: Case, seed: int = 0) -> dict[str, Any]:
    """One row of the table; `shown` is None where there is no scenario."""
    row = {name: getattr(case, name) for name in ("margin", "error", "deleting", "scenario", "why_not")}
    row["kept"] = dict(case.common)  # what the monitor has with the margin and without
    if case.why_not:
        return row | {"least_with": None, "least_without": None, "shown": None}
    with_, without = monitors(case, isinstance(robot, DiffDrive))
    stamped, blind = (replace(case, truth={**case.truth, "stamped": said}) for said in (True, False))
    # To find one visit may take longer; it ends with the first.
    least_with, least_without = duel(with_, stamped, seed, EPISODES), duel(without, blind, seed, 5 * EPISODES)
    shown = least_with >= -ROUNDING and least_without < -ROUNDING
    return row | {"least_with": least_with, "least_without": least_without, "shown": shown}


def run(robot: Robot, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """All rows of `robot`."""
    rows = []
    for case in cases(robot):
        rows.append(run_case(robot, case))
        say(f"{case.margin}: {rows[-1]['shown']}")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in 80 columns."""
    about = (
        "The truth is the model's own arithmetic, not PyBullet: one error at its bound, every other exactly zero. The "
        "monitor has the margin of the row or not, and no other but those that the row says it keeps."
    )
    lines = [*textwrap.wrap(about, 80), f"{'margin':<40}{'least with it':>14}{'without it':>14}  shown"]
    for row in rows:
        if row["shown"] is None:
            lines.append(f"{row['margin']:<52}{'does not apply':>16}")
            lines += textwrap.wrap(row["why_not"], 76, initial_indent="    ", subsequent_indent="    ")
            continue
        shown = "yes" if row["shown"] else "NO"
        lines.append(f"{row['margin']:<40}{row['least_with']:>14.2e}{row['least_without']:>14.2e}  {shown}")
        text = f"{row['error']}; deleted: {row['deleting']}; {row['scenario']}"
        if row["kept"]:
            text += "; keeps " + ", ".join(f"{name} {value:g}" for name, value in row["kept"].items())
        lines += textwrap.wrap(text, 76, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "least: smallest true margin; below 0 is an unsafe visit"])
