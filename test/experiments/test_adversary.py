"""An encounter: attacks, then the plan, in any world that a robot claims."""

from __future__ import annotations

import numpy as np

from safe_support_ql import config
from safe_support_ql.experiments import adversary
from safe_support_ql.robots.cart_pole.robot import CartPole
from safe_support_ql.robots.claims import Adversary, TrueWorld
from safe_support_ql.robots.model import Floats
from safe_support_ql.safety.gate import Gate, GateConfig


class Resting(TrueWorld):
    """A cart-pole's world in a few lines: it stands upright whatever is commanded."""

    attacks = 2

    def sense(self) -> dict[str, Floats]:
        return {"joint_states": np.zeros(4), "goal_pose": np.zeros(1)}

    def tick(self, action: Floats, checks: int = 0) -> float:
        self.truth["met"].append(action.copy())
        return 0.25

    def settled(self, centre: tuple[float, ...]) -> bool:
        return True

    def actions(self) -> Floats:
        return np.array([[1.0]])


def test_an_encounter_needs_nothing_but_the_world_of_the_claims() -> None:
    gate = Gate(config.load_robot("cart_pole").robot, GateConfig(), True, 0)
    gate.watching = False
    met: list[Floats] = []
    claimed = Adversary(world=Resting, monitor=CartPole, unit="m", error_forms={}, corners={})
    least = adversary.encounter(gate, claimed, {"met": met}, np.random.default_rng(0), 0)
    assert least == 0.25 and len(met) == 4, "two attacks, one plan, and one more after which it is settled"
    assert met[0] == met[1] == 1.0 and abs(met[3][0]) < 1e-6
