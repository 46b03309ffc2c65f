"""The learner's hyper-parameters: another one goes here. No torch: every process validates them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safe_support_ql.parameters import choice, param

RUN_SEED = -1  # stands for the seed of the run


@dataclass(frozen=True)
class LearnerConfig:
    """Every hyper-parameter of the learner."""

    gamma: float = param(0.99, "1", 0.0, 0.99999, "discount per control tick")
    alpha: float = param(0.1, "reward", 1e-9, 1e9, "temperature: small trusts Q, large stays near beta")
    learning_rate: float = param(3e-4, "1", 1e-9, 1.0, "Adam's step size")
    batch_size: int = param(256, "1", 1, 1_000_000, "transitions in an update")
    tau: float = param(0.01, "1", 1e-9, 1.0, "share of the online network that enters the target at each update")
    hidden: int = param(128, "1", 1, 65_536, "width of a hidden layer")
    twin: str = choice("min", ("min", "mean"), "how the two Q-functions become one")
    loss: str = choice("mse", ("mse", "huber"), "Huber bounds gradients, but is biased for skewed targets")
    updates_per_tick: float = param(1.0, "1", 0.0, 1000.0, "gradient steps per recorded decision")
    extraction_updates: int = param(4000, "1", 1, 100_000_000, "gradient steps of stage two")
    off_support_weight: float = param(
        0.1, "1", 0.0, 1e9, "weight of the unmasked softmax's off-support mass in the extraction loss"
    )
    replay_capacity: int = param(200_000, "decisions", 2, 1_000_000_000, "number of the newest decisions to learn from")
    seed: int = param(RUN_SEED, "1", RUN_SEED, 2**53, f"seed of weights and batches; {RUN_SEED}: that of the run")
    device: str = choice("auto", ("auto", "cpu", "cuda"), "device of the learner; auto: cuda if there is one")

    def seeded(self, run_seed: int) -> LearnerConfig:
        """These settings with the seed of the run, unless they have one of their own."""
        return replace(self, seed=run_seed) if self.seed == RUN_SEED else self
