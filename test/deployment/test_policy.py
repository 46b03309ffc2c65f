"""OnnxPolicy on small hand-made graphs: torch is not needed to serve a policy, and a broken graph must not pass."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker, helper

from safe_support_ql.deployment.contract import PolicyContract
from safe_support_ql.deployment.policy import OnnxPolicy

D, K, A = 2, 3, 1
INPUTS = {
    "observation": (TensorProto.FLOAT, [D]),
    "candidates": (TensorProto.FLOAT, [K, A]),
    "support": (TensorProto.BOOL, [K]),
    "is_plan": (TensorProto.BOOL, [K]),
    "log_proposal": (TensorProto.FLOAT, [K]),
    "noise": (TensorProto.FLOAT, [K]),
}


def make_graph(log_prob: float | None = None, action: str = "chosen", k: int = K) -> bytes:
    """log_prob = noise (or a constant) on the support; action = the best supported one, or one from nowhere."""
    constants = {"low": [-np.inf], "level": [0.0 if log_prob is None else log_prob], "foreign": [[77.0]], "axis": [2]}
    nodes = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, np.shape(value), np.ravel(value)))
        for name, value in constants.items()
        for kind in [TensorProto.INT64 if name == "axis" else TensorProto.FLOAT]
    ]
    source = "noise" if log_prob is None else "level"
    nodes += [
        helper.make_node("Where", ["support", source, "low"], ["log_prob"]),
        helper.make_node("Where", ["support", "noise", "low"], ["preference"]),
        helper.make_node("ArgMax", ["preference"], ["index"], axis=1, keepdims=1),
        helper.make_node("Unsqueeze", ["index", "axis"], ["place"]),
        helper.make_node("GatherElements", ["candidates", "place"], ["picked"], axis=1),
        helper.make_node("Squeeze", ["picked", "axis"], ["chosen_action"]),
        helper.make_node("Identity", ["foreign" if action == "foreign" else "chosen_action"], ["action"]),
    ]
    shapes = {name: (kind, [k if n == K else n for n in shape]) for name, (kind, shape) in INPUTS.items()}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (kind, shape) in shapes.items()],
        [
            helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", A]),
            helper.make_tensor_value_info("log_prob", TensorProto.FLOAT, ["batch", k]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return model.SerializeToString()


def make_inputs(**changes: object) -> dict[str, np.ndarray]:
    inputs = {
        "observation": np.zeros(D, np.float32),
        "candidates": np.array([[-1.0], [0.5], [np.nan]], np.float32),
        "support": np.array([True, True, False]),
        "is_plan": np.array([True, False, False]),
        "log_proposal": np.zeros(K, np.float32),
        "noise": np.array([0.1, 0.2, 9.0], np.float32),
    }
    return {**inputs, **changes}


@pytest.fixture
def make_policy(bundle, tmp_path: Path):
    def make(graph: bytes, **changes: object) -> OnnxPolicy:
        bundle(tmp_path / "policy.onnx", graph, **changes)
        return OnnxPolicy(tmp_path / "policy.onnx", PolicyContract("toy", "5afe", D, A, K, "lattice 2 + plan"))

    return make


def test_choice_is_the_best_supported_candidate_with_its_index(make_policy):
    index, action, log_prob = make_policy(make_graph()).act(**make_inputs())
    assert (index, action.tolist()) == (1, [0.5])
    assert log_prob.tolist() == [pytest.approx(0.1), pytest.approx(0.2), -np.inf]


def test_of_two_equal_candidates_the_likelier_is_named(make_policy):
    twice = np.array([[0.5], [0.5], [0.5]], np.float32)
    index, _, _ = make_policy(make_graph()).act(**make_inputs(candidates=twice))
    assert index == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("support", np.zeros(K, bool), "'support' is empty"),
        ("observation", np.array([0.0, np.nan]), "'observation' is not finite"),
        ("candidates", np.array([[np.inf], [0.0], [0.0]]), "'candidates' is not finite on the support"),
        ("log_proposal", np.array([np.nan, 0.0, 0.0]), "'log_proposal' is not finite on the support"),
        ("noise", np.array([-np.inf, 0.0, 0.0]), "'noise' is not finite on the support"),
        ("support", np.ones(K + 1, bool), r"'support' has shape \(4,\), must be \(3,\)"),
        ("observation", np.zeros((1, D)), r"'observation' has shape \(1, 2\), must be \(2,\)"),
    ],
)
def test_input_that_allows_no_safe_choice_is_refused(make_policy, name: str, value: np.ndarray, message: str):
    policy = make_policy(make_graph())
    with pytest.raises(ValueError, match=message):
        policy.act(**make_inputs(**{name: value}))


def test_graph_that_returns_nan_is_refused_before_it_serves(make_policy):
    with pytest.raises(ValueError, match=r"policy\.onnx: log_prob is not finite on the support"):
        make_policy(make_graph(log_prob=np.nan))


def test_graph_that_invents_an_action_is_refused_before_it_serves(make_policy):
    with pytest.raises(ValueError, match=r"action \[77\.0\] is no supported candidate"):
        make_policy(make_graph(action="foreign"))


def test_graph_of_other_shape_than_its_manifest_is_refused(make_policy):
    with pytest.raises(ValueError, match="graph inputs are .* must be .* as in the manifest"):
        make_policy(make_graph(k=5))


def test_policy_of_another_robot_is_refused(make_policy):
    with pytest.raises(ValueError, match="'robot' is 'boat', must be 'toy'"):
        make_policy(make_graph(), robot="boat")
