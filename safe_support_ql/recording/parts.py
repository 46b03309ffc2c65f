"""What a record is made from, as it arrives: the decision and the outcome that came with its state, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from safe_support_ql.robots.base import Singles


@dataclass(frozen=True)
class Verdict:
    """A decision as it travels: a gate.Decision without its candidates, which were published under `id`."""

    sequence: int
    id: int  # 0: blind, there were no candidates
    episode: int
    stamp_ns: int
    action: Singles
    index: int
    verdict: str
    reason: str
    message: str
    state: str
    intervention: bool
    empty_support: bool
    certified: bool  # the executed candidate's flags, which an appended one brings along
    band: bool
    margin: float
    centre: int
    certificate_us: int  # time the monitor spent on the certificate, for benchmarks


OUTCOME_NAMES = (
    "session",  # a number drawn by each simulator process: counts below start from zero with it
    "episode",
    "phase",  # index into ledger.PHASES
    "seed",
    "first",
    "tick",  # of this episode
    "reward",  # of the control tick that led to the state of this stamp
    "terminated",
    "truncated",
    "reached",
    "episode_return",
    "min_margin",  # of this episode
    "control_ticks",  # this and the next three count over the simulator's life
    "physics_steps",
    "unsafe_visits",
    "unsafe_substeps",
    "phase_ticks",  # since the last activation, as is the next
    "phase_episodes",
    "executed",  # number of the newest decision that moved the robot, -1: none; a dead monitor's last word
    "done",  # 1: the asked ticks or episodes are done, nothing more comes
    "wall_us",  # physics and ground truth of this tick, for benchmarks
    "sense_us",  # sensors of this tick
)
OutcomeTable = dict[str, float]  # by OUTCOME_NAMES
