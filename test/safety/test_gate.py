"""The gate as a state machine: what it executes, when it latches, and how it comes back."""

from collections import deque
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql import config
from safe_support_ql.safety.gate import REASONS, UNRECORDED, VERDICTS, Decision, Gate, GateConfig, State

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot
PERIOD = 100_000_000
OPEN = np.full(180, 3.0)
INSTANT = (0.0, 1e-6)  # latency of a command: real time, and next to none
SHARED = Gate(ROBOT, SETTINGS.gate, False, 0)  # compiled once; tests renew its episode and state
SHARED.watching = False  # its inputs are no robot's that does as told; see test_mismatch.py


@cache
def pole_gate() -> Gate:
    """A gate of the cart-pole, compiled once."""
    settings = config.load_robot("cart_pole")
    return Gate(settings.robot, settings.gate, False, 0)


@pytest.fixture
def gate() -> Gate:
    return fresh()


def fresh() -> Gate:
    """A gate as new, without compiling again."""
    support = SHARED.support
    new = object.__new__(Gate)
    new.__dict__.update(vars(SHARED))
    Gate_init = {"state": State.CLOSED, "cause": "", "sequence": 0, "id": 0, "recorder_required": False}
    new.__dict__.update(Gate_init)
    new.counters = type(SHARED.counters)()
    new._inputs, new._problems = {}, {}
    new._recorder_ns = new._missing_since_ns = None
    new._unrecorded = deque(maxlen=UNRECORDED)
    new._forget()
    support._sent.clear()
    support.reset(0)
    return new


def feed(gate: Gate, now: int, v: float = 0.0, scan: np.ndarray = OPEN) -> None:
    for name, vector in (("odom", [0, 0, 0, 1, v, 0]), ("scan", scan), ("goal_pose", [3, 0])):
        gate.receive(name, np.array(vector, np.float64), now, now, now)


def cycle(gate: Gate, now: int, action: list[float] | None, v: float = 0.0, scan: np.ndarray = OPEN) -> Decision:
    feed(gate, now, v, scan)
    candidates = gate.begin(now, now)
    if candidates is None or action is None:
        return gate.expire(now)
    decision = gate.request(candidates.id, np.array(action, np.float32), now)
    assert decision is not None
    return decision


def test_closed_until_every_input_was_seen(gate: Gate) -> None:
    gate.receive("odom", np.array([0.0, 0, 0, 1, 0, 0]), PERIOD, PERIOD, PERIOD)
    assert gate.begin(PERIOD, PERIOD) is None
    decision = gate.expire(PERIOD)
    assert (decision.reason, decision.state) == ("closed", State.CLOSED)
    np.testing.assert_array_equal(decision.action, 0.0)


def test_a_certified_request_passes_unchanged(gate: Gate) -> None:
    decision = cycle(gate, PERIOD, [0.6, 0.0])
    assert (decision.reason, decision.verdict, decision.state) == ("request", "certified", State.NOMINAL)
    np.testing.assert_array_equal(decision.action, np.array([0.6, 0.0], np.float32))


def test_an_uncertified_request_runs_the_plan_and_never_a_clipped_version(gate: Gate) -> None:
    wall = np.full(180, 0.42)
    decision = cycle(gate, PERIOD, [0.6, 0.0], scan=wall)
    assert (decision.reason, decision.intervention, decision.state) == ("uncertified_request", True, State.INTERVENING)
    np.testing.assert_array_equal(decision.action, 0.0)


@pytest.mark.parametrize("action", [[np.nan, 0.0], [np.inf, 0.0], [0.1], [0.1, 0.0, 0.0], [5.0, 0.0]])
def test_a_malformed_or_out_of_range_request_runs_the_plan(gate: Gate, action: list[float]) -> None:
    decision = cycle(gate, PERIOD, action)
    assert decision.reason in ("malformed_request", "uncertified_request")
    np.testing.assert_array_equal(decision.action, 0.0)


def test_a_foreign_action_is_certified_and_appended(gate: Gate) -> None:
    decision = cycle(gate, PERIOD, [0.317, 0.111])
    assert decision.reason == "request" and decision.candidates is not None
    assert decision.index == gate.support.size - 1
    np.testing.assert_array_equal(decision.candidates.actions[decision.index], np.array([0.317, 0.111], np.float32))


