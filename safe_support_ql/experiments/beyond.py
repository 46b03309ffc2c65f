"""How large an error the margins still cover before a mismatch latches: beyond W, the shipped monitor, all margins.

One error is up to twice its bound, all others are zero, and the gate compares no states, so that it never latches: no
visit may happen. This works for one error at a time, because a tightening is the sum of the shares of all errors: the
excess of one error uses up the shares of the others, the band, and for a base the clearance kept for a monitor that
dies. For all errors at once the certificate claims no more than their bounds. How far beyond them it still holds is
searched for in every corner of the box of parameters.

The truth is the model's own arithmetic, see adversary.py: this is a search, not a proof.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.experiments.adversary import ROUNDING, encounter
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.claims import Adversary, Truth
from safe_support_ql.safety.gate import Gate, GateConfig, State

FACTORS = (1.0, 2.0, 3.0)
TOGETHER = (1.0, 1.1, 1.25, 1.5, 2.0)
EPISODES = 60


@dataclass(frozen=True)
class Met:
    """Episodes with a certified start: least true margin (scaled, or m), number of unsafe and of latched ones."""

    least: float
    episodes: int
    unsafe: int
    latched: int


def adversary_of(robot: Robot) -> Adversary:
    """The adversary that `robot` claims. Raises ValueError if it claims none."""
    claimed: Adversary = robots.claimed(robot, "adversary", "benchmarks/mismatch.py")
    return claimed


def scaled(adversary: Adversary, truth: Truth, factor: float) -> dict[str, Any]:
    """`truth`, in which each error is at its bound, with each error multiplied by `factor`."""

    def scale(name: str, value: Any) -> Any:
        if name in adversary.no_error:
            return value
        about = 1.0 if name in adversary.about_one else 0.0
        return about + factor * (np.asarray(value, np.float64) - about)

    return {name: scale(name, value) for name, value in truth.items()}


def gate_of(robot: Robot) -> Gate:
    """The gate of the shipped monitor with all margins, in the adversary's world, whose sensors have the right zero."""
    gate = Gate(adversary_of(robot).monitor(robot.parameters), GateConfig(), True, 0)
    gate.comparison.needed = 0
    return gate


def meet(gate: Gate, truth: Truth, watch: bool = False, episodes: int = EPISODES, until_visit: bool = False) -> Met:
    """Play `episodes` of the adversary, the same starts for every truth; `watch`: the gate may latch."""
    adversary = adversary_of(gate.robot)
    rng, gate.watching = np.random.default_rng(0), watch
    met, latched = [], 0
    for _ in range(episodes):
        gate.state = State.CLOSED
        # Episodes number on, as time does in one gate.
        least = encounter(gate, adversary, truth, rng, gate.episode + 1)
        if np.isfinite(least):
            met.append(least)
            latched += gate.state is State.LATCHED
        if until_visit and least < -ROUNDING:
            break
    return Met(min(met, default=np.inf), len(met), sum(least < -ROUNDING for least in met), latched)


def singly(
    robot: Robot, factors: tuple[float, ...] = FACTORS, only: str = "", episodes: int = EPISODES
) -> list[dict[str, Any]]:
    """For every error whose name contains `only`: least[len(factors)], the smallest true margin over its directions."""
    adversary, gate, rows = adversary_of(robot), gate_of(robot), []
    for name, truths in adversary.error_forms.items():
        if only in name:
            met = [[meet(gate, scaled(adversary, t, f), False, episodes, True) for t in truths] for f in factors]
            least = [min(one.least for one in those) for those in met]
            rows.append({"error": name, "factors": factors, "least": least})
    return rows


def together(robot: Robot, factors: tuple[float, ...] = TOGETHER) -> list[dict[str, Any]]:
    """For every corner, the largest of `factors` (ascending) up to which no visit happens; 0 for none.

    If that is not the last factor: what happens at the last one, without detection, and with it if predictions can be
    compared in the adversary's world.
    """
    adversary, gate, rows = adversary_of(robot), gate_of(robot), []
    for name, truth in adversary.corners.items():
        holds = 0.0
        for factor in factors:
            if meet(gate, scaled(adversary, truth, factor), until_visit=True).unsafe:
                break
            holds = factor
        row: dict[str, Any] = {"corner": name, "holds": holds, "unwatched": None, "watched": None}
        if holds < factors[-1]:
            row["unwatched"] = vars(meet(gate, scaled(adversary, truth, factors[-1])))
            if adversary.compares:
                row["watched"] = vars(meet(gate, scaled(adversary, truth, factors[-1]), watch=True))
        rows.append(row)
    return rows


def table(robot: Robot, single: list[dict[str, Any]], all_: list[dict[str, Any]]) -> str:
    """The results of `singly` and `together` in 80 columns."""
    unit = adversary_of(robot).unit
    lines = [f"{robot.name}, what the margins cover without a latch: least true margin [{unit}]"]
    lines.append(f"  {'one error, the others zero':<34}" + "".join(f"{f'{f:g} W':>10}" for f in FACTORS))
    lines += [f"  {row['error']:<34}" + "".join(f"{least:>10.4f}" for least in row["least"]) for row in single]
    lines.append(f"  all at once, in all {len(all_)} corners: safe up to {min(row['holds'] for row in all_):g} W")
    lines.append(f"  {'corner':<14}{'safe up to':>12}{'':4}unsafe episodes at {TOGETHER[-1]:g} W")
    for row in all_:
        text, holds = "", f"{row['holds']:g} W"
        if row["unwatched"]:
            text = "{unsafe} of {episodes}".format(**row["unwatched"])
        if row["watched"]:
            text += ", with detection {unsafe} of {episodes}, {latched} latched".format(**row["watched"])
        lines.append(f"  {row['corner']:<14}{holds:>12}{'':4}{text}".rstrip())
    return "\n".join(lines)
