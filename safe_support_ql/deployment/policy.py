"""Runs an exported policy in ONNX Runtime: one decision at a time, on one thread, with every output verified."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numba import njit

from safe_support_ql.deployment.manifest import PolicyContract, load_manifest
from safe_support_ql.deployment.onnx_file import onnx_facts
from safe_support_ql.robots.base import Singles
from safe_support_ql.safety.candidates import Bools, CandidateSet


class OnnxPolicy:
    """The policy of `policy.onnx`, accepted only if its manifest fulfils the contract."""

    def __init__(self, policy_path: Path, contract: PolicyContract) -> None:
        """Raises ValueError as `load_manifest` does, or if the graph cannot be loaded or does not fit its manifest."""
        self.path = policy_path
        self.manifest, graph = load_manifest(policy_path, contract)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # for so small a network, waking up more threads takes longer than the work
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The graph is verified by hash, so an error below means a broken export and not a broken file.
        self._session = _session(policy_path, graph, options)
        d, k, a = len(self.manifest.observation_names), self.manifest.candidates, len(self.manifest.action_names)
        self._shapes: dict[str, tuple[int, ...]] = {
            "observation": (d,),
            "candidates": (k, a),
            "support": (k,),
            "is_plan": (k,),
            "log_proposal": (k,),
            "noise": (k,),
        }
        found = {node.name: tuple(node.shape[1:]) for node in self._session.get_inputs()}
        if found != self._shapes:
            raise ValueError(f"{policy_path}: graph inputs are {found}, must be {self._shapes} as in the manifest")
        # Bound once: handing arrays over at each decision takes as long as a tenth of the network.
        self._inputs: dict[str, Any] = {
            name: np.zeros((1, *shape), np.bool_ if name in ("support", "is_plan") else np.float32)
            for name, shape in self._shapes.items()
        }
        self._outputs: dict[str, Any] = {
            "action": np.zeros((1, a), np.float32),
            "log_prob": np.zeros((1, k), np.float32),
        }
        self.promises = any(node.name == "value" for node in self._session.get_outputs())  # older files do not
        if self.promises:
            self._outputs["value"] = np.full(1, np.nan, np.float32)
        self._rows = {name: array[0] for name, array in self._inputs.items()}
        self._action, self._log_prob = self._outputs["action"][0], self._outputs["log_prob"][0]
        self._binding = self._session.io_binding()
        for name, array in self._inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        # The first run allocates memory, which must not happen in a control tick.
        zeros = np.zeros(k, np.float32)
        self.act(np.zeros(d, np.float32), np.zeros((k, a), np.float32), np.ones(k, np.bool_), zeros > 0, zeros, zeros)

    @property
    def value(self) -> float:
        """What it promised from the newest state on that it acted on; NaN if it makes no promises."""
        return float(self._outputs["value"][0]) if self.promises else np.nan

    def act(
        self,
        observation: Singles,
        candidates: Singles,
        support: Bools,
        is_plan: Bools,
        log_proposal: Singles,
        noise: Singles,
    ) -> tuple[int, Singles, Singles]:
        """Choose argmax_i(log pi_i + noise_i) over the support (docs/method.md).

        Args: observation [D] in its own units; candidates [K, A] in the action's units (padding may be NaN); support,
        is_plan [K]; log_proposal [K], log(n q(a_i)) for draws and 0 for lattice points and the atom; noise [K], Gumbel
        draws, or zeros for greedy.

        Returns: index into the candidates, the action [A], and log pi [K] (-inf outside the support).

        Raises:
            ValueError: a shape differs, an input is not finite, `support` has no candidate, or the output is not a
                finite distribution and one of the supported candidates. No request is then sent.
        """
        given = (observation, candidates, support, is_plan, log_proposal, noise)
        for (name, shape), array in zip(self._shapes.items(), given, strict=True):
            if array.shape != shape:
                raise ValueError(f"policy input '{name}' has shape {array.shape}, must be {shape}")
            self._rows[name][:] = array
        seen, points, mask, _, proposal, drawn = self._rows.values()
        if wrong := _objection(seen, points, mask, proposal):
            raise ValueError(f"policy input {OBJECTIONS[wrong]}")
        self._session.run_with_iobinding(self._binding)
        # The graph returns the value of the action, not its index. Of two equal ones, it chose the likelier.
        index = _chosen(self._log_prob, drawn, mask, points, self._action)
        if index == NOT_FINITE:
            if not np.isfinite(drawn[mask]).all():
                raise ValueError("policy input 'noise' is not finite on the support")
            raise ValueError(f"{self.path}: log_prob is not finite on the support; export the policy again")
        if index == NO_CANDIDATE:
            raise ValueError(f"{self.path}: action {self._action.tolist()} is no supported candidate; export it again")
        return index, self._action.copy(), self._log_prob.copy()


OBJECTIONS = (
    "",
    "'support' is empty: it must hold at least the plan",
    "'observation' is not finite",
    "'candidates' is not finite on the support",
    "'log_proposal' is not finite on the support",
)
NOT_FINITE, NO_CANDIDATE = -1, -2


@njit(cache=True)  # a dozen calls of NumPy would take a fifth of the time that the network takes
def _objection(observation: Singles, candidates: Singles, support: Bools, log_proposal: Singles) -> int:
    """Index of what is wrong in OBJECTIONS; 0 if nothing is."""
    if not support.any():
        return 1
    if not np.isfinite(observation).all():
        return 2
    for i in range(len(support)):
        if support[i] and not np.isfinite(candidates[i]).all():
            return 3
        if support[i] and not np.isfinite(log_proposal[i]):
            return 4
    return 0


@njit(cache=True)
def _chosen(log_prob: Singles, noise: Singles, support: Bools, candidates: Singles, action: Singles) -> int:
    """Index of the candidate that the graph has chosen; NOT_FINITE or NO_CANDIDATE if it chose none."""
    best = -1
    for i in range(len(support)):
        score = log_prob[i] + noise[i]  # -inf outside the support
        if support[i] and not np.isfinite(score):
            return NOT_FINITE
        if support[i] and (best < 0 or score > log_prob[best] + noise[best]):
            best = i
    return best if (candidates[best] == action).all() else NO_CANDIDATE


def _session(path: Path, graph: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """The loaded graph. Raises ValueError, in one line with the versions of both sides, if that is not possible."""
    try:
        facts = onnx_facts(graph)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; export the policy again") from None
    if facts.external:
        # They would be loaded from wherever this process runs, and the manifest's hash says nothing of them.
        raise ValueError(f"{path}: keeps weights in another file (external data); export it as a single file")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types, which have no common base
        said = " ".join(str(error).split())
        said = said[said.find("Unsupported model IR") :] if "Unsupported model IR" in said else said
        said = said[said.find("Current official support") :] if "Current official support" in said else said
        raise ValueError(
            f"{path}: has IR version {facts.ir_version} and opset {facts.opset}, which ONNX Runtime "
            f"{onnxruntime.__version__} cannot load ({said[:200].rstrip('.')}); install a newer one, or export with "
            "older versions"
        ) from None


class Actor:
    """An extracted policy over CandidateSets: draws from pi_phi, or takes its likeliest candidate if `greedy`."""

    def __init__(self, policy: OnnxPolicy, seed: int, greedy: bool = False, passive_stop: bool = False) -> None:
        """`seed` determines the draws. A robot with a passive stop waits under its plan, which gets it nowhere:

        if a single other action is offered, for example to look round, it is taken.
        """
        self._policy, self._greedy, self._passive_stop = policy, greedy, passive_stop
        self._rng = np.random.default_rng(seed)
        self._zeros, self._noise = np.zeros((2, 0), np.float32)
        self.value = np.nan  # what the policy promised from the newest state on; NaN if it was not asked

    def __call__(self, candidates: CandidateSet) -> Singles:
        """An action [A] of the support. Raises ValueError as `OnnxPolicy.act` does."""
        support, self.value = candidates.support, np.nan
        if self._passive_stop and len(others := np.flatnonzero(support & ~candidates.is_plan)) == 1:
            only: Singles = candidates.actions[others[0]]
            return only
        # Lattice points are not drawn, so log_proposal is 0.
        if len(self._zeros) != len(support):
            self._zeros, self._noise = np.zeros((2, len(support)), np.float32)
        if not self._greedy:
            self._noise[:] = self._rng.gumbel(size=len(support))
        index, _, _ = self._policy.act(
            candidates.observation, candidates.actions, support, candidates.is_plan, self._zeros, self._noise
        )
        self.value = self._policy.value
        action: Singles = candidates.actions[index]
        return action
