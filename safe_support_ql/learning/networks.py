"""The networks of the Q-function and the policy, which score a set of candidate actions.

A decision has one state and many candidates. The state is therefore encoded once, and each candidate costs one small
product: `score = w . relu(A phi(o) + B a)`. A candidate enters by its action value, not by its index, so the same
network serves lattices, shifted lattices and draws. The weights of several networks are stacked in their first
dimension.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from safe_support_ql.robots.base import Singles


@dataclass(frozen=True, eq=False)
class ProblemSpec:
    """What the learner must know about a robot. Arrays are float32. Raises ValueError naming the wrong field."""

    observation_dim: int  # D
    action_dim: int  # A
    candidates: int  # K, the padded number of candidates of a decision
    observation_scale: Singles  # [D], > 0, in the observation's units; the network sees observation / scale
    action_low: Singles  # [A], in the action's units
    action_high: Singles  # [A]; the network maps [low, high] to [-1, 1]

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
    """`members` networks that score actions: (observation [B, D], candidates [B, K, A]) -> [members, B, K].

    Given `wanted` [B, K] bool, only those candidates are evaluated, and the scores of the others are 0.
    """

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
        encoded: Tensor = self.encoder_out(self.encoder_in(x).relu_()).relu_()
        return encoded

    def score(self, features: Tensor, candidates: Tensor) -> Tensor:
        """(phi(o) [members, B, hidden], candidates [B, K, A]) -> [members, B, K]."""
        actions = self._scaled(candidates)
        state = self.state_part(features)
        if candidates.shape[1] == 1:  # the executed action, in the loss: all networks at once, with fewer steps
            joint = torch.baddbmm(state, actions[:, 0].expand(self.members, -1, -1), self.action_part).relu_()
            return (joint * self.score_weight[:, None]).sum(dim=-1, keepdim=True) + self.score_bias
        scores = []
        # Network by network and in place: memory traffic over [B, K, hidden] determines the cost of an update, and
        # batched products with so few columns are several times slower than these.
        for m in range(self.members):
            joint = torch.matmul(actions, self.action_part[m]).add_(state[m, :, None]).relu_()
            scores.append(torch.matmul(joint, self.score_weight[m]))
        return torch.stack(scores) + self.score_bias

    def score_wanted(self, features: Tensor, candidates: Tensor, wanted: Tensor) -> Tensor:
        """As `score`, of the candidates in `wanted` [B, K] alone: gathered, scored, and put back among zeros."""
        at = wanted.flatten().nonzero()[:, 0]
        rows = at // wanted.shape[1]
        actions = self._scaled(candidates.flatten(0, 1).index_select(0, at))
        state: Tensor = self.state_part(features)
        scores = state.new_zeros(self.members, wanted.numel())
        for m in range(self.members):
            joint = state[m].index_select(0, rows).addmm_(actions, self.action_part[m]).relu_()
            scores[m].index_copy_(0, at, torch.mv(joint, self.score_weight[m]).add_(self.score_bias[m, 0]))
        return scores.view(-1, *wanted.shape)

    def forward(self, observation: Tensor, candidates: Tensor, wanted: Tensor | None = None) -> Tensor:
        features = self.encode(observation)
        return self.score(features, candidates) if wanted is None else self.score_wanted(features, candidates, wanted)

    def _scaled(self, actions: Tensor) -> Tensor:
        """[low, high] -> [-1, 1] in each entry."""
        return 2.0 * (actions - self.action_low) / (self.action_high - self.action_low) - 1.0


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


class ValueNetwork(nn.Module):
    """What the extracted policy promises: observation [B, D] -> value [B], in the unit of the reward."""

    scale: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, spec: ProblemSpec, hidden: int, centre: float, spread: float) -> None:
        """`centre` and `spread` of the values, so that the layers learn numbers about 1."""
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(spec.observation_scale.copy()))
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("spread", torch.tensor(spread))
        self.layers = nn.Sequential(
            nn.Linear(spec.observation_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, observation: Tensor) -> Tensor:
        value: Tensor = self.layers(observation / self.scale)[:, 0]
        return self.centre + self.spread * value
