"""From a trained Q to policy.onnx and policy.json: stage two, then the export, if ONNX Runtime and torch agree."""

import copy
import dataclasses
import datetime
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from safe_support_ql import __version__
from safe_support_ql.deployment.manifest import Manifest, PolicyFacts, encode_manifest, manifest_path
from safe_support_ql.learning.extraction import extract, fit_value, support_log_prob
from safe_support_ql.learning.networks import PolicyNetwork, ProblemSpec, ValueNetwork
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.recording.files import write_atomically
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import candidate_layout

INPUTS = ("observation", "candidates", "support", "is_plan", "log_proposal", "noise")
OUTPUTS = ("action", "log_prob", "value")  # the last one where a value network is given
PARITY_TOLERANCE = 1e-4  # nats
PARITY_ROWS = 256  # recorded observations in the parity check


class DeployedPolicy(nn.Module):
    """The exported graph: the chosen candidate and the log probability of each (docs/method.md).

    If `log_proposal` is constant over the draws (a lattice), log_prob is the log softmax over the support. Otherwise
    the draws are weighted by 1 / q and normalised to 1 - pi(atom), so that the Gumbel argmax samples the density itself
    and not q times the density. In a row without support no action is allowed, and the action is NaN.

    With a value network, it also says what the policy promises from there on.
    """

    def __init__(self, policy: PolicyNetwork, value: ValueNetwork | None = None) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(
        self,
        observation: Tensor,
        candidates: Tensor,
        support: Tensor,
        is_plan: Tensor,
        log_proposal: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, ...]:
        usable = torch.where(support[..., None], candidates, 0.0)  # padding may be NaN
        log_pi = support_log_prob(self.policy(observation, usable, is_plan), support)
        draws = support & ~is_plan
        # -1e9 and not -inf in the two sums: with an empty support both are empty, and inf - inf would be NaN.
        draw_mass = torch.logsumexp(torch.where(draws, log_pi, -1e9), dim=-1, keepdim=True)
        corrected = torch.where(draws, log_pi - log_proposal, -1e9)
        renormalised = corrected - torch.logsumexp(corrected, dim=-1, keepdim=True) + draw_mass
        log_prob = torch.where(draws, renormalised, log_pi)
        preference = torch.where(support, log_prob + noise, -torch.inf)
        chosen = torch.argmax(preference, dim=-1)[:, None, None].expand(-1, 1, candidates.shape[2])
        action = torch.gather(candidates, 1, chosen)[:, 0]
        action = torch.where(support.any(dim=-1, keepdim=True), action, torch.nan)
        answer = (action, torch.where(support, log_prob, -torch.inf))
        return answer if self.value is None else (*answer, self.value(observation))


def structured_batch(spec: ProblemSpec, n: int, rng: np.random.Generator) -> dict[str, npt.NDArray[np.generic]]:
    """n inputs with all features of real ones: wide and empty supports, NaN padding, draws, greedy rows."""
    k, a, d = spec.candidates, spec.action_dim, spec.observation_dim
    rows = np.arange(n)
    plan = rng.integers(k, size=n)
    is_plan = np.zeros((n, k), np.bool_)
    is_plan[rows, plan] = rows % 5 != 3  # in some decisions, the plan is only among the lattice points
    support = (rng.random((n, k)) < rng.random((n, 1))) & (rows % 4 != 2)[:, None]
    support[rows, plan] = True
    candidates = rng.uniform(spec.action_low, spec.action_high, (n, k, a)).astype(np.float32)
    candidates[~support & (rng.random((n, k)) < 0.3)] = np.nan
    sampled = (rows % 2 == 1)[:, None]
    return {
        "observation": (rng.normal(size=(n, d)) * spec.observation_scale).astype(np.float32),
        "candidates": candidates,
        "support": support,
        "is_plan": is_plan,
        "log_proposal": np.where(sampled & ~is_plan, rng.normal(size=(n, k)), 0.0).astype(np.float32),
        "noise": np.where((rows % 3 > 0)[:, None], rng.gumbel(size=(n, k)), 0.0).astype(np.float32),
    }


