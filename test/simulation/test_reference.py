"""The reference knows the map, where there is one, and shows that certified paths exist."""

import pytest

from safe_support_ql import config
from safe_support_ql.experiments.episodes import look, play
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


def test_the_reference_reaches_its_goals_behind_the_gate(sim: Simulation) -> None:
    gate = Gate(ROBOT, SETTINGS.gate, False, 0)
    reference = Reference(ROBOT, sim.world)
    results = [play(sim, gate, reference, 500_000_000 + i, i) for i in range(8)]
    assert sum(result.reached for result in results) >= 7
    assert sum(result.unsafe_visits for result in results) == 0
    assert sum(result.verdicts["no_proof"] for result in results) == 0


def test_without_a_map_it_asks_for_what_the_controller_does() -> None:
    settings = config.load_robot("cart_pole")
    sim, gate = Simulation(settings.robot), Gate(settings.robot, settings.gate, True, 0)
    sim.reset(0)
    gate.new_episode(0)
    candidates = look(sim, gate, sim.sense(), 0)
    assert sim.world.map is None and candidates.support.any()
    wanted = settings.robot.controller(candidates.observation[None])[0]
    distances = abs(candidates.actions[:, 0] - wanted[0])
    chosen = Reference(settings.robot, sim.world)(candidates)
    assert abs(chosen[0] - wanted[0]) == distances[candidates.support].min()
    sim.close()
