"""What there is to draw of a cycle, as plain geometry: what the gate sees and intends. No decision depends on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Estimate, Robot
from safe_support_ql.robots.model import Floats, advance
from safe_support_ql.safety.candidates import Bools, CandidateSet

HORIZON = 100.0  # m, farther points stand for "nothing there"


@dataclass(frozen=True)
class Picture:
    """One decision. Places in metres, in the robot's `frame_id`."""

    occupied: Floats  # [M, 3], what bounds the known free space
    now: Floats  # [3]
    after: Floats  # [K, 3], where each candidate puts the robot at the end of the period, by the nominal model
    certified: Bools  # [K]
    band: Bools  # [K], certified inside the hysteresis band
    backup: Floats  # [T, 3], the executed candidate for a period, then the plan until it is inside S_f
    margins: dict[str, float]  # h_i now, in the unit of h_i
    tightening: dict[str, tuple[float, float]]  # m_i at the first check and at the end of the horizon


def draw(robot: Robot, estimate: Estimate, candidates: CandidateSet, executed: int) -> Picture:
    """The picture of a decision on `candidates` at `estimate`; the nominal member only."""
    certificate, dynamics = robot.model.certificate, robot.model.dynamics
    member = tuple(dynamics.members[0])
    used = np.isfinite(candidates.margin)
    actions = candidates.actions[used].astype(np.float64)
    start = tuple(np.full(len(actions), value) for value in estimate.state)
    after = advance(dynamics, start, tuple(actions.T), member, dynamics.checks_per_tick)

    centre = certificate.centre(candidates.centre[executed])
    state = tuple(float(value) for value in estimate.state)
    command = tuple(float(value) for value in candidates.actions[executed])
    path = [state]
    for t in range(len(certificate.tightening) - 1):
        if t >= dynamics.checks_per_tick and t % dynamics.checks_per_tick == 0:
            command = tuple(float(value) for value in certificate.backup(state, centre, certificate.constants))
        state = tuple(float(value) for value in advance(dynamics, state, command, member, 1))
        path.append(state)
        if t + 1 >= dynamics.checks_per_tick and bool(certificate.terminal(state, centre, certificate.constants)):
            break

    here = certificate.margins(tuple(estimate.state), estimate.points, certificate.constants)
    seen = estimate.points[np.abs(estimate.points).max(axis=1, initial=0.0) < HORIZON]
    return Picture(
        occupied=np.pad(seen, ((0, 0), (0, 3 - seen.shape[1]))),
        now=robot.place(estimate.state[None])[0],
        after=robot.place(np.stack(np.broadcast_arrays(*after), axis=1)),
        certified=candidates.certified[used],
        band=candidates.band[used],
        backup=robot.place(np.array(path)),
        margins={name: float(value) for name, value in zip(certificate.margin_names, here, strict=True)},
        tightening={
            name: (float(certificate.tightening[1, i]), float(certificate.tightening[-1, i]))
            for i, name in enumerate(certificate.margin_names)
        },
    )
