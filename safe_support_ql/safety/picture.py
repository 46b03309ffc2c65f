"""What the gate sees and intends, as geometry to draw. Nothing here is part of a decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats, Robot
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
    model = robot.model
    member = tuple(model.members[0])
    used = np.isfinite(candidates.margin)
    actions = candidates.actions[used].astype(np.float64)
    x = tuple(np.full(len(actions), value) for value in estimate.state)
    for _ in range(model.checks_per_tick):
        x = model.step(x, tuple(actions.T), member, model.dt)

    centre = float(model.centres[candidates.centre[executed], 0])
    state = tuple(float(value) for value in estimate.state)
    command = tuple(float(value) for value in candidates.actions[executed])
    path = [state]
    for t in range(len(model.tightening) - 1):
        if t >= model.checks_per_tick and t % model.checks_per_tick == 0:
            command = tuple(float(value) for value in model.backup(state, centre, model.constants))
        state = tuple(float(value) for value in model.step(state, command, member, model.dt))
        path.append(state)
        if t + 1 >= model.checks_per_tick and bool(model.terminal(state, centre, model.constants)):
            break

    here = model.margins(tuple(estimate.state), estimate.points, model.constants)
    seen = estimate.points[np.abs(estimate.points).max(axis=1, initial=0.0) < HORIZON]
    return Picture(
        occupied=np.column_stack([seen, np.zeros(len(seen))]),
        now=robot.place(estimate.state[None])[0],
        after=robot.place(np.stack(np.broadcast_arrays(*x), axis=1)),
        certified=candidates.certified[used],
        band=candidates.band[used],
        backup=robot.place(np.array(path)),
        margins={name: float(value) for name, value in zip(model.margin_names, here, strict=True)},
        tightening={
            name: (float(model.tightening[1, i]), float(model.tightening[-1, i]))
            for i, name in enumerate(model.margin_names)
        },
    )
