"""Stage one, Q-learning on the support: Bellman target, loss, gradient step and metrics (docs/method.md)."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from safe_support_ql.learning.networks import CandidateNetwork, ProblemSpec
from safe_support_ql.learning.replay import Batch, Replay
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.soft_value import (
    effective_sample_share,
    kl_to_behavior,
    optimal_policy,
    reduce_members,
    soft_value,
)

METRICS_EVERY = 10  # updates: what is only looked at need not be computed for each

# (observation [B, D], candidates [B, K, A], optionally wanted [B, K]) -> Q-values [members, B, K], used where wanted
QFactory = Callable[[ProblemSpec, LearnerConfig], nn.Module]


def twin_q_network(spec: ProblemSpec, config: LearnerConfig) -> nn.Module:
    """The default Q-function: two independent networks, stacked."""
    return CandidateNetwork(spec, config.hidden, members=2)


class Trainer:
    """Owns the replay, the Q-networks and their targets. Append to `replay`, call `update`, read the metrics."""

    def __init__(self, config: LearnerConfig, spec: ProblemSpec, q_factory: QFactory = twin_q_network) -> None:
        """Build the networks. Raises ValueError for device cuda if torch finds none, and without a seed."""
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("learner: device is 'cuda', must be auto or cpu here: torch finds no CUDA device")
        if config.seed < 0:
            raise ValueError(f"learner: seed is {config.seed}, must be 0 or more: see LearnerConfig.seeded")
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
        self._slow, self._fast = (tuple(net.parameters()) for net in (self.target_network, self.q_network))
        self.updates = 0
        self.rows_consumed = 0  # decisions in the replay at the last update
        self.last_sequence = -1  # journal sequence number of the last of them
        self._newest: tuple[float, ...] = ()  # of the metrics that are not computed at each update

    def update(self, n_updates: int) -> dict[str, float]:
        """`n_updates` (at least 1) gradient steps, and the metrics.

        Metrics: q_loss (reward units squared for mse), the mean over these updates; kl (nats, E KL(pi*||beta)),
        effective_sample_share and mean_value (reward units), means over those of these updates in which they were
        computed, every tenth, or the newest if there was none; alpha; updates (total); target_progress = updates tau
        (1 - gamma), which should exceed 5: below 5, the targets have not converged yet.

        Raises:
            ValueError: there is no transition yet, or the journal was not appended again after loading a checkpoint.
            FloatingPointError: the loss is not finite. No step was made with it; resume from a checkpoint.
        """
        config = self.config
        if self.replay.appended < self.rows_consumed:
            raise ValueError(
                f"replay holds {self.replay.appended} journal rows, the checkpoint knows {self.rows_consumed}: "
                f"append the journal up to sequence {self.last_sequence} before training continues"
            )
        losses: list[float] = []
        computed: list[list[float]] = []
        for left in reversed(range(n_updates)):
            batch = self.replay.sample(config.batch_size, self.rng, self.device)
            with torch.no_grad():
                next_q = self.q_values(
                    batch.next_observation, batch.next_candidates, batch.next_log_weight > -torch.inf
                )
                value = soft_value(next_q, batch.next_log_weight, config.alpha)
                # `where`, not a product: an absorbing state may have no candidate, and then V is -inf
                target = batch.reward + config.gamma * torch.where(batch.terminated, 0.0, value)

            q = self.q_network(batch.observation, batch.action[:, None])[..., 0]  # [members, N]
            per_item = functional.mse_loss if config.loss == "mse" else functional.huber_loss
            loss = per_item(q, target.expand_as(q).to(q.dtype))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"Q loss is {losses[-1]} at update {self.updates}: "
                    f"lower learner.learning_rate ({config.learning_rate}) or check the reward scale; "
                    f"largest |target| {target.abs().max().item():.3g}"
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships no annotation for it
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self._slow, self._fast, config.tau)
            # A trainer from a checkpoint may meet no tenth update in its first call: then its last one.
            if self.updates % METRICS_EVERY == 0 or not (left or computed or self._newest):
                computed.append(self._means(next_q, value, batch))
            self.updates += 1
        self.rows_consumed = self.replay.appended
        self.last_sequence = self.replay.last_sequence

        if computed:
            self._newest = tuple(np.mean(computed, axis=0).tolist())
        kl, share, mean_value = self._newest
        return {
            "q_loss": sum(losses) / n_updates,
            "alpha": config.alpha,
            "kl": kl,
            "effective_sample_share": share,
            "mean_value": mean_value,
            "updates": float(self.updates),
            "target_progress": self.updates * config.tau * (1.0 - config.gamma),
        }

    @torch.no_grad()
    def _means(self, next_q: Tensor, value: Tensor, batch: Batch) -> list[float]:
        """KL, effective sample share and soft value: means over those s' of a batch that are not absorbing."""
        policy = optimal_policy(next_q, batch.next_log_weight, self.config.alpha)
        kl = kl_to_behavior(policy, batch.next_log_weight)
        share = effective_sample_share(policy, batch.next_log_weight)
        alive = ~batch.terminated
        means = [torch.where(alive, x, 0.0).sum() / alive.sum().clamp(min=1) for x in (kl, share, value)]
        return [mean.item() for mean in means]

    @torch.no_grad()
    def q_values(self, observation: Tensor, candidates: Tensor, wanted: Tensor | None = None) -> Tensor:
        """The Q of V and pi*: the twin-reduced target network, [B, D], [B, K, A] -> [B, K].

        The target network is used because it averages the last 1/tau updates, and because the metrics use it. V and pi*
        need the candidates that beta can draw alone: with those as `wanted` [B, K], the rest is not evaluated.
        """
        return reduce_members(self.target_network(observation, candidates, wanted), self.config.twin)
