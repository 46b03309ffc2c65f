"""From a trained Q to policy.onnx and its manifest: stage two, the export, and what the manifest says of the robot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from safe_support_ql.deployment.manifest import Manifest
from safe_support_ql.learning.export import PolicyFacts, export_policy
from safe_support_ql.learning.extraction import extract
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.robots.base import Robot


def candidate_layout(continuous: bool) -> str:
    """How the K candidates of a decision come about; a policy serves only the layout it was trained on."""
    return "shifted lattice, plan, appended" if continuous else "lattice, plan, appended"


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
        candidate_layout=candidate_layout(continuous),
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
    return export_policy(path, policy, trainer.spec, facts)


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
