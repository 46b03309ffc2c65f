from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from safe_support_ql.learning.checkpoint import load_checkpoint, save_checkpoint
from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.soft_value import soft_value
from safe_support_ql.learning.trainer import Trainer

SMALL = {"hidden": 16, "batch_size": 32, "device": "cpu", "seed": 0}


def test_cuda_is_refused_where_there_is_none(spec: ProblemSpec, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda', must be auto or cpu here: torch finds no CUDA device$"):
        Trainer(LearnerConfig(**SMALL | {"device": "cuda"}), spec)


def test_settings_without_a_seed_are_refused(spec: ProblemSpec):
    with pytest.raises(ValueError, match="seed is -1"):
        Trainer(LearnerConfig(), spec)


def test_learning_lowers_the_loss_and_reports_every_metric(spec: ProblemSpec, journal: Rows):
    trainer = Trainer(LearnerConfig(**SMALL, learning_rate=3e-3, tau=0.05, gamma=0.5), spec)
    trainer.replay.append(journal)
    first, last = trainer.update(50), trainer.update(400)
    assert last["q_loss"] < 0.8 * first["q_loss"]
    assert set(last) == {
        "q_loss",
        "alpha",
        "kl",
        "effective_sample_share",
        "mean_value",
        "updates",
        "target_progress",
    }
    assert last["kl"] >= 0 and 0 < last["effective_sample_share"] <= 1
    assert last["updates"] == 450
    assert (trainer.rows_consumed, trainer.last_sequence) == (400, 399)


def test_metrics_of_every_tenth_update_are_told_until_there_are_newer_ones(spec: ProblemSpec, journal: Rows):
    """However the updates are cut into calls, and q_loss is of those of the call."""
    told, at_once = [], []
    for slices, seen in ((1, told), (4, []), (20, at_once)):
        trainer = Trainer(LearnerConfig(**SMALL, tau=0.5), spec)
        trainer.replay.append(journal)
        seen += [trainer.update(slices) for _ in range(20 // slices)]
        assert [metrics["updates"] for metrics in seen] == [*range(slices, 21, slices)]
    for name in ("kl", "effective_sample_share", "mean_value"):
        values = [metrics[name] for metrics in told]
        assert values == [values[0]] * 10 + [values[10]] * 10 and values[0] != values[10]
        assert at_once[0][name] == pytest.approx((values[0] + values[10]) / 2)
    assert len({metrics["q_loss"] for metrics in told}) == 20
    assert at_once[0]["q_loss"] == pytest.approx(np.mean([metrics["q_loss"] for metrics in told]))


def test_metrics_are_there_at_once_after_a_checkpoint(spec: ProblemSpec, journal: Rows, tmp_path: Path):
    trainer = Trainer(LearnerConfig(**SMALL), spec)
    trainer.replay.append(journal)
    trainer.update(12)
    save_checkpoint(tmp_path / "learner.ckpt", trainer)
    resumed = Trainer(LearnerConfig(**SMALL), spec)
    load_checkpoint(tmp_path / "learner.ckpt", resumed)
    resumed.replay.append(journal)
    first, second = resumed.update(2), resumed.update(2)
    assert np.isfinite(list(first.values())).all() and first["kl"] > 0
    assert second["kl"] == first["kl"] and second["q_loss"] != first["q_loss"]


def test_same_seed_gives_the_same_networks(spec: ProblemSpec, journal: Rows):
    results = []
    for _ in range(2):
        trainer = Trainer(LearnerConfig(**SMALL | {"seed": 5}), spec)
        trainer.replay.append(journal)
        trainer.update(20)
        results.append(torch.cat([p.flatten() for p in trainer.q_network.parameters()]))
    assert torch.equal(*results)


def test_q_ignores_candidates_outside_the_support(spec: ProblemSpec, journal: Rows):
    """Values outside the support, however large, do not change what is learned."""
    results = []
    for outside in (0.0, 1e3):
        trainer = Trainer(LearnerConfig(**SMALL), spec)
        candidates = np.where(journal["support"][..., None], journal["candidates"], np.float32(outside))
        trainer.replay.append({**journal, "candidates": candidates})
        trainer.update(20)
        results.append(torch.cat([p.flatten() for p in trainer.q_network.parameters()]))
    assert torch.equal(*results)


def test_soft_value_of_the_support_alone_is_the_plain_formula(spec: ProblemSpec, journal: Rows):
    """On every recorded decision, with the Q-values of all candidates, in NumPy."""
    trainer = Trainer(LearnerConfig(**SMALL), spec)
    log_weight, candidates = journal["log_weight"], np.nan_to_num(journal["candidates"])
    states = torch.from_numpy(journal["observation"]), torch.from_numpy(candidates)
    q = trainer.target_network(*states).amin(dim=0).double().numpy()
    plain = 0.1 * np.log((np.exp(log_weight.astype(np.float64)) * np.exp(q / 0.1)).sum(axis=1))
    support = torch.from_numpy(log_weight > -np.inf)
    assert support.float().mean() < 0.7
    value = soft_value(trainer.q_values(*states, support), torch.from_numpy(log_weight), 0.1)
    np.testing.assert_allclose(value.numpy(), plain, rtol=0, atol=1e-6)


def test_absorbing_state_without_candidates_does_not_poison_the_target(spec: ProblemSpec, journal: Rows):
    ended = journal["terminated"][:, None]
    log_weight = np.where(ended, np.float32(-np.inf), journal["log_weight"])
    trainer = Trainer(LearnerConfig(**SMALL), spec)
    trainer.replay.append({**journal, "log_weight": log_weight, "support": journal["support"] & ~ended})
    assert np.isfinite(list(trainer.update(50).values())).all()


def test_loss_that_is_not_finite_stops_the_run(spec: ProblemSpec, journal: Rows):
    trainer = Trainer(LearnerConfig(**SMALL), spec)
    trainer.replay.append({**journal, "reward": np.full(400, 1e30, np.float32)})
    with pytest.raises(FloatingPointError, match=r"Q loss is inf at update 0: lower learner\.learning_rate"):
        trainer.update(1)


def test_training_without_data_says_so(spec: ProblemSpec):
    with pytest.raises(ValueError, match="no transition yet"):
        Trainer(LearnerConfig(**SMALL), spec).update(1)


class Constant(nn.Module):
    """Q = one learned number: makes the target visible."""

    def __init__(self, spec: ProblemSpec, config: LearnerConfig) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([[[4.0]], [[2.0]]]))

    def forward(self, observation: Tensor, candidates: Tensor, wanted: Tensor | None = None) -> Tensor:
        return self.level.expand(2, candidates.shape[0], candidates.shape[1])


@pytest.mark.parametrize(("twin", "level"), [("min", 2.0), ("mean", 3.0)])
def test_twin_reduction_is_what_the_value_is_made_of(spec: ProblemSpec, journal: Rows, twin: str, level: float):
    trainer = Trainer(LearnerConfig(**SMALL, twin=twin, learning_rate=1e-9), spec, Constant)
    trainer.replay.append(journal)
    assert trainer.update(1)["mean_value"] == pytest.approx(level, abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("observation_dim", 0),
        ("observation_scale", np.array([1.0, 0.0, 1.0])),
        ("observation_scale", np.ones(4)),
        ("action_low", np.array([-1.0, np.nan])),
        ("action_low", np.array([1.0, 0.0])),
    ],
)
def test_spec_that_cannot_be_is_refused(spec: ProblemSpec, field: str, value: object):
    with pytest.raises(ValueError, match=field):
        ProblemSpec(**{**vars(spec), field: value})
