import numpy as np
import pytest
import torch

from safe_support_ql.learning.networks import CandidateNetwork, PolicyNetwork, ProblemSpec


def test_score_of_a_candidate_depends_on_its_value_and_not_on_its_place(spec: ProblemSpec):
    network = CandidateNetwork(spec, 16, members=2)
    observation, candidates = torch.randn(5, 3), torch.randn(5, 8, 2)
    order = torch.randperm(8)
    torch.testing.assert_close(
        network(observation, candidates)[..., order], network(observation, candidates[:, order]), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        network(observation, candidates)[..., :1], network(observation, candidates[:, :1]), rtol=1e-5, atol=1e-6
    )


def test_stacked_members_equal_separate_networks_written_out(spec: ProblemSpec):
    network = CandidateNetwork(spec, 16, members=2)
    observation, candidates = torch.randn(4, 3), torch.randn(4, 8, 2)
    scores = network(observation, candidates)
    action = 2 * (candidates - torch.tensor([-1.0, 0.0])) / torch.tensor([2.0, 4.0]) - 1
    for m in range(2):

        def linear(x: torch.Tensor, layer: torch.nn.Module, member: int = m) -> torch.Tensor:
            return x @ layer.weight[member] + layer.bias[member]

        x = torch.relu(linear(observation / torch.tensor([1.0, 2.0, 0.5]), network.encoder_in))
        x = linear(torch.relu(linear(x, network.encoder_out)), network.state_part)
        joint = torch.relu(x[:, None] + action @ network.action_part[m])
        torch.testing.assert_close(
            scores[m], joint @ network.score_weight[m] + network.score_bias[m], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_wanted_candidates_score_as_among_all_and_the_others_zero(spec: ProblemSpec, share: float):
    network = CandidateNetwork(spec, 16, members=2)
    observation, candidates, wanted = torch.randn(40, 3), torch.randn(40, 8, 2), torch.rand(40, 8) < share
    wanted[7] = False
    scores = network(observation, torch.where(wanted[..., None], candidates, torch.nan), wanted)
    expected = torch.where(wanted, network(observation, candidates), 0.0)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_members_start_and_learn_apart(spec: ProblemSpec):
    network = CandidateNetwork(spec, 16, members=2)
    scores = network(torch.randn(4, 3), torch.randn(4, 8, 2))
    assert not torch.allclose(scores[0], scores[1])
    scores[0].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None and (parameter.grad[1] == 0).all()


def test_only_the_atom_gets_the_plan_logit(spec: ProblemSpec):
    policy = PolicyNetwork(spec, 16)
    observation, candidates = torch.randn(4, 3), torch.randn(4, 8, 2)
    is_plan = torch.from_numpy(np.eye(8, dtype=bool)[[0, 3, 3, 7]])
    difference = policy(observation, candidates, is_plan) - policy(observation, candidates, torch.zeros_like(is_plan))
    assert (difference[~is_plan] == 0).all() and (difference[is_plan] != 0).all()
