"""The commands that may have acted since a state was measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.sent import Sent

SETTINGS = config.load_robot("diff_drive")
ROBOT = SETTINGS.robot
PERIOD = 100_000_000
INSTANT = (0.0, 1e-6)  # latency of a command: next to none


@pytest.fixture
def sent() -> Sent:
    return Sent(ROBOT)


def test_past_commands_are_rolled_out_in_every_way_in_which_they_may_have_acted(sent: Sent) -> None:
    dt = PERIOD // ROBOT.model.dynamics.checks_per_tick
    one, two = np.array([0.1, 0.0]), np.array([0.2, 0.0])
    assert sent.past(0, 0)[0].shape == (1, 0, 2)
    np.testing.assert_array_equal(sent.past(0, 2)[0], np.zeros((1, 2, 2)))
    sent.note(one, 10 * dt)
    sent.note(two, 12 * dt + dt // 2)  # in the middle of a check
    (prompt, late), known = sent.past(11 * dt, 4)
    assert known
    np.testing.assert_array_equal(prompt, [one, two, two, two])
    np.testing.assert_array_equal(late, [one, one, two, two])
    assert len(sent.past(20 * dt, 3)[0]) == 1, "long ago, all the same"
    three = np.array([0.3, 0.0])
    sent.note(three, 13 * dt + dt // 2)
    rows, known = sent.past(12 * dt, 2)
    assert known
    np.testing.assert_array_equal(rows, [[two, three], [two, two], [one, three], [one, two]])


def test_a_drive_that_has_stopped_by_itself_acts_as_under_zero(sent: Sent) -> None:
    """A command older than the drive's timeout acts no more, and around it nobody can tell."""
    began, timeout = 10 * PERIOD, round(1e9 * SETTINGS.robot.parameters.drive_timeout)
    sent.note(np.array([0.6, 0.0]), began)
    for since, acting in (
        (began + 10_000_000, {0.6}), (began + timeout - 10_000_000, {0.6, 0.0}), (began + timeout + 10_000_000, {0.0})
    ):  # fmt: skip
        past, known = sent.past(since, 1)
        assert known and set(past[:, 0, 0]) == acting


def test_commands_noted_out_of_order_leave_at_least_one_sequence(sent: Sent) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        for moment in rng.integers(0, 10 * PERIOD, 12):
            sent.note(rng.uniform(-0.1, 0.5, 2), int(moment))
        rows, _ = sent.past(int(rng.integers(0, 8 * PERIOD)), 4)
        assert rows.shape[0] >= 1 and rows.shape[1:] == (4, 2)


def test_every_command_since_an_old_state_counts(realtime: Gate, feed: Callable[..., None]) -> None:
    wall = np.full(180, 0.75)
    for now, past in ((PERIOD, [0.0, 0.0]), (5 * PERIOD, [0.6, 0.0])):
        realtime.new_episode(1)
        realtime.sent.note(np.array(past), now)
        realtime.sent.note(np.zeros(2), now + PERIOD)
        feed(realtime, now, scan=wall)
        late = now + 200_000_000
        candidates = realtime.begin(late, late, INSTANT)
        assert candidates is not None
        if past[0] == 0.0:
            free = candidates.margin.max()
    assert candidates.margin.max() < free, "a fast command that may still have acted costs margin"


def test_where_nobody_can_tell_what_acted_nothing_is_certified(realtime: Gate, feed: Callable[..., None]) -> None:
    feed(realtime, PERIOD)
    realtime.begin(PERIOD, PERIOD, (0.0, 0.05))
    realtime.request(realtime.id, np.array([0.3, 0.0], np.float32), PERIOD)
    for i in range(40):  # a commander gone wild
        realtime.sent.note(np.array([0.01 * i, 0.0]), PERIOD + i * 10_000_000)
    feed(realtime, 2 * PERIOD)
    candidates = realtime.begin(2 * PERIOD + 200_000_000, 2 * PERIOD + 200_000_000, (0.0, 0.05))
    assert candidates is not None
    assert not candidates.certified.any()
    decision = realtime.request(realtime.id, np.array([0.3, 0.0], np.float32), 2 * PERIOD + 200_000_000)
    assert decision is not None and decision.verdict != "certified"
    assert "too many commands may have acted" in decision.message and "0.200 s old" in decision.message


def test_a_new_episode_does_not_forget_that_the_last_command_may_still_act(
    realtime: Gate, feed: Callable[..., None]
) -> None:
    wall = np.full(180, 0.75)
    margins = []
    for last in (0.0, 0.6):
        realtime.new_episode(1)
        realtime.sent.note(np.array([last, 0.0]), PERIOD)
        realtime.new_episode(2)
        feed(realtime, PERIOD, v=0.3, scan=wall)
        candidates = realtime.begin(PERIOD + PERIOD, PERIOD + PERIOD, (0.0, 0.06))
        assert candidates is not None
        margins.append(candidates.margin[candidates.plan])
    assert margins[1] < margins[0]
