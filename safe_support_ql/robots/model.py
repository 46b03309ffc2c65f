"""What every robot's model consists of: its dynamics, what certifies an action, and what counts as a mismatch.

All functions are elementwise: tuples of floats or of equally shaped arrays in, the same out. The certificate runs them
vectorised in NumPy and compiled by Numba. They may therefore use only arithmetic and np.minimum/maximum/sin/..., and
no branches on values.
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
    """How the robot moves: step(x, u, member, dt) -> x after dt seconds under constant u.

    x: S floats, u: A floats, member: P floats. `members`[J, P] is the ensemble; its first row is the nominal model,
    which predicts the state while inputs are missing. A rollout has `checks_per_tick` checks per control period,
    `dt` seconds apart.
    """

    step: Callable[..., Columns]
    members: Floats
    dt: float
    checks_per_tick: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What certifies an action: safe set, backup policy, terminal set and tightening.

    backup(x, centre, constants) -> u                              the backup policy k about a centre, R floats
    margins(x, points, constants) -> (h_1, ..., h_n)               each h_i >= 0 in the safe set, in its own unit
    terminal(x, centre, constants) -> bool                         inside S_f, which k keeps invariant
    margins_from(x, seen, h, constants) -> (h_1, ..., h_n)         optional, for speed only: lower bounds of
                                                                   margins(x, ...), given h = margins(seen, ...)
    """

    backup: Callable[..., Columns]
    margins: Callable[..., Columns]
    terminal: Callable[..., Any]
    margins_from: Callable[..., Columns] | None = None
    constants: tuple[float, ...]
    centres: Floats  # [C, R], rest positions that a plan may steer to; one row of zeros if there is a single plan
    point_size: int = 2  # d of the occupied points [M, d] that margins() takes
    margin_names: tuple[str, ...]
    tightening: Floats  # [T + 1, n], m_{i,t} at check t of the rollout, in the unit of h_i; grows with t
    scale: Floats  # [n], units of h_i per unit of the scaled margin
    holds: tuple[int, ...]  # in checks: one period, and the drive's own timeout
    offered_longer: int = 0  # in checks: by how much longer than the longest hold an offered action must pass
    band: float  # width b of the hysteresis band, in scaled margin
    noise_allowance: float  # how far sensor errors within their bounds move the scaled margin of a standing robot
    step_residual: float  # scaled margin that one in-band step may lose unnoticed: w_bar of docs/method.md
    band_budget: float  # scaled margin that in-band steps may spend before they are refused

    def centre(self, index: int) -> tuple[float, ...]:
        """The centre of that index, as an argument of the functions above."""
        return tuple(self.centres[index].tolist())


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What counts as a mismatch between the members' predictions and the robot."""

    residual: Floats  # [S], W: how far a state may lie outside the members' predictions one tick ahead
    slack: Floats  # [S], by how much the tube of a stored plan widens per tick: W, plus the effect of uneven periods
    uneven: float = 0.0  # W covers stamps that are off a whole number of checks by this share of a check


@dataclass(frozen=True, kw_only=True)
class Model:
    """Everything that the gate knows about the motion of a robot."""

    dynamics: Dynamics
    certificate: Certificate
    detection: Detection

    @property
    def horizon_s(self) -> float:
        """Seconds within which every certified plan has come to rest."""
        return self.dynamics.dt * len(self.certificate.tightening)


def advance(dynamics: Dynamics, x: Columns, commands: Columns, members: Columns, checks: int) -> Columns:
    """The state after `checks` checks under constant `commands`; columns of one shape, or that broadcast."""
    for _ in range(checks):
        x = dynamics.step(x, commands, members, dynamics.dt)
    return x


def columns(rows: Floats) -> Columns:
    """Rows [..., n] as n columns."""
    return tuple(np.moveaxis(rows, -1, 0))
