"""The picture of a decision: it shows what was certified, and a plan that ends where plans end."""

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.picture import draw
from safe_support_ql.simulation.simulation import Simulation


@pytest.mark.parametrize("name", ["diff_drive", "cart_pole"])
def test_a_decision_is_drawn_as_it_was_taken(name: str) -> None:
    settings = config.load_robot(name)
    robot = settings.robot
    sim, gate = Simulation(robot), Gate(robot, settings.gate, False, 0)
    gate.opening_states = 1
    sim.reset(3)
    now = int(1e9)
    for channel, vector in sim.sense().items():
        assert not gate.receive(channel, vector, now, now, now)
    candidates = gate.begin(now, now)
    assert candidates is not None
    index = int(np.flatnonzero(candidates.certified & ~candidates.is_plan)[0])
    assert gate.request(candidates.id, candidates.actions[index], now) is not None
    assert gate.newest is not None
    picture = draw(robot, *gate.newest)

    used = np.isfinite(candidates.margin)
    np.testing.assert_array_equal(picture.certified, candidates.certified[used])
    assert picture.after.shape == (used.sum(), 3) and np.isfinite(picture.after).all()
    assert len(np.unique(picture.after.round(9), axis=0)) > 2, "candidates lead to different places"
    np.testing.assert_allclose(picture.backup[0], picture.now)
    checks = robot.model.dynamics.checks_per_tick
    np.testing.assert_allclose(picture.backup[checks], picture.after[np.flatnonzero(used) == index][0], atol=1e-9)
    assert len(picture.backup) < len(robot.model.certificate.tightening), "the plan reaches S_f within the horizon"
    assert all(value > 0.0 for value in picture.margins.values())
    assert picture.margins.keys() == picture.tightening.keys()
    sim.close()


def test_without_a_state_there_is_nothing_to_draw() -> None:
    settings = config.load_robot("diff_drive")
    gate = Gate(settings.robot, settings.gate, False, 0)
    assert gate.begin(0, 0) is None
    gate.expire(0)
    assert gate.newest is None
