"""Stage two, policy extraction: distil pi*, which follows from a fixed Q, into a policy network (docs/method.md).

And what pi* promises into a value network, so that a robot notices when its returns fall short of it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from safe_support_ql.learning.networks import PolicyNetwork, ValueNetwork
from safe_support_ql.learning.soft_value import kl_to_behavior, optimal_policy
from safe_support_ql.learning.trainer import Trainer

REPORT_EVERY = 100  # updates
VALUE_UPDATES, VALUE_HIDDEN = 2000, 64
SAMPLE = 4096  # states for the spread of the values


def support_log_prob(logits: Tensor, support: Tensor) -> Tensor:
    """log softmax over the support: logits, support [B, K] -> [B, K], -inf outside the support."""
    return torch.log_softmax(logits.masked_fill(~support, -torch.inf), dim=-1)


def extract(trainer: Trainer, progress: Callable[[int, dict[str, float]], None] | None = None) -> PolicyNetwork:
    """max_phi E_s sum_i pi*_i log pi_phi(a_i | o, support), less `off_support_weight` times the off-support mass.

    `progress(updates, metrics)` is called every 100 updates and at the last: kl = KL(pi* || pi_phi) in nats and
    off_support_mass = the share of the *unmasked* softmax on real candidates outside the support, both means over the
    batch. Seed and replay determine the result; the trainer's own random state is unchanged. Raises ValueError if the
    replay is empty, FloatingPointError if the loss is not finite.
    """
    config, spec = trainer.config, trainer.spec
    rng = np.random.default_rng([config.seed, 2])  # a stream of its own, different from the trainer's
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        policy = PolicyNetwork(spec, config.hidden).to(trainer.device)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, fused=True)
    # Q is fixed, so the step size may go to zero, which removes the sampling noise from the result.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=config.extraction_updates)

    for update in range(1, config.extraction_updates + 1):
        batch = trainer.replay.sample_states(config.batch_size, rng, trainer.device)
        # An executed action that was appended outside beta is certified, but pi* is not defined there: leave it out.
        weighted = batch.support & (batch.log_weight > -torch.inf)
        q = trainer.q_values(batch.observation, batch.candidates, weighted)
        pi_star = optimal_policy(q, batch.log_weight, config.alpha).float()

        logits = policy(batch.observation, batch.candidates, batch.is_plan)
        log_pi = support_log_prob(logits, weighted).masked_fill(~weighted, 0.0)
        cross_entropy = -(pi_star * log_pi).sum(dim=-1).mean()
        unmasked = torch.softmax(logits.masked_fill(~batch.real, -torch.inf), dim=-1)
        off_support = unmasked.masked_fill(batch.support, 0.0).sum(dim=-1).mean()
        loss = cross_entropy + config.off_support_weight * off_support
        if not torch.isfinite(loss):
            raise FloatingPointError(f"extraction loss is {loss.item()} at update {update}: is Q finite?")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no annotation for it
        optimizer.step()
        schedule.step()

        if progress is not None and (update % REPORT_EVERY == 0 or update == config.extraction_updates):
            entropy = -torch.xlogy(pi_star, pi_star).sum(dim=-1).mean()
            kl = (cross_entropy.detach() - entropy).item()
            progress(update, {"kl": kl, "off_support_mass": off_support.item()})
    return policy.eval()


def fit_value(trainer: Trainer) -> tuple[ValueNetwork, dict[str, float]]:
    """A network of E_{pi*} Q, and the facts that a return is compared with.

    Facts: value_spread, the standard deviation of the values over the replay; value_cost, alpha times the mean of
    KL(pi*||beta), by which the values count each later tick as worse than its reward. Raises as `extract` does.
    """
    config, spec = trainer.config, trainer.spec
    rng = np.random.default_rng([config.seed, 3])

    def targets(n: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = trainer.replay.sample_states(n, rng, trainer.device)
        weighted = batch.support & (batch.log_weight > -torch.inf)
        q = trainer.q_values(batch.observation, batch.candidates, weighted)
        pi_star = optimal_policy(q, batch.log_weight, config.alpha)
        value = (pi_star * torch.where(weighted, q, 0.0)).sum(dim=-1)
        return batch.observation, value.float(), kl_to_behavior(pi_star, batch.log_weight)

    _, values, kl = targets(SAMPLE)
    spread = max(float(values.std()), 1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = ValueNetwork(spec, VALUE_HIDDEN, float(values.mean()), spread).to(trainer.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=VALUE_UPDATES)
    for update in range(VALUE_UPDATES):
        observation, value, _ = targets(config.batch_size)
        loss = (((network(observation) - value) / spread) ** 2).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"value loss is {loss.item()} at update {update}: is Q finite?")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval(), {"value_spread": spread, "value_cost": config.alpha * float(kl.mean())}
