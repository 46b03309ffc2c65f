"""A relay passes, alters and delays messages."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from safe_support_ql.nodes.relay import Relay, RequestVector


def relay() -> tuple[Relay, list[Any]]:
    """A relay, and the messages that it has passed on."""
    sent: list[Any] = []
    node: Any = SimpleNamespace(
        create_publisher=lambda kind, topic, quality: SimpleNamespace(publish=sent.append),
        create_subscription=lambda kind, topic, callback, quality: None,
    )
    return Relay(node, str, "scan_true", "scan", None, None), sent


def test_without_a_fault_every_message_passes() -> None:
    between, sent = relay()
    between.on_message("a")
    assert sent == ["a"] and between.last == "a" and between.began is None


def test_a_single_fault_alters_the_first_message_that_it_can() -> None:
    between, sent = relay()
    answers = [None, ["x", "y"]]
    between.alter, between.once = lambda message: answers.pop(0), True
    between.on_message("a")
    assert not sent and between.began is None, "the fault needs another message"
    between.on_message("b")
    between.on_message("c")
    assert sent == ["x", "y", "c"] and between.began is not None


def test_a_delayed_message_goes_out_when_it_is_due() -> None:
    between, sent = relay()
    now = time.monotonic()
    between.waiting.extend([(now - 1.0, "a"), (now + 60.0, "b")])
    between.flush()
    assert sent == ["a"] and len(between.waiting) == 1


def test_the_action_of_a_request_is_changed_and_its_id_is_not() -> None:
    message = JointState(name=["id", "speed"], position=[7.0, 0.5])
    codec = RequestVector()
    np.testing.assert_array_equal(codec.decode(message), [0.5])
    assert list(codec.encode(message, np.array([0.1])).position) == [7.0, 0.1]
