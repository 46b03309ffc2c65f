"""Where the candidate actions of a decision come from: a fixed lattice, a shifted lattice, or a source like them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.model import Floats

Singles = NDArray[np.float32]


class CandidateSource(Protocol):
    """Candidates for one decision. A policy serves only the `layout` that it was trained with."""

    @property
    def size(self) -> int:
        """Number n of candidates, the same at every decision."""

    @property
    def layout(self) -> str:
        """How they are made, in a few words."""

    def __call__(self, rng: np.random.Generator, state: Floats) -> Singles:
        """Candidates [n, A] at state[S]."""


@dataclass(frozen=True)
class Lattice:
    """Fixed values in every action dimension."""

    values: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> int:
        """Every combination of the values."""
        return int(np.prod([len(values) for values in self.values]))

    @property
    def layout(self) -> str:
        """See CandidateSource."""
        return f"lattice {self.size}"

    def __call__(self, rng: np.random.Generator, state: Floats) -> Singles:
        """The same at every state; nothing is drawn."""
        return np.array(list(itertools.product(*self.values)), np.float32)


@dataclass(frozen=True)
class ShiftedLattice:
    """Cells of equal size over [low, high], shifted together by a fresh uniform offset.

    The offset makes the quadrature unbiased for any Q, and over time Q and the policy see every action in the box.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    points: tuple[int, ...]  # per action dimension

    @property
    def size(self) -> int:
        """One candidate per cell."""
        return int(np.prod(self.points))

    @property
    def layout(self) -> str:
        """See CandidateSource."""
        return f"shifted lattice {self.size}"

    def __call__(self, rng: np.random.Generator, state: Floats) -> Singles:
        """One random offset per dimension."""
        axes = [
            low + (np.arange(points) + rng.random()) * (high - low) / points
            for low, high, points in zip(self.low, self.high, self.points, strict=True)
        ]
        return np.array(list(itertools.product(*axes)), np.float32)
