"""A relay passes, alters and delays messages."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from safe_support_ql.experiments import faults
from safe_support_ql.nodes.injection import Injector, Relay, RequestVector


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


def test_a_single_malformed_message_waits_for_everybody_and_is_acknowledged_before_its_publisher_leaves() -> None:
    happened: list[str] = []
    matched, acknowledged = iter([0, 1, 2]), iter([False, False, True])

    def acked(timeout: Any) -> bool:
        assert timeout.nanoseconds == 0, "the relays must go on"
        happened.append("asked")
        return next(acknowledged)

    def connected() -> int:
        happened.append("connecting")
        return next(matched)

    output = SimpleNamespace(
        publish=lambda message: happened.append("sent"), get_subscription_count=connected, wait_for_all_acked=acked
    )
    injector: Any = Injector.__new__(Injector)
    injector.graph = SimpleNamespace(spin=lambda until, seconds: any(until() for _ in range(5)))
    injector.robot = SimpleNamespace(period=0.1)
    injector.node = SimpleNamespace(create_timer=lambda period, call: None, destroy_timer=lambda timer: None)
    injector.stranger = SimpleNamespace(
        create_publisher=lambda kind, topic, quality: output,
        count_subscribers=lambda topic: 2,
        destroy_publisher=lambda publisher: happened.append("left"),
    )
    fault = faults.Fault("x", "x", "malformed", "episode", None, 0.0, faults.Expect.GOES_ON, "episode refused", 0.2)
    seen = faults.Seen()
    stop = injector.begin(fault, seen)
    assert happened == ["connecting"] * 3 + ["sent"] and not seen.trouble
    stop()
    assert happened[4:] == ["asked"] * 3 + ["left"]
