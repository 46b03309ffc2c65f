import numpy as np
import pytest
import torch

from safe_support_ql.learning.extraction import extract, fit_value, support_log_prob
from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.soft_value import optimal_policy
from safe_support_ql.learning.trainer import Trainer


def make_trainer(spec: ProblemSpec, journal: Rows, **settings: object) -> Trainer:
    config = LearnerConfig(
        **{
            "hidden": 32,
            "batch_size": 128,
            "device": "cpu",
            "seed": 0,
            "learning_rate": 3e-3,
            "extraction_updates": 600,
            "alpha": 0.3,
        }
        | settings
    )
    trainer = Trainer(config, spec)
    trainer.replay.append(journal)
    return trainer


def test_student_matches_the_optimal_policy(spec: ProblemSpec, journal: Rows):
    seen = []
    extract(make_trainer(spec, journal), lambda update, metrics: seen.append((update, metrics)))
    assert [update for update, _ in seen] == [100, 200, 300, 400, 500, 600]
    kls = [metrics["kl"] for _, metrics in seen]
    assert all(kl > -1e-5 for kl in kls)
    assert kls[-1] < 0.02 and kls[-1] < kls[0]


def test_off_support_weight_lowers_the_mass_an_ungated_run_would_use(spec: ProblemSpec, journal: Rows):
    mass = {}
    for weight in (0.0, 1.0):
        seen = []
        extract(
            make_trainer(spec, journal, off_support_weight=weight, extraction_updates=200),
            lambda _, metrics, seen=seen: seen.append(metrics["off_support_mass"]),
        )
        mass[weight] = seen[-1]
    assert mass[1.0] < mass[0.0]


def test_extraction_repeats_and_leaves_the_trainer_alone(spec: ProblemSpec, journal: Rows):
    trainer = make_trainer(spec, journal, extraction_updates=20)
    before, torch_state = trainer.rng.bit_generator.state, torch.get_rng_state()
    one, other = (extract(trainer) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert trainer.rng.bit_generator.state == before
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_student_has_no_mass_outside_the_support():
    log_prob = support_log_prob(torch.randn(4, 6), torch.tensor([[True, False, True, True, False, True]]).expand(4, -1))
    assert (log_prob[:, [1, 4]] == -torch.inf).all()
    torch.testing.assert_close(log_prob.exp().sum(dim=-1), torch.ones(4))


def test_q_that_is_not_finite_stops_the_extraction(spec: ProblemSpec, journal: Rows):
    trainer = make_trainer(spec, journal)
    with torch.no_grad():
        next(trainer.target_network.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="is Q finite"):
        extract(trainer)


def test_the_value_network_says_what_the_policy_is_worth_by_the_same_q(spec: ProblemSpec, journal: Rows):
    trainer = make_trainer(spec, journal, alpha=0.3)
    trainer.update(300)
    before = trainer.rng.bit_generator.state
    network, facts = fit_value(trainer)
    assert trainer.rng.bit_generator.state == before
    batch = trainer.replay.sample_states(500, np.random.default_rng(0), trainer.device)
    weighted = batch.support & (batch.log_weight > -torch.inf)
    q = trainer.q_values(batch.observation, batch.candidates, weighted)
    pi_star = optimal_policy(q, batch.log_weight, 0.3)
    worth = (pi_star * torch.where(weighted, q, 0.0)).sum(dim=-1)
    with torch.no_grad():
        error = (network(batch.observation) - worth).std() / worth.std()
    # What the candidates add, it cannot see: supports differ in this journal without the observation showing it.
    assert error < 0.8 and facts["value_spread"] == pytest.approx(float(worth.std()), rel=0.2)
    assert 0.0 < facts["value_cost"] < 0.3 * np.log(len(q[0]))
