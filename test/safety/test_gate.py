"""The gate as a state machine: what it executes, when it latches, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql import config
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import REASONS, VERDICTS, Decision, Gate, State
from safe_support_ql.safety.timing import Clock

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot
PERIOD = 100_000_000
OPEN = np.full(180, 3.0)
INSTANT = (0.0, 1e-6)  # latency of a command: real time, and next to none


def pole_gate(clock: Clock) -> Gate:
    settings = config.load_robot("cart_pole")
    return Gate(settings.robot, settings.gate, False, 0, clock=clock)


def test_closed_until_every_input_was_seen(gate: Gate) -> None:
    gate.receive("odom", np.array([0.0, 0, 0, 1, 0, 0]), PERIOD, PERIOD, PERIOD)
    assert gate.begin(PERIOD, PERIOD) is None
    decision = gate.expire(PERIOD)
    assert (decision.reason, decision.state) == ("closed", State.CLOSED)
    np.testing.assert_array_equal(decision.action, 0.0)


def test_a_certified_request_passes_unchanged(gate: Gate, cycle: Callable[..., Decision]) -> None:
    decision = cycle(gate, PERIOD, [0.6, 0.0])
    assert (decision.reason, decision.verdict, decision.state) == ("request", "certified", State.NOMINAL)
    np.testing.assert_array_equal(decision.action, np.array([0.6, 0.0], np.float32))


def test_an_uncertified_request_runs_the_plan_and_never_a_clipped_version(
    gate: Gate, cycle: Callable[..., Decision]
) -> None:
    wall = np.full(180, 0.42)
    decision = cycle(gate, PERIOD, [0.6, 0.0], scan=wall)
    assert (decision.reason, decision.intervention, decision.state) == ("uncertified_request", True, State.INTERVENING)
    np.testing.assert_array_equal(decision.action, 0.0)


@pytest.mark.parametrize("action", [[np.nan, 0.0], [np.inf, 0.0], [0.1], [0.1, 0.0, 0.0], [5.0, 0.0]])
def test_a_malformed_or_out_of_range_request_runs_the_plan(
    gate: Gate, action: list[float], cycle: Callable[..., Decision]
) -> None:
    decision = cycle(gate, PERIOD, action)
    assert decision.reason in ("malformed_request", "uncertified_request")
    np.testing.assert_array_equal(decision.action, 0.0)


def test_a_foreign_action_is_certified_and_appended(gate: Gate, cycle: Callable[..., Decision]) -> None:
    decision = cycle(gate, PERIOD, [0.317, 0.111])
    assert decision.reason == "request" and decision.candidates is not None
    assert decision.index == gate.support.size - 1
    np.testing.assert_array_equal(decision.candidates.actions[decision.index], np.array([0.317, 0.111], np.float32))


def test_a_policy_that_has_nothing_but_the_plan_to_ask_for_is_told_of(
    gate: Gate, cycle: Callable[..., Decision]
) -> None:
    """A scan that sees nothing stops the robot, and nobody should have to guess why it stands."""
    near = np.where(np.arange(180) < 177, -np.inf, 3.0)
    assert not cycle(gate, PERIOD, [0.0, 0.0]).message
    decision = cycle(gate, 2 * PERIOD, [0.0, 0.0], v=0.3, scan=near)
    assert decision.reason == "plan_requested" and "only the plan is left" in decision.message
    assert "only the plan is left" in str(gate.cause)
    assert not cycle(gate, 3 * PERIOD, [0.0, 0.0]).message


# --- closed until something is certified ------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("angle", [np.pi, 2 * np.pi, -np.pi])
def test_a_pole_that_hangs_or_is_counted_from_elsewhere_is_met_with_silence(angle: float, asks: bool) -> None:
    """No plan was ever certified there, and k would drive the cart out of its track at full force."""
    gate, now = pole_gate(Clock.REALTIME if asks else Clock.LOCKSTEP), 0
    for _ in range(100):
        now += 20_000_000
        state = np.array([0.0, angle, 0.0, 0.0])
        for name, vector in (("joint_states", state), ("goal_pose", np.zeros(1))):
            assert not gate.receive(name, vector, now, now, now)
        candidates = gate.begin(now, now, INSTANT if asks else None)
        assert candidates is not None and not candidates.certified.any()
        decision = gate.request(candidates.id, candidates.actions[4], now) if asks else None
        decision = decision or gate.expire(now)
        assert (decision.reason, decision.state, decision.candidates) == ("closed", State.CLOSED, None)
        np.testing.assert_array_equal(decision.action, 0.0)
    assert "margin 'lean' is -" in str(gate.cause) and f"; bring theta from {angle:.3f} rad to" in str(gate.cause)
    assert gate.counters.verdicts["no_proof"] == 0 or gate.counters.decisions == 100


def test_it_opens_by_itself_where_something_is_certified_and_then_the_plan_runs_on() -> None:
    """Once it is open, nothing that happens in the episode brings silence back: the plan runs, certified or not."""
    gate, period = pole_gate(Clock.REALTIME), 20_000_000

    def tick(number: int, angle: float) -> Decision:
        now = number * period
        gate.receive("joint_states", np.array([0.0, angle, 0.0, 0.0]), now, now, now)
        gate.receive("goal_pose", np.zeros(1), now, now, now)
        gate.begin(now, now, INSTANT)
        return gate.expire(now)

    assert tick(1, np.pi).reason == "closed" and not gate.opened
    for number in (1, 2):
        decision = tick(1 + number, 0.01)
        assert decision.reason == "closed" and f"certified in {number} of 3 successive states" in decision.message
    assert tick(4, 0.01).verdict == "certified" and gate.opened
    gate.watching = False  # what comes now is no motion of this robot
    decision = tick(5, 0.5)
    assert decision.reason == "no_request" and decision.action[0] == 10.0, "the stored plan, at full force"
    gate.latch(Cause("e-stop"))
    assert tick(6, 0.5).action[0] == 10.0
    done, why = gate.reset(6 * period, 6 * period)
    assert not done and "margin 'lean' is -0.300, too small by 0.30" in why
    assert tick(7, 0.5).action[0] == 10.0 and gate.state is State.LATCHED, "the plan goes on"
    tick(8, 0.01)
    assert gate.reset(8 * period, 8 * period) == (True, "reset")
    assert gate.opened and tick(9, 0.01).reason == "no_request" and gate.state is State.BACKUP


def test_a_latch_before_the_first_certificate_starts_no_plan_and_neither_does_its_reset() -> None:
    gate, period = pole_gate(Clock.REALTIME), 20_000_000
    gate.latch(Cause("e-stop"))
    for number in (1, 2, 3):
        now = number * period
        gate.receive("joint_states", np.array([0.0, np.pi, 0.0, 0.0]), now, now, now)
        gate.receive("goal_pose", np.zeros(1), now, now, now)
        if number == 3:
            assert gate.reset(now, now)[0] and gate.state is State.CLOSED
        gate.begin(now, now, INSTANT)
        decision = gate.expire(now)
        assert decision.reason == ("latched" if number < 3 else "closed")
        np.testing.assert_array_equal(decision.action, 0.0)
    gate.begin(9 * period, 9 * period, INSTANT)  # nor does a state that is missing
    np.testing.assert_array_equal(gate.expire(9 * period).action, 0.0)


@pytest.mark.parametrize("returns", [0, 1, 2, 3])
@pytest.mark.parametrize("nothing", [np.inf, np.nan, 0.0, 7.0, -np.inf])
def test_a_scan_with_fewer_than_three_returns_certifies_nothing(
    gate: Gate, returns: int, nothing: float, cycle: Callable[..., Decision]
) -> None:
    """A hall without walls and a dead lidar send the same, and only one of them may be driven in."""
    scan = np.full(180, nothing)
    scan[:returns] = 3.0
    decision = cycle(gate, PERIOD, [0.6, 0.0], scan=scan)
    if returns == 3 and nothing != -np.inf:  # the plan certifies, but nothing that enters what is unknown
        assert decision.reason == "uncertified_request"
    else:
        assert decision.reason == "closed" and not gate.opened
        np.testing.assert_array_equal(decision.action, 0.0)
    if returns < 3:
        assert f"scan: {returns} of 180 rays returned a range" in decision.message


def test_a_lidar_that_goes_blind_on_the_way_stops_the_robot_and_is_named(
    gate: Gate, cycle: Callable[..., Decision]
) -> None:
    cycle(gate, PERIOD, [0.6, 0.0])
    decision = cycle(gate, 2 * PERIOD, [0.6, 0.0], v=0.5, scan=np.full(180, np.inf))
    assert decision.reason == "uncertified_request" and "0 of 180 rays returned" in decision.message
    np.testing.assert_array_equal(decision.action, 0.0)
    for tick in range(3, 12):
        cycle(gate, tick * PERIOD, [0.6, 0.0], v=0.1, scan=np.full(180, np.inf))
    gate.latch(Cause("somebody pressed the e-stop"))
    done, why = gate.reset(11 * PERIOD, 11 * PERIOD)
    assert not done and "0 of 180 rays returned" in why


def test_only_the_newest_id_counts(gate: Gate, feed: Callable[..., None]) -> None:
    feed(gate, PERIOD)
    first = gate.begin(PERIOD, PERIOD)
    feed(gate, 2 * PERIOD)
    second = gate.begin(2 * PERIOD, 2 * PERIOD)
    assert first is not None and second is not None
    assert gate.request(first.id, np.zeros(2, np.float32), PERIOD) is None
    assert gate.request(second.id, np.zeros(2, np.float32), PERIOD) is not None
    assert gate.request(second.id, np.zeros(2, np.float32), PERIOD) is None, "a cycle is decided once"


def test_silence_runs_the_plan_then_latches_and_reset_refuses_while_it_lasts(
    gate: Gate, cycle: Callable[..., Decision]
) -> None:
    cycle(gate, PERIOD, [0.6, 0.0])
    states = []
    for tick in range(2, 20):
        assert gate.begin(tick * PERIOD, tick * PERIOD) is None or tick < 4
        states.append(gate.expire(tick * PERIOD))
    assert states[4].reason == "input_missing" and states[4].state is State.BACKUP
    np.testing.assert_array_equal(states[4].action, 0.0)
    assert states[-1].state is State.LATCHED and "odom" in str(gate.cause)
    done, why = gate.reset(20 * PERIOD, 20 * PERIOD)
    assert not done and "odom" in why
    decision = cycle(gate, 21 * PERIOD, [0.6, 0.0])
    assert (decision.reason, decision.state) == ("latched", State.LATCHED)
    np.testing.assert_array_equal(decision.action, 0.0)
    assert gate.reset(21 * PERIOD, 21 * PERIOD) == (True, "reset")
    assert cycle(gate, 22 * PERIOD, [0.6, 0.0]).state is State.NOMINAL


def test_an_answer_later_than_certified_for_is_none(realtime: Gate, feed: Callable[..., None]) -> None:
    feed(realtime, PERIOD)
    candidates = realtime.begin(PERIOD, PERIOD, (0.0, 0.05))
    assert candidates is not None
    assert realtime.request(candidates.id, np.array([0.6, 0.0], np.float32), PERIOD + 60_000_000) is None
    assert realtime.expire(PERIOD + 10 * PERIOD).candidates is None, "nor is k of a state that old feedback"


def test_nonsense_from_the_base_is_no_state(gate: Gate, cycle: Callable[..., Decision]) -> None:
    decision = cycle(gate, PERIOD, [0.6, 0.0])
    decision = cycle(gate, 2 * PERIOD, [0.6, 0.0], v=60.0)
    assert decision.reason == "input_missing" and "units" in decision.message


def test_what_a_ray_says_that_says_nothing(gate: Gate, cycle: Callable[..., Decision]) -> None:
    """Too near is occupied. A single ray without information hides no obstacle, a sector of them may."""
    for bad, rays, reason in (
        (-np.inf, 1, "uncertified_request"), (np.nan, 1, "request"), (0.0, 1, "request"), (1e9, 1, "request"),
        (np.nan, 40, "uncertified_request"), (0.0, 40, "uncertified_request"), (7.0, 40, "uncertified_request"),
    ):  # fmt: skip
        scan = OPEN.copy()
        scan[90 : 90 + rays] = bad
        gate.new_episode(1)
        assert cycle(gate, PERIOD, [0.0, 0.0]).verdict == "certified"
        assert cycle(gate, 2 * PERIOD, [0.6, 0.0], scan=scan).reason == reason, (bad, rays)


def test_silent_rays_are_free_once_they_have_returned(gate: Gate, cycle: Callable[..., Decision]) -> None:
    ahead = np.abs(np.arange(180) - 90) < 30
    silent = np.where(ahead, np.inf, 3.0)
    decision = cycle(gate, PERIOD, [0.6, 0.0], scan=silent)
    assert decision.reason == "uncertified_request", "they never did"
    assert cycle(gate, 2 * PERIOD, [0.0, 1.5], scan=silent).reason == "request", "a turn shows them other things"
    assert cycle(gate, 3 * PERIOD, [0.0, 0.0], scan=np.where(ahead, 5.5, 3.0)).verdict == "certified"
    assert cycle(gate, 4 * PERIOD, [0.6, 0.0], scan=silent).reason == "request"


def test_a_message_names_the_rays_that_say_nothing_and_the_setting(gate: Gate, cycle: Callable[..., Decision]) -> None:
    cycle(gate, PERIOD, [0.0, 0.0])
    own = np.full(180, 0.12)  # the robot's own parts, all around
    own[:40] = 0.0
    decision = cycle(gate, 2 * PERIOD, [0.0, 0.0], scan=own)
    assert "140 rays at -100..178 degrees end inside the footprint, the nearest at 0.12 m" in decision.message
    gate.new_episode(2)
    decision = cycle(gate, 3 * PERIOD, [0.6, 0.0], scan=np.zeros(180))
    assert decision.reason == "closed" and "set 'nothing: zero' for it" in decision.message


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "good",
                "no_input",
                "nan_scan",
                "near",
                "bad_request",
                "old_request",
                "none",
                "heartbeat",
                "estop",
                "reset",
                "reset_blind",
                "reset_unrecorded",
            ]
        ),
        st.integers(0, 53),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=40,
)


@given(events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_every_sequence_executes_a_certified_action_or_the_plan(
    events: list[tuple[str, int, int]], feed: Callable[..., None]
) -> None:
    gate = Gate(ROBOT, SETTINGS.gate, False, 0)
    gate.watching = False
    now, sequence, threshold = PERIOD, -1, 0.0
    for event, index, tenths in events:
        unseen = event in ("no_input", "reset_blind")
        now += PERIOD * (max(tenths, 3 if event == "reset_blind" else 0) if unseen else 1)
        if event == "heartbeat":
            gate.recorder_alive(gate.sequence, now)
        if event == "estop":
            gate.latch(Cause("e-stop"))
        if event == "reset":
            gate.reset(now, now)
        if event == "reset_blind" and gate.state is State.LATCHED:
            done, why = gate.reset(now, now)
            assert not done and "old" in why, "nothing was seen for three periods"
        if event == "reset_unrecorded" and gate.state is State.LATCHED:
            gate.recorder_alive(gate.sequence, now - 20 * PERIOD)
            feed(gate, now)
            done, why = gate.reset(now, now)
            assert not done and "recorder" in why, "the recorder was last heard of two seconds ago"
        if not unseen:
            scan = np.full(180, 0.3 + 0.02 * index) if event == "near" else OPEN.copy()
            if event == "nan_scan":
                scan[index] = np.nan
            feed(gate, now, scan=scan)
        was_latched = gate.state is State.LATCHED
        candidates = gate.begin(now, now)
        decision = None
        if candidates is not None:
            if gate.support.in_band and threshold > 0.0:
                assert gate.support.threshold >= threshold, "the latched threshold never goes down inside the band"
            threshold = gate.support.threshold if gate.support.in_band else 0.0
            action = candidates.actions[index].copy()
            if event == "bad_request":
                action[0] = np.nan
            if event not in ("none", "old_request"):
                decision = gate.request(candidates.id, action, now)
            elif event == "old_request":
                assert gate.request(candidates.id - 1, action, now) is None
        decision = decision or gate.expire(now)
        assert decision.sequence == sequence + 1
        sequence = decision.sequence
        assert decision.reason in REASONS and decision.verdict in VERDICTS
        assert (decision.action >= ROBOT.action_low - 1e-6).all() and (
            decision.action <= ROBOT.action_high + 1e-6
        ).all()
        if decision.candidates is None:
            np.testing.assert_array_equal(decision.action, 0.0)
        else:
            kept = decision.candidates
            assert kept.certified[decision.index] or kept.is_plan[decision.index]
            np.testing.assert_array_equal(decision.action, kept.actions[decision.index])
            if decision.reason == "request":
                assert kept.certified[decision.index] and kept.margin[decision.index] >= 0
        if was_latched:
            assert decision.state is State.LATCHED
    # Every state has an exit: with good inputs and a reset the gate is nominal again.
    for _ in range(3):
        now += PERIOD
        gate.recorder_alive(gate.sequence, now)
        feed(gate, now)
        gate.reset(now, now)
        candidates = gate.begin(now, now)
        assert candidates is not None
        gate.request(candidates.id, np.array([0.6, 0.0], np.float32), now)
    assert gate.state is State.NOMINAL
