"""beta: draws one candidate of every set by its log weights and asks the safety_monitor for it.

Takes `candidates`, publishes `request`. It only acts while active. A set that cannot be read or weighed is not
answered, and the gate runs its plan. Draws depend on `seed` alone.
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
    """What behavior_policy and inference share: one request for every candidate set. Subclasses set `choose`."""

    choose: Callable[[CandidateSet], Singles]  # the action to ask for; raises ValueError where there is none

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
        """Answer, or say why not: then the gate runs its plan."""
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
        """Beta, seeded."""
        super().configure()
        settings = self.settings
        self.choose = policies.BehaviorPolicy(settings.behavior, settings.robot, self.param("seed"))


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(BehaviorPolicy)


if __name__ == "__main__":
    main()
