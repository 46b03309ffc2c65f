"""How a candidate set is laid out."""

from safe_support_ql import config
from safe_support_ql.safety.candidates import candidate_layout


def test_the_layout_key_tells_action_spaces_apart() -> None:
    robot = config.load_robot("diff_drive").robot
    assert candidate_layout(robot, True) != candidate_layout(robot, False)
