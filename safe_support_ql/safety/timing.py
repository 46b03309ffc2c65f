"""When commands act: the clock that the gate goes by, and what a rollout has to allow for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.model import Floats, Model


class Clock(enum.Enum):
    """In lock-step the world waits for each decision, so nothing is ever late; in real time states age meanwhile."""

    LOCKSTEP = "lockstep"
    REALTIME = "realtime"


@dataclass(frozen=True)
class Timing:
    """What acts after the instant of the state: past[P, D, A] for each of the `delays`, then the candidate.

    That for each of the `holds`, then the plan; delays and holds in checks, D >= every delay (see rollout.py).
    """

    delays: tuple[int, ...]
    holds: tuple[int, ...]
    past: Floats
    known: bool = True  # false where nothing may be certified: nobody can say what acted, or the state has an objection


def delays(model: Model, earliest_s: float, latest_s: float) -> tuple[int, ...]:
    """Every whole number of checks that earlier commands may act for, from the instant of the state on."""
    low, high = earliest_s / model.dynamics.dt, latest_s / model.dynamics.dt
    return tuple(range(int(np.floor(low + 1e-6)), int(np.ceil(high - 1e-6)) + 1))


def holds(model: Model, late_s: float) -> tuple[int, ...]:
    """The holds of the model, and one in which the next command comes `late_s` after the period has ended."""
    longest = model.dynamics.checks_per_tick + int(np.ceil(late_s / model.dynamics.dt - 1e-6))
    return tuple(sorted({*model.certificate.holds, longest}))
