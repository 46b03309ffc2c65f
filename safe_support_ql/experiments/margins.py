"""What each margin is for: with it 0 unsafe visits, without it at least 1, everything else exact.

One error is at its bound, all others are zero, and all other margins are deleted. World and adversary: adversary.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.experiments.adversary import ROUNDING, LidarBase, SeeingBase, encounter
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.model import Model
from safe_support_ql.safety.gate import Gate, GateConfig
from safe_support_ql.safety.timing import Clock

EPISODES = 30  # with the margin; without it up to five times as many, until the first visit


@dataclass(frozen=True)
class Case:
    """One margin. `own`: parameters that the monitor has with it, over `common`; without it those of `common` alone.

    `truth`: what the true world does, see Base and Pole of adversary.py. `tightened`: whether the margin is part of the
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


BASE_ZERO: Mapping[str, Any] = {
    "motion_mismatch": 0.0, "lag_mismatch": 0.0, "braking_mismatch": 0.0, "between_members": 0.0, "margin_model": 0.0,
    "margin_growth": 0.0,
    "margin_terminal": 0.0, "margin_speed_estimate": 0.0, "lidar_noise": 0.0, "band": 0.0, "noise_allowance": 0.0,
    "step_residual": 0.0, "terminal_speed": 0.001, "drive_timeout": 0.1,
}  # fmt: skip

POLE_ZERO: Mapping[str, Any] = {
    "mass_mismatch": 0.0, "length_mismatch": 0.0, "gain_mismatch": 0.0, "position_error": 0.0, "angle_error": 0.0,
    "speed_error": 0.0, "turn_error": 0.0, "position_disturbance": 0.0, "angle_disturbance": 0.0,
    "speed_disturbance": 0.0, "turn_disturbance": 0.0, "command_delay": 0.0, "saturated_ticks": 1, "nonlinearity": 1.0,
    "between_members": 0.0, "band": 0.0,
}  # fmt: skip


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
    own, left = (
        with_.model.certificate.tightening - without.model.certificate.tightening,
        np.zeros_like(without.model.certificate.tightening),
    )
    if case.margin.startswith("saturated_ticks"):  # a part of the margin for errors, which is there in both
        left = without.model.certificate.tightening - robots.make("cart_pole", zero).model.certificate.tightening
        own = own + left
    if case.margin == "between checks":
        own = without.model.certificate.tightening  # what is left when all others are zero
    if not case.tightened:
        own = np.zeros_like(own)
    with_.model = certified_with(with_.model, tightening=np.ascontiguousarray(own))
    without.model = certified_with(without.model, tightening=np.ascontiguousarray(left))
    if case.margin == "saturation of the plan":
        without.model = certified_with(without.model, backup=unclipped)
    return with_, without


def certified_with(model: Model, **changes: Any) -> Model:
    """`model` with another part of its certificate."""
    return replace(model, certificate=replace(model.certificate, **changes))


def unclipped(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> tuple[Any, ...]:
    """The cart-pole's plan before the actuator's limit."""
    return (-(constants[3] * (x[0] - centre[0]) + constants[4] * x[1] + constants[5] * x[2] + constants[6] * x[3]),)


def duel(robot: Robot, case: Case, seed: int, episodes: int) -> float:
    """Smallest margin of `episodes`; below -ROUNDING it was unsafe, and they end there."""
    rng = np.random.default_rng(seed)
    clock = Clock.REALTIME if case.truth.get("old") else Clock.LOCKSTEP  # in lock-step nothing is ever old
    gate = Gate(robot, GateConfig(), True, seed, clock=clock)
    gate.watching = False
    least = np.inf
    for episode in range(episodes):
        least = min(least, encounter(gate, case.truth, rng, episode))
        if least < -ROUNDING:
            break
    return float(least)


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
