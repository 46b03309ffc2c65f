"""The node of the behavior policy (beta): requests one candidate of every set, drawn by its log weights.

It reads `candidates` and publishes `request`, only while active. If a set cannot be read or weighted, it sends no
request, and the gate runs its plan. Draws depend on `seed` only.
"""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import JointState, PointCloud2

from safe_support_ql.behavior import policies
from safe_support_ql.nodes import lifecycle, topics
from safe_support_ql.nodes.candidates import CandidateCodec, RequestCodec
from safe_support_ql.robots.base import Singles
from safe_support_ql.safety.candidates import CandidateSet


class CandidatePolicy(lifecycle.ManagedNode):
    """Base of behavior_policy and inference: one request for every candidate set. Subclasses set `choose`."""

    choose: Callable[[CandidateSet], Singles]  # the action to request; raises ValueError if there is none

    def configure(self) -> None:
        """Read the configuration, create the topics."""
        self.settings = self.load_config()
        robot = self.settings.robot
        self.continuous = self.param("continuous")
        self.candidates = CandidateCodec(robot, self.continuous)
        self.requests = RequestCodec(robot, self.get_name())
        self.output = self.advertise(JointState, topics.REQUEST, topics.LATEST)
        self.subscribe(PointCloud2, topics.CANDIDATES, self.on_candidates, topics.ONCE)

    def on_candidates(self, message: PointCloud2) -> None:
        """Send a request, or log why not: then the gate runs its plan."""
        if not self.active:
            return
        try:
            candidates = self.candidates.decode(message)
            action = self.choose(candidates)
        except ValueError as error:
            self.get_logger().error(f"no request: {error}", throttle_duration_sec=1.0)
            return
        self.output.publish(self.requests.encode(candidates, action))


class BehaviorPolicy(CandidatePolicy):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("behavior_policy")

    def configure(self) -> None:
        """Create beta with its seed."""
        super().configure()
        settings = self.settings
        self.choose = policies.BehaviorPolicy(settings.behavior, settings.robot, self.param("seed"))


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(BehaviorPolicy)


if __name__ == "__main__":
    main()
