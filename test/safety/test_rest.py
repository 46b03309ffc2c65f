"""The last check of a configuration: at rest with nothing around, more than the plan is certified."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from safe_support_ql import robots
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety import rest
from safe_support_ql.safety.support import Support, Timing

NOTHING = "nothing can be certified even at rest with nothing around: "


@pytest.mark.parametrize("name", robots.names())
def test_the_shipped_robots_have_something_to_certify(name: str) -> None:
    assert rest.objection(robots.make(name, {})) == ""


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("diff_drive", {"horizon": 0.2}, "no rollout reaches the terminal set within its 0.2 s"),
        ("diff_drive", {"footprint_radius": 1.0, "scan_range": 1.0}, "'clearance' is -0.166, .*: 0.206 short"),
        ("cart_pole", {"between_members": 0.5, "centre_span": 0.0, "band": 0.5}, "'lean' is 0.453, .*: 0.0469 short"),
    ],
)
def test_it_names_the_constraint_that_fails(name: str, parameters: dict[str, Any], words: str) -> None:
    robot = robots.make(name, parameters)
    assert re.match(NOTHING + ".*" + words, rest.objection(robot))


@pytest.mark.parametrize("angle", [0.12, 0.14, 0.16])
def test_a_start_from_which_silence_leads_to_where_nothing_is_certified_is_refused(angle: float) -> None:
    """A gate that opens in the third state is silent in two: where the pole then falls, no episode may begin."""
    robot = robots.make("cart_pole", {"start_angle": angle})
    said = rest.objection(robot)
    assert bool(said) is (angle > 0.12)
    if said:
        assert re.match("no plan is certified at the start x = .*, or after 2 periods of silence.* times 0.[89]", said)


def test_where_it_objects_the_gate_certifies_nothing() -> None:
    robot = robots.make("diff_drive", {"horizon": 0.2})
    timing = Timing((0,), robot.model.certificate.holds, np.zeros((1, 0, len(robot.action_names))))
    scan = {"scan": full_circle(np.full(180, np.inf), 6.0).vector()}
    candidates = Support(robot, False, 0).candidates(1, 0, 0, scan, robot.at_rest(), timing)
    assert rest.objection(robot) and not candidates.certified.any()


def test_rest_is_a_state_in_which_every_robot_stands() -> None:
    for name in robots.names():
        robot = robots.make(name, {})
        x, model = tuple(robot.at_rest().state), robot.model
        centre = model.certificate.centre(len(model.certificate.centres) // 2)
        assert model.certificate.terminal(x, centre, model.certificate.constants)
        after = model.dynamics.step(
            x,
            model.certificate.backup(x, centre, model.certificate.constants),
            tuple(model.dynamics.members[0]),
            model.dynamics.dt,
        )
        np.testing.assert_allclose(after, x, atol=1e-12)
