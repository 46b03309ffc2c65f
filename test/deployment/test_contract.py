"""The contract is that of the candidate sets the gate really publishes."""

import pytest

from safe_support_ql import config, robots
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.experiments.episodes import look
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.simulation import Simulation


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", robots.names())
def test_the_contract_fits_the_candidate_sets_of_the_gate(name: str, continuous: bool) -> None:
    settings = config.load_robot(name)
    sim = Simulation(settings.robot)
    try:
        gate = Gate(settings.robot, settings.gate, continuous, 0)
        outcome = sim.reset(0)
        gate.new_episode(0)
        candidates = look(sim, gate, sim.sense(), outcome.tick)
    finally:
        sim.close()
    contract = PolicyContract.of(settings.robot, continuous, settings.safety_hash)
    assert (contract.robot, contract.safety_hash) == (name, settings.safety_hash)
    assert candidates.actions.shape == (contract.candidates, contract.action_dim)
    assert candidates.observation.shape == (contract.observation_dim,)
    assert contract != PolicyContract.of(settings.robot, not continuous, settings.safety_hash)
