"""Delays and holds that a certificate covers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from safe_support_ql import config
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.timing import Clock

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot
PERIOD = 100_000_000


def test_in_lock_step_a_slow_host_makes_no_state_old(gate: Gate, realtime: Gate, feed: Callable[..., None]) -> None:
    feed(gate, PERIOD)
    assert gate.begin(PERIOD, PERIOD + 60_000_000) is not None
    assert gate.cycle is not None and gate.cycle.timing.delays == (0,)
    feed(realtime, PERIOD)
    assert realtime.begin(PERIOD, PERIOD + 60_000_000, (0.0, 0.05)) is not None
    assert realtime.cycle is not None and max(realtime.cycle.timing.delays) == 3, "in real time the steady clock counts"


@pytest.mark.parametrize("clock", Clock)
def test_a_gate_that_was_made_for_another_clock_refuses_its_first_cycle(clock: Clock) -> None:
    gate = Gate(ROBOT, SETTINGS.gate, False, 0, clock=clock)
    with pytest.raises(ValueError, match=clock.value):
        gate.begin(PERIOD, PERIOD, (0.0, 0.05) if clock is Clock.LOCKSTEP else None)


def test_in_real_time_a_command_is_certified_to_act_longer(realtime: Gate, feed: Callable[..., None]) -> None:
    feed(realtime, PERIOD)
    assert realtime.begin(PERIOD, PERIOD, (0.0, 0.2)) is not None
    assert (
        realtime.cycle is not None and max(realtime.cycle.timing.holds) == ROBOT.model.dynamics.checks_per_tick + 5
    ), "0.2 s, and its way to the drive"
