"""The cart-pole's table of margins: for each, an error that is safe with the margin and unsafe without it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.claims import Case, Margins

ZERO: Mapping[str, Any] = {
    "mass_mismatch": 0.0, "length_mismatch": 0.0, "gain_mismatch": 0.0, "position_error": 0.0, "angle_error": 0.0,
    "speed_error": 0.0, "turn_error": 0.0, "position_disturbance": 0.0, "angle_disturbance": 0.0,
    "speed_disturbance": 0.0, "turn_disturbance": 0.0, "command_delay": 0.0, "saturated_ticks": 1, "nonlinearity": 1.0,
    "between_members": 0.0, "band": 0.0,
}  # fmt: skip


def unclipped(x: tuple[Any, ...], centre: tuple[float, ...], constants: tuple[float, ...]) -> tuple[Any, ...]:
    """The backup policy before it is clipped to the actuator's range."""
    return (-(constants[3] * (x[0] - centre[0]) + constants[4] * x[1] + constants[5] * x[2] + constants[6] * x[3]),)


def without_clipping(parameters: Parameters) -> CartPole:
    """A monitor whose rollouts use `unclipped`."""
    robot = CartPole(parameters)
    robot.model = replace(robot.model, certificate=replace(robot.model.certificate, backup=unclipped))
    return robot


NO_SCENARIO = {
    "max_skew_s": "one message holds the whole state, so all of it has one time; an old goal is no danger",
    "lidar": "it has none: joint_states is its only sensor, and the rows *_error cover its errors",
    "W of the comparison": "no parameter: computed from *_error and *_disturbance; it decides what counts as a "
    "mismatch and whether a plan counts as held, and is not part of a certificate",
    "between_members": "a reserve for models between the members; no scenario was found in which deleting it is unsafe",
    "drive_timeout": "no passive safe state: without commands the pole falls, with or without this margin "
    "(uncoverable)",
    "band, band_budget": "decide when the plan takes over, not whether it is safe; without them less is certified",
}
AT_EDGE = "forces of least margin from random states; then the plan until S_f"


def _cases() -> tuple[Case, ...]:
    nominal = Parameters()
    # Part of every margin for errors: without them, no margin covers the time while the plan saturates.
    growth = {"saturated_ticks": nominal.saturated_ticks, "nonlinearity": nominal.nonlinearity}
    states = (("position", "x", "m"), ("angle", "theta", "rad"), ("speed", "x'", "m/s"), ("turn", "theta'", "rad/s"))
    mismatches = (
        ("mass_mismatch", "cart 20 % heavier", "masses", (1.2, 1.0, 1.0, 1.0)),
        ("length_mismatch", "pole 20 % shorter", "length", (1.0, 1.0, 0.8, 1.0)),
        ("gain_mismatch", "20 % less force than commanded", "gain", (1.0, 1.0, 1.0, 0.8)),
    )
    cases = [
        Case(name, error, f"the ensemble has the nominal {what} alone", AT_EDGE, {"factors": factors}, {name: 0.2},
             share="none")
        for name, error, what, factors in mismatches
    ]  # fmt: skip
    for i, (name, symbol, unit) in enumerate(states):
        for key, kind, what in (("e0", "error", "measured {} is off by {:g} {}, always to one side"),
                                ("w", "disturbance", "{} moves by {:g} {} more in every tick")):  # fmt: skip
            bound = getattr(nominal, f"{name}_{kind}")
            cases.append(Case(
                f"{name}_{kind}", what.format(symbol, bound, unit), f"its bound counts as 0 {unit}", AT_EDGE,
                {key: bound * np.eye(4)[i]}, {f"{name}_{kind}": bound}, growth,
            ))  # fmt: skip
    cases += [
        Case(
            "command_delay, late_swings", "every command acts 0.5 ms late", "commands act at once", AT_EDGE,
            {"late": nominal.command_delay}, {"command_delay": nominal.command_delay}, growth,
        ),
        Case(
            "saturated_ticks, nonlinearity", "theta is pushed in every tick, also while the plan saturates",
            "errors grow as in the unsaturated loop", AT_EDGE,
            {"w": np.array([0.0, nominal.angle_disturbance, 0.0, 0.0])}, growth,
            {"angle_disturbance": nominal.angle_disturbance}, share="own and common",
        ),
        Case(
            "between checks", "an extreme lies between two checks", "only the checks themselves count", AT_EDGE,
            {"between": True}, share="rest",
        ),
        Case(
            "saturation of the plan", "the actuator clips at 10 N", "the rollout of the plan is not clipped", AT_EDGE,
            share="none", unguarded=without_clipping,
        ),
        Case(
            "age of the state, input_age", "the state behind an action is four periods old", "a state counts as new",
            "from random states, a force of least margin for an old state; then the plan with new states",
            {"old": 4}, share="none",
        ),
    ]  # fmt: skip
    return (*cases, *(Case(margin, why_not=why) for margin, why in NO_SCENARIO.items()))


MARGINS = Margins(zero=ZERO, monitor=CartPole, cases=_cases())
