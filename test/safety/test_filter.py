"""One call certifies an action: it passes, or the plan runs, or there is silence before the first certificate."""

from typing import Any

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.model import advance
from safe_support_ql.safety.filter import SafetyFilter

ROBOT = config.load_robot("cart_pole").robot
SHIELD = SafetyFilter(ROBOT)
SHIELD.gate.opening_states = 1


def seen(x: float = 0.0, theta: float = 0.0) -> dict[str, np.ndarray]:
    return {"joint_states": np.array([x, theta, 0.0, 0.0]), "goal_pose": np.zeros(1)}


@pytest.fixture
def shield() -> SafetyFilter:
    SHIELD.reset()
    return SHIELD


def test_a_certified_action_passes_unchanged(shield: SafetyFilter) -> None:
    action, certified = shield.certify_action(seen(), np.array([3.21]))
    assert certified and action == np.float32(3.21)


def test_what_is_not_certified_is_replaced_by_the_plan(shield: SafetyFilter) -> None:
    shield.certify_action(seen(), np.zeros(1))
    action, certified = shield.certify_action(seen(0.0005, 0.0), np.array([11.0]))
    assert not certified and action == shield.gate.support.plan_action(np.array([0.0005, 0.0, 0.0, 0.0]))
    assert "margin" in shield.gate.cause.what


def test_before_the_first_certificate_there_is_silence(shield: SafetyFilter) -> None:
    action, certified = shield.certify_action(seen(theta=np.pi), np.array([10.0]))
    assert not certified and action == 0.0 and "bring theta from 3.142 rad" in shield.gate.cause.remedy


@pytest.mark.parametrize("bad", ["nan", "missing"])
def test_a_sensor_that_fails_now_and_then_gets_the_plan_and_no_latch(shield: SafetyFilter, bad: str) -> None:
    dynamics, rng = ROBOT.model.dynamics, np.random.default_rng(1)
    state = np.array([0.2, 0.01, 0.0, 0.0])
    for k in range(100):
        inputs = seen() | {"joint_states": state}
        fails = k % 5 == 4
        if fails:
            inputs = seen(np.nan) if bad == "nan" else {"goal_pose": np.zeros(1)}
        action, certified = shield.certify_action(inputs, rng.uniform(-10, 10, 1))
        assert shield.gate.state.value != "latched", shield.gate.cause
        if fails:
            assert not certified and "joint_states" in str(shield.gate.cause)
        state = np.array(
            advance(dynamics, tuple(state), (float(action[0]),), tuple(dynamics.members[0]), dynamics.checks_per_tick)
        )
        assert (ROBOT.truth_margins(state) > 0.0).all()


def test_a_latch_can_be_left_once_its_cause_is_gone(shield: SafetyFilter) -> None:
    for _ in range(60):
        shield.certify_action(seen(), np.zeros(1))
    for _ in range(60):
        shield.certify_action({}, np.zeros(1))
    assert shield.gate.state.value == "latched"
    assert not shield.release()[0]
    shield.reset()
    shield.certify_action(seen(), np.zeros(1))
    assert shield.release() == (True, "reset") and shield.certify_action(seen(0.001), np.zeros(1))[1]


@pytest.mark.parametrize(
    ("inputs", "action", "said"),
    [
        ({"imu": [0.0]}, [0.0], "unknown channel 'imu'; cart_pole has: joint_states, goal_pose"),
        ({"joint_states": ["a"] * 4}, [0.0], "joint_states: .* is no vector of numbers"),
        ({"joint_states": [0.0] * 4}, ["left"], "action: .* is no vector of numbers"),
        ({"joint_states": [[0.0] * 4]}, [0.0], "joint_states: has 2 dimensions"),
    ],
)
def test_what_is_no_input_is_refused_before_anything_changes(
    shield: SafetyFilter, inputs: dict[str, Any], action: Any, said: str
) -> None:
    before = shield.gate.sequence
    with pytest.raises(ValueError, match=said):
        shield.certify_action(inputs, action)
    assert shield.gate.sequence == before
