"""Relays a topic for the fault campaign, unchanged or altered by a fault."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from safe_support_ql.robots.base import Floats


class RequestVector:
    """A codec for the action inside a request."""

    def decode(self, message: JointState) -> Floats:
        """The action."""
        return np.asarray(message.position[1:], np.float64)

    def encode(self, message: JointState, vector: Floats) -> JointState:
        """`message` with another action."""
        message.position = [message.position[0], *vector.tolist()]
        return message


class Relay:
    """Relays one topic. `alter` (message -> messages) is a fault; `began` is the time of its first message."""

    def __init__(self, node: Any, kind: Any, source: str, target: str, hear: Any, say: Any) -> None:
        """From topic `source`, with QoS `hear`, to topic `target`, with QoS `say`."""
        self.output = node.create_publisher(kind, target, say)
        node.create_subscription(kind, source, self.on_message, hear)
        self.heard: Callable[[Any], None] = lambda message: None
        self.last: Any = None
        self.waiting: deque[tuple[float, Any]] = deque()
        self.clear()

    def clear(self) -> None:
        """End the fault: relay everything unchanged."""
        self.alter: Callable[[Any], list[Any] | None] | None = None
        self.once = False
        self.began: float | None = None

    def on_message(self, message: Any) -> None:
        """Publish the message, unchanged or altered. If `alter` returns None, the fault needs another message."""
        self.heard(message)
        if self.alter is None:
            self.last = message
            self.output.publish(message)
            return
        out = self.alter(message)
        if out is None:
            return
        if self.began is None:
            self.began = time.monotonic()
        for item in out:
            self.output.publish(item)
        if self.once:
            self.alter = None

    def flush(self) -> None:
        """Publish delayed messages that are due."""
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            self.output.publish(self.waiting.popleft()[1])
