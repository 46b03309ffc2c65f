"""The fields of a decision and of an outcome as they travel between nodes: another message field goes here."""

from dataclasses import dataclass

from safe_support_ql.robots.base import Singles


@dataclass(frozen=True)
class Verdict:
    """A gate.Decision as a message holds it: without its candidates, which are published under `id`."""

    sequence: int
    id: int  # of the candidate set; 0: no inputs, so no candidates
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
    certified: bool  # this and the next three describe the executed candidate, which may be an appended one
    band: bool
    margin: float
    centre: int
    certificate_us: int  # duration of the certificate, for benchmarks


OUTCOME_NAMES = (
    "session",  # a random number of the simulator process: the counts below start from zero with it
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
    "phase_ticks",  # this and the next count since the last activation
    "phase_episodes",
    "idle",  # 1: the robot waits between two episodes, and nothing is learnt from this state
    "executed",  # number of the newest executed decision, -1: none; it is known even if the monitor died
    "done",  # 1: all requested ticks or episodes are done
    "wall_us",  # computing time of physics and ground truth in this tick, for benchmarks
    "sense_us",  # computing time of the sensors in this tick
)
OutcomeTable = dict[str, float]  # its keys are OUTCOME_NAMES
