"""Calls the lifecycle and parameter services of nodes, each call with a timeout and a watch on the node's process."""

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from safe_support_ql.bringup import SPECS

CONFIGURE_S = 120.0  # the monitor compiles its certificate
CALL_S = 10.0
ACTIVATE_S = 30.0  # the monitor waits until a dead predecessor has left the graph
LEARNER_CALL_S = 60.0  # the learner has idle priority, and first ends an update and saves


class Fault(RuntimeError):
    """The run cannot continue; one line says why and what to do."""


class Refused(ValueError):
    """A node refused to be configured or activated because of bad input; its own message."""


class Died(Exception):
    """A node's process ended during a call to it."""


class LifecycleClient:
    """Calls services of the nodes of one run by node name."""

    def __init__(
        self,
        node: Node,
        spin: Callable[[Callable[[], bool], float], bool],
        watch: Callable[[str], Callable[[], bool]],
        last_words: Callable[[str], str],
    ) -> None:
        """Calls are made by `node`.

        `spin(until, seconds)` serves callbacks; `watch(node)` returns a function that says whether the node's process
        has ended since; `last_words(node)` is the last relevant line of its log, '' if there is none.
        """
        self._node, self._spin, self._watch, self._last_words = node, spin, watch, last_words
        self._clients: dict[str, Any] = {}

    def call(self, node: str, kind: Any, name: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """One service call. Raises Died if the process ends before the answer, Fault if no answer comes."""
        end = time.monotonic() + timeout_s
        gone = self._watch(node)
        while time.monotonic() < end and not gone():
            if name not in self._clients:
                self._clients[name] = self._node.create_client(kind, name)
            client = self._clients[name]
            if not client.service_is_ready():
                self._spin(
                    lambda: bool(self._clients[name].service_is_ready()) or gone(), min(1.0, end - time.monotonic())
                )
                continue
            future = client.call_async(request)
            # The service of a killed node looks ready until its lease ends, and a first request may be lost while
            # nodes connect: repeat the calls that can be repeated.
            again = 2.0 if kind is GetState else end - time.monotonic()
            wait_s = max(0.1, min(again, end - time.monotonic()))
            self._spin(lambda f=future: f.done() or gone(), wait_s)  # type: ignore[misc]
            if future.done():
                return future.result()
            client.remove_pending_request(future)
            if kind is GetState:  # a client that is still connected to a dead server may never find the new one
                self._node.destroy_client(self._clients.pop(name))
        if gone():
            raise Died(node)
        words = self._last_words(node)
        raise Fault(f"{node} did not answer {name} for {timeout_s:.0f} s{f': {words}' if words else ''}")

    def state(self, node: str, timeout_s: float = CALL_S) -> int:
        """Its lifecycle state, a constant of lifecycle_msgs State."""
        return int(self.call(node, GetState, f"{node}/get_state", GetState.Request(), timeout_s).current_state.id)

    def change(self, node: str, transition: int, goal: int, timeout_s: float = CALL_S) -> None:
        """One transition to the state `goal`. Raises Refused with the node's own words."""
        request = ChangeState.Request(transition=Transition(id=transition))
        try:
            done = self.call(node, ChangeState, f"{node}/change_state", request, timeout_s).success
        except Fault:
            done = False  # perhaps only the answer was lost
        if not done and self.state(node) != goal:
            what = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}
            refused = f"{node} refused to {what.get(transition, 'change its state')}; see its log"
            raise Refused(self._last_words(node) or refused)

    def configure(self, node: str) -> None:
        """unconfigured -> inactive."""
        self.change(node, Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE, CONFIGURE_S)

    def activate(self, node: str) -> None:
        """inactive -> active."""
        self.change(node, Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE, ACTIVATE_S)

    def deactivate(self, node: str) -> None:
        """active -> inactive; does nothing if the node is not active."""
        patience = LEARNER_CALL_S if SPECS[node].restarts else CALL_S
        if self.state(node, patience) == State.PRIMARY_STATE_ACTIVE:
            self.change(node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, patience)

    def set(self, node: str, **values: Any) -> None:
        """Set parameters of an inactive node. Raises Fault with the node's message if it refuses one."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        for result in self.call(node, SetParameters, f"{node}/set_parameters", request).results:
            if not result.successful:
                raise Fault(f"{node}: {result.reason}")
