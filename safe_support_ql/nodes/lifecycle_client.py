"""Drives nodes by their lifecycle_msgs services, one call at a time, each with a timeout and a look at the process."""

from __future__ import annotations

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
ACTIVATE_S = 30.0  # a monitor waits for a dead predecessor to leave the graph
LEARNER_CALL_S = 60.0  # a learner at idle priority answers late, and ends an update and saves first


class Fault(RuntimeError):
    """The run cannot go on; one line that says why and what to do."""


class Refused(ValueError):
    """A node refused to be configured or activated: bad input, in its own words."""


class Died(Exception):
    """A node's process ended during a call to it."""


class LifecycleClient:
    """The services of the nodes of one run, by the name of the node."""

    def __init__(
        self,
        node: Node,
        spin: Callable[[Callable[[], bool], float], bool],
        watch: Callable[[str], Callable[[], bool]],
        last_words: Callable[[str], str],
    ) -> None:
        """Calls go out from `node`.

        `spin(until, seconds)` serves callbacks; `watch(node)` returns what says from then on whether the node's process
        ended; `last_words(node)` is the end of its log, '' if it says nothing.
        """
        self._node, self._spin, self._watch, self._last_words = node, spin, watch, last_words
        self._clients: dict[str, Any] = {}

    def call(self, node: str, kind: Any, name: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """One service call. Raises Died where the process ends meanwhile, Fault where no answer comes."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self._node.create_client(kind, name)
        end = time.monotonic() + timeout_s
        gone = self._watch(node)
        while time.monotonic() < end and not gone():
            if not client.service_is_ready():
                self._spin(lambda: bool(client.service_is_ready()) or gone(), min(1.0, end - time.monotonic()))
                continue
            future = client.call_async(request)
            # A killed node's service looks ready until its lease ends, and a first request may meet half a connection:
            # ask again, but only what can be asked twice.
            again = 2.0 if kind is GetState else end - time.monotonic()
            wait_s = max(0.1, min(again, end - time.monotonic()))
            self._spin(lambda f=future: f.done() or gone(), wait_s)  # type: ignore[misc]
            if future.done():
                return future.result()
            client.remove_pending_request(future)
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
            done = False  # the answer may be what was lost
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
        """active -> inactive; nothing to do where it is not active."""
        patience = LEARNER_CALL_S if SPECS[node].restarts else CALL_S
        if self.state(node, patience) == State.PRIMARY_STATE_ACTIVE:
            self.change(node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, patience)

    def set(self, node: str, **values: Any) -> None:
        """Set parameters of an inactive node. Raises Fault with its words where it refuses one."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        for result in self.call(node, SetParameters, f"{node}/set_parameters", request).results:
            if not result.successful:
                raise Fault(f"{node}: {result.reason}")
