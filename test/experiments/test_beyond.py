"""What the margins cover while nothing latches: short forms of the second table of benchmarks/mismatch.py."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import beyond


@pytest.mark.parametrize(
    ("robot", "errors"),
    [
        ("diff_drive", ("motion_mismatch, distance", "margin_speed", "lidar_noise")),
        ("cart_pole", ("length_mismatch", "gain_mismatch", "turn_error")),
    ],
)
def test_one_error_may_be_twice_its_bound(robot: str, errors: tuple[str, ...]) -> None:
    made = config.load_robot(robot).robot
    for error in errors:
        rows = beyond.singly(made, (2.0,), error, episodes=5)
        assert rows and all(0.0 <= least < np.inf for row in rows for least in row["least"]), rows


@pytest.mark.parametrize(("robot", "error"), [("diff_drive", "lidar_noise"), ("cart_pole", "gain_mismatch")])
def test_an_error_that_is_too_large_is_seen_to_fail(robot: str, error: str) -> None:
    (row,) = beyond.singly(config.load_robot(robot).robot, (8.0,), error, episodes=30)
    assert row["least"][0] < 0.0


def test_what_latches_makes_no_more_visits() -> None:
    """The corner that is hardest: a heavy, long pole on a heavy cart, and too little force."""
    robot = config.load_robot("cart_pole").robot
    adversary = beyond.adversary_of(robot)
    gate, far = beyond.gate_of(robot), beyond.scaled(adversary, adversary.corners["+1 +1 +1 -1"], 2.0)
    alone, watched = (beyond.meet(gate, far, watch, 20) for watch in (False, True))
    assert alone.latched == 0 < watched.latched and watched.unsafe <= alone.unsafe > 0


@pytest.mark.parametrize("robot", ["diff_drive", "cart_pole"])
def test_at_their_bounds_all_errors_at_once_are_certified(robot: str) -> None:
    """The four corners that are hardest; each is exactly the box's."""
    made = config.load_robot(robot).robot
    gate, corners = beyond.gate_of(made), beyond.adversary_of(made).corners
    assert len(corners) == 16
    for name in [corner for corner in corners if corner.startswith("+1 +1")]:
        met = beyond.meet(gate, corners[name], episodes=4)
        assert met.unsafe == 0 and met.episodes > 0, name


def test_factor_one_is_the_certified_box() -> None:
    robot = config.load_robot("cart_pole").robot
    p, adversary = robot.parameters, beyond.adversary_of(robot)
    factors = np.array([beyond.scaled(adversary, truth, 1.0)["factors"] for truth in adversary.corners.values()])
    box = np.array([p.mass_mismatch, p.mass_mismatch, p.length_mismatch, p.gain_mismatch])
    assert np.allclose(factors.min(axis=0), 1 - box) and np.allclose(factors.max(axis=0), 1 + box)
    # Each corner of the ensemble is one of these.
    inside = robot.model.dynamics.members[1:, [0, 1, 2, 4]] / robot.model.dynamics.members[0, [0, 1, 2, 4]]
    assert all(np.abs(factors - row).max(axis=1).min() < 1e-12 for row in inside)


@pytest.mark.parametrize("name", ["diff_drive", "cart_pole"])
def test_the_table_fits_eighty_columns(name: str) -> None:
    robot = config.load_robot(name).robot
    met = {"least": -0.1, "episodes": 53, "unsafe": 20, "latched": 53}
    adversary = robots.claims_of(robot).adversary
    assert adversary
    least = [0.1, 0.0, -0.1]
    single = [{"error": error, "factors": beyond.FACTORS, "least": least} for error in adversary.error_forms]
    row = {"holds": 1.25, "unwatched": met, "watched": met}
    text = beyond.table(robot, single, [{"corner": corner, **row} for corner in adversary.corners])
    assert max(map(len, text.splitlines())) <= 80 and "safe up to 1.25 W" in text
    assert text.count("20 of 53, with detection 20 of 53, 53 latched") == 16
