"""Trains a policy without ROS: gate, behavior policy, replay, trainer and export of the nodes, in one process."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_support_ql import config as configuration
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.learning.export import publish_policy
from safe_support_ql.learning.ingest import learn_from, problem_spec
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.recording.journal import pack, record_type
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.seeds import first_of_run
from safe_support_ql.safety.gate import REASONS, VERDICTS, Gate
from safe_support_ql.simulation.simulation import Simulation


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, in addition to policy.onnx."""

    seed: int
    control_ticks: int
    physics_steps: int
    episodes: int
    behavior_success_rate: float
    unsafe_visits: int
    interventions: int
    empty_supports: int
    verdicts: dict[str, int]
    metrics: dict[str, float]
    wall_s: float


def train(
    raw_config: Mapping[str, Any],
    continuous: bool,
    seed: int,
    policy_path: Path,
) -> TrainingResult:
    """Collect `run.ticks` with beta, with `learner.updates_per_tick` gradient steps each; then extract and export."""
    began = time.monotonic()
    config = configuration.parse(raw_config, "configuration")
    robot = config.robot
    sim = Simulation(robot)
    gate = Gate(robot, config.gate, continuous, seed)
    policy = BehaviorPolicy(config.behavior, robot, seed)
    trainer = Trainer(replace(config.learner, seed=seed), problem_spec(robot, continuous))
    dtype = record_type(len(robot.observation_names), gate.support.size, len(robot.action_names))
    episodes, reached = 0, 0
    metrics: dict[str, float] = {}
    while sim.control_ticks < config.run.ticks:
        records: list[NDArray[np.void]] = []
        for outcome, decision in steps(sim, gate, policy, first_of_run(seed) + episodes, episodes):
            if decision.candidates is None:
                continue  # the gate is not open yet: there are no candidates to learn from
            records.append(
                pack(
                    dtype, decision.sequence, decision.candidates, decision.index, VERDICTS.index(decision.verdict),
                    REASONS.index(decision.reason), PHASES.index("collection"), outcome.reward, not records,
                    outcome.terminated, outcome.truncated, decision.intervention,
                )
            )  # fmt: skip
        if records:
            metrics = learn_from(trainer, np.concatenate(records), robot, config.behavior) or metrics
        episodes, reached = episodes + 1, reached + outcome.reached
    publish_policy(policy_path, trainer, robot, continuous, config.safety_hash)
    sim.close()
    counters = gate.counters
    return TrainingResult(
        seed, sim.control_ticks, sim.physics_steps, episodes, reached / episodes, sim.unsafe_visits,
        counters.interventions, counters.empty_supports, counters.verdicts, metrics, time.monotonic() - began,
    )  # fmt: skip
