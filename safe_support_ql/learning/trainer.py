"""Stage one: Q-learning on the support with a KL-regularised Bellman target (docs/method.md)."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from safe_support_ql.learning.networks import CandidateNetwork, ProblemSpec
from safe_support_ql.learning.replay import Replay
from safe_support_ql.learning.soft_value import (
    effective_sample_share,
    kl_to_behavior,
    optimal_policy,
    reduce_members,
    soft_value,
)


@dataclass(frozen=True)
class LearnerConfig:
    """Every hyper-parameter of the learner. `ValueError` names the key and the allowed range."""

    gamma: float = 0.99  # discount per control tick
    alpha: float = 0.1  # temperature, reward units: small trusts Q, large stays near beta
    learning_rate: float = 3e-4
    batch_size: int = 256
    tau: float = 0.01  # share of the online network that enters the target at each update
    hidden: int = 128
    twin: Literal["min", "mean"] = "min"  # how the two Q-functions become one
    loss: Literal["mse", "huber"] = "mse"  # Huber bounds gradients, and is biased where the target is skewed
    updates_per_tick: float = 1.0  # gradient steps per recorded decision; whoever runs the trainer keeps this budget
    extraction_updates: int = 4000
    off_support_weight: float = 0.1  # weight of the unmasked softmax's off-support mass in the extraction loss
    replay_capacity: int = 200_000  # decisions
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        allowed = {
            "gamma": (0.0 <= self.gamma < 1.0, "[0, 1)"),
            "alpha": (0.0 < self.alpha < math.inf, "(0, inf)"),
            "learning_rate": (0.0 < self.learning_rate <= 1.0, "(0, 1]"),
            "batch_size": (self.batch_size >= 1, "[1, inf)"),
            "tau": (0.0 < self.tau <= 1.0, "(0, 1]"),
            "hidden": (self.hidden >= 1, "[1, inf)"),
            "twin": (self.twin in ("min", "mean"), "min | mean"),
            "loss": (self.loss in ("mse", "huber"), "mse | huber"),
            "updates_per_tick": (self.updates_per_tick >= 0, "[0, inf)"),
            "extraction_updates": (self.extraction_updates >= 1, "[1, inf)"),
            "off_support_weight": (0.0 <= self.off_support_weight < math.inf, "[0, inf)"),
            "replay_capacity": (self.replay_capacity >= 2, "[2, inf)"),
            "seed": (self.seed >= 0, "[0, inf)"),
            "device": (self.device in ("auto", "cpu", "cuda"), "auto | cpu | cuda"),
        }
        for key, (holds, range_text) in allowed.items():
            if not holds:
                raise ValueError(f"learner.{key} must be in {range_text}, got {getattr(self, key)!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("learner.device must be auto | cpu here: torch finds no CUDA device, got 'cuda'")


# (observation [B, D], candidates [B, K, A]) -> Q-values [members, B, K]
QFactory = Callable[[ProblemSpec, LearnerConfig], nn.Module]


def twin_q_network(spec: ProblemSpec, config: LearnerConfig) -> nn.Module:
    """The default Q-function: two independent networks, stacked."""
    return CandidateNetwork(spec, config.hidden, members=2)


class Trainer:
    """Owns the replay, the Q-networks and their targets. Append to `replay`, call `update`, read the metrics."""

    def __init__(self, config: LearnerConfig, spec: ProblemSpec, q_factory: QFactory = twin_q_network) -> None:
        self.config = config
        self.spec = spec
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(chosen if config.device == "auto" else config.device)
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.replay = Replay(spec, config.replay_capacity)
        self.q_network = q_factory(spec, config).to(self.device)
        self.target_network = copy.deepcopy(self.q_network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.q_network.parameters(), lr=config.learning_rate, fused=True)
        self.updates = 0
        self.rows_consumed = 0  # decisions that were in the replay at the last update
        self.last_sequence = -1  # journal sequence number of the last of them

    def update(self, n_updates: int) -> dict[str, float]:
        """`n_updates` gradient steps; the metrics are means over them.

        Metrics: q_loss (reward units squared for mse), alpha, kl (nats, E KL(pi*||beta)), effective_sample_share,
        mean_value (reward units), updates (total), target_progress = updates tau (1 - gamma), which should pass 5:
        below that a slow target looks like bias.

        Raises:
            ValueError: no transition yet, or a checkpoint was loaded and its journal rows were not appended again.
            FloatingPointError: the loss is not finite. No step was taken on it; resume from a checkpoint.
        """
        config = self.config
        if self.replay.appended < self.rows_consumed:
            raise ValueError(
                f"replay holds {self.replay.appended} journal rows, the checkpoint knows {self.rows_consumed}: "
                f"append the journal up to sequence {self.last_sequence} before training goes on"
            )
        totals = torch.zeros(4, device=self.device)
        for _ in range(n_updates):
            batch = self.replay.sample(config.batch_size, self.rng, self.device)
            with torch.no_grad():
                next_q = self.q_values(batch.next_observation, batch.next_candidates)
                value = soft_value(next_q, batch.next_log_weight, config.alpha)
                # where, not a product: an absorbing state may have no candidate and so V = -inf
                target = batch.reward + config.gamma * torch.where(batch.terminated, 0.0, value)

            q = self.q_network(batch.observation, batch.action[:, None])[..., 0]  # [members, N]
            per_item = functional.mse_loss if config.loss == "mse" else functional.huber_loss
            loss = per_item(q, target.expand_as(q).to(q.dtype))
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"Q loss is {loss.item()} at update {self.updates}: "
                    f"lower learner.learning_rate ({config.learning_rate}) or check the reward scale; "
                    f"largest |target| {target.abs().max().item():.3g}"
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships no annotation for it
            self.optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(self.target_network.parameters(), self.q_network.parameters(), strict=True):
                    slow.lerp_(fast, config.tau)
                policy = optimal_policy(next_q, batch.next_log_weight, config.alpha)
                alive = ~batch.terminated
                kl = kl_to_behavior(policy, batch.next_log_weight)
                share = effective_sample_share(policy, batch.next_log_weight)
                means = [torch.where(alive, x, 0.0).sum() / alive.sum().clamp(min=1) for x in (kl, share, value)]
                totals += torch.stack([loss.detach(), *means]).to(totals.dtype)
            self.updates += 1
        self.rows_consumed = self.replay.appended
        self.last_sequence = self.replay.last_sequence

        mean_loss, mean_kl, mean_share, mean_value = (totals / max(n_updates, 1)).tolist()
        return {
            "q_loss": mean_loss,
            "alpha": config.alpha,
            "kl": mean_kl,
            "effective_sample_share": mean_share,
            "mean_value": mean_value,
            "updates": float(self.updates),
            "target_progress": self.updates * config.tau * (1.0 - config.gamma),
        }

    @torch.no_grad()
    def q_values(self, observation: Tensor, candidates: Tensor) -> Tensor:
        """The Q that defines V, pi* and the calibration: twin-reduced target network, [B, D], [B, K, A] -> [B, K].

        The target network, because its average over the last 1/tau updates is less noisy and it is what the metrics
        report.
        """
        return reduce_members(self.target_network(observation, candidates), self.config.twin)
