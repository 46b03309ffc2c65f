"""Nothing moves that nobody records."""

from __future__ import annotations

from collections.abc import Callable

from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import Decision, Gate, GateConfig, State
from safe_support_ql.safety.heartbeat import UNRECORDED

PERIOD = 100_000_000


def test_a_stale_recorder_stops_the_robot(gate: Gate, cycle: Callable[..., Decision]) -> None:
    gate.recorder_alive(0, 0)
    assert cycle(gate, PERIOD, [0.6, 0.0]).reason == "request"
    late = PERIOD + int(GateConfig().recorder_timeout_s * 1e9) + PERIOD
    decision = cycle(gate, late, [0.6, 0.0])
    assert decision.reason == "recorder_stale" and "heartbeat is 1.2 s old" in decision.message
    gate.recorder_alive(gate.sequence, late)
    assert cycle(gate, late + PERIOD, [0.6, 0.0]).reason == "request"


def test_a_recorder_that_lags_stops_the_robot_as_a_silent_one_does(
    gate: Gate, feed: Callable[..., None], cycle: Callable[..., Decision]
) -> None:
    """It is alive, but what it confirms as written falls behind."""
    timeout = int(GateConfig().recorder_timeout_s * 1e9) // PERIOD
    decisions = []
    for tick in range(1, 3 * timeout):
        behind = gate.sequence - min(gate.sequence, 5)  # half a second: no lag yet
        gate.recorder_alive(behind if tick < timeout else 7, tick * PERIOD)
        decisions.append(cycle(gate, tick * PERIOD, [0.6, 0.0]))
    reasons = [decision.reason for decision in decisions]
    first = 7 + timeout + 1  # decision 7 is the oldest one that nobody wrote
    assert reasons == ["request"] * first + ["recorder_stale"] * (len(reasons) - first)
    assert "decision 7 is not written after 1.1 s" in decisions[first].message
    assert decisions[-1].state is State.INTERVENING and not decisions[-1].action.any()

    now = 3 * timeout * PERIOD
    gate.latch(Cause("e-stop"))
    feed(gate, now)
    assert gate.reset(now, now) == (False, f"still {gate.recorder_problem(now)}")
    gate.recorder_alive(gate.sequence - 2, now)
    assert gate.reset(now, now) == (True, "reset")
    assert cycle(gate, now, [0.6, 0.0]).reason == "request"


def test_the_numbers_that_a_recorder_confirms_are_those_of_the_run(gate: Gate) -> None:
    """A resumed run begins at a later number, and blind decisions count, too."""
    gate.sequence = 1000
    for tick in range(20):
        gate.expire(tick * PERIOD)
    now = 20 * PERIOD
    gate.recorder_alive(1000, now)
    assert "decision 1000" in str(gate.recorder_problem(now))
    gate.recorder_alive(1015, now)
    assert not gate.recorder_problem(now)
    gate.recorder_alive(1020, now)
    assert not gate.recorder_problem(now) and not gate.recorder._unrecorded
    many = now + 60 * 10**9
    for _ in range(UNRECORDED + 10):
        gate.expire(many)
    gate.recorder_alive(1020, many)
    assert len(gate.recorder._unrecorded) == UNRECORDED, "nobody who confirms nothing fills the memory"


def test_a_recorder_that_confirms_what_was_not_decided_yet_confirms_nothing(
    gate: Gate, cycle: Callable[..., Decision]
) -> None:
    """It writes another run, or its numbers and the gate's are not the same."""
    gate.recorder_alive(0, PERIOD)
    assert cycle(gate, PERIOD, [0.6, 0.0]).reason == "request"
    for number in (gate.sequence + 1, 2**64 - 1):
        gate.recorder_alive(number, 2 * PERIOD)
        assert len(gate.recorder._unrecorded) == gate.sequence, "nothing of this run was written"
        decision = cycle(gate, number % 1000 * PERIOD + 2 * PERIOD, [0.6, 0.0])
        assert decision.reason == "recorder_stale" and f"up to {number}" in decision.message
    gate.recorder_alive(gate.sequence, gate._decided_ns)
    assert not gate.recorder_problem(gate._decided_ns)
