"""Converts journal records into replay rows, with the weights of beta at the recorded candidates."""

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.behavior.policies import BehaviorConfig, log_weights
from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.recording.journal import CERTIFIED, OFFERED, PLAN, USED
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.robots.base import Robot
from safe_support_ql.safety.candidates import EXTRA_SLOTS, candidate_count


def problem_spec(robot: Robot, continuous: bool) -> ProblemSpec:
    """Dimensions and scales of the learning problem of `robot`."""
    return ProblemSpec(
        observation_dim=len(robot.observation_names),
        action_dim=len(robot.action_names),
        candidates=candidate_count(robot, continuous) + EXTRA_SLOTS,
        observation_scale=robot.observation_scale,
        action_low=robot.action_low.astype(np.float32),
        action_high=robot.action_high.astype(np.float32),
    )


def collected(records: NDArray[np.void]) -> NDArray[np.void]:
    """Those of journal records [n] that are learnt from: no evaluation is."""
    chosen: NDArray[np.void] = records[records["phase"] == PHASES.index("collection")]
    return chosen


def replay_rows(records: NDArray[np.void], robot: Robot, behavior: BehaviorConfig) -> Rows:
    """The rows of journal records [n], for Replay.append."""
    flags = records["flags"]
    certified, offered, is_plan, used = ((flags & bit) > 0 for bit in (CERTIFIED, OFFERED, PLAN, USED))
    candidates = np.where(used[..., None], records["actions"], np.nan).astype(np.float32)
    return {
        "observation": records["observation"],
        "candidates": candidates,
        "support": certified | is_plan,
        "is_plan": is_plan,
        "log_weight": log_weights(behavior, robot, records["observation"], records["actions"], offered, is_plan),
        "executed": records["executed"].astype(np.int64),
        "reward": records["reward"],
        "terminated": records["terminated"].astype(bool),
        "truncated": records["truncated"].astype(bool),
        "first": records["first"].astype(bool),
        "sequence": records["sequence"].astype(np.int64),
    }


def learn_from(trainer: Trainer, records: NDArray[np.void], robot: Robot, behavior: BehaviorConfig) -> dict[str, float]:
    """Append journal records [n] and make the updates that are due for them; their metrics, none without updates.

    Raises ValueError as Replay.append.
    """
    trainer.replay.append(replay_rows(records, robot, behavior))
    due = int(trainer.config.updates_per_tick * trainer.replay.appended) - trainer.updates
    return trainer.update(due) if due > 0 and len(trainer.replay) else {}
