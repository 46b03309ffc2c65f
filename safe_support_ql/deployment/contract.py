"""The facts that a policy must match before it may be used: robot, spaces and safety configuration."""

from __future__ import annotations

from dataclasses import dataclass

from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import EXTRA_SLOTS, candidate_count, candidate_layout


@dataclass(frozen=True)
class PolicyContract:
    """The facts that a manifest must match."""

    robot: str
    safety_hash: str  # sha256 of the safety configuration, `Config.safety_hash`
    observation_dim: int  # D
    action_dim: int  # A
    candidates: int  # K, padded
    candidate_layout: str

    @classmethod
    def of(cls, robot: Robot, continuous: bool, safety_hash: str) -> PolicyContract:
        """The contract of `robot` with discrete or continuous actions."""
        return cls(
            robot=robot.name,
            safety_hash=safety_hash,
            observation_dim=len(robot.observation_names),
            action_dim=len(robot.action_names),
            candidates=candidate_count(robot, continuous) + EXTRA_SLOTS,
            candidate_layout=candidate_layout(robot, continuous),
        )
