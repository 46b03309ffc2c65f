"""What the simulation counts is counted, and a seed is an episode."""

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.simulation.simulation import Simulation

ROBOT = config.load_robot("diff_drive").robot


@pytest.fixture
def sim() -> Simulation:
    return Simulation(ROBOT)


def test_a_seed_is_an_episode() -> None:
    traces = []
    for _ in range(2):
        sim = Simulation(ROBOT)
        sim.reset(5)
        trace = []
        for i in range(20):
            trace.append(np.concatenate([sim.sense()["odom"], sim.world.truth()]))
            sim.tick(np.array([0.5, 0.3 * np.sin(i)]))
        traces.append(np.array(trace))
        sim.close()
    np.testing.assert_array_equal(*traces)


def test_a_collision_is_one_visit_and_ends_the_episode(sim: Simulation) -> None:
    sim.reset(0)
    outcomes = [sim.tick(np.array([0.6, 0.0])) for _ in range(200)]
    over = next(i for i, outcome in enumerate(outcomes) if outcome.terminated)
    assert outcomes[over].unsafe_visits == 1 and not outcomes[over].reached
    began = next(outcome for outcome in outcomes if outcome.visit)
    assert "clearance" in began.visit and began.min_margin < 0
    assert outcomes[over].unsafe_substeps >= 1


def test_the_time_limit_truncates(sim: Simulation) -> None:
    sim.reset(3)
    outcome = None
    for _ in range(400):
        outcome = sim.tick(np.zeros(2))
        if outcome.terminated or outcome.truncated:
            break
    assert outcome is not None and outcome.truncated and outcome.tick == 400