def test_a_policy_that_has_nothing_but_the_plan_to_ask_for_is_told_of(gate: Gate) -> None:
    """A scan that sees nothing stops the robot, and nobody should have to guess why it stands."""
    near = np.where(np.arange(180) < 177, np.nan, 3.0)
    assert not cycle(gate, PERIOD, [0.0, 0.0]).message
    decision = cycle(gate, 2 * PERIOD, [0.0, 0.0], v=0.3, scan=near)
    assert decision.reason == "plan_requested" and "only the plan is left" in decision.message
    assert "only the plan is left" in gate.cause
    assert not cycle(gate, 3 * PERIOD, [0.0, 0.0]).message


# --- closed until something is certified ------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("angle", [np.pi, 2 * np.pi, -np.pi])
def test_a_pole_that_hangs_or_is_counted_from_elsewhere_is_met_with_silence(angle: float, asks: bool) -> None:
    """No plan was ever certified there, and k would drive the cart out of its track at full force."""
    gate, now = pole_gate(), 0
    gate.state = State.CLOSED
    gate.new_episode(1)
    for _ in range(100):
        now += 20_000_000
        state = np.array([0.0, angle, 0.0, 0.0])
        for name, vector in (("joint_states", state), ("goal_pose", np.zeros(1))):
            assert not gate.receive(name, vector, now, now, now)
        candidates = gate.begin(now, now, INSTANT if asks else (0.0,))
        assert candidates is not None and not candidates.certified.any()
        decision = gate.request(candidates.id, candidates.actions[4], now) if asks else None
        decision = decision or gate.expire(now)
        assert (decision.reason, decision.state, decision.candidates) == ("closed", State.CLOSED, None)
        np.testing.assert_array_equal(decision.action, 0.0)
    assert "margin 'lean' is -" in gate.cause and "; bring the robot" in gate.cause
    assert gate.counters.verdicts["no_proof"] == 0 or gate.counters.decisions == 100


def test_it_opens_by_itself_where_something_is_certified_and_then_the_plan_runs_on() -> None:
    """Once it is open, nothing that happens in the episode brings silence back: the plan runs, certified or not."""
    gate, period = pole_gate(), 20_000_000
    gate.state = State.CLOSED
    gate.new_episode(2)

    def tick(number: int, angle: float) -> Decision:
        now = number * period
        gate.receive("joint_states", np.array([0.0, angle, 0.0, 0.0]), now, now, now)
        gate.receive("goal_pose", np.zeros(1), now, now, now)
        gate.begin(now, now, INSTANT)
        return gate.expire(now)

    assert tick(1, np.pi).reason == "closed" and not gate.opened
    assert tick(2, 0.01).verdict == "certified" and gate.opened
    gate.watching = False  # what comes now is no motion of this robot
    decision = tick(3, 0.5)
    assert decision.reason == "no_request" and decision.action[0] == 10.0, "the stored plan, at full force"
    gate.latch("e-stop")
    assert tick(4, 0.5).action[0] == 10.0
    assert gate.reset(4 * period, 4 * period)[0]
    assert tick(5, 0.5).action[0] == 10.0 and gate.state is State.BACKUP
    gate.watching = True


def test_a_latch_before_the_first_certificate_starts_no_plan_and_neither_does_its_reset() -> None:
    gate, period = pole_gate(), 20_000_000
    gate.state = State.CLOSED
    gate.new_episode(3)
    gate.latch("e-stop")
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
def test_a_scan_with_fewer_than_three_returns_certifies_nothing(gate: Gate, returns: int, nothing: float) -> None:
    """A hall without walls and a dead lidar send the same, and only one of them may be driven in."""
    scan = np.full(180, nothing)
    scan[:returns] = 3.0
    decision = cycle(gate, PERIOD, [0.6, 0.0], scan=scan)
    if returns == 3 and nothing == np.inf:
        assert decision.reason == "request"
    else:
        assert decision.reason == "closed" and not gate.opened
        np.testing.assert_array_equal(decision.action, 0.0)
    if returns < 3:
        assert f"scan: {returns} of 180 rays returned a range" in decision.message


