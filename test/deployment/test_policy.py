"""OnnxPolicy on small hand-made graphs: torch is not needed to serve a policy, and a broken graph must not pass."""

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, load_from_string

from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.models import Models, tried
from safe_support_ql.deployment.policy import OnnxPolicy
from safe_support_ql.safety.candidates import CandidateSet

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


def changed(**versions: int) -> bytes:
    model = load_from_string(make_graph())
    model.ir_version = versions.get("ir", model.ir_version)
    model.opset_import[0].version = versions.get("opset", model.opset_import[0].version)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (changed(ir=99), r"has IR version 99 and opset 18, which ONNX Runtime [\d.]+ cannot load \(.*max.*IR version"),
        (
            changed(opset=99),
            r"has IR version 10 and opset 99, which ONNX Runtime [\d.]+ cannot load \(.*till opset \d+",
        ),
        (b"hello" * 10, "is no ONNX file; export the policy again"),
        (make_graph()[:-20], "is no whole ONNX file; export the policy again"),
        (b"", "IR version 0 and opset 0"),
    ],
)
def test_what_this_runtime_cannot_load_is_refused_in_one_line_with_both_versions(
    make_policy, graph: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"policy\.onnx: .*{message}") as error:
        make_policy(graph)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_weights_in_another_file_are_refused_even_if_it_lies_there(
    make_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The manifest's hash says nothing of that file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(2400))
    model = load_from_string(make_graph())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[600], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    if where == "initializer":
        model.graph.initializer.append(tensor)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["w"], value=tensor))
    with pytest.raises(ValueError, match=r"policy\.onnx: keeps weights in another file \(external data\)"):
        make_policy(model.SerializeToString())


# --- which policy drives ----------------------------------------------------------------------------------------------

CONTRACT = PolicyContract("toy", "5afe", 2, 1, 3, "lattice 2 + plan")
BOTH = np.array([True, True, False])
SET = CandidateSet(
    id=1,
    stamp_ns=0,
    episode=1,
    observation=np.zeros(2, np.float32),
    actions=np.array([[-1.0], [0.5], [np.nan]], np.float32),
    certified=BOTH,
    offered=BOTH,
    band=np.zeros(3, bool),
    is_plan=np.array([True, False, False]),
    margin=np.zeros(3, np.float32),
    centre=np.zeros(3, np.uint8),
)


@pytest.fixture
def first(tmp_path: Path, bundle) -> OnnxPolicy:
    bundle(tmp_path / "first.onnx", make_graph())
    return OnnxPolicy(tmp_path / "first.onnx", CONTRACT)


def settled(models: Models) -> object:
    """What `settle` says once the loading has ended."""
    assert models._thread is not None
    models._thread.join(30.0)
    return models.settle()


def test_a_policy_takes_over_between_two_decisions_and_goes_back_once(
    first: OnnxPolicy, tmp_path: Path, bundle
) -> None:
    models = Models(first, lambda path: OnnxPolicy(path, CONTRACT))
    models.remember(SET)
    bundle(tmp_path / "second.onnx", make_graph())
    assert models.settle() is None and not models.swap(tmp_path / "second.onnx")
    news = settled(models)
    assert news.said == "swapped" and news.epoch == 2 and news.path.endswith("second.onnx")  # type: ignore[attr-defined]
    assert models.back("by a person").epoch == 3 and models.active is first
    last = models.back("21 of 100 were refused")
    assert last.epoch == 0 and models.active is None and "none before it: the plan runs" in last.said


@pytest.mark.parametrize("kind", ["missing", "cut", "other robot", "foreign action", "not finite"])
def test_a_policy_that_is_refused_changes_nothing(kind: str, first: OnnxPolicy, tmp_path: Path, bundle) -> None:
    path = tmp_path / "second.onnx"
    if kind != "missing":
        graph = make_graph(
            **{"foreign action": {"action": "foreign"}, "not finite": {"log_prob": np.nan}}.get(kind, {})
        )  # type: ignore[arg-type]
        bundle(path, graph, **({"robot": "another"} if kind == "other robot" else {}))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    models = Models(first, lambda path: OnnxPolicy(path, CONTRACT))
    models.remember(SET)
    models.swap(path)
    news = settled(models)
    assert news.said.startswith(f"refused: {tmp_path}"), news  # type: ignore[attr-defined]
    assert "\n" not in news.said and models.active is first and models.epoch == 1  # type: ignore[attr-defined]


def test_what_only_recorded_candidates_show_is_found_before_it_drives(first: OnnxPolicy) -> None:
    """The graph is loaded with zeros; what it answers to real observations is another matter."""

    class Moody(OnnxPolicy):
        def __init__(self) -> None:
            self.path = Path("moody.onnx")
            self.turn = 0

        def act(self, *inputs: object) -> tuple[int, np.ndarray, np.ndarray]:  # type: ignore[override]
            self.turn += 1
            return 0, np.zeros(1, np.float32), np.array([self.turn, 0.0, 0.0], np.float32)

    with pytest.raises(ValueError, match="answers the same candidates in two ways"):
        tried(Moody(), SET)
    tried(first, SET)


def test_while_one_is_loaded_another_one_has_to_wait(first: OnnxPolicy, tmp_path: Path, bundle) -> None:
    go = threading.Event()

    def slowly(path: Path) -> OnnxPolicy:
        go.wait(30.0)
        return first

    models = Models(first, slowly)
    assert not models.swap(tmp_path / "a.onnx")
    assert "another policy is being loaded" in models.swap(tmp_path / "b.onnx")
    assert models.settle() is None, "decisions go on"
    go.set()
    assert settled(models).epoch == 2  # type: ignore[attr-defined]


def test_a_fault_of_the_loader_is_said_and_not_lost(first: OnnxPolicy, tmp_path: Path, bundle) -> None:
    def broken(path: Path) -> OnnxPolicy:
        raise MemoryError("no memory")

    models = Models(first, broken)
    models.swap(tmp_path / "a.onnx")
    assert "MemoryError: no memory" in settled(models).said  # type: ignore[attr-defined]


def test_a_rollback_also_gives_up_what_is_being_loaded(first: OnnxPolicy, tmp_path: Path) -> None:
    go = threading.Event()

    def slowly(path: Path) -> OnnxPolicy:
        go.wait(30.0)
        return first

    models = Models(first, slowly)
    models.swap(tmp_path / "b.onnx")
    assert models.back("by a person").epoch == 0
    go.set()
    news = settled(models)
    assert news.said.startswith("refused: it was rolled back") and models.active is None  # type: ignore[attr-defined]
    models.swap(tmp_path / "c.onnx")
    assert settled(models).said == "swapped", "the next one is asked for anew"  # type: ignore[attr-defined]
