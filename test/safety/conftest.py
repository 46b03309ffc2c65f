"""Gates of the base, and what feeds them. Its inputs are no robot's that does as told, so nothing is compared.

They open at the first state that certifies: how they open has tests of its own (test_opening.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.safety.gate import Decision, Gate
from safe_support_ql.safety.timing import Clock

OPEN = np.full(180, 3.0)
INSTANT = (0.0, 1e-6)  # latency of a command in real time: next to none


def base_gate(clock: Clock) -> Gate:
    settings = config.load_robot("diff_drive")
    gate = Gate(settings.robot, settings.gate, False, 0, clock=clock)
    gate.watching, gate.opening_states = False, 1
    return gate


@pytest.fixture
def gate() -> Gate:
    """In lock-step."""
    return base_gate(Clock.LOCKSTEP)


@pytest.fixture
def realtime() -> Gate:
    """In real time."""
    return base_gate(Clock.REALTIME)


@pytest.fixture(scope="session")
def feed() -> Callable[..., None]:
    """All inputs of a base that drives at `v`, stamped `now`; `scan` are the ranges of a full circle."""

    def feed(gate: Gate, now: int, v: float = 0.0, scan: np.ndarray = OPEN) -> None:
        inputs = (("odom", [0, 0, 0, 1, v, 0]), ("scan", full_circle(scan, 6.0).vector()), ("goal_pose", [3, 0]))
        for name, vector in inputs:
            gate.receive(name, np.array(vector, np.float64), now, now, now)

    return feed


@pytest.fixture(scope="session")
def cycle(feed: Callable[..., None]) -> Callable[..., Decision]:
    """One cycle with these inputs in which `action` is asked for; nothing, where it is None."""

    def cycle(gate: Gate, now: int, action: list[float] | None, v: float = 0.0, scan: np.ndarray = OPEN) -> Decision:
        feed(gate, now, v, scan)
        candidates = gate.begin(now, now, INSTANT if gate.clock is Clock.REALTIME else None)
        if candidates is None or action is None:
            return gate.expire(now)
        decision = gate.request(candidates.id, np.array(action, np.float32), now)
        assert decision is not None
        return decision

    return cycle
