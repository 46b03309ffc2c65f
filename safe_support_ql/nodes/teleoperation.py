"""The node of a person who steers, in the place of the behavior policy: behind the same gate, and learnt from as well.

It hears the robot's command on `teleop/<command>`, as a joystick node publishes it, and requests what is nearest to
that in the support of each candidate set. While nobody steers it requests nothing, and the robot stops under its plan.
"""

import time

import numpy as np

from safe_support_ql.nodes import lifecycle, native, topics
from safe_support_ql.nodes.behavior_policy import CandidatePolicy
from safe_support_ql.robots.base import Floats, Singles
from safe_support_ql.safety.candidates import CandidateSet

TOLD_S = 5.0
OLDEST_S = 0.5  # of what a person asks for: joystick nodes repeat it while the stick is held


class Teleoperation(CandidatePolicy):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("teleoperation")

    def configure(self) -> None:
        """Hear the joystick."""
        super().configure()
        robot = self.settings.robot
        codec = native.CommandCodec(robot.command, self.param("stamped_cmd"))
        self.range = robot.action_high - robot.action_low
        self.wanted: Floats | None = None
        self.wanted_at = 0.0
        topic = topics.TELEOP + robot.command.name
        self.heard = self.subscribe(codec.type, topic, codec.decode, self.on_wanted, topics.ONCE)
        self.kind = robot.command.type if self.param("stamped_cmd") else robot.command.unstamped_type
        self.every(TOLD_S, self.look)
        self.choose = self.nearest

    def on_wanted(self, wanted: Floats) -> None:
        """What a person asks for, which the gate may not certify."""
        self.wanted, self.wanted_at = wanted, time.monotonic()

    def look(self) -> None:
        """A joystick of another type cannot be heard: say so."""
        name = self.heard.topic_name
        others = {one.topic_type for one in self.get_publishers_info_by_topic(name)} - {self.kind}
        if others:
            self.get_logger().warning(
                f"{name}: {min(others)} is published, and {self.kind} is heard; set its type there"
            )

    def nearest(self, candidates: CandidateSet) -> Singles | None:
        """The action [A] of the support that is nearest to what is wanted, in shares of the range of each entry."""
        if self.wanted is None or time.monotonic() - self.wanted_at > OLDEST_S:
            return None
        apart = (((candidates.actions - self.wanted) / self.range) ** 2).sum(axis=1)
        return candidates.actions[int(np.argmin(np.where(candidates.support, apart, np.inf)))]


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Teleoperation)


if __name__ == "__main__":
    main()
