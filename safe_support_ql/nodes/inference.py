"""The node of the extracted policy: requests the candidate that policy.onnx prefers.

It reads `candidates` and publishes `request`, only while active; without a request the gate runs its plan. Parameters
of its own: `model` (path of policy.onnx, with policy.json beside it; refused at configure unless it was made for this
robot, action space and safety configuration) and `greedy` (no Gumbel noise).
"""

from __future__ import annotations

from pathlib import Path

from safe_support_ql.deployment.contract import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.nodes import lifecycle
from safe_support_ql.nodes.behavior_policy import CandidatePolicy


class Inference(CandidatePolicy):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("inference")

    def configure(self) -> None:
        """Load and check the model. Raises ValueError naming file and key."""
        if not self.param("model"):
            raise ValueError("parameter 'model' is empty, must be the path of a policy.onnx")
        super().configure()
        contract = PolicyContract.of(self.settings.robot, self.continuous, self.settings.safety_hash)
        self.policy = OnnxPolicy(Path(self.param("model")), contract)

    def activate(self) -> None:
        """`greedy` may change between activations."""
        self.choose = Actor(self.policy, self.param("seed"), self.param("greedy"))


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Inference)


if __name__ == "__main__":
    main()
