"""The base's claims: what an attack begins with, and where a prediction lies on the map."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import worlds
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.diff_drive import adversary
from safe_support_ql.robots.diff_drive.claims import begin, placed
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.simulation import Simulation


def robot() -> Robot:
    return config.load_robot("diff_drive").robot


def test_an_attack_begins_close_to_something_and_with_its_drift() -> None:
    base = robot()
    sim, rng = Simulation(worlds.in_world(base, "ground_slow", exact=True)), np.random.default_rng(0)
    unit = base.model.certificate.tightening[-1, 0]
    for seed in range(5):
        sim.reset(seed)
        begin(sim.world, base, {"drift": np.array([1.0, -1.0])}, rng)  # type: ignore[arg-type]
        left = base.truth_margins(sim.world.truth())[0]
        assert 0.0 < left < 7.0 * unit
        drive = sim.world.drive  # type: ignore[attr-defined]
        assert drive.ground_speed == pytest.approx(0.84 * 1.03) and drive.ground_turn == pytest.approx(1.16 * 0.97)
    sim.close()


def test_a_prediction_is_placed_from_the_true_pose() -> None:
    base = robot()
    start, x = np.array([1.0, 2.0, np.pi / 2, 0.0, 0.0, 0.0]), np.array([0.5, 0.25, 0.1, 0.3, 0.2])
    post = Arena(np.array([[0.75, 3.5, 0.0, 0.2, 0.0]]), 9.0, np.zeros(3), np.zeros(2))
    truth = placed(base, start, x, post)
    expected = [0.75, 2.5, np.pi / 2 + 0.1, 0.3, 0.2, 0.8 - base.world.footprint_radius]
    assert truth == pytest.approx(expected)


def test_a_mismatch_and_three_deviations_of_the_odometry_stay_within_the_ensemble() -> None:
    base, claims = robot(), robots.claims_of(robot())
    p = base.parameters
    for fields in claims.mismatches.values():
        for key in ("ground_speed", "ground_turn"):
            for sign in (1.0, -1.0):
                factor = fields.get(key, 1.0) * (1.0 + sign * 3.0 * p.odometry_drift)
                assert abs(factor - 1.0) <= p.motion_mismatch


def test_the_adversary_is_the_model_itself() -> None:
    """A post straight ahead, no errors: the margin lost is the distance that the nominal member drives."""
    base = adversary.SeeingBase(robot().parameters)
    world = adversary.Base(base, {}, np.random.default_rng(0))
    away = world.post[0] - base.model.certificate.constants[0]
    x = (0.0,) * 5
    for _ in range(base.model.dynamics.checks_per_tick):
        x = base.model.dynamics.step(x, (0.5, 0.0), tuple(base.model.dynamics.members[0]), base.model.dynamics.dt)
    assert world.tick(np.array([0.5, 0.0])) == pytest.approx(away - x[0])
