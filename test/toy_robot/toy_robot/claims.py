"""What the carriage claims, and how that is tried. Every part is optional; `kernel` is left out here."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_support_ql.robots.claims import (
    Adversary,
    CalibrationSpec,
    Case,
    Claims,
    Ensemble,
    Margins,
    Search,
    TrueWorld,
    Truth,
)
from safe_support_ql.robots.model import Floats

from .model import Parameters
from .robot import JOINT, MASS, Toy


def claims(robot: Toy) -> Claims:
    """With the robot's parameters."""
    p = robot.parameters
    return Claims(
        errors={"joint_states": np.array([p.position_error, p.speed_error])},
        mismatches={
            "fast": {"gain": 1.0 + 0.9 * p.gain_mismatch},
            "slow": {"gain": 1.0 - 0.9 * p.gain_mismatch},
            "brakes_weak": {"max_force": (1.0 - 0.9 * p.acceleration_mismatch) * MASS * p.acceleration},
            "heavy": {"link_masses": {JOINT: (1.0 + 0.9 * p.acceleration_mismatch) * MASS}},
        },
        search=Search(begin=begin),
        calibration=CALIBRATION,
        adversary=adversary(p),
        margins=MARGINS,
    )


def begin(world: Any, robot: Toy, numbers: Any, rng: np.random.Generator) -> None:
    """Start an episode of `falsify` near an end of the rail, so that most of its steps come close to it."""
    world.set_state(np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.85, 1.0) * robot.parameters.limit, 0.0]))


CALIBRATION = CalibrationSpec(
    growth=("growth",),
    others=("position_error", "speed_error", "command_delay", "between_members"),
    errors={"position_error": 0, "speed_error": 1},
    speed=1,
    moving=0.1,
    ensemble=Ensemble(
        names=("speed per command", "acceleration"),
        mismatches=(("gain_mismatch", ""), ("acceleration_mismatch", "")),
        member=lambda nominal, factors: nominal * factors,
        measured=(0, 1),
        scale=("position_error", "speed_error"),
    ),
)


# --- one margin at a time ----------------------------------------------------------------------------------------


class Rail(TrueWorld):
    """The model's own arithmetic; `truth`: 'gain' and 'brakes' (factors), 'x' and 'v' (errors of the state)."""

    robot: Toy

    def __init__(self, robot: Any, truth: Truth, rng: np.random.Generator) -> None:
        """Start standing, and drive towards one end."""
        super().__init__(robot, truth, rng)
        self.x = (rng.uniform(-0.2, 0.2), 0.0)
        self.end = rng.choice([-1.0, 1.0])
        self.member = (truth.get("gain", 1.0), robot.parameters.acceleration * truth.get("brakes", 1.0))
        self.attacks = int(rng.integers(10, 30))

    def sense(self) -> dict[str, Floats]:
        """The carriage seems to be farther from the end, and slower, than it is."""
        error = self.end * np.array([self.truth.get("x", 0.0), self.truth.get("v", 0.0)])
        return {"joint_states": np.array(self.x) - error, "goal_pose": np.zeros(1)}

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest margin in metres."""
        least = np.inf
        for _ in range(checks or 1):
            self.x = self.robot.model.dynamics.step(self.x, tuple(action), self.member, self.robot.period)
            least = min(least, float(self.robot.truth_margins(np.array(self.x))[0]))
        return least

    def settled(self, centre: tuple[float, ...]) -> bool:
        """It stands."""
        return bool(self.x[1] == 0.0)

    def actions(self) -> Floats:
        """Every speed towards the end, the slowest first."""
        return self.end * np.linspace(0.0, self.robot.parameters.speed, 81)[:, None]


def adversary(p: Parameters) -> Adversary:
    """With the errors that the certificate of `p` covers."""
    gain, brakes = 1.0 + p.gain_mismatch, 1.0 - p.acceleration_mismatch
    forms: dict[str, tuple[Truth, ...]] = {
        "gain_mismatch": ({"gain": gain}, {"gain": 1.0 - p.gain_mismatch}),
        "acceleration_mismatch": ({"brakes": brakes}, {"brakes": 1.0 + p.acceleration_mismatch}),
        "position_error": ({"x": p.position_error},),
        "speed_error": ({"v": p.speed_error},),
    }
    worst = {"gain": gain, "brakes": brakes, "x": p.position_error, "v": p.speed_error}
    return Adversary(
        world=Rail, monitor=Toy, unit="m", error_forms=forms, corners={"worst": worst}, about_one=("gain", "brakes")
    )


ZERO = {
    "gain_mismatch": 0.0, "acceleration_mismatch": 0.0, "position_error": 0.0, "speed_error": 0.0, "growth": 0.0,
    "command_delay": 0.0, "between_members": 0.0, "terminal_speed": 0.0, "drive_timeout": 0.05, "band": 0.0,
}  # fmt: skip
AT_END = "drives at an end with the speed of least margin, then brakes"
MARGINS = Margins(
    zero=ZERO,
    monitor=Toy,
    cases=(
        Case("gain_mismatch", "10 % faster than commanded", "the ensemble has no faster drive", AT_END,
             {"gain": 1.1}, {"gain_mismatch": 0.1}, share="none"),
        Case("acceleration_mismatch", "brakes 20 % weaker", "the ensemble brakes as the nominal drive does", AT_END,
             {"brakes": 0.8}, {"acceleration_mismatch": 0.2}, share="none"),
        Case("position_error", "x is measured 2 mm too far from the end", "x counts as exact", AT_END,
             {"x": 0.002}, {"position_error": 0.002}),
        Case("speed_error", "v is measured 5 mm/s too low", "v counts as exact", AT_END,
             {"v": 0.005}, {"speed_error": 0.005}),
        Case("drive_timeout", "the monitor dies and the drive holds its command for 0.1 s",
             "commands act for one period", AT_END, {"dies": 0.1}, {"drive_timeout": 0.1}, share="none"),
    ),
)  # fmt: skip