def test_a_lidar_that_goes_blind_on_the_way_stops_the_robot_and_is_named(gate: Gate) -> None:
    cycle(gate, PERIOD, [0.6, 0.0])
    decision = cycle(gate, 2 * PERIOD, [0.6, 0.0], v=0.5, scan=np.full(180, np.inf))
    assert decision.reason == "uncertified_request" and "0 of 180 rays returned" in decision.message
    np.testing.assert_array_equal(decision.action, 0.0)


def test_only_the_newest_id_counts(gate: Gate) -> None:
    feed(gate, PERIOD)
    first = gate.begin(PERIOD, PERIOD)
    feed(gate, 2 * PERIOD)
    second = gate.begin(2 * PERIOD, 2 * PERIOD)
    assert first is not None and second is not None
    assert gate.request(first.id, np.zeros(2, np.float32), PERIOD) is None
    assert gate.request(second.id, np.zeros(2, np.float32), PERIOD) is not None
    assert gate.request(second.id, np.zeros(2, np.float32), PERIOD) is None, "a cycle is decided once"


@pytest.mark.parametrize(
    ("vector", "stamp", "words"),
    [
        (np.array([0, 0, 0, 1, np.nan, 0.0]), 2 * PERIOD, "NaN"),
        (np.array([0, 0, 0, 1, 0.0]), 2 * PERIOD, "expected 6"),
        (np.array([0, 0, 0, 1, 0.0, 0]), PERIOD, "advance"),
        (np.array([0, 0, 0, 1, 0.0, 0]), 9 * PERIOD, "future"),
    ],
)
def test_a_bad_input_is_refused_with_its_reason(gate: Gate, vector: np.ndarray, stamp: int, words: str) -> None:
    feed(gate, PERIOD)
    assert words in gate.receive("odom", vector, stamp, 2 * PERIOD, 2 * PERIOD)


def test_silence_runs_the_plan_then_latches_and_reset_refuses_while_it_lasts(gate: Gate) -> None:
    cycle(gate, PERIOD, [0.6, 0.0])
    states = []
    for tick in range(2, 20):
        assert gate.begin(tick * PERIOD, tick * PERIOD) is None or tick < 4
        states.append(gate.expire(tick * PERIOD))
    assert states[4].reason == "input_missing" and states[4].state is State.BACKUP
    np.testing.assert_array_equal(states[4].action, 0.0)
    assert states[-1].state is State.LATCHED and "odom" in gate.cause
    done, why = gate.reset(20 * PERIOD, 20 * PERIOD)
    assert not done and "odom" in why
    decision = cycle(gate, 21 * PERIOD, [0.6, 0.0])
    assert (decision.reason, decision.state) == ("latched", State.LATCHED)
    np.testing.assert_array_equal(decision.action, 0.0)
    assert gate.reset(21 * PERIOD, 21 * PERIOD) == (True, "reset")
    assert cycle(gate, 22 * PERIOD, [0.6, 0.0]).state is State.NOMINAL


