"""A fast executor for the nodes: a SingleThreadedExecutor with a short path for subscriptions and timers.

For every message, rclpy's own executor twice builds a wait set of some forty entities (services, QoS events, guard
conditions) in Python, which takes longer than the rest of a lock-step tick. This one waits only for subscriptions and
timers, handles all that are ready, and every 50 ms lets rclpy handle the rest (lifecycle and parameter services,
events).
"""

import time
from contextlib import ExitStack
from typing import Any

from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation

REST_NS = 50_000_000
LEAVE = (ExternalShutdownException, ShutdownException, TimeoutException)  # how rclpy ends a wait
BURST = 20  # messages that one subscription may handle before the next


class ShortPathExecutor(SingleThreadedExecutor):
    """See the module. It serves one node with at least one timer, whose period bounds each wait."""

    _rest_at = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait, then run every callback that is ready. `timeout_sec` is not used: a timer ends the wait."""
        if not self._context.ok():
            raise ExternalShutdownException
        if time.monotonic_ns() >= self._rest_at:
            self._run_the_rest()
            self._rest_at = time.monotonic_ns() + REST_NS
        node = next(iter(self.get_nodes()))
        subscriptions: list[Any] = list(node.subscriptions)
        timers: list[Any] = list(node.timers)
        with ExitStack() as alive:
            try:
                for entity in (*subscriptions, *timers):
                    alive.enter_context(entity.handle)
            except rclpy_implementation.InvalidHandle:
                return  # an entity was destroyed; the next call sees the new lists
            context: Any = self._context.handle
            alive.enter_context(context)
            waiting = rclpy_implementation.WaitSet(len(subscriptions), 0, len(timers), 0, 0, 0, context)
            waiting.clear_entities()
            for subscription in subscriptions:
                waiting.add_subscription(subscription.handle)
            for timer in timers:
                waiting.add_timer(timer.handle)
            waiting.wait(-1)
            messages = set(waiting.get_ready_entities("subscription"))
            due = set(waiting.get_ready_entities("timer"))
            for subscription in subscriptions:
                if subscription.handle.pointer in messages:
                    for _ in range(BURST):
                        try:
                            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                            if taken is None:
                                break
                            subscription.callback(taken[0])
                        except LEAVE:
                            raise
                        except Exception as error:  # see _pass_over
                            self._pass_over(subscription.topic_name, error)
                            break
            for timer in timers:
                if timer.handle.pointer in due and timer.handle.is_timer_ready():
                    timer.handle.call_timer()
                    timer.callback()

    def _run_the_rest(self) -> None:
        """Let rclpy run everything that is ready now."""
        entity: Any
        try:
            while True:
                handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=0)
                try:
                    handler()
                    handler.result()
                except LEAVE:
                    raise
                except Exception as error:  # see _pass_over
                    self._pass_over("a service, an event or a message", error)
                    _let_go(entity)
                    return  # it may be ready again at once
        except TimeoutException:
            return

    def _pass_over(self, what: str, error: Exception) -> None:
        """Log an error of rclpy itself (the node's own callbacks are guarded), such as a message that it cannot read.

        The message counts as lost: its sender must not be able to end the process, and with it the plan.
        """
        text = f"{what} cannot be handled and is ignored: {type(error).__name__}: {error}"
        next(iter(self.get_nodes())).get_logger().error(text, throttle_duration_sec=1.0)


def _let_go(entity: Any) -> None:
    """After a failure to take a message, rclpy leaves its entity and callback group marked as running: undo that."""
    entity._executor_event = False
    group = entity.callback_group
    if getattr(group, "_active_entity", None) is entity:
        group.ending_execution(entity)
