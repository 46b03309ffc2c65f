"""Asks a running inference node for another policy, or for the one before, and waits for what it says."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql.deployment.news import News
from safe_support_ql.nodes import tables, topics

FOUND_S, LOADED_S = 10.0, 60.0


def ask(path: Path | None) -> News:
    """What inference answers to `path`, or None to a rollback. Raises ValueError where none is there, or answers."""
    rclpy.init()
    node = rclpy.create_node("swap")
    heard: list[News] = []

    def wait(done: Callable[[], bool], seconds: float, what: str, remedy: str) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise ValueError(f"{what} within {seconds:g} s; {remedy}")
            rclpy.spin_once(node, timeout_sec=0.1)

    try:
        hear = topics.MODEL_ACTIVE
        node.create_subscription(String, hear, lambda m: heard.append(tables.decode_news(m)), topics.LATCHED)
        sender = node.create_publisher(String, topics.MODEL_SWAP, topics.CHAIN)
        back = node.create_client(Trigger, "inference/rollback")
        here = "start `deploy`, and set its ROS_DOMAIN_ID here"
        wait(lambda: bool(heard), FOUND_S, "no policy drives that could be heard", here)
        if path is not None:
            asked = str(path.resolve())
            heard.clear()
            sender.publish(String(data=asked))
            answered = functools.partial(_answer, heard, asked)
        else:
            wait(back.service_is_ready, FOUND_S, "inference offers no rollback", here)
            future = back.call_async(Trigger.Request())
            wait(future.done, LOADED_S, "inference did not answer", "look at its log")
            answered = functools.partial(_rolled_back, heard, future.result().message)
        wait(lambda: answered() is not None, LOADED_S, "inference said nothing about it", "look at its log")
        news = answered()
        assert news is not None
        return news
    finally:
        node.destroy_node()
        rclpy.shutdown()


def _answer(heard: list[News], asked: str) -> News | None:
    """What was said about the path that was asked for: others may ask as well."""
    return next((news for news in heard if news.asked == asked), None)


def _rolled_back(heard: list[News], said: str) -> News | None:
    return next((news for news in reversed(heard) if news.said == said), None)
