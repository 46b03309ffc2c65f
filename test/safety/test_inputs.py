"""Which inputs make a state, and why others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from safe_support_ql.robots.scan import Scan, full_circle
from safe_support_ql.safety.gate import Decision, Gate, State

PERIOD = 100_000_000
OPEN = full_circle(np.full(180, 3.0), 6.0).vector()
INSTANT = (0.0, 1e-6)  # latency of a command: next to none


@pytest.mark.parametrize(
    ("vector", "stamp", "words"),
    [
        (np.array([0, 0, 0, 1, np.nan, 0.0]), 2 * PERIOD, "NaN"),
        (np.array([0, 0, 0, 1, 0.0]), 2 * PERIOD, "expected 6"),
        (np.array([0, 0, 0, 1, 0.0, 0]), PERIOD, "advance"),
        (np.array([0, 0, 0, 1, 0.0, 0]), 9 * PERIOD, "future"),
    ],
)
def test_a_bad_input_is_refused_with_its_reason(
    gate: Gate, vector: np.ndarray, stamp: int, words: str, feed: Callable[..., None]
) -> None:
    feed(gate, PERIOD)
    assert words in str(gate.receive("odom", vector, stamp, 2 * PERIOD, 2 * PERIOD))


def test_in_lock_step_a_refused_input_leaves_no_state(gate: Gate, cycle: Callable[..., Decision]) -> None:
    """The state of the tick before is no substitute: nobody can tell which commands acted since."""
    cycle(gate, PERIOD, [0.6, 0.0])
    gate.receive("odom", np.array([0.0, 0, 0, 1, np.nan, 0]), 2 * PERIOD, 2 * PERIOD, 2 * PERIOD)
    gate.receive("scan", OPEN, 2 * PERIOD, 2 * PERIOD, 2 * PERIOD)
    assert gate.begin(2 * PERIOD, 2 * PERIOD) is None
    assert "NaN" in gate.expire(2 * PERIOD).message
    assert cycle(gate, 3 * PERIOD, [0.6, 0.0]).reason == "request"


def test_a_reset_asks_for_a_state_that_makes_sense(
    realtime: Gate, feed: Callable[..., None], cycle: Callable[..., Decision]
) -> None:
    """Absurd twists latch as missing inputs do, so they must also hold the latch."""
    cycle(realtime, PERIOD, [0.0, 0.0])
    for tick in range(2, 16):
        feed(realtime, tick * PERIOD, v=60.0)
        assert realtime.begin(tick * PERIOD, tick * PERIOD, INSTANT) is None
        realtime.expire(tick * PERIOD)
    assert realtime.state is State.LATCHED
    done, why = realtime.reset(15 * PERIOD, 15 * PERIOD)
    assert not done and why.startswith("still odom")


def test_a_stopped_stamp_clock_does_not_hide_old_inputs(gate: Gate, realtime: Gate, feed: Callable[..., None]) -> None:
    feed(realtime, PERIOD)
    assert realtime.begin(PERIOD, 11 * PERIOD, INSTANT) is None, "stamps say fresh, the steady clock says old"
    feed(gate, PERIOD)
    assert gate.begin(PERIOD, 11 * PERIOD) is not None, "in lock-step the world waits"


def test_an_older_scan_is_brought_to_the_instant_of_the_odometry(realtime: Gate, feed: Callable[..., None]) -> None:
    feed(realtime, PERIOD, v=0.6)
    late = PERIOD + 90_000_000
    realtime.receive("odom", np.array([0.05, 0, 0, 1, 0.5, 0]), late, late, late)
    assert realtime.begin(late, late, INSTANT) is not None
    assert realtime.cycle is not None and realtime.cycle.estimate.state[3] == 0.5
    assert realtime.cycle.sample.age_s == 0.0, "a state is as old as its odometry"
    realtime.expire(late)
    much_later = PERIOD + 300_000_000
    realtime.receive("odom", np.array([0.1, 0, 0, 1, 0.6, 0]), much_later, much_later, much_later)
    assert realtime.begin(much_later, much_later, INSTANT) is None
    assert "scan is 0.30 s old, allowed 0.25 s" in realtime.expire(much_later).message


def test_a_scan_whose_last_ray_lies_in_the_future_is_refused(realtime: Gate) -> None:
    """Stamped at its first ray, says the setup, but it arrives at once: the stamp is that of the last."""
    scan = replace(Scan.of(OPEN), time_increment=0.1 / 179, scan_time=0.1).vector()
    problem = realtime.receive("scan", scan, PERIOD, PERIOD, PERIOD)
    assert "its last ray lies 0.100 s in the future" in str(problem) and "set stamp: last" in str(problem)
    assert not realtime.receive("scan", scan, PERIOD, 2 * PERIOD, 2 * PERIOD)
