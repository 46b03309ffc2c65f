"""Messages that a node refuses: each is counted by topic and named, at most once a second, and the node goes on.

A decoder turns a message into values, and raises ValueError naming topic, field, what it found and what it expected.
That alone is a refusal. Whatever else is raised, there or behind it, is a programming error and is not caught here.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile

Value = TypeVar("Value")
LONGEST = 300  # characters of a reason: a malformed message may hold a text of any length


class Refusals:
    """What one node refused; `counts` by topic. `newest` is the text that was told last."""

    def __init__(self, tell: Callable[[str], object], again_s: float = 1.0) -> None:
        """`tell` takes the first refusal on each topic, and then one in `again_s` seconds."""
        self.counts: Counter[str] = Counter()
        self.newest = ""
        self._tell, self._again_s = tell, again_s
        self._told_at: dict[str, float] = {}

    def refuse(self, topic: str, why: str) -> None:
        """Count a refusal, and tell it. A flood of them costs no more than the count."""
        self.counts[topic] += 1
        now = time.monotonic()
        if now - self._told_at.get(topic, -self._again_s) < self._again_s:
            return
        self._told_at[topic] = now
        self.newest = f"{topic} refused ({self.counts[topic]} so far): {why}"
        self._tell(self.newest)

    def subscribe(
        self, node: Node, kind: Any, topic: str, decode: Callable[[Any], Value], callback: Callable[[Value], object],
        qos: QoSProfile,
    ) -> None:  # fmt: skip
        """A subscription of a plain node whose malformed messages are refused here."""
        hear = decoded(decode, callback, functools.partial(self.refuse, topic))
        node.create_subscription(kind, topic, hear, qos)


def decoded(
    decode: Callable[[Any], Value], callback: Callable[[Value], object], refuse: Callable[[str], None]
) -> Callable[[Any], None]:
    """A callback for messages: what `decode` makes of one goes to `callback`, why it refuses one to `refuse`."""

    def hear(message: Any) -> None:
        try:
            value = decode(message)
        except ValueError as error:
            why = str(error)
            refuse(why if len(why) <= LONGEST else f"{why[:LONGEST]}...")
            return
        callback(value)

    return hear
