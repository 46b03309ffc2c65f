"""What a lidar has to have shown before silence counts as free space."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_support_ql.robots.evidence import LASTING, MISSED, OFTEN, Evidence, Memory

WIDE = 2 * math.pi / 180
ANGLES = -math.pi + WIDE * np.arange(180)
HERE = np.zeros(5)


def note(evidence: Evidence, ranges: np.ndarray, driven: float = 0.0, heading: float = 0.0) -> None:
    evidence.note(evidence.groups(ANGLES), np.isfinite(ranges), ranges == np.inf, driven, heading)


def test_a_group_is_proven_by_a_return_for_some_way() -> None:
    evidence = Evidence(0.1)
    ranges = np.full(180, np.inf)
    ranges[90] = 3.0
    note(evidence, ranges, driven=1.0)
    mine = evidence.groups(ANGLES)[90]
    assert evidence.proven(6.0, 5.0)[mine] and evidence.proven(6.0, 5.0).sum() == 1
    assert not evidence.proven(6.1, 5.0).any()
    evidence.forget()
    assert not evidence.proven(1.0, 5.0).any()


def test_a_group_that_missed_what_must_be_there_is_believed_again_after_a_return() -> None:
    evidence = Evidence(0.1)
    note(evidence, np.full(180, 3.0))
    evidence.refute(np.array([7]))
    assert not evidence.proven(0.0, 5.0)[7] and evidence.proven(0.0, 5.0).sum() == evidence.count - 1
    note(evidence, np.full(180, 3.0))
    assert evidence.proven(0.0, 5.0).all()


def test_what_is_silent_beside_a_group_that_missed_is_not_believed_either() -> None:
    evidence = Evidence(0.1)
    note(evidence, np.full(180, 3.0))
    ranges = np.full(180, 3.0)
    ranges[80:100] = np.inf
    note(evidence, ranges)
    evidence.refute(evidence.groups(ANGLES[[85]]))
    silent = set(range(evidence.count)) - set(evidence.groups(ANGLES[np.isfinite(ranges)]))
    assert set(np.flatnonzero(~evidence.proven(0.0, 5.0))) == silent


def test_a_sector_that_stays_silent_through_a_turn_is_blind() -> None:
    evidence = Evidence(0.1)
    ranges = np.full(180, 3.0)
    ranges[80:100] = np.inf
    for heading in np.linspace(0.0, 2 * math.pi, 40):
        assert not evidence.blind.any()
        note(evidence, ranges, heading=heading)
    whole = set(range(evidence.count)) - set(evidence.groups(ANGLES[np.isfinite(ranges)]))
    assert set(np.flatnonzero(evidence.blind)) == whole
    note(evidence, np.full(180, 3.0), heading=7.0)
    assert not evidence.blind.any()


def test_an_open_hall_is_not_blind() -> None:
    """A single object that every group sees in turn; and one that is out of range."""
    evidence = Evidence(0.1)
    for heading in np.linspace(0.0, 6 * math.pi, 200):
        ranges = np.full(180, np.inf)
        ranges[np.abs((ANGLES + heading + math.pi) % (2 * math.pi) - math.pi) < 0.1] = 3.0
        note(evidence, ranges, heading=heading)
    assert not evidence.blind.any() and evidence.proven(0.0, 5.0).all()
    evidence.forget()
    for heading in np.linspace(0.0, 6 * math.pi, 200):
        note(evidence, np.full(180, np.inf), heading=heading)
    assert not evidence.blind.any() and not evidence.proven(0.0, 5.0).any()
    assert OFTEN > 1


def compare(memory: Memory, ranges: np.ndarray, pose: np.ndarray = HERE) -> np.ndarray:
    return memory.compare(pose, np.zeros(2), ANGLES, ranges, WIDE, 0.0)


def seen(points: list[list[float]]) -> Memory:
    memory = Memory(1.2, 0.2)
    memory.add(HERE, np.array(points), WIDE)
    return memory


def test_what_was_seen_near_stays_until_it_is_seen_through() -> None:
    memory = seen([[0.6, 0.0]])
    silent = np.full(180, 3.0)
    silent[85:95] = np.inf
    for scan in range(1, 5):
        rays = compare(memory, silent)
        assert memory._table["missed"].tolist() == [scan] and (len(rays) > 0) == (scan >= MISSED)
    assert rays.tolist() == [90]
    compare(memory, np.full(180, 3.0))
    assert len(memory.points) == 0, "a return from behind it"


def test_a_return_beside_it_is_the_same_surface() -> None:
    memory = seen([[0.6, 0.0]])
    beside = np.full(180, np.inf)
    beside[88] = 0.59
    compare(memory, beside)
    assert len(memory.points) == 0


def test_what_is_nearer_than_every_return_is_not_seen_again() -> None:
    """A lidar that is blind nearby, though its header does not say so: what it sees beyond is not what it saw here."""
    memory = seen([[0.5, 0.0]])
    beyond = np.full(180, np.inf)
    beyond[[86, 94]] = 0.56
    compare(memory, beyond)
    assert memory._table["missed"].tolist() == [1]


def test_a_base_that_turned_much_does_not_see_through_what_may_stand_beside() -> None:
    """The odometry may have lost the heading, and a lidar that is blind nearby is silent where the thing is now."""
    memory = seen([[0.5, 0.0]])
    around = np.full(180, 3.0)
    around[100:104] = np.inf  # 0.35 to 0.45 rad to the left
    turned = np.array([0.0, 0.0, 0.0, 0.0, 2.5])  # rad, of which 0.2 are uncertain
    compare(memory, around, turned)
    assert memory._table["missed"].tolist() == [1]
    _, lost, astray = memory.recalled(turned)
    assert lost.tolist() == pytest.approx([0.5 * WIDE * 0.5]) and astray.tolist() == [0.5]
    compare(memory, around)
    assert len(memory.points) == 0, "had it not turned, it would have seen through it"


def test_behind_something_else_nothing_is_missed() -> None:
    memory = seen([[0.9, 0.0]])
    nearer = np.full(180, np.inf)
    nearer[88:93] = 0.5
    compare(memory, nearer)
    assert memory._table["missed"].tolist() == [0] and not len(memory.recalled(HERE)[0])


def test_out_of_sight_it_is_hidden() -> None:
    memory = seen([[0.6, 0.0], [-0.6, 0.0]])
    ranges = np.full(180, 3.0)
    ranges[85:95] = np.nan
    compare(memory, ranges)
    assert memory._table["hidden"].tolist() == [True] and memory._table["missed"].tolist() == [0]
    # The same for bearings that a partial field of view does not have.
    memory = seen([[-0.6, 0.0]])
    memory.compare(HERE, np.zeros(2), ANGLES[40:140], np.full(100, 3.0), WIDE, 0.0)
    assert memory._table["hidden"].tolist() == [True]


def test_points_move_with_the_odometry_and_far_ones_are_forgotten() -> None:
    memory = seen([[0.6, 0.0], [-0.6, 0.0]])
    ahead = np.array([0.3, 0.0, math.pi, 0.3, 0.0])  # 0.3 m on, and turned about: the first one is now behind
    ranges = np.full(180, 3.0)
    ranges[:3] = ranges[-3:] = np.inf
    compare(memory, ranges, ahead)
    assert memory._table["missed"].tolist() == [1]
    for _ in range(LASTING):
        compare(memory, ranges, np.array([5.0, 0.0, 0.0, 5.0, 0.0]))
    assert len(memory.points) == 0


def test_a_lidar_of_many_rays_loses_nothing_that_it_missed() -> None:
    """Points that were missed once are the oldest: they must not make room for the newest scan."""
    memory, angles = seen([[0.6, 0.0]]), -math.pi + 2 * math.pi / 3200 * np.arange(3200)
    ranges = np.where(np.abs(angles) < 0.3, np.inf, 3.0)
    for scan in range(1, 4):
        memory.compare(HERE, np.zeros(2), angles, ranges, 2 * math.pi / 3200, 0.0)
        memory.add(HERE, 3.0 * np.column_stack([np.cos(angles), np.sin(angles)]), 2 * math.pi / 3200)
        assert memory._table["missed"].max() == scan
