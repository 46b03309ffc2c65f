"""How long the plan is held that was certified."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from safe_support_ql.safety.gate import Decision, Gate

PERIOD = 100_000_000


def test_what_was_never_certified_is_not_held(gate: Gate, cycle: Callable[..., Decision]) -> None:
    boxed_in = np.full(180, 0.2)
    assert [cycle(gate, tick * PERIOD, None, scan=boxed_in).verdict for tick in (1, 2, 3)] == ["no_proof"] * 3


def test_the_plan_that_runs_later_than_certified_for_is_not_certified(
    realtime: Gate, feed: Callable[..., None]
) -> None:
    for late, verdict in ((50_000_000, "certified"), (90_000_000, "plan_held")):
        realtime.new_episode(1)
        for now, after in ((PERIOD, 0), (2 * PERIOD, late)):
            feed(realtime, now)
            assert realtime.begin(now, now, (0.0, 0.06)) is not None
            decision = realtime.expire(now + after)
        assert decision.candidates is not None and decision.candidates.certified[decision.index]
        assert decision.verdict == verdict
    realtime.new_episode(2)
    feed(realtime, PERIOD)
    realtime.begin(PERIOD, PERIOD, (0.0, 0.06))
    decision = realtime.expire(PERIOD + 90_000_000)
    assert decision.reason == "closed" and "in time" in decision.message, "nor does it open the gate"
