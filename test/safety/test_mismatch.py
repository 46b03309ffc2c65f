"""Run-time mismatch detection: single residuals are forgiven, sustained ones shrink the support and latch."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_support_ql import config, robots
from safe_support_ql.experiments.mismatch import meet
from safe_support_ql.safety.gate import Gate, GateConfig, State
from safe_support_ql.safety.mismatch import Mismatch

PERIOD = 100_000_000


def test_single_residuals_are_forgiven_and_sustained_ones_spend_the_budget() -> None:
    mismatch = Mismatch(4)
    for _ in range(20):
        assert mismatch.observe({"x": 0.2, "v": 1.4}) and not mismatch.spent
        for _ in range(4):
            assert not mismatch.observe({"x": 1.0, "v": 0.0})
    assert mismatch.level == 0.0
    for _ in range(4):
        mismatch.observe({"x": 0.2, "v": 1.4})
    assert mismatch.spent and mismatch.what.startswith("v is off by 1.4")
    mismatch.reset()
    assert mismatch.observe({"x": 30.0}) and mismatch.spent, "a jump needs no second one"


BUDGET = GateConfig().mismatch_ticks
LONGEST = 10  # ticks after which a pattern of residuals begins anew


def ticks_to_spend(pattern: list[bool], size: float = 1.5, most: int = 4000) -> int:
    """After how many ticks residuals in this pattern, again and again, have spent the budget; `most` if not by then."""
    mismatch = Mismatch(BUDGET)
    for tick, beyond in enumerate(chain.from_iterable(repeat(pattern)), 1):
        mismatch.observe({"x": size if beyond else 1.0, "v": 0.0})
        if mismatch.spent or tick == most:
            return tick
    raise AssertionError("patterns have no end")


@given(size=st.floats(1.0, 1e9, exclude_min=True))
def test_a_residual_at_every_tick_spends_the_budget_within_its_ticks(size: float) -> None:
    assert ticks_to_spend([True], size) <= BUDGET
    assert ticks_to_spend([True], 1.5) == BUDGET, "and one that is little beyond W not before"


@given(pattern=st.lists(st.booleans(), min_size=1, max_size=LONGEST), size=st.floats(1.0, 1e3, exclude_min=True))
def test_a_residual_in_more_than_a_fifth_of_the_ticks_spends_the_budget_in_the_stated_time(
    pattern: list[bool], size: float
) -> None:
    """Whatever the pattern: the level rises by 1.25 p - 0.25 a tick on average, and its order costs its length."""
    share = sum(pattern) / len(pattern)
    if sum(pattern) * 5 > len(pattern):
        assert ticks_to_spend(pattern, size) <= np.ceil(BUDGET / (1.25 * share - 0.25) - 1e-9) + LONGEST
    else:
        assert ticks_to_spend(pattern, most=400) == 400


@given(gaps=st.lists(st.integers(4, 30), min_size=1, max_size=50))
def test_residuals_in_less_than_a_fifth_of_the_ticks_never_add_up(gaps: list[int]) -> None:
    """Spread, that is: as many as the budget at once spend it, however long it was quiet before and after."""
    mismatch = Mismatch(BUDGET)
    for gap in gaps:
        assert mismatch.observe({"x": 1.5}) and mismatch.level == 1.0
        for _ in range(gap):
            mismatch.observe({"x": 0.5})
    assert ticks_to_spend([False] * 200 + [True] * BUDGET) == 200 + BUDGET


@given(beyond=st.lists(st.booleans(), max_size=60))
def test_the_level_is_the_largest_excess_of_the_ticks_up_to_now(beyond: list[bool]) -> None:
    """What the stated times follow from: residuals less what is forgiven, of the worst window that ends now."""
    mismatch, excess = Mismatch(1000), [1.0 if one else -0.25 for one in beyond]
    for tick, one in enumerate(beyond, 1):
        mismatch.observe({"x": 1.5 if one else 0.5})
        assert mismatch.level == max(sum(excess[first:tick]) for first in range(tick + 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_residual_that_is_no_number_is_beyond_every_bound(value: float) -> None:
    for others in ({}, {"v": 0.5}, {"v": 1e9}):
        assert Mismatch(4).observe({"x": value} | others) and Mismatch(4).observe(others | {"x": value})


def test_a_base_that_does_not_do_as_told_loses_its_support_and_latches() -> None:
    robot = config.load_robot("diff_drive").robot
    gate = Gate(robot, config.load_robot("diff_drive").gate, False, 0)

    def tick(now: int, v: float, ask: float) -> None:
        for name, vector in (("odom", [0, 0, 0, 1, v, 0]), ("scan", np.full(180, 5.0)), ("goal_pose", [3, 0])):
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
    assert 1 <= gate.counters.mismatches <= 4 and gate.state is State.LATCHED and "mismatch" in gate.cause
    assert gate.support.surcharge >= gate.config.mismatch_margin
    done, why = gate.reset(12 * PERIOD, 12 * PERIOD)
    assert not done and "mismatch" in why
    for now in range(13, 30):  # the plan asks it to stand, and it does
        tick(now, 0.0, 0.6)
    assert gate.reset(29 * PERIOD, 29 * PERIOD) == (True, "reset")


def test_states_too_far_apart_to_compare_certify_nothing() -> None:
    """Else a robot far from every member would never be noticed, as long as its states came seldom enough."""
    settings = config.load_robot("diff_drive")
    gate = Gate(settings.robot, settings.gate, False, 0)
    step = 310_000_000  # more than three periods
    reasons = []
    for tick in range(1, 8):
        now = tick * step if tick < 6 else 5 * step + (tick - 5) * 100_000_000
        for name, vector in (("odom", [0, 0, 0, 1, 0, 0]), ("scan", np.full(180, 3.0)), ("goal_pose", [3, 0])):
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
    gate = Gate(settings.robot, settings.gate, False, 0)
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
        for name, vector in (("odom", odom), ("scan", np.full(180, 3.0)), ("goal_pose", [3, 0])):
            gate.receive(name, np.array(vector, np.float64), stamp, now, now)
        candidates = gate.begin(now, now, (0.0, 0.06))
        assert candidates is not None
        action = np.array([0.0, 1.5 if i in asks else 0.0], np.float32)  # turning, in a round room: nothing else to see
        decision = gate.request(candidates.id, action, now)
        assert decision is not None
        command = tuple(decision.action.astype(float))
        if gate.state is State.LATCHED:
            break
    assert gate.state is State.LATCHED and " apart" in gate.cause


def test_in_lock_step_every_tick_of_a_gap_has_its_own_command() -> None:
    """A refused input leaves two ticks to compare, and a healthy robot is as predicted under what acted in each."""
    settings = config.load_robot("cart_pole")
    model = settings.robot.model
    gate = Gate(settings.robot, settings.gate, False, 0)
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
    gate = Gate(settings.robot, settings.gate, False, 0)
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

    def cycle(now: int) -> None:
        for name, vector in (("odom", [0, 0, 0, 1, 0, 0]), ("scan", np.full(180, 3.0)), ("goal_pose", [3, 0])):
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


def test_a_lidar_that_suddenly_sees_nothing_is_no_free_space() -> None:
    robot = config.load_robot("diff_drive").robot
    odom, room = np.array([0.0, 0, 0, 1, 0, 0]), np.full(180, 2.0)
    still = {"low": np.zeros(5), "high": np.zeros(5)}
    for blind, least in ((np.full(180, np.inf), 5.0), (np.where(np.arange(180) < 60, np.inf, room), 2.0)):
        found = robot.residuals({"odom": odom, "scan": room}, {"odom": odom, "scan": blind}, **still)
        assert found["part of the scan"] > least
    assert (
        robot.residuals({"odom": odom, "scan": room}, {"odom": odom, "scan": room}, **still)["part of the scan"] == 0.0
    )
    for silent in (np.nan, -np.inf, 2000.0):  # says nothing and contradicts nothing
        spoilt = {"odom": odom, "scan": np.full(180, silent)}
        assert robot.residuals({"odom": odom, "scan": room}, spoilt, **still)["part of the scan"] == 0.0
    shrunken = {"odom": odom, "scan": 0.7 * room}
    assert robot.residuals({"odom": odom, "scan": room}, shrunken, **still)["part of the scan"] > 8.0  # latches at once
    nearer = np.where(np.arange(180) < 20, 1.0, room)  # somebody steps in front of a wall: occlusion, not a hole
    assert (
        robot.residuals({"odom": odom, "scan": room}, {"odom": odom, "scan": nearer}, **still)["part of the scan"] < 1.0
    )


def test_a_changed_robot_is_noticed_within_the_budget_and_an_unchanged_one_is_not() -> None:
    settings = config.load_robot("cart_pole")
    assert all(one.ticks < 0 and one.largest <= 1.0 for one in meet(settings, settings.robot.world, 3))
    for change in ("load", "force_lost"):
        met = meet(settings, robots.claims_of(settings.robot).beyond[change], 5)
        assert all(0 <= one.ticks <= 15 and one.largest > 1.0 for one in met), (change, met)


@pytest.mark.parametrize(("change", "noticed"), [("wheels_slip", 2), ("load", 3), ("lidar_tilted", 3)])
def test_slipping_wheels_and_a_tilted_lidar_latch_without_a_visit(change: str, noticed: int) -> None:
    """A latch takes at most 11 ticks beyond W here: more than four, as single ones are forgiven.

    It would notice detection that became worse; figures are in docs/certificate_diff_drive.md, section 8.
    """
    settings = config.load_robot("diff_drive")
    met = meet(settings, robots.claims_of(settings.robot).beyond[change], 3)
    assert all(one.unsafe_visits == 0 for one in met), met
    latched = [one for one in met if one.ticks >= 0]
    assert len(latched) >= noticed and all(1 <= one.beyond <= 16 for one in latched), met
