"""The networks of the Q-function and the policy, which score a set of candidate actions.

A decision has one state and many candidates. The state is therefore encoded once, and each candidate costs one small
product: `score = w . relu(A phi(o) + B a)`. A candidate enters by its action value, not by its index, so the same
network serves lattices, shifted lattices and draws. The weights of several networks are stacked in their first
dimension.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ProblemSpec:
    """What the learner must know about a robot. Arrays are float32. Raises ValueError naming the wrong field."""

    observation_dim: int  # D
    action_dim: int  # A
    candidates: int  # K, the padded number of candidates of a decision
    observation_scale: FloatArray  # [D], > 0, in the observation's units; the network sees observation / scale
    action_low: FloatArray  # [A], in the action's units
    action_high: FloatArray  # [A]; the network maps [low, high] to [-1, 1]

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"ProblemSpec.{name} must be at least 1, got {getattr(self, name)}")
        lengths = {
            "observation_scale": self.observation_dim,
            "action_low": self.action_dim,
            "action_high": self.action_dim,
        }
        for name, length in lengths.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != (length,) or not np.isfinite(array).all():
                raise ValueError(f"ProblemSpec.{name} must hold {length} finite numbers, got {array.tolist()}")
            object.__setattr__(self, name, array)
        if not (self.observation_scale > 0).all():
            raise ValueError(f"ProblemSpec.observation_scale must be > 0, got {self.observation_scale.tolist()}")
        if not (self.action_low < self.action_high).all():
            raise ValueError("ProblemSpec.action_low must be below action_high in every dimension")


class StackedLinear(nn.Module):
    """T independent linear layers in one batched product: [T, B, inputs] -> [T, B, outputs]."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)  # the initialisation of torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class CandidateNetwork(nn.Module):
    """`members` networks that score actions: (observation [B, D], candidates [B, K, A]) -> [members, B, K]."""

    observation_scale: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, spec: ProblemSpec, hidden: int, members: int) -> None:
        super().__init__()
        self.members = members
        # As buffers, the constants are saved with the weights in the checkpoint and the ONNX file.
        self.register_buffer("observation_scale", torch.from_numpy(spec.observation_scale.copy()))
        self.register_buffer("action_low", torch.from_numpy(spec.action_low.copy()))
        self.register_buffer("action_high", torch.from_numpy(spec.action_high.copy()))
        self.encoder_in = StackedLinear(members, spec.observation_dim, hidden)
        self.encoder_out = StackedLinear(members, hidden, hidden)
        # The layer that runs for every candidate is half as wide, because its memory traffic dominates an update.
        head = max(1, hidden // 2)
        self.state_part = StackedLinear(members, hidden, head)
        bound = 1.0 / math.sqrt(spec.action_dim)
        self.action_part = nn.Parameter(torch.empty(members, spec.action_dim, head).uniform_(-bound, bound))
        bound = 1.0 / math.sqrt(head)
        self.score_weight = nn.Parameter(torch.empty(members, head).uniform_(-bound, bound))
        self.score_bias = nn.Parameter(torch.zeros(members, 1, 1))

    def encode(self, observation: Tensor) -> Tensor:
        """phi(o): [B, D] -> [members, B, hidden]."""
        x = (observation / self.observation_scale).expand(self.members, -1, -1)
        return torch.relu(self.encoder_out(torch.relu(self.encoder_in(x))))

    def score(self, features: Tensor, candidates: Tensor) -> Tensor:
        """(phi(o) [members, B, hidden], candidates [B, K, A]) -> [members, B, K]."""
        actions = 2.0 * (candidates - self.action_low) / (self.action_high - self.action_low) - 1.0
        state = self.state_part(features)
        scores = []
        # Network by network and in place: memory traffic over [B, K, hidden] determines the cost of an update, and
        # batched products with so few columns are several times slower than these.
        for m in range(self.members):
            joint = torch.matmul(actions, self.action_part[m]).add_(state[m, :, None]).relu_()
            scores.append(torch.matmul(joint, self.score_weight[m]))
        return torch.stack(scores) + self.score_bias

    def forward(self, observation: Tensor, candidates: Tensor) -> Tensor:
        return self.score(self.encode(observation), candidates)


class PolicyNetwork(nn.Module):
    """pi_phi: a logit per candidate from its action value; the plan adds a logit of its own (docs/method.md).

    The plan needs it because beta gives it a point mass, which a function of the action value cannot represent.
    """

    def __init__(self, spec: ProblemSpec, hidden: int) -> None:
        super().__init__()
        self.net = CandidateNetwork(spec, hidden, members=1)
        self.plan_part = nn.Linear(hidden, 1)

    def forward(self, observation: Tensor, candidates: Tensor, is_plan: Tensor) -> Tensor:
        """(observation [B, D], candidates [B, K, A], is_plan [B, K] bool) -> unmasked logits [B, K]."""
        features = self.net.encode(observation)
        logits = self.net.score(features, candidates)[0]
        plan: Tensor = self.plan_part(features[0])
        return logits + torch.where(is_plan, plan, torch.zeros_like(plan))
