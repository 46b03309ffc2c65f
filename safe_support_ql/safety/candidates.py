"""The CandidateSet: one representation of A_safe(s) for every action space (docs/method.md)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.base import Floats, Robot, Singles

Bools = NDArray[np.bool_]
EXTRA_SLOTS = 2  # after the lattice: the plan's own action where it is no lattice point, and an appended foreign action


@dataclass(frozen=True)
class CandidateSet:
    """K candidates of one decision. Slots: the lattice, then the plan's own slot, then the appended slot.

    `observation`[D]; `actions`[K, A] exactly as they would be executed (float32 values); `certified`[K] pass the
    certificate, fully or (`band`[K]) at the latched threshold; `offered`[K] of them leave beta room for more than the
    plan at the next tick (all, where the robot does not tell them apart or none does); `is_plan`[K] marks k(s), exactly
    one; `margin`[K] in scaled units, -inf in an empty slot; `centre`[K] the index of the rest position the plan behind
    it aims at.
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
    def plan(self) -> int:
        """Index of the backup atom."""
        return int(np.argmax(self.is_plan))

    def find(self, action: Singles) -> int:
        """Index of the candidate that equals `action` bit for bit, -1 if there is none."""
        hits = np.flatnonzero((self.actions == action).all(axis=1) & np.isfinite(self.margin))
        return int(hits[0]) if len(hits) else -1


def lattice_size(robot: Robot, continuous: bool) -> int:
    """Number of lattice candidates n; K = n + EXTRA_SLOTS."""
    if continuous:
        return int(np.prod(robot.continuous_points))
    return int(np.prod([len(values) for values in robot.lattice]))


def candidate_layout(robot: Robot, continuous: bool) -> str:
    """How the K candidates come about; a policy is served only the layout it was trained for."""
    n = lattice_size(robot, continuous)
    return f"{'shifted lattice' if continuous else 'lattice'} {n} + plan + appended"


def lattice(robot: Robot, continuous: bool, rng: np.random.Generator) -> Singles:
    """Lattice candidates [n, A]: fixed values, or cells of equal size shifted together by a fresh uniform offset.

    The offset makes the quadrature unbiased for any Q, and shows Q and the policy every action in the box.
    """
    axes: list[Floats]
    if continuous:
        axes = [
            low + (np.arange(points) + rng.random()) * (high - low) / points
            for low, high, points in zip(robot.action_low, robot.action_high, robot.continuous_points, strict=True)
        ]
    else:
        axes = [np.asarray(values, np.float64) for values in robot.lattice]
    return np.array(list(itertools.product(*axes)), np.float32)
