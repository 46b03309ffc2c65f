"""What the margins cover without a latch, so until one comes: errors beyond W, the shipped monitor with all margins.

W_detect = 2 W means here: one error of W is up to twice its bound while all the others are zero, the comparison of
states is off, so that nothing ever latches, and there is no visit. One at a time, because the margins of one tightening
add up: what one error exceeds is paid by the shares of the others, by the band, and for a base by the clearance kept
for a commander that dies. Where all errors are at their bounds at once that is all the certificate claims; the factor
up to which they hold nevertheless is searched for in every corner of the box of parameters.

The truth is the model's own arithmetic, see adversary.py: a search, not a proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.experiments.adversary import ROUNDING, SeeingBase, encounter
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.safety.gate import Gate, GateConfig, State

Truth = Mapping[str, Any]
FACTORS = (1.0, 2.0, 3.0)
W_DETECT = 2.0  # of one error's bound
TOGETHER = (1.0, 1.1, 1.25, 1.5, 2.0)
EPISODES = 60
CURVES = (0.0, 0.5, -0.5)  # rad/s: straight at the post, or along an arc
STATES = ("position", "angle", "speed", "turn")
STARTS = 0.8  # of the spread of adversary.py: at its ends the start itself is the nearest to the boundary
ABOUT_ONE = ("ground", "turn", "lag", "braking", "factors")  # of truth; what is no factor counts from zero
NO_ERROR = ("curves", "starts")  # what the adversary does, not the world


class RangingBase(SeeingBase):
    """Knows the post by a single range, which is wrong by at most lidar_noise; no gap between rays pays for it."""

    def occupied(self, scan: Floats) -> Floats:
        """The post, nearer by lidar_noise."""
        post = scan[:2]
        return np.asarray(post * max(0.0, 1.0 - self.parameters.lidar_noise / np.hypot(*post)))[None]


@dataclass(frozen=True)
class Met:
    """Episodes that the certificate let begin: the least true margin (scaled, or m), those unsafe, those latched."""

    least: float
    episodes: int
    unsafe: int
    latched: int


def scaled(truth: Truth, factor: float) -> dict[str, Any]:
    """`truth`, which has each error at its bound, with each at `factor` times that."""

    def scale(name: str, value: Any) -> Any:
        if name in NO_ERROR:
            return value
        about = 1.0 if name in ABOUT_ONE else 0.0
        return about + factor * (np.asarray(value, np.float64) - about)

    return {name: scale(name, value) for name, value in truth.items()}


def errors(robot: Robot) -> dict[str, tuple[Truth, ...]]:
    """Every error of W by name, at its bound, in each of its directions. Raises ValueError for an unknown robot."""
    p: Any = robot.parameters  # type: ignore[attr-defined]  # every robot keeps its Parameters
    if isinstance(robot, DiffDrive):
        both = (1.0, -1.0)
        named: dict[str, list[Truth]] = {
            "motion_mismatch, way": [{"ground": 1 + sign * p.motion_mismatch} for sign in both],
            "motion_mismatch, turn": [{"turn": 1 + sign * p.motion_mismatch} for sign in both],
            "lag_mismatch": [{"lag": 1 + sign * p.lag_mismatch} for sign in both],
            "braking_mismatch": [{"braking": 1 - p.braking_mismatch}],
            "margin_model": [{"jump": p.margin_model}],
            "margin_growth": [{"drift": p.margin_growth}],
            "margin_speed_estimate": [{"odometry_lost": sign * p.margin_speed_estimate} for sign in both],
            "lidar_noise": [{"range_error": p.lidar_noise}],
        }
        return {name: tuple({"curves": CURVES, **truth} for truth in truths) for name, truths in named.items()}
    if isinstance(robot, CartPole):
        box = np.array([p.mass_mismatch, p.mass_mismatch, p.length_mismatch, p.gain_mismatch])
        names = ("mass_mismatch, cart", "mass_mismatch, pole", "length_mismatch", "gain_mismatch")
        named = {n: [{"factors": 1 + s * box * np.eye(4)[i]} for s in (1, -1)] for i, n in enumerate(names)}
        e0, w = _pole_bounds(p)
        for i, state in enumerate(STATES):
            named[f"{state}_error"] = [{"e0": e0 * np.eye(4)[i]}]  # its sign is drawn in every episode
            named[f"{state}_disturbance"] = [{"w": w * np.eye(4)[i]}]
        named["command_delay"] = [{"late": p.command_delay}]
        return {name: tuple({"starts": STARTS, **truth} for truth in truths) for name, truths in named.items()}
    raise ValueError(f"{robot.name}: nobody wrote down its errors")


def _pole_bounds(p: Any) -> tuple[Floats, Floats]:
    e0, w = (np.array([getattr(p, f"{state}_{kind}") for state in STATES]) for kind in ("error", "disturbance"))
    return e0, w


def corners(robot: Robot) -> dict[str, Truth]:
    """All errors of W at their bounds at once, for every corner of the certified box of parameters, by its signs.

    A corner of cart_pole: (cart mass, pole mass, length, gain); of diff_drive: (way, turn, lag, slew limits), of which
    the last are not covered above nominal and so stay there.
    """
    p: Any = robot.parameters  # type: ignore[attr-defined]  # every robot keeps its Parameters
    signs = list(product((1, -1), repeat=4))
    names = [" ".join(f"{sign:+d}" for sign in corner) for corner in signs]
    if isinstance(robot, CartPole):
        box = np.array([p.mass_mismatch, p.mass_mismatch, p.length_mismatch, p.gain_mismatch])
        e0, w = _pole_bounds(p)
        rest: Truth = {"starts": STARTS, "e0": e0, "w": w, "late": p.command_delay}
        factors = [1 + np.array(corner) * box for corner in signs]
        return {name: {"factors": those, **rest} for name, those in zip(names, factors, strict=True)}
    rest = {
        "drift": p.margin_growth, "jump": p.margin_model, "odometry_lost": p.margin_speed_estimate,
        "range_error": p.lidar_noise, "curves": CURVES,
    }  # fmt: skip
    found: dict[str, Truth] = {}
    for way, turn, lag, brakes in signs:
        found[f"{way:+d} {turn:+d} {lag:+d} {min(brakes, 0):+d}".replace("+0", " 0")] = {
            "ground": 1 + way * p.motion_mismatch, "turn": 1 + turn * p.motion_mismatch,
            "lag": 1 + lag * p.lag_mismatch, "braking": 1 + min(brakes, 0) * p.braking_mismatch, **rest,
        }  # fmt: skip
    return found


def gate_of(robot: Robot) -> Gate:
    """The shipped monitor, all margins in place; for a base one that knows the post."""
    return Gate(RangingBase(robot.parameters) if isinstance(robot, DiffDrive) else robot, GateConfig(), True, 0)


def meet(gate: Gate, truth: Truth, watch: bool = False, episodes: int = EPISODES, until_visit: bool = False) -> Met:
    """Play `episodes` of the adversary, the same starts for every truth; `watch`: the gate may latch."""
    rng, gate.watching = np.random.default_rng(0), watch
    met, latched = [], 0
    for _ in range(episodes):
        gate.state = State.CLOSED
        # Episodes number on, as time does in one gate.
        least = encounter(gate, truth, rng, gate.episode + 1)
        if np.isfinite(least):
            met.append(least)
            latched += gate.state is State.LATCHED
        if until_visit and least < -ROUNDING:
            break
    return Met(min(met, default=np.inf), len(met), sum(least < -ROUNDING for least in met), latched)


def singly(
    robot: Robot, factors: tuple[float, ...] = FACTORS, only: str = "", episodes: int = EPISODES
) -> list[dict[str, Any]]:
    """For every error whose name contains `only`: least[len(factors)], the smallest true margin in any direction."""
    gate, rows = gate_of(robot), []
    for name, truths in errors(robot).items():
        if only in name:
            met = [[meet(gate, scaled(t, f), False, episodes, True) for t in truths] for f in factors]
            least = [min(one.least for one in those) for those in met]
            rows.append({"error": name, "factors": factors, "least": least})
    return rows


def together(robot: Robot, factors: tuple[float, ...] = TOGETHER) -> list[dict[str, Any]]:
    """For every corner the largest of `factors` (rising) up to which all hold, 0 for none.

    Where that is not the last: what happens at the last, with detection and without. For a base always without: the
    scan is no scan here, so there is nothing to compare.
    """
    gate, rows = gate_of(robot), []
    for name, truth in corners(robot).items():
        holds = 0.0
        for factor in factors:
            if meet(gate, scaled(truth, factor), until_visit=True).unsafe:
                break
            holds = factor
        row: dict[str, Any] = {"corner": name, "holds": holds, "unwatched": None, "watched": None}
        if holds < factors[-1]:
            row["unwatched"] = vars(meet(gate, scaled(truth, factors[-1])))
            if isinstance(robot, CartPole):
                row["watched"] = vars(meet(gate, scaled(truth, factors[-1]), watch=True))
        rows.append(row)
    return rows


def table(robot: Robot, single: list[dict[str, Any]], all_: list[dict[str, Any]]) -> str:
    """Both in 80 columns."""
    unit = "m" if isinstance(robot, DiffDrive) else "scaled"
    lines = [f"{robot.name}, what the margins cover without a latch: least true margin [{unit}]"]
    lines.append(f"  {'one error, the others zero':<34}" + "".join(f"{f'{f:g} W':>10}" for f in FACTORS))
    lines += [f"  {row['error']:<34}" + "".join(f"{least:>10.4f}" for least in row["least"]) for row in single]
    lines.append(f"  all at once, in all {len(all_)} corners: hold up to {min(row['holds'] for row in all_):g} W")
    lines.append(f"  {'corner':<14}{'holds up to':>12}{'':4}unsafe of episodes at {TOGETHER[-1]:g} W")
    for row in all_:
        text, holds = "", f"{row['holds']:g} W"
        if row["unwatched"]:
            text = "{unsafe} of {episodes}".format(**row["unwatched"])
        if row["watched"]:
            text += ", with detection {unsafe} of {episodes}, {latched} latched".format(**row["watched"])
        lines.append(f"  {row['corner']:<14}{holds:>12}{'':4}{text}".rstrip())
    return "\n".join(lines)
