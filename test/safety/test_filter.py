"""One call certifies an action: it passes, or the plan runs, or there is silence before the first certificate."""

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.safety.filter import SafetyFilter

ROBOT = config.load_robot("cart_pole").robot
SHIELD = SafetyFilter(ROBOT)


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
    assert not certified and action == 0.0 and "bring the robot" in shield.gate.cause.remedy


def test_inputs_that_make_no_sense_are_refused_by_name(shield: SafetyFilter) -> None:
    with pytest.raises(ValueError, match="joint_states: holds a NaN"):
        shield.certify_action(seen(np.nan), np.zeros(1))
