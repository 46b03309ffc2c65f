"""The nominal model of a robot in three parts: how it moves, what certifies an action, what counts as a mismatch.

All functions are elementwise: tuples of floats or of equally shaped arrays in, the same out. The certificate runs them
vectorised in NumPy and compiles them with Numba, so they use arithmetic and np.minimum/maximum/sin/... only, and no
branches on values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = tuple[Any, ...]  # a number or an array for each entry of a state, an action or a member


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """How the robot moves: step(x, u, member, dt) -> x after dt seconds of u held.

    x: S floats, u: A floats, member: P floats. `members`[J, P] is the ensemble; its first row is the nominal model,
    which predicts the state while that is missing. The rollout is checked `checks_per_tick` times in a control period,
    every `dt` seconds.
    """

    step: Callable[..., Columns]
    members: Floats
    dt: float
    checks_per_tick: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What certifies an action: safe set, backup policy and terminal set with all that tightens them.

    backup(x, centre, constants) -> u                              the backup policy k about a centre, R floats
    margins(x, points, constants) -> (h_1, ..., h_n)               each h_i >= 0 in the safe set, with a unit
    terminal(x, centre, constants) -> bool                         inside S_f, which k keeps invariant
    margins_from(x, seen, h, constants) -> (h_1, ..., h_n)         optional, for speed alone: bounds of margins(x, ...)
                                                                   from below, given h = margins(seen, ...)
    """

    backup: Callable[..., Columns]
    margins: Callable[..., Columns]
    terminal: Callable[..., Any]
    margins_from: Callable[..., Columns] | None = None
    constants: tuple[float, ...]
    centres: Floats  # [C, R], rest positions the plan may aim at; one row of zeros where there is but one plan
    point_size: int = 2  # d of the occupied points [M, d] that margins() takes
    margin_names: tuple[str, ...]
    tightening: Floats  # [T + 1, n], m_{i,t} at check t of the rollout, in the unit of h_i; grows with t
    scale: Floats  # [n], units of h_i per unit of the scaled margin
    holds: tuple[int, ...]  # checks for which the first action is held: one period, and the drive's own timeout
    offered_longer: int = 0  # checks beyond the longest hold that an offered action passes as well, where one does
    band: float  # width b of the hysteresis band, in scaled margin
    noise_allowance: float  # how far a bounded sensor error moves the scaled margin of a robot that stands still
    step_residual: float  # scaled margin an in-band step may lose unseen: w_bar of docs/method.md
    band_budget: float  # scaled margin that in-band steps may spend before only the plan runs

    def centre(self, index: int) -> tuple[float, ...]:
        """The rest position of that index, as the functions above take it."""
        return tuple(self.centres[index].tolist())


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What counts as a mismatch between the members' predictions and the robot."""

    residual: Floats  # [S], W: how far a state may lie outside of what the members predict for it, one tick ahead
    slack: Floats  # [S], by how much the tube of a stored plan widens in a tick: W, and what an uneven period adds
    uneven: float = 0.0  # of a check: W has room for stamps so far off a whole number of checks


@dataclass(frozen=True, kw_only=True)
class Model:
    """Everything that the gate knows of how a robot moves."""

    dynamics: Dynamics
    certificate: Certificate
    detection: Detection

    @property
    def horizon_s(self) -> float:
        """Seconds within which every certified plan has come to rest."""
        return self.dynamics.dt * len(self.certificate.tightening)


def advance(dynamics: Dynamics, x: Columns, commands: Columns, members: Columns, checks: int) -> Columns:
    """The state `checks` checks later under `commands` held; columns of one shape, or that broadcast."""
    for _ in range(checks):
        x = dynamics.step(x, commands, members, dynamics.dt)
    return x


def columns(rows: Floats) -> Columns:
    """Rows [..., n] as n columns."""
    return tuple(np.moveaxis(rows, -1, 0))
