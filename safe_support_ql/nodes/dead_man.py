"""The dead-man switch. While nobody holds it the monitor executes no request, and the task node begins no episode."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable

from std_msgs.msg import Bool

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.lifecycle import ManagedNode
from safe_support_ql.safety.cause import NONE, Cause

RELEASED = Cause(
    "nobody holds the dead-man switch",
    "hold it, so that true is published on dead_man again and again, within session.dead_man_age",
)


class DeadMan:
    """Silence is as good as release: a joystick whose battery is empty says nothing any more."""

    def __init__(self, node: ManagedNode, age_s: float, released: Callable[[], None]) -> None:
        """A message counts for `age_s` seconds after it was heard; `released` is called at once with each release."""
        self._age_ns = round(1e9 * age_s)
        self._released = released
        self._held_ns: int | None = None
        node.subscribe(Bool, topics.DEAD_MAN, operator.attrgetter("data"), self._on_switch, topics.ONCE)

    def _on_switch(self, held: bool) -> None:
        self._held_ns = time.monotonic_ns() if held else None
        if not held:
            self._released()

    def problem(self, now_ns: int) -> Cause:
        """Why the robot may not drive now, by the steady clock; false while the switch is held."""
        held = self._held_ns is not None and now_ns - self._held_ns <= self._age_ns
        return NONE if held else RELEASED
