"""From a trained Q to policy.onnx and its manifest: stage two, the export, and the robot's facts for the manifest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safe_support_ql.deployment.manifest import Manifest
from safe_support_ql.learning.export import PolicyFacts, export_policy
from safe_support_ql.learning.extraction import extract
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import candidate_layout

PARITY_ROWS = 256  # recorded observations in the parity check


def publish_policy(
    path: Path,
    trainer: Trainer,
    robot: Robot,
    continuous: bool,
    safety_hash: str,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Manifest:
    """Extract the policy from the trainer's Q and write it. Raises ValueError as `extract` and `export_policy` do."""
    policy = extract(trainer, progress)
    facts = PolicyFacts(
        robot=robot.name,
        observation_names=list(robot.observation_names),
        observation_units=list(robot.observation_units),
        action_names=list(robot.action_names),
        action_units=list(robot.action_units),
        candidate_layout=candidate_layout(robot, continuous),
        alpha=trainer.config.alpha,
        gamma=trainer.config.gamma,
        seeds=[seed],
        git_revision=_git_revision(),
        safety_sha256=safety_hash,
        training={
            "updates": trainer.updates,
            "decisions": trainer.replay.appended,
            "last_sequence": trainer.last_sequence,
            "extraction_updates": trainer.config.extraction_updates,
        },
    )
    seen = trainer.replay.sample_states(PARITY_ROWS, np.random.default_rng(0), trainer.device)
    return export_policy(path, policy, trainer.spec, facts, seen.observation.cpu().numpy())


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
