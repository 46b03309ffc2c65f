"""The plan while the state is missing, and after a reset."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import Decision, Gate, State
from safe_support_ql.safety.timing import Clock

INSTANT = (0.0, 1e-6)  # latency of a command: next to none


@pytest.mark.parametrize("uneven", [False, True])
def test_a_blind_plan_starts_where_the_robot_is_and_not_where_it_was_seen_last(uneven: bool) -> None:
    """The cart-pole goes on for input_age before it counts as blind; a plan for where it was then topples it.

    In real time blind decisions come when they come, and some twice in an instant.
    """
    settings = config.load_robot("cart_pole")
    robot, model = settings.robot, settings.robot.model
    gate = Gate(robot, settings.gate, False, 0, clock=Clock.REALTIME)
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
    settings = config.load_robot("cart_pole")
    gate = Gate(settings.robot, settings.gate, False, 0)
    robot, model = gate.robot, gate.robot.model
    rng, period = np.random.default_rng(ticks), round(1e9 * robot.period)
    truth, command, now = np.zeros(4), (0.0,), 0

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
            gate.latch(Cause(cause))
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
