"""A client over services that answer, refuse, stay silent or end with their process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.task import Future

from safe_support_ql.nodes.lifecycle_client import Died, Fault, LifecycleClient, Refused


class Services:
    """One node's services: `answers` by the type of the service, a missing one stays silent."""

    def __init__(self, words: str = "", **answers: Any) -> None:
        self.answers, self.asked = answers, []
        self.dead = False
        node: Any = SimpleNamespace(
            create_client=lambda kind, name: self._service(kind),
            destroy_client=lambda client: self.destroyed.append(client),
        )
        self.destroyed: list[Any] = []
        self.client = LifecycleClient(node, self._spin, lambda name: lambda: self.dead, lambda name: words)

    def _service(self, kind: Any) -> Any:
        def call(request: Any) -> Future:
            self.asked.append(kind)
            future = Future()
            if kind.__name__ in self.answers:
                future.set_result(self.answers[kind.__name__])
            return future

        return SimpleNamespace(
            service_is_ready=lambda: True, call_async=call, remove_pending_request=lambda future: None
        )

    @staticmethod
    def _spin(until: Any, seconds: float) -> bool:
        return bool(until())


def state(id: int) -> GetState.Response:
    return GetState.Response(current_state=State(id=id))


def test_an_unanswered_state_is_requested_until_the_timeout() -> None:
    services = Services(words="torch is slow")
    with pytest.raises(Fault, match=r"learner did not answer learner/get_state for 0 s: torch is slow"):
        services.client.state("learner", 0.05)
    assert len(services.asked) > 1
    assert len(services.destroyed) == len(services.asked), "a new client for each request: the server may be a new one"


def test_a_process_that_ended_is_not_waited_for() -> None:
    services = Services()
    services.dead = True
    with pytest.raises(Died, match="recorder"):
        services.client.configure("recorder")


@pytest.mark.parametrize(
    ("words", "told"), [("the disk is full", "the disk is full"), ("", "recorder refused to activate")]
)
def test_a_refusal_comes_in_the_words_of_the_node(words: str, told: str) -> None:
    inactive = state(State.PRIMARY_STATE_INACTIVE)
    services = Services(words, ChangeState=ChangeState.Response(success=False), GetState=inactive)
    with pytest.raises(Refused, match=told):
        services.client.activate("recorder")


def test_a_lost_answer_is_no_refusal_where_the_node_did_what_was_asked() -> None:
    services = Services(ChangeState=ChangeState.Response(success=False), GetState=state(State.PRIMARY_STATE_ACTIVE))
    services.client.activate("recorder")
    assert services.asked == [ChangeState, GetState]


def test_an_inactive_node_is_not_deactivated() -> None:
    services = Services(GetState=state(State.PRIMARY_STATE_INACTIVE))
    services.client.deactivate("simulator")
    assert services.asked == [GetState]
