"""The node of the behavior policy (beta): requests one candidate of every set, drawn by its log weights.

It reads `candidates` and publishes `request`, only while active and not held. If a set cannot be read or
weighted, it sends no request, and the gate runs its plan. Draws depend on `seed` only.
"""

import operator
from collections.abc import Callable

from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String

from safe_support_ql.behavior import policies
from safe_support_ql.nodes import lifecycle, topics
from safe_support_ql.nodes.candidates import CandidateCodec, RequestCodec
from safe_support_ql.robots.base import Singles
from safe_support_ql.safety.candidates import CandidateSet


class CandidatePolicy(lifecycle.ManagedNode):
    """Base of all policies: at most one request for every candidate set. Subclasses set `choose`."""

    choose: Callable[[CandidateSet], Singles | None]  # what to request, if anything; raises ValueError if it fails

    def configure(self) -> None:
        self.open(topics.REQUEST)

    def open(self, answers: str) -> None:
        """Hear candidate sets, and answer them on that topic."""
        self.settings = self.load_config()
        robot = self.settings.robot
        self.continuous = self.param("continuous")
        self.candidates = CandidateCodec(robot, self.continuous)
        self.requests = RequestCodec(robot, self.get_name())
        self.output = self.advertise(JointState, answers, topics.LATEST)
        self.subscribe(PointCloud2, topics.CANDIDATES, self.candidates.decode, self.on_candidates, topics.ONCE)
        self.held = ""  # why, by the task node of a robot; a simulator has none
        self.subscribe(String, topics.HOLD, operator.attrgetter("data"), self.on_hold, topics.LATCHED)

    def on_hold(self, held: str) -> None:
        """Why to ask for nothing, '' if policies may: held, the robot stops under its plan."""
        self.held = held

    def on_candidates(self, candidates: CandidateSet) -> None:
        """Send a request, or log why not: then the gate runs its plan."""
        if not self.active or self.held:
            return
        try:
            action = self.choose(candidates)
        except ValueError as error:
            self.get_logger().error(f"no request: {error}", throttle_duration_sec=1.0)
            return
        if action is not None:
            self.output.publish(self.requests.encode(candidates, action))


class BehaviorPolicy(CandidatePolicy):
    def __init__(self) -> None:
        super().__init__("behavior_policy")

    def configure(self) -> None:
        """Create beta with its seed."""
        super().configure()
        settings = self.settings
        self.choose = policies.BehaviorPolicy(settings.behavior, settings.robot, self.param("seed"))


def main() -> None:
    lifecycle.main(BehaviorPolicy)


if __name__ == "__main__":
    main()
