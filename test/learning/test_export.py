from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from safe_support_ql.deployment.manifest import PolicyContract, PolicyFacts, load_manifest
from safe_support_ql.deployment.policy import OnnxPolicy
from safe_support_ql.learning import export
from safe_support_ql.learning.export import INPUTS, DeployedPolicy, export_policy, structured_batch
from safe_support_ql.learning.networks import PolicyNetwork, ProblemSpec, ValueNetwork

FACTS = PolicyFacts(
    robot="toy",
    observation_names=["x", "y", "z"],
    observation_units=["m", "m", "rad"],
    action_names=["v", "w"],
    action_units=["m/s", "rad/s"],
    candidate_layout="lattice 7 + plan",
    alpha=0.1,
    gamma=0.99,
    seeds=[0],
    git_revision="0" * 40,
    safety_sha256="5afe",
    training={"updates": 10},
)


@pytest.fixture(scope="module")
def module_spec() -> ProblemSpec:
    return ProblemSpec(3, 2, 8, np.array([1.0, 2.0, 0.5]), np.array([-1.0, 0.0]), np.array([1.0, 4.0]))


@pytest.fixture(scope="module")
def exported(module_spec: ProblemSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DeployedPolicy]:
    path = tmp_path_factory.mktemp("models") / "policy.onnx"
    torch.manual_seed(0)
    policy = PolicyNetwork(module_spec, 16)
    export_policy(path, policy, module_spec, FACTS, observations=np.zeros((5, 3), np.float32))
    return path, DeployedPolicy(policy)


