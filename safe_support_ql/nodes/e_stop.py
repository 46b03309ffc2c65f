"""The e-stop as topic and service of the safety monitor, from the birth of its process to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from safe_support_ql.nodes import topics
from safe_support_ql.nodes.lifecycle import ManagedNode
from safe_support_ql.safety.cause import Cause

E_STOPPED = Cause("e-stop", "send false on e_stop, then call the reset service")


class EStop:
    """The newest word of every button; a cleanup of the node releases none."""

    def __init__(self, node: ManagedNode, latch: Callable[[Cause], None]) -> None:
        """Hear all buttons; `latch` is called with the cause at once, each time that one says true."""
        self._latch = latch
        self._reliable = self._lossy = False
        # Whatever its quality of service, a button must be heard, even one that was pressed before this process began.
        # Each of these ends with the newest message of those that it hears; the one that may lose some keeps its own.
        # The first two keep a short press while the monitor is busy; the last one has the newest word, whatever waits.
        for quality in (topics.RECORDED, topics.BUTTON):
            node.subscribe(Bool, topics.E_STOP, self.on_e_stop, quality, lasting=True)
        node.subscribe(Bool, topics.E_STOP, self.on_lossy_e_stop, topics.ONCE, lasting=True)
        node.serve(SetBool, "~/e_stop", self.on_e_stop_service, lasting=True)

    def pressed(self) -> bool:
        """Whether the last word on `e_stop` was true."""
        return self._reliable or self._lossy

    def on_e_stop(self, message: Bool) -> None:
        """Latch at once; the reset service refuses until false was sent."""
        self._reliable = message.data
        if self._reliable:
            self._latch(E_STOPPED)

    def on_lossy_e_stop(self, message: Bool) -> None:
        """The same from a button that is not RELIABLE, and once more from every other."""
        self._lossy = message.data
        if self._lossy:
            self._latch(E_STOPPED)

    def on_e_stop_service(self, request: Any, response: Any) -> None:
        """The same as a service: true latches, false releases."""
        self._lossy = False  # after false by hand the topic must say true anew
        self.on_e_stop(Bool(data=request.data))
        response.success = True
        response.message = str(E_STOPPED) if self._reliable else "released; call the reset service to go on"
