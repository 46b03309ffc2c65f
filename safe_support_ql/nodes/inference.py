"""The extracted policy: asks the safety_monitor for the candidate that policy.onnx prefers.

Takes `candidates`, publishes `request`. Parameters of its own: `model` (path of policy.onnx, policy.json beside it;
read at configure and refused unless it was made for this robot, action space and safety configuration), `greedy` (no
Gumbel noise). It only acts while active; what cannot be answered is not, and the gate runs its plan.
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
            raise ValueError("parameter 'model' is empty; give the path of a policy.onnx")
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
