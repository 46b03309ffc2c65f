"""States against predictions: a robot that is not as modelled latches, and one that is does not."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.gate import Gate, State
from safe_support_ql.safety.timing import Clock

PERIOD = 100_000_000


def test_a_base_that_does_not_do_as_told_loses_its_support_and_latches() -> None:
    robot = config.load_robot("diff_drive").robot
    gate = Gate(robot, config.load_robot("diff_drive").gate, False, 0)
    gate.opening_states, gate.comparison.needed = 1, 0

    def tick(now: int, v: float, ask: float) -> None:
        for name, vector in (
            ("odom", [0, 0, 0, 1, v, 0]),
            ("scan", full_circle(np.full(180, 5.0), 6.0).vector()),
            ("goal_pose", [3, 0]),
        ):
            gate.receive(name, np.array(vector, np.float64), now * PERIOD, now * PERIOD, now * PERIOD)
        candidates = gate.begin(now * PERIOD, now * PERIOD)
        assert candidates is not None
        offered.append(float(candidates.margin[candidates.certified & ~candidates.is_plan].min(initial=np.inf)))
        gate.request(candidates.id, np.array([ask, 0.0], np.float32), now * PERIOD)

    offered: list[float] = []
    for now in range(1, 8):
        tick(now, 0.0, 0.0)
    assert gate.counters.mismatches == 0
    for now in range(8, 13):  # told to drive, it stands
        tick(now, 0.0, 0.6)
    assert 1 <= gate.counters.mismatches <= 4 and gate.state is State.LATCHED and "mismatch" in str(gate.cause)
    assert gate.support.surcharge >= gate.config.mismatch_margin
    done, why = gate.reset(12 * PERIOD, 12 * PERIOD)
    assert not done and "mismatch" in why
    for now in range(13, 30):  # the plan asks it to stand, and it does
        tick(now, 0.0, 0.6)
    assert gate.reset(29 * PERIOD, 29 * PERIOD) == (True, "reset")


def test_states_too_far_apart_to_compare_certify_nothing() -> None:
    """Else a robot far from every member would never be noticed, as long as its states came seldom enough."""
    settings = config.load_robot("diff_drive")
    gate = Gate(settings.robot, settings.gate, False, 0, clock=Clock.REALTIME)
    gate.opening_states, gate.comparison.needed = 1, 0
    step = 310_000_000  # more than three periods
    reasons = []
    for tick in range(1, 8):
        now = tick * step if tick < 6 else 5 * step + (tick - 5) * 100_000_000
        for name, vector in (
            ("odom", [0, 0, 0, 1, 0, 0]),
            ("scan", full_circle(np.full(180, 3.0), 6.0).vector()),
            ("goal_pose", [3, 0]),
        ):
            gate.receive(name, np.array(vector, np.float64), now, now, now)
        candidates = gate.begin(now, now, (0.0, 0.06))
        assert candidates is not None
        decision = gate.request(candidates.id, np.array([0.6, 0.0], np.float32), now)
        assert decision is not None
        reasons.append(decision.reason)
        if 1 < tick < 6:
            assert not candidates.certified.any() and "too much may have acted" in decision.message
        again = gate.begin(now, now, (0.0, 0.06))  # the same state once more is no comparison, either
        assert again is not None and again.certified.any() == (not 1 < tick < 6)
        gate.expire(now)
    assert reasons == ["request", *["uncertified_request"] * 4, "request", "request"], "the next that can be is"


@pytest.mark.parametrize(
    ("waits", "asks", "late"),
    [
        ((400, 100), (1,), 0),  # every comparison is of the plan
        ((450, 100, 100, 100, 100, 100), (5,), 0),  # and there are many of them
        ((400, 100, 100, 100), (1, 2), 200),  # the plan is asked for last, but what went before still acts in the gap
    ],
)
def test_a_robot_that_moves_only_while_nobody_looks_latches(
    waits: tuple[int, ...], asks: tuple[int, ...], late: int
) -> None:
    """States in bursts, and a silence between: in these something else than the plan acts."""
    settings = config.load_robot("diff_drive")
    model, period_ms = settings.robot.model, 10
    gate = Gate(settings.robot, settings.gate, False, 0, clock=Clock.REALTIME)
    member = (
        *model.dynamics.members[0][:2],
        1.0 - (1.0 - model.dynamics.members[0][2]) ** 0.2,
        *model.dynamics.members[0][3:],
    )
    state, command, trace, ms = (0.0,) * 5, (0.0, 0.0), [(0.0,) * 5] * (late // period_ms), 1000
    for wait, i in [(wait, i) for _ in range(40) for i, wait in enumerate(waits)]:
        for _ in range(wait // period_ms):
            state = tuple(float(v) for v in model.dynamics.step(state, command, member, period_ms / 1000))
            trace.append(state)
            ms += period_ms
        x, y, yaw, v, w = trace[-1 - late // period_ms]
        stamp, now = (ms - late) * 1_000_000, ms * 1_000_000
        odom = [x, y, np.sin(yaw / 2), np.cos(yaw / 2), v, w]
        for name, vector in (
            ("odom", odom),
            ("scan", full_circle(np.full(180, 3.0 + 1e-4 * (ms % 7)), 6.0).vector()),  # no lidar repeats a scan
            ("goal_pose", [3, 0]),
        ):
            gate.receive(name, np.array(vector, np.float64), stamp, now, now)
        candidates = gate.begin(now, now, (0.0, 0.06))
        assert candidates is not None
        action = np.array([0.0, 1.5 if i in asks else 0.0], np.float32)  # turning, in a round room: nothing else to see
        decision = gate.request(candidates.id, action, now)
        assert decision is not None
        command = tuple(decision.action.astype(float))
        if gate.state is State.LATCHED:
            break
    assert gate.state is State.LATCHED and " apart" in str(gate.cause)


def test_in_lock_step_every_tick_of_a_gap_has_its_own_command() -> None:
    """A refused input leaves two ticks to compare, and a healthy robot is as predicted under what acted in each."""
    settings = config.load_robot("cart_pole")
    model = settings.robot.model
    gate = Gate(settings.robot, settings.gate, False, 0)
    gate.opening_states = 1
    truth, tick_ns = np.array([0.1, 0.02, 0.1, 0.0]), 20_000_000
    gate.receive("goal_pose", np.zeros(1), tick_ns, tick_ns, tick_ns)
    for tick in range(1, 60):
        now = tick * tick_ns
        sensed = truth if tick % 3 else np.full(4, np.nan)
        gate.receive("joint_states", sensed, now, now, now)
        candidates = gate.begin(now, now)
        assert (candidates is None) == (tick % 3 == 0)
        decision = None
        if candidates is not None:
            choice = np.flatnonzero(candidates.certified)
            decision = gate.request(candidates.id, candidates.actions[choice[tick % len(choice)]], now)
        decision = decision or gate.expire(now)
        assert decision.stamp_ns == now
        command = tuple(decision.action.astype(float))
        truth = np.array(
            model.dynamics.step(tuple(truth), command, tuple(model.dynamics.members[0]), model.dynamics.dt)
        )
    assert gate.counters.mismatches == 0


@pytest.mark.parametrize("pattern", [(22,), (22, 22, 16), (18, 22)])
def test_states_that_come_at_uneven_times_are_no_mismatch(pattern: tuple[int, ...]) -> None:
    settings = config.load_robot("cart_pole")
    model = settings.robot.model
    gate = Gate(settings.robot, settings.gate, False, 0, clock=Clock.REALTIME)
    rng = np.random.default_rng(0)
    truth, now, command = np.array([0.1, 0.02, 0.1, 0.0]), 0, (0.0,)
    for tick in range(400):
        passed = pattern[tick % len(pattern)]
        for _ in range(passed):
            truth = np.array(
                model.dynamics.step(tuple(truth), command, (*model.dynamics.members[0][:-1], 0.001), 0.001)
            )
        now += passed * 1_000_000
        gate.receive("joint_states", truth, now, now, now)
        if not tick:
            gate.receive("goal_pose", np.zeros(1), now, now, now)
        candidates = gate.begin(now, now, (0.0, 0.00875), 0.00625)
        assert candidates is not None
        choice = np.flatnonzero(candidates.offered)
        index = rng.choice(choice) if len(choice) else candidates.plan
        decision = gate.request(candidates.id, candidates.actions[index], now)
        assert decision is not None
        command = tuple(decision.action.astype(float))
    assert gate.counters.mismatches == 0 and gate.state is not State.LATCHED


def test_a_new_episode_does_not_free_a_latch_of_its_mismatch() -> None:
    """Deactivation and activation begin one; the evidence must outlive them until states were compared again."""
    settings = config.load_robot("diff_drive")
    gate = Gate(settings.robot, settings.gate, False, 0)
    gate.opening_states, gate.comparison.needed = 1, 0

    def cycle(now: int) -> None:
        for name, vector in (
            ("odom", [0, 0, 0, 1, 0, 0]),
            ("scan", full_circle(np.full(180, 3.0), 6.0).vector()),
            ("goal_pose", [3, 0]),
        ):
            gate.receive(name, np.array(vector, np.float64), now, now, now)
        candidates = gate.begin(now, now)
        assert candidates is not None
        gate.request(candidates.id, np.array([0.6, 0.0], np.float32), now)

    tick = 0
    while gate.state is not State.LATCHED:
        tick += 1
        cycle(tick * 100_000_000)  # it is told to drive, and stands
    assert gate.mismatch.spent
    tick += 1
    gate.new_episode(1)
    cycle(tick * 100_000_000)
    done, why = gate.reset(tick * 100_000_000, tick * 100_000_000)
    assert not done and "mismatch" in why and gate.support.surcharge > 0.0
    for _ in range(30):
        tick += 1
        cycle(tick * 100_000_000)  # the plan runs, and it stands as it should
    assert gate.reset(tick * 100_000_000, tick * 100_000_000) == (True, "reset")