@pytest.mark.parametrize("uneven", [False, True])
def test_a_blind_plan_starts_where_the_robot_is_and_not_where_it_was_seen_last(uneven: bool) -> None:
    """The cart-pole goes on for input_age before it counts as blind; a plan for where it was then topples it.

    In real time blind decisions come when they come, and some twice in an instant.
    """
    settings = config.load_robot("cart_pole")
    robot, model = settings.robot, settings.robot.model
    gate = Gate(robot, settings.gate, False, 0)
    period = round(1e9 * robot.period)
    gate.receive("goal_pose", np.zeros(1), period, period, period)
    truth, now, blind_ticks, command = np.array([0.1, 0.02, 0.1, 0.0]), 0, 0, (0.0,)
    for tick in range(1, 40):
        passed = period if tick <= 10 or not uneven else (period * 6 // 5, period * 7 // 5)[tick % 2]
        truth = np.array(model.dynamics.step(tuple(truth), command, tuple(model.dynamics.members[0]), passed / 1e9))
        assert (robot.truth_margins(truth) > 0).all()
        now += passed
        if tick <= 10:
            gate.receive("joint_states", truth, now, now, now)
        gate.begin(now, now, INSTANT)
        decision = gate.expire(now)
        command = tuple(decision.action.astype(float))
        if decision.reason == "input_missing":
            blind_ticks += 1
            assert np.allclose(decision.action, gate.support.plan_action(truth), atol=2e-2), tick
            np.testing.assert_array_equal(gate.expire(now).action, decision.action)
    assert blind_ticks >= 20


@pytest.mark.parametrize("cause", ["e-stop", "silence"])
@pytest.mark.parametrize("ticks", [1, 3, 10, 60])
def test_after_a_reset_the_plan_goes_on_from_where_the_robot_is_without_a_jump(cause: str, ticks: int) -> None:
    """Its centre is the one that it had when it latched, and its state the present one: nothing starts anew."""
    gate = pole_gate()
    robot, model = gate.robot, gate.robot.model
    rng, period = np.random.default_rng(ticks), round(1e9 * robot.period)
    truth, command, now = np.zeros(4), (0.0,), 0
    gate.state = State.CLOSED
    gate.new_episode(ticks)

    def k(state: np.ndarray, centre: int) -> float:
        return float(
            model.certificate.backup(tuple(state), model.certificate.centre(centre), model.certificate.constants)[0]
        )

    def cycle(asks: bool = False, blind: bool = False, done: str = "") -> Decision:
        """A tick of the nominal model and what is decided then, after a latch or a reset where one is to be done."""
        nonlocal truth, command, now
        truth = (
            np.array(model.dynamics.step(tuple(truth), command, tuple(model.dynamics.members[0]), robot.period))
            if now
            else truth
        )
        now += period
        if not blind:
            for name, vector in (("joint_states", truth), ("goal_pose", np.zeros(1))):
                assert not gate.receive(name, vector, now, now, now)
        if done == "reset":
            assert gate.reset(now, now) == (True, "reset")
        candidates = gate.begin(now, now)
        if done == "latch":
            gate.latch(cause)
        decision = None
        if asks and candidates is not None and candidates.offered.any():  # for what moves the plan's centre on
            passed = np.flatnonzero(candidates.offered)
            best = passed[np.argmax(candidates.centre[passed] + rng.random(len(passed)))]
            decision = gate.request(candidates.id, candidates.actions[best], now)
        decision = decision or gate.expire(now)
        command = tuple(decision.action.astype(float))
        return decision

    cycle()
    first = gate.support.centre
    while gate.support.centre < first + 2:
        cycle(asks=True)
        assert gate.state is not State.LATCHED and now < 1000 * period
    centre, near = gate.support.centre, 1e-5
    if cause == "silence":
        for _ in range(2):
            cycle()  # the plan: a silence in which more than that may have acted is evidence that holds a latch
        while gate.state is not State.LATCHED:
            last = cycle(blind=True)
        near = 2e-2  # its plan followed a prediction, in commands of 32 bits
    else:
        last = cycle(done="latch")
    for _ in range(ticks):
        last = cycle(blind=cause == "silence")
        assert last.state is State.LATCHED
    before = truth
    resumed = cycle(done="reset")
    assert resumed.reason == "no_request" and gate.support.centre == centre
    assert resumed.action[0] == pytest.approx(k(truth, centre), abs=1e-5)
    jump = abs(resumed.action[0] - last.action[0])
    assert jump <= abs(k(truth, centre) - k(before, centre)) + near


def test_in_lock_step_a_refused_input_leaves_no_state(gate: Gate) -> None:
    """The state of the tick before is no substitute: nobody can tell which commands acted since."""
    cycle(gate, PERIOD, [0.6, 0.0])
    gate.receive("odom", np.array([0.0, 0, 0, 1, np.nan, 0]), 2 * PERIOD, 2 * PERIOD, 2 * PERIOD)
    gate.receive("scan", OPEN, 2 * PERIOD, 2 * PERIOD, 2 * PERIOD)
    assert gate.begin(2 * PERIOD, 2 * PERIOD) is None
    assert "NaN" in gate.expire(2 * PERIOD).message
    assert cycle(gate, 3 * PERIOD, [0.6, 0.0]).reason == "request"


def test_a_reset_asks_for_a_state_that_makes_sense(gate: Gate) -> None:
    """Absurd twists latch as missing inputs do, so they must also hold the latch."""
    cycle(gate, PERIOD, [0.0, 0.0])
    for tick in range(2, 16):
        feed(gate, tick * PERIOD, v=60.0)
        assert gate.begin(tick * PERIOD, tick * PERIOD, INSTANT) is None
        gate.expire(tick * PERIOD)
    assert gate.state is State.LATCHED
    done, why = gate.reset(15 * PERIOD, 15 * PERIOD)
    assert not done and why.startswith("still odom")


def test_a_stopped_stamp_clock_does_not_hide_old_inputs(gate: Gate) -> None:
    feed(gate, PERIOD)
    assert gate.begin(PERIOD, 11 * PERIOD, INSTANT) is None, "stamps say fresh, the steady clock says old"
    assert gate.begin(PERIOD, 11 * PERIOD) is not None, "in lock-step the world waits"


def test_a_newer_speed_beside_an_older_scan_is_not_one_state(gate: Gate) -> None:
    feed(gate, PERIOD, v=0.6)
    late = PERIOD + 90_000_000
    gate.receive("odom", np.array([0.0, 0, 0, 1, 0.0, 0]), late, late, late)
    assert gate.begin(late, late, INSTANT) is not None
    assert gate._estimate is not None and gate._estimate.state[3] == 0.6, "the speed at the scan's own time"
    assert gate._timing.delays == (1, 2), "and the way driven since is rolled out"
    gate.expire(late)
    much_later = PERIOD + 200_000_000
    gate.new_episode(1)
    gate.receive("scan", OPEN, PERIOD, much_later, much_later)
    gate.receive("goal_pose", np.array([3.0, 0.0]), PERIOD, much_later, much_later)
    gate.receive("odom", np.array([0.0, 0, 0, 1, 0.6, 0]), much_later, much_later, much_later)
    assert gate.begin(much_later, much_later, INSTANT) is None
    assert "apart" in gate.expire(much_later).message or "away" in gate.cause


def test_an_answer_later_than_certified_for_is_none(gate: Gate) -> None:
    feed(gate, PERIOD)
    candidates = gate.begin(PERIOD, PERIOD, (0.0, 0.05))
    assert candidates is not None
    assert gate.request(candidates.id, np.array([0.6, 0.0], np.float32), PERIOD + 60_000_000) is None
    assert gate.expire(PERIOD + 10 * PERIOD).candidates is None, "nor is k of a state that old feedback"


def test_in_lock_step_a_slow_host_makes_no_state_old(gate: Gate) -> None:
    feed(gate, PERIOD)
    assert gate.begin(PERIOD, PERIOD + 3_000_000) is not None
    assert gate._timing.delays == (0,)
    gate.expire(PERIOD + 3_000_000)
    feed(gate, 2 * PERIOD)
    assert gate.begin(2 * PERIOD, 2 * PERIOD + 60_000_000, (0.0, 0.05)) is not None
    assert max(gate._timing.delays) == 3, "in real time the steady clock counts"


def test_every_command_since_an_old_state_counts(gate: Gate) -> None:
    wall = np.full(180, 0.75)
    for now, past in ((PERIOD, [0.0, 0.0]), (5 * PERIOD, [0.6, 0.0])):
        gate.new_episode(1)
        gate.support.note(np.array(past), now)
        gate.support.note(np.zeros(2), now + PERIOD)
        feed(gate, now, scan=wall)
        late = now + 200_000_000
        candidates = gate.begin(late, late, INSTANT)
        assert candidates is not None
        if past[0] == 0.0:
            free = candidates.margin.max()
    assert candidates.margin.max() < free, "a fast command that may still have acted costs margin"


def test_past_commands_are_rolled_out_in_every_way_in_which_they_may_have_acted(gate: Gate) -> None:
    support, dt = gate.support, PERIOD // ROBOT.model.dynamics.checks_per_tick
    one, two = np.array([0.1, 0.0]), np.array([0.2, 0.0])
    assert support.past(0, 0)[0].shape == (1, 0, 2)
    np.testing.assert_array_equal(support.past(0, 2)[0], np.zeros((1, 2, 2)))
    support.note(one, 10 * dt)
    support.note(two, 12 * dt + dt // 2)  # in the middle of a check
    (prompt, late), known = support.past(11 * dt, 4)
    assert known
    np.testing.assert_array_equal(prompt, [one, two, two, two])
    np.testing.assert_array_equal(late, [one, one, two, two])
    assert len(support.past(20 * dt, 3)[0]) == 1, "long ago, all the same"
    three = np.array([0.3, 0.0])
    support.note(three, 13 * dt + dt // 2)
    rows, known = support.past(12 * dt, 2)
    assert known
    np.testing.assert_array_equal(rows, [[two, three], [two, two], [one, three], [one, two]])


def test_a_drive_that_has_stopped_by_itself_acts_as_under_zero(gate: Gate) -> None:
    """A command older than the drive's timeout acts no more, and around it nobody can tell."""
    sent, timeout = 10 * PERIOD, round(1e9 * SETTINGS.robot.parameters.drive_timeout)
    gate.support.note(np.array([0.6, 0.0]), sent)
    for since, acting in (
        (sent + 10_000_000, {0.6}), (sent + timeout - 10_000_000, {0.6, 0.0}), (sent + timeout + 10_000_000, {0.0})
    ):  # fmt: skip
        past, known = gate.support.past(since, 1)
        assert known and set(past[:, 0, 0]) == acting


def test_where_nobody_can_tell_what_acted_nothing_is_certified(gate: Gate) -> None:
    feed(gate, PERIOD)
    gate.begin(PERIOD, PERIOD, (0.0, 0.05))
    gate.request(gate.id, np.array([0.3, 0.0], np.float32), PERIOD)
    for i in range(40):  # a commander gone wild
        gate.support.note(np.array([0.01 * i, 0.0]), PERIOD + i * 10_000_000)
    feed(gate, 2 * PERIOD)
    candidates = gate.begin(2 * PERIOD + 200_000_000, 2 * PERIOD + 200_000_000, (0.0, 0.05))
    assert candidates is not None
    assert not candidates.certified.any()
    decision = gate.request(gate.id, np.array([0.3, 0.0], np.float32), 2 * PERIOD + 200_000_000)
    assert decision is not None and decision.verdict != "certified"
    assert "too many commands may have acted" in decision.message and "0.200 s old" in decision.message


def test_commands_noted_out_of_order_leave_at_least_one_sequence(gate: Gate) -> None:
    support, rng = gate.support, np.random.default_rng(0)
    for _ in range(300):
        for moment in rng.integers(0, 10 * PERIOD, 12):
            support.note(rng.uniform(-0.1, 0.5, 2), int(moment))
        rows, _ = support.past(int(rng.integers(0, 8 * PERIOD)), 4)
        assert rows.shape[0] >= 1 and rows.shape[1:] == (4, 2)


def test_what_was_never_certified_is_not_held(gate: Gate) -> None:
    boxed_in = np.full(180, 0.2)
    assert [cycle(gate, tick * PERIOD, None, scan=boxed_in).verdict for tick in (1, 2, 3)] == ["no_proof"] * 3


def test_in_real_time_a_command_is_certified_to_act_longer(gate: Gate) -> None:
    feed(gate, PERIOD)
    assert gate.begin(PERIOD, PERIOD, (0.0, 0.2)) is not None
    assert max(gate._timing.holds) == ROBOT.model.dynamics.checks_per_tick + 5, "0.2 s, and its way to the drive"


def test_a_stale_recorder_stops_the_robot(gate: Gate) -> None:
    gate.recorder_alive(0, 0)
    assert cycle(gate, PERIOD, [0.6, 0.0]).reason == "request"
    late = PERIOD + int(GateConfig().recorder_timeout_s * 1e9) + PERIOD
    decision = cycle(gate, late, [0.6, 0.0])
    assert decision.reason == "recorder_stale" and "heartbeat is 1.2 s old" in decision.message
    gate.recorder_alive(gate.sequence, late)
    assert cycle(gate, late + PERIOD, [0.6, 0.0]).reason == "request"


def test_a_recorder_that_lags_stops_the_robot_as_a_silent_one_does(gate: Gate) -> None:
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
    gate.latch("e-stop")
    feed(gate, now)
    assert gate.reset(now, now) == (False, "still " + gate.recorder_problem(now))
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
    assert "decision 1000" in gate.recorder_problem(now)
    gate.recorder_alive(1015, now)
    assert gate.recorder_problem(now) == ""
    gate.recorder_alive(1020, now)
    assert gate.recorder_problem(now) == "" and not gate._unrecorded
    many = now + 60 * 10**9
    for _ in range(UNRECORDED + 10):
        gate.expire(many)
    gate.recorder_alive(1020, many)
    assert len(gate._unrecorded) == UNRECORDED, "nobody who confirms nothing fills the memory"


def test_a_recorder_that_confirms_what_was_not_decided_yet_confirms_nothing(gate: Gate) -> None:
    """It writes another run, or its numbers and the gate's are not the same."""
    gate.recorder_alive(0, PERIOD)
    assert cycle(gate, PERIOD, [0.6, 0.0]).reason == "request"
    for number in (gate.sequence + 1, 2**64 - 1):
        gate.recorder_alive(number, 2 * PERIOD)
        assert len(gate._unrecorded) == gate.sequence, "nothing of this run was written"
        decision = cycle(gate, number % 1000 * PERIOD + 2 * PERIOD, [0.6, 0.0])
        assert decision.reason == "recorder_stale" and f"up to {number}" in decision.message
    gate.recorder_alive(gate.sequence, gate._decided_ns)
    assert gate.recorder_problem(gate._decided_ns) == ""


def test_the_plan_that_runs_later_than_certified_for_is_not_certified(gate: Gate) -> None:
    for late, verdict in ((50_000_000, "certified"), (90_000_000, "plan_held")):
        gate.new_episode(1)
        for now, after in ((PERIOD, 0), (2 * PERIOD, late)):
            feed(gate, now)
            assert gate.begin(now, now, (0.0, 0.06)) is not None
            decision = gate.expire(now + after)
        assert decision.candidates is not None and decision.candidates.certified[decision.index]
        assert decision.verdict == verdict
    gate.new_episode(2)
    feed(gate, PERIOD)
    gate.begin(PERIOD, PERIOD, (0.0, 0.06))
    decision = gate.expire(PERIOD + 90_000_000)
    assert decision.reason == "closed" and "in time" in decision.message, "nor does it open the gate"


def test_a_new_episode_does_not_forget_that_the_last_command_may_still_act(gate: Gate) -> None:
    wall = np.full(180, 0.75)
    margins = []
    for last in (0.0, 0.6):
        gate.new_episode(1)
        gate.support.note(np.array([last, 0.0]), PERIOD)
        gate.new_episode(2)
        feed(gate, PERIOD, v=0.3, scan=wall)
        candidates = gate.begin(PERIOD + PERIOD, PERIOD + PERIOD, (0.0, 0.06))
        assert candidates is not None
        margins.append(candidates.margin[candidates.plan])
    assert margins[1] < margins[0]


def test_nonsense_from_the_base_is_no_state(gate: Gate) -> None:
    decision = cycle(gate, PERIOD, [0.6, 0.0])
    decision = cycle(gate, 2 * PERIOD, [0.6, 0.0], v=60.0)
    assert decision.reason == "input_missing" and "units" in decision.message


def test_invalid_ranges_are_occupied(gate: Gate) -> None:
    for bad in (np.nan, -np.inf, -1.0, 1e9):
        scan = OPEN.copy()
        scan[90] = bad
        gate.new_episode(1)
        assert cycle(gate, PERIOD, [0.0, 0.0]).verdict == "certified"
        decision = cycle(gate, 2 * PERIOD, [0.6, 0.0], scan=scan)
        assert decision.reason == "uncertified_request", bad


def test_clear_rays_are_free_up_to_the_range(gate: Gate) -> None:
    assert cycle(gate, PERIOD, [0.6, 0.0], scan=np.where(np.arange(180) < 3, 3.0, np.inf)).reason == "request"


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
def test_every_sequence_executes_a_certified_action_or_the_plan(events: list[tuple[str, int, int]]) -> None:
    gate = fresh()
    now, sequence, threshold = PERIOD, -1, 0.0
    for event, index, tenths in events:
        unseen = event in ("no_input", "reset_blind")
        now += PERIOD * (max(tenths, 3 if event == "reset_blind" else 0) if unseen else 1)
        if event == "heartbeat":
            gate.recorder_alive(gate.sequence, now)
        if event == "estop":
            gate.latch("e-stop")
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
