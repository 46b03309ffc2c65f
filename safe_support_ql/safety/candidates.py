"""The CandidateSet: one representation of A_safe(s) for every action space (docs/method.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.base import Robot, Singles

Bools = NDArray[np.bool_]
EXTRA_SLOTS = 2  # after the source's: the plan's own action where it is none of them, and an appended foreign action


@dataclass(frozen=True)
class CandidateSet:
    """K candidates of one decision. Slots: the source's, then the plan's own slot, then the appended slot.

    `observation`[D]; `actions`[K, A] exactly as they would be executed (float32 values); `certified`[K] pass the
    certificate, fully or (`band`[K]) at the threshold of the band; `offered`[K] of them leave beta room for more than
    the plan at the next tick (all, where the robot does not tell them apart or none does); `is_plan`[K] marks k(s),
    exactly one; `margin`[K] in scaled units, -inf in an empty slot; `centre`[K] the index of the rest position that the
    plan behind it aims at.
    """

    id: int
    stamp_ns: int
    episode: int
    observation: Singles
    actions: Singles
    certified: Bools
    offered: Bools
    band: Bools
    is_plan: Bools
    margin: Singles
    centre: NDArray[np.uint8]

    @property
    def support(self) -> Bools:
        """Candidates that beta and the policy may draw; never empty. Only the gate reads `certified`."""
        return self.offered | self.is_plan

    @property
    def only_plan(self) -> bool:
        """Whether nothing but the plan is certified, or not even that: an empty support."""
        return not bool((self.certified & ~self.is_plan).any())

    @property
    def plan(self) -> int:
        """Index of the backup atom."""
        return int(np.argmax(self.is_plan))

    def find(self, action: Singles) -> int:
        """Index of the candidate that equals `action` bit for bit, -1 if there is none."""
        hits = np.flatnonzero((self.actions == action).all(axis=1) & np.isfinite(self.margin))
        return int(hits[0]) if len(hits) else -1


def candidate_count(robot: Robot, continuous: bool) -> int:
    """Number n of candidates that the robot's source brings; K = n + EXTRA_SLOTS."""
    return robot.candidates(continuous).size


def candidate_layout(robot: Robot, continuous: bool) -> str:
    """How the K candidates come about; a policy is served only the layout it was trained for."""
    return f"{robot.candidates(continuous).layout} + plan + appended"
