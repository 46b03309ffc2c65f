"""The e-stop topic and service of the safety monitor, from the start of its process to the end."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.lifecycle import ManagedNode
from safe_support_ql.safety.cause import Cause

PRESSED = operator.attrgetter("data")  # of a Bool: every one is well-formed
E_STOPPED = Cause("e-stop", "send false on e_stop, then call the reset service")


class EStop:
    """The newest message of all buttons; a cleanup of the node does not release them."""

    def __init__(self, node: ManagedNode, latch: Callable[[Cause], None]) -> None:
        """Subscribe to all buttons; each `true` calls `latch` with the cause at once."""
        self._latch = latch
        self._reliable = self._lossy = False
        # A button must be heard with any quality of service, even if it was pressed before this process began. The
        # first two subscriptions queue messages, so a short press is not lost while the monitor is busy. The last one
        # hears buttons that are not RELIABLE; as it may lose messages, it keeps a state of its own.
        for quality in (topics.RECORDED, topics.BUTTON):
            node.subscribe(Bool, topics.E_STOP, PRESSED, self.on_e_stop, quality, lasting=True)
        node.subscribe(Bool, topics.E_STOP, PRESSED, self.on_lossy_e_stop, topics.ONCE, lasting=True)
        node.serve(SetBool, "~/e_stop", self.on_e_stop_service, lasting=True)

    def pressed(self) -> bool:
        """Whether the last message on `e_stop` was true."""
        return self._reliable or self._lossy

    def on_e_stop(self, pressed: bool) -> None:
        """Latch at once; the reset service refuses until false was sent."""
        self._reliable = pressed
        if self._reliable:
            self._latch(E_STOPPED)

    def on_lossy_e_stop(self, pressed: bool) -> None:
        """The same for buttons that are not RELIABLE; it hears the others as well."""
        self._lossy = pressed
        if self._lossy:
            self._latch(E_STOPPED)

    def on_e_stop_service(self, request: Any, response: Any) -> None:
        """The same as a service: true latches, false releases."""
        self._lossy = False  # after a false by service, a new true on the topic latches again
        self.on_e_stop(request.data)
        response.success = True
        response.message = str(E_STOPPED) if self._reliable else "released; call the reset service to continue"
