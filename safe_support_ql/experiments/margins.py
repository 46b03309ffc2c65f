"""Tests that each margin is needed: the adversary finds no unsafe visit with it, and at least one without it.

One error is at its bound, all others are zero, and all other margins are deleted. The cases come from the robot's
claims (its margins.py), world and adversary from adversary.py.
"""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql import robots
from safe_support_ql.experiments.adversary import ROUNDING, encounter
from safe_support_ql.parameters import build
from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.claims import Case, Margins, Monitor
from safe_support_ql.safety.gate import Gate, GateConfig
from safe_support_ql.safety.timing import Clock

EPISODES = 30  # with the margin; without it up to five times as many, until the first visit
BY = "falsify --margins"


def cases(robot: Robot) -> tuple[Case, ...]:
    """The cases of `robot`. Raises ValueError if it claims none."""
    claimed: Margins = robots.claimed(robot, "margins", BY)
    return claimed.cases


def monitors(robot: Robot, case: Case) -> tuple[Robot, Robot]:
    """The robot as the monitor knows it, with and without the margin of `case`; every other margin is deleted."""
    claimed: Margins = robots.claimed(robot, "margins", BY)

    def made(monitor: Monitor, *changes: Mapping[str, Any]) -> Robot:
        parameters = {name: value for change in (claimed.zero, *changes) for name, value in change.items()}
        return monitor(build(type(robot.parameters), parameters, case.margin))

    monitor = case.monitor or claimed.monitor
    with_, without = made(monitor, case.common, case.own), made(case.unguarded or monitor, case.common)
    tightening = without.model.certificate.tightening
    own, left = with_.model.certificate.tightening - tightening, np.zeros_like(tightening)
    if case.share == "own and common":
        left = tightening - made(monitor).model.certificate.tightening
        own = own + left
    elif case.share == "rest":
        own = tightening
    elif case.share == "none":
        own = np.zeros_like(own)
    return _tightened(with_, own), _tightened(without, left)


def _tightened(robot: Robot, tightening: Floats) -> Robot:
    certificate = replace(robot.model.certificate, tightening=np.ascontiguousarray(tightening))
    robot.model = replace(robot.model, certificate=certificate)
    return robot


def duel(robot: Robot, case: Case, episodes: int, stamped: bool) -> float:
    """Smallest true margin of `episodes`; they end with the first unsafe visit. `stamped`: see encounter."""
    adversary = robots.claimed(robot, "adversary", BY)
    rng = np.random.default_rng(0)
    aged = case.truth.keys() & {"old", "behind"}
    clock = Clock.REALTIME if aged else Clock.LOCKSTEP  # in lock-step nothing is ever old
    gate = Gate(robot, GateConfig(), True, 0, clock=clock)
    gate.watching = False
    least = np.inf
    for episode in range(episodes):
        least = min(least, encounter(gate, adversary, case.truth, rng, episode, stamped))
        if least < -ROUNDING:
            break
    return float(least)


def run_case(robot: Robot, case: Case) -> dict[str, Any]:
    """One row of the table; `shown` is None if there is no scenario."""
    row = {name: getattr(case, name) for name in ("margin", "error", "deleting", "scenario", "why_not")}
    row["kept"] = dict(case.common)  # parameters that the monitor has in both cases
    if case.why_not:
        return row | {"least_with": None, "least_without": None, "shown": None}
    with_, without = monitors(robot, case)
    least_with = duel(with_, case, EPISODES, stamped=True)
    # Finding a visit may take more episodes; the first one ends the duel. The margin for age is the stamp itself.
    least_without = duel(without, case, 5 * EPISODES, stamped=False)
    shown = least_with >= -ROUNDING and least_without < -ROUNDING
    return row | {"least_with": least_with, "least_without": least_without, "shown": shown}


def run(robot: Robot, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    rows = []
    for case in cases(robot):
        rows.append(run_case(robot, case))
        say(f"{case.margin}: {rows[-1]['shown']}")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    about = (
        "The truth is the model's own arithmetic, not PyBullet: one error at its bound, every other exactly zero. "
        "Besides the margin of the row, the monitor has only those that the row says it keeps."
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
            text += "; keeps " + ", ".join(
                f"{name} {value:g}" if isinstance(value, float | int) else f"corners in '{name}'"
                for name, value in row["kept"].items()
            )
        lines += textwrap.wrap(text, 76, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "least: smallest true margin; below 0 is an unsafe visit"])