def run_torch(deployed: DeployedPolicy, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        action, log_prob = deployed(*(torch.from_numpy(batch[name]) for name in INPUTS))
    return action.numpy(), log_prob.numpy()


def test_graph_agrees_with_torch_for_any_batch_size(exported, module_spec: ProblemSpec):
    session = onnxruntime.InferenceSession(exported[0])
    for n in (1, 2, 33):
        batch = structured_batch(module_spec, n, np.random.default_rng(n))
        action, log_prob = session.run(["action", "log_prob"], batch)
        own_action, own_log_prob = run_torch(exported[1], batch)
        np.testing.assert_array_equal(action, own_action)
        np.testing.assert_allclose(log_prob, own_log_prob, atol=1e-4)


def test_log_prob_is_a_distribution_on_the_support_and_nothing_outside(exported, module_spec: ProblemSpec):
    batch = structured_batch(module_spec, 200, np.random.default_rng(1))
    _, log_prob = run_torch(exported[1], batch)
    np.testing.assert_allclose(np.exp(log_prob).sum(axis=1), 1.0, atol=1e-4)
    assert (log_prob[~batch["support"]] == -np.inf).all()


def test_huge_noise_outside_the_support_is_never_chosen(exported, module_spec: ProblemSpec):
    batch = structured_batch(module_spec, 200, np.random.default_rng(2))
    batch["candidates"] = np.random.default_rng(0).uniform(-1, 1, batch["candidates"].shape).astype(np.float32)
    batch["noise"] = np.where(batch["support"], 0.0, 1e30).astype(np.float32)
    action, _ = onnxruntime.InferenceSession(exported[0]).run(None, batch)
    chosen = (batch["candidates"] == action[:, None]).all(axis=-1)
    assert (chosen.sum(axis=1) == 1).all()
    assert (chosen & batch["support"]).any(axis=1).all()


def test_row_without_support_yields_nan_and_leaves_the_others_alone(exported, module_spec: ProblemSpec):
    batch = structured_batch(module_spec, 3, np.random.default_rng(3))
    batch["support"][1] = False
    action, log_prob = onnxruntime.InferenceSession(exported[0]).run(None, batch)
    assert np.isnan(action[1]).all()
    assert np.isfinite(action[[0, 2]]).all()
    assert not (log_prob[1] > -np.inf).any()


def test_constant_proposal_changes_nothing(exported, module_spec: ProblemSpec):
    batch = structured_batch(module_spec, 50, np.random.default_rng(4))
    zero, shifted = np.zeros((50, 8), np.float32), np.where(batch["is_plan"], 0.0, 3.0).astype(np.float32)
    _, one = run_torch(exported[1], {**batch, "log_proposal": zero})
    _, other = run_torch(exported[1], {**batch, "log_proposal": shifted})
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_proposal_is_divided_out_of_the_draws_and_the_atom_keeps_its_mass(exported, module_spec: ProblemSpec):
    batch = structured_batch(module_spec, 50, np.random.default_rng(5))
    plain = np.exp(run_torch(exported[1], {**batch, "log_proposal": np.zeros((50, 8), np.float32)})[1]).astype(float)
    log_prob = run_torch(exported[1], batch)[1]
    draws = batch["support"] & ~batch["is_plan"]
    weighted = np.where(draws, plain / np.exp(batch["log_proposal"]), 0.0)
    total = weighted.sum(axis=1, keepdims=True)
    by_hand = np.where(
        draws, weighted / np.where(total > 0, total, 1) * (plain * draws).sum(axis=1, keepdims=True), 0.0
    )
    by_hand += np.where(batch["is_plan"], plain, 0.0)
    np.testing.assert_allclose(np.exp(log_prob), by_hand, atol=1e-5)


def test_gumbel_noise_samples_the_distribution(exported, module_spec: ProblemSpec):
    rng = np.random.default_rng(6)
    row = {name: value[:1] for name, value in structured_batch(module_spec, 1, rng).items()}
    row["support"][:], row["log_proposal"][:] = True, 0.0
    row["candidates"] = rng.uniform(-1, 1, (1, 8, 2)).astype(np.float32)
    n = 20_000
    batch = {name: np.repeat(value, n, axis=0) for name, value in row.items()}
    batch["noise"] = rng.gumbel(size=(n, 8)).astype(np.float32)
    action, log_prob = run_torch(exported[1], batch)
    share = (row["candidates"] == action[:, None]).all(axis=-1).mean(axis=0)
    np.testing.assert_allclose(share, np.exp(log_prob[0]), atol=0.015)


def test_manifest_carries_what_the_exporter_knows(exported):
    manifest, _ = load_manifest(exported[0], PolicyContract("toy", "5afe", 3, 2, 8, FACTS.candidate_layout))
    assert manifest.candidates == 8
    assert manifest.training["updates"] == 10
    assert manifest.training["parity_error"] <= 1e-4
    assert sorted(p.name for p in exported[0].parent.iterdir()) == ["policy.json", "policy.onnx"]


def test_graph_that_disagrees_is_not_written(module_spec: ProblemSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "policy.onnx").write_bytes(b"the policy in use")
    monkeypatch.setattr(export, "PARITY_TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="not written: ONNX Runtime and torch differ"):
        export_policy(tmp_path / "policy.onnx", PolicyNetwork(module_spec, 16), module_spec, FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["policy.onnx"]
    assert (tmp_path / "policy.onnx").read_bytes() == b"the policy in use"


def test_parity_check_sees_other_weights_and_nan(exported, module_spec: ProblemSpec):
    graph = exported[0].read_bytes()
    batches = [structured_batch(module_spec, 64, np.random.default_rng(0))]
    assert export.parity_error(graph, exported[1], batches) == (pytest.approx(0, abs=1e-4), 0)
    error, differing = export.parity_error(graph, DeployedPolicy(PolicyNetwork(module_spec, 16)), batches)
    assert error > 1e-2 and differing > 0
    batches[0]["observation"][3] = np.nan
    assert export.parity_error(graph, exported[1], batches)[0] == np.inf


def test_names_that_do_not_fit_the_spec_are_refused(module_spec: ProblemSpec, tmp_path: Path):
    facts = PolicyFacts(**{**vars(FACTS), "action_units": ["m/s"]})
    with pytest.raises(ValueError, match="action_units has 1 entries, must have 2"):
        export_policy(tmp_path / "policy.onnx", PolicyNetwork(module_spec, 16), module_spec, facts)


def test_a_policy_with_a_value_network_says_what_it_promises_and_another_says_nothing(
    exported, module_spec: ProblemSpec, tmp_path: Path
):
    torch.manual_seed(1)
    value = ValueNetwork(module_spec, 8, 5.0, 2.0)
    path = tmp_path / "policy.onnx"
    export_policy(path, PolicyNetwork(module_spec, 16), module_spec, FACTS, value=value)
    contract = PolicyContract("toy", "5afe", 3, 2, 8, "lattice 7 + plan")
    for file, promises in ((path, True), (exported[0], False)):
        policy = OnnxPolicy(file, contract)
        one = {name: batch[0] for name, batch in structured_batch(module_spec, 1, np.random.default_rng(2)).items()}
        policy.act(*(one[name] for name in INPUTS))
        assert policy.promises is promises
        own = float(value(torch.from_numpy(one["observation"])[None])) if promises else np.nan
        assert policy.value == pytest.approx(own, nan_ok=True, abs=1e-4)
