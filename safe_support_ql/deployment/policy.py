"""Runs an exported policy in ONNX Runtime: one decision at a time, on one thread, with every output verified."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from safe_support_ql.deployment.contract import PolicyContract
from safe_support_ql.deployment.manifest import load_manifest
from safe_support_ql.safety.candidates import CandidateSet

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class OnnxPolicy:
    """The policy of `policy.onnx`, accepted only if its manifest fulfils the contract."""

    def __init__(self, policy_path: Path, contract: PolicyContract) -> None:
        """Raises ValueError as `load_manifest` does, or if the graph does not fit its manifest."""
        self.path = policy_path
        self.manifest, graph = load_manifest(policy_path, contract)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # for so small a network, waking up more threads takes longer than the work
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The graph is verified by hash, so an error below means a broken export and not a broken file.
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
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
        # The first run allocates memory, which must not happen in a control tick.
        zeros = np.zeros(k, np.float32)
        self.act(np.zeros(d, np.float32), np.zeros((k, a), np.float32), np.ones(k, np.bool_), zeros > 0, zeros, zeros)

    def act(
        self,
        observation: FloatArray,
        candidates: FloatArray,
        support: BoolArray,
        is_plan: BoolArray,
        log_proposal: FloatArray,
        noise: FloatArray,
    ) -> tuple[int, FloatArray, FloatArray]:
        """Choose argmax_i(log pi_i + noise_i) over the support (docs/method.md).

        Args: observation [D] in its own units; candidates [K, A] in the action's units (padding may be NaN); support,
        is_plan [K]; log_proposal [K], log(n q(a_i)) for draws and 0 for lattice points and the atom; noise [K], Gumbel
        draws, or zeros for greedy.

        Returns: index into the candidates, the action [A], and log pi [K] (-inf outside the support).

        Raises:
            ValueError: a shape differs, an input is not finite, `support` has no candidate, or the output is not a
                finite distribution and one of the supported candidates. No request is then sent.
        """
        inputs = {
            "observation": np.asarray(observation, np.float32),
            "candidates": np.asarray(candidates, np.float32),
            "support": np.asarray(support, np.bool_),
            "is_plan": np.asarray(is_plan, np.bool_),
            "log_proposal": np.asarray(log_proposal, np.float32),
            "noise": np.asarray(noise, np.float32),
        }
        for name, shape in self._shapes.items():
            if inputs[name].shape != shape:
                raise ValueError(f"policy input '{name}' has shape {inputs[name].shape}, must be {shape}")
        mask = inputs["support"]
        if not mask.any():
            raise ValueError("policy input 'support' is empty: it must hold at least the plan")
        if not np.isfinite(inputs["observation"]).all():
            raise ValueError("policy input 'observation' is not finite")
        for name in ("candidates", "log_proposal", "noise"):
            if not np.isfinite(inputs[name][mask]).all():
                raise ValueError(f"policy input '{name}' is not finite on the support")

        outputs = self._session.run(["action", "log_prob"], {name: array[None] for name, array in inputs.items()})
        action: FloatArray = outputs[0][0]
        log_prob: FloatArray = outputs[1][0]
        if not np.isfinite(log_prob[mask]).all():
            raise ValueError(f"{self.path}: log_prob is not finite on the support; export the policy again")
        # The graph returns the value of the action. Its index is that of the equal supported candidate; of two equal
        # ones, the graph chose the likelier.
        matching = mask & (inputs["candidates"] == action).all(axis=-1)
        if not matching.any():
            raise ValueError(f"{self.path}: action {action.tolist()} is no supported candidate; export it again")
        index = int(np.argmax(np.where(matching, log_prob + np.asarray(noise, np.float32), -np.inf)))
        return index, action, log_prob


class Actor:
    """An extracted policy over CandidateSets: draws from pi_phi, or takes its likeliest candidate if `greedy`."""

    def __init__(self, policy: OnnxPolicy, seed: int, greedy: bool = False) -> None:
        """`seed` determines the draws."""
        self._policy, self._greedy = policy, greedy
        self._rng = np.random.default_rng(seed)

    def __call__(self, candidates: CandidateSet) -> FloatArray:
        """An action [A] of the support. Raises ValueError as `OnnxPolicy.act` does."""
        # Lattice points are not drawn, so log_proposal is 0.
        zeros = np.zeros(len(candidates.margin), np.float32)
        noise = zeros if self._greedy else self._rng.gumbel(size=len(zeros)).astype(np.float32)
        index, _, _ = self._policy.act(
            candidates.observation, candidates.actions, candidates.support, candidates.is_plan, zeros, noise
        )
        action: FloatArray = candidates.actions[index]
        return action