def parity_error(
    graph: bytes, deployed: DeployedPolicy, batches: list[dict[str, npt.NDArray[np.generic]]]
) -> tuple[float, int]:
    """(largest |log_prob difference| on the support in nats, rows with another action without a tie).

    A value counts with the log_probs, as a share of its spread.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst, differing = 0.0, 0
    for batch in batches:
        support = batch["support"].astype(np.bool_)
        action, log_prob, *value = session.run(None, {name: batch[name] for name in INPUTS})
        with torch.no_grad():
            own = deployed(*(torch.from_numpy(batch[name]) for name in INPUTS))
        own_action, own_log_prob, *own_value = (output.numpy() for output in own)
        if deployed.value is not None:
            apart = np.abs(value[0] - own_value[0]).max() / float(deployed.value.spread)
            worst = max(worst, float(apart)) if np.isfinite(apart) else float("inf")
        with np.errstate(invalid="ignore"):  # both are -inf outside the support
            gap = np.where(support, np.abs(log_prob - own_log_prob), 0.0)
        # NaN must not count as small, and mass outside the support must not be ignored.
        broken = not np.isfinite(gap).all() or bool((log_prob[~support] > -1e8).any())
        worst = float("inf") if broken else max(worst, float(gap.max()))
        preference = np.where(support, own_log_prob + batch["noise"].astype(np.float32), -np.inf)
        best = np.sort(preference, axis=-1)
        clear = np.ones(len(best), np.bool_) if best.shape[1] == 1 else best[:, -1] - best[:, -2] > PARITY_TOLERANCE
        differing += int((clear & (action != own_action).any(axis=-1)).sum())
    return worst, differing


def export_policy(
    policy_path: Path,
    policy: PolicyNetwork,
    spec: ProblemSpec,
    facts: PolicyFacts,
    observations: npt.NDArray[np.float32] | None = None,
    value: ValueNetwork | None = None,
) -> Manifest:
    """Write policy.onnx and policy.json beside it; `observations` [n, D], if given, are used in the parity check.

    Each file is written under a temporary name and renamed, the graph first. Between the two renames the old manifest
    does not match the new graph, so a reader refuses the pair and tries again. Raises ValueError if names or units do
    not fit `spec`, or ONNX Runtime and torch disagree; existing files then stay unchanged.
    """
    for name, items, length in (
        ("observation_names", facts.observation_names, spec.observation_dim),
        ("observation_units", facts.observation_units, spec.observation_dim),
        ("action_names", facts.action_names, spec.action_dim),
        ("action_units", facts.action_units, spec.action_dim),
    ):
        if len(items) != length:
            raise ValueError(f"PolicyFacts.{name} has {len(items)} entries, must have {length}")

    deployed = DeployedPolicy(copy.deepcopy(policy).cpu(), copy.deepcopy(value).cpu() if value else None).eval()
    rng = np.random.default_rng(0)
    batches = [structured_batch(spec, n, rng) for n in (1, 7, 256)]
    if observations is not None:
        own_observations = {"observation": observations.astype(np.float32)}
        batches.append(structured_batch(spec, len(observations), rng) | own_observations)

    example = tuple(torch.from_numpy(batches[1][name]) for name in INPUTS)
    batch_axis = torch.export.Dim("batch", min=1)
    temporary = policy_path.with_name(policy_path.name + ".unchecked")
    try:
        torch.onnx.export(
            deployed,
            example,
            temporary,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS if value else OUTPUTS[:2]),
            dynamic_shapes=tuple({0: batch_axis} for _ in INPUTS),
            dynamo=True,
            external_data=False,  # one file, one hash
            verbose=False,
        )
        graph = temporary.read_bytes()
    finally:
        temporary.unlink(missing_ok=True)
    error, differing = parity_error(graph, deployed, batches)
    if not error <= PARITY_TOLERANCE or differing:
        raise ValueError(
            f"{policy_path}: not written: ONNX Runtime and torch differ by {error:.3g} > {PARITY_TOLERANCE} nats "
            f"and in the action of {differing} rows; check the versions of torch, onnxscript and onnxruntime"
        )
    manifest = Manifest(
        **dataclasses.asdict(facts) | {"training": {**facts.training, "parity_error": error}},
        candidates=spec.candidates,
        package_version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        policy_sha256=hashlib.sha256(graph).hexdigest(),
    )
    write_atomically(policy_path, graph)
    write_atomically(manifest_path(policy_path), encode_manifest(manifest))
    return manifest


def publish_policy(
    path: Path,
    trainer: Trainer,
    robot: Robot,
    continuous: bool,
    safety_hash: str,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    ledger_head: Callable[[], str] | None = None,
) -> Manifest:
    """Extract the policy from the trainer's Q and write it. Raises ValueError as `extract` and `export_policy` do.

    `ledger_head` gives the head of the ledger of the run that was learned from. It is asked after the extraction, when
    the ledger has long counted the last record.
    """
    policy = extract(trainer, progress)
    value, promised = fit_value(trainer)
    facts = PolicyFacts(
        robot=robot.name,
        observation_names=list(robot.observation_names),
        observation_units=list(robot.observation_units),
        action_names=list(robot.action_names),
        action_units=list(robot.action_units),
        candidate_layout=candidate_layout(robot, continuous),
        alpha=trainer.config.alpha,
        gamma=trainer.config.gamma,
        seeds=[trainer.config.seed],
        git_revision=_git_revision(),
        safety_sha256=safety_hash,
        training={
            "updates": trainer.updates,
            "decisions": trainer.replay.appended,
            "last_sequence": trainer.last_sequence,
            "extraction_updates": trainer.config.extraction_updates,
            **promised,
            **({"ledger_head": ledger_head()} if ledger_head else {}),
        },
    )
    seen = trainer.replay.sample_states(PARITY_ROWS, np.random.default_rng(0), trainer.device)
    return export_policy(path, policy, trainer.spec, facts, seen.observation.cpu().numpy(), value)


def _git_revision() -> str:
    """Revision of the source tree, 'unknown' for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
