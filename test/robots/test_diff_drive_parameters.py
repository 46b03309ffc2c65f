"""The differential drive under parameters that are not its defaults: the certificate holds, or they are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots import make
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.safety.rollout import rollout_margins


def margin(robot: DiffDrive, v: float, w: float, action: tuple[float, float], points: np.ndarray) -> float:
    state, actions = np.array([0.0, 0.0, 0.0, v, w]), np.array([action])
    return float(rollout_margins(robot.model, state, np.zeros((1, 0, 2)), (0,), actions, points).max())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"terminal_speed": 0.2}, "margin_terminal"),  # 3 cm to go where 5 mm are allowed for
        ({"lag": 1.0}, "margin_terminal"),
        ({"scan_noise": 0.1}, "lidar_noise"),
        ({"lidar_noise": 0.0}, "lidar_noise"),
        ({"noise_allowance": 0.05}, "noise_allowance"),  # the band's threshold would stay at zero
        ({"step_residual": 0.0}, "step_residual"),  # its budget would never be spent
        ({"lag_mismatch": 1.0}, "lag_mismatch"),  # a drive without a lag
    ],
)
def test_parameters_that_leave_no_certificate_are_refused(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config.load_robot("diff_drive", {f"parameters.{key}": value for key, value in parameters.items()})


@pytest.mark.parametrize("parameters", [{}, {"speed": 3.0, "horizon": 6.0}, {"turn_rate": 6.0}, {"speed_margin": 0.0}])
def test_what_is_certified_keeps_the_true_speeds_inside_their_limits(parameters: dict[str, Any]) -> None:
    robot = make("diff_drive", parameters)
    assert isinstance(robot, DiffDrive)
    p, far = robot.parameters, np.array([[1e3, 1e3]])
    fast = 1 + p.motion_mismatch  # what the odometry measures may be this much more in truth
    some = 0
    for share in np.linspace(0.0, 1.0, 21):
        for v, w in ((share * p.speed, 0.0), (0.0, share * p.turn_rate)):
            if margin(robot, v, w, (v, w), far) >= 0.0:
                some += 1
                assert (robot.truth_margins(np.array([0, 0, 0, fast * v, fast * w, 1.0])) >= 0).all(), (v, w)
    assert some > 10


@pytest.mark.parametrize("name", [None, *config.profiles()])
def test_every_shipped_base_may_drive_at_full_speed_where_there_is_room(name: str | None) -> None:
    """Profiles once left it no room below the safe set's speed limit: they drove at half their speed, unnoticed."""
    robot = config.load(config.profile(name) if name else config.default_path("diff_drive")).robot
    assert isinstance(robot, DiffDrive)
    p, far = robot.parameters, np.array([[1e3, 1e3]])
    for v, w in ((p.speed, 0.0), (-p.reverse_speed, 0.0), (0.0, p.turn_rate), (p.speed, p.turn_rate)):
        measured = margin(robot, v + p.residual_speed * np.sign(v), w + p.residual_turn_rate * np.sign(w), (v, w), far)
        assert measured >= p.band, (v, w)


def test_what_lies_beyond_reach_cannot_matter() -> None:
    slow = {"lag": 1.0, "margin_terminal": 0.04, "horizon": 10.0, "input_age": 0.02, "speed_margin": 0.2}
    for parameters in ({}, slow):
        robot = make("diff_drive", parameters)
        assert isinstance(robot, DiffDrive)
        beyond = np.array([[robot.reach + 1e-3, 0.0]])
        speed = robot.parameters.speed
        assert margin(robot, speed, 0.0, (speed, 0.0), beyond) >= robot.model.certificate.band
