"""Clocks that step back: of one sensor, or of all and of the host; and stamps that are no time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_support_ql import config
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.inputs import STEPPED, InputHistory
from safe_support_ql.safety.timing import Clock

S = 1_000_000_000  # ns
PERIOD = S // 10
INSTANT = (0.0, 1e-6)  # latency of a command: next to none
OPEN = full_circle(np.full(180, 3.0), 6.0).vector()
CHANNELS = config.load_robot("diff_drive").robot.channels
VECTORS = {"odom": np.array([0.0, 0, 0, 1, 0, 0]), "scan": OPEN, "goal_pose": np.array([3.0, 0.0])}


class Base:
    """A gate in real time and a standing base; the clocks of its sensors and of the host may be ahead."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.steady = gate, count(10 * S, PERIOD)
        self.ahead = {"odom": 1000 * S, "scan": 1000 * S, "host": 1000 * S}

    def step(self, channels: tuple[str, ...], seconds: float) -> None:
        for channel in channels:
            self.ahead[channel] += round(seconds * S)

    def cycle(self, silent: bool = False) -> Decision:
        now = next(self.steady)
        host = now + self.ahead["host"]
        if not silent:
            for channel in ("odom", "scan"):
                self.gate.receive(channel, VECTORS[channel], now + self.ahead[channel], host, now)
        self.gate.receive("goal_pose", VECTORS["goal_pose"], host, host, now)
        candidates = self.gate.begin(host, now, INSTANT)
        decision = None
        if candidates is not None:
            decision = self.gate.request(candidates.id, np.array([0.0, 0.0], np.float32), now)
        self.now = host, now
        return decision or self.gate.expire(now)

    def reset(self) -> tuple[bool, str]:
        return self.gate.reset(*self.now)


@pytest.fixture
def base(realtime: Gate) -> Base:
    robot = Base(realtime)
    for _ in range(5):
        assert robot.cycle().verdict == "certified" or not realtime.opened
    return robot


@pytest.mark.parametrize("paused", [0, 30])
@pytest.mark.parametrize("seconds", [0.7, 5.0, 900.0])
def test_all_clocks_that_step_back_latch_once_and_a_reset_goes_on(base: Base, seconds: float, paused: int) -> None:
    gate = base.gate
    for _ in range(paused):
        base.cycle(silent=True)  # a paused simulation, or a driver that begins again
    base.step(("odom", "scan", "host"), -seconds)
    for _ in range(STEPPED + 1):
        base.cycle()
    assert gate.state is State.LATCHED and gate.opened
    if not paused:  # else its silence latched before
        assert f"odom: its clock stepped back by {seconds:.3f} s; synchronise the clocks" in str(gate.cause)
    assert base.reset() == (True, "reset")
    assert base.cycle().verdict == "certified" and gate.state is State.NOMINAL
    assert gate.counters.mismatches == 0


@pytest.mark.parametrize("channel", ["odom", "scan"])
def test_one_clock_that_steps_back_latches_and_holds_the_latch_until_all_show_one_time(
    base: Base, channel: str
) -> None:
    base.step((channel,), -5.0)
    for _ in range(STEPPED + 3):
        base.cycle()
        done, why = base.reset()
        assert not done or base.gate.state is not State.LATCHED
    assert base.gate.state is State.LATCHED and f"{channel}: its clock stepped back by 5.000 s" in str(base.gate.cause)
    assert not done and "5.0" in why, "nothing is of one time"
    base.step((channel,), 5.0)
    base.cycle()
    assert base.reset() == (True, "reset") and base.cycle().verdict == "certified"


def test_a_closed_gate_forgets_and_begins_anew(realtime: Gate) -> None:
    realtime.opening_states, base = 3, Base(realtime)
    base.cycle()
    base.cycle()
    base.step(("odom", "scan", "host"), -5.0)
    states = [base.cycle().state for _ in range(STEPPED + OPENS)]
    assert State.LATCHED not in states and states[-1] is State.NOMINAL and states[-2] is State.CLOSED


OPENS = 3  # states


# --- the history alone ------------------------------------------------------------------------------------------------


def history(clock: Clock = Clock.REALTIME) -> InputHistory:
    return InputHistory(CHANNELS, clock, 0.05, 0.05)


def receive(inputs: InputHistory, stamp_ns: int, steady_ns: int, now_ns: int = 2000 * S) -> str:
    return str(inputs.receive("odom", VECTORS["odom"], stamp_ns, now_ns, steady_ns))


@given(stamps=st.lists(st.integers(0, 30), max_size=60))
def test_what_is_taken_always_advances_and_a_step_back_takes_three_in_a_row(stamps: list[int]) -> None:
    """Whatever the stamps: in units of a tenth of a second, each message a tenth after the one before."""
    inputs, newest, run = history(), -1, [0, 0]
    for tick, stamp in enumerate(stamps):
        problem = receive(inputs, (100 + stamp) * PERIOD, tick * PERIOD)
        if stamp > newest:
            assert not problem and not inputs.stepped
            newest, run = stamp, [0, 0]
            continue
        assert problem
        run = [run[0] + 1, stamp] if run[0] and stamp > run[1] else [1, stamp]
        assert inputs.stepped == ("stepped back" in problem)
        if run[0] < STEPPED:
            assert not inputs.stepped and "did not advance" in problem
        if inputs.stepped:
            newest, run = -1, [0, 0]


def test_late_messages_that_come_at_once_are_no_step_back() -> None:
    inputs = history()
    assert not receive(inputs, 1000 * S, 0)
    for late in range(10):
        assert "did not advance" in receive(inputs, 999 * S + late * PERIOD // 2, PERIOD + late)
        assert not inputs.stepped
    assert not receive(inputs, 1001 * S, S)


@pytest.mark.parametrize(
    ("stamp_ns", "words"),
    [
        (123_400_000_000, "odom: stamp 123.4 s looks like a time since boot, not since 1970; let the driver stamp"),
        (0, "odom: its stamp is 0; let the driver stamp"),
    ],
)
def test_a_stamp_that_is_no_time_is_named(stamp_ns: int, words: str) -> None:
    inputs = history()
    assert receive(inputs, stamp_ns, 0, 1_700_000_000 * S).startswith(words)
    assert not receive(inputs, max(stamp_ns, 1), 0, 500 * S), "where the clock is simulated, it may be"
    goal = VECTORS["goal_pose"]
    assert not inputs.receive("goal_pose", goal, stamp_ns, 1_700_000_000 * S, 0), "of a goal, the time does not matter"


def test_a_driver_that_begins_again_and_counts_from_boot_latches_with_that_cause(
    realtime: Gate, feed: Callable[..., None]
) -> None:
    start = 1_700_000_000 * S
    for tick in range(30):
        steady = 10 * S + tick * PERIOD
        host = start + tick * PERIOD
        for channel, vector in VECTORS.items():
            boot = channel == "odom" and tick > 10
            realtime.receive(channel, vector, 123 * S + tick * PERIOD if boot else host, host, steady)
        realtime.begin(host, steady, INSTANT)
        decision = realtime.expire(steady)
    assert realtime.state is State.LATCHED and "looks like a time since boot" in str(realtime.cause)
    assert decision.state is State.LATCHED
