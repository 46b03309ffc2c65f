"""The extracted policy: asks the safety_monitor for the candidate that policy.onnx prefers.

Takes `candidates`, publishes `request`. Parameters of its own: `model` (path of policy.onnx, policy.json beside it;
read at configure and refused unless it was made for this robot, action space and safety configuration), `greedy` (no
Gumbel noise). It only acts while active; what cannot be answered is not, and the gate runs its plan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safe_support_ql.deployment.policy import OnnxPolicy
from safe_support_ql.nodes import lifecycle, messages
from safe_support_ql.nodes.behavior_policy import CandidatePolicy
from safe_support_ql.robots.base import Singles
from safe_support_ql.safety.candidates import CandidateSet


class Inference(CandidatePolicy):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("inference")

    def configure(self) -> None:
        """Load and check the model. Raises ValueError naming file and key."""
        if not self.param("model"):
            raise ValueError("parameter 'model' is empty; give the path of a policy.onnx")
        super().configure()
        robot = self.settings.robot
        self.policy = OnnxPolicy(
            Path(self.param("model")),
            robot=robot.name,
            safety_hash=self.settings.safety_hash,
            observation_dim=len(robot.observation_names),
            action_dim=len(robot.action_names),
            candidates=self.candidates.k,
            candidate_layout=messages.candidate_layout(robot, self.continuous),
        )
        self.zeros = np.zeros(self.candidates.k, np.float32)

    def activate(self) -> None:
        """`greedy` may change between activations."""
        self.greedy = self.param("greedy")

    def choose(self, candidates: CandidateSet) -> Singles:
        """The preferred candidate; lattice points are no draws, so log_proposal is 0."""
        noise = self.zeros if self.greedy else self.rng.gumbel(size=len(self.zeros)).astype(np.float32)
        index, _, _ = self.policy.act(
            candidates.observation,
            candidates.actions,
            candidates.support,
            candidates.is_plan,
            self.zeros,
            noise,
        )
        action: Singles = candidates.actions[index]
        return action


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Inference)


if __name__ == "__main__":
    main()
