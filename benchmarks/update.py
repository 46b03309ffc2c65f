"""What one gradient step of the learner costs, beside a DQN of stable-baselines3 of the same size, in one run.

    python benchmarks/update.py [--robot R] [--ticks 3000] [--rounds 40] [--json FILE]

Both learn from the same decisions: `--ticks` control ticks of beta in lock-step, without ROS. An update is all that the
learner does for one: draw a batch, target, gradient step, metrics, and in ours the target network's step as well, which
DQN makes elsewhere. DQN has the hidden layers, the batch and the thread of ours; it has one network where ours has two,
an output for each action of the lattice where ours evaluates every candidate, and no metrics. The two take turns, a
round of updates each, and CPU time is counted, so that other work on the machine meets both alike.

`off` is the share of the K candidate slots outside the support. Ratios are of medians. A minute on one core, half of it
to collect. It needs stable-baselines3: `pip install '.[peers]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium  # after the thread limit
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger

from safe_support_ql import config as configuration
from safe_support_ql import robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.learning.ingest import problem_spec, replay_rows
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.recording.journal import pack, record_type
from safe_support_ql.recording.ledger import PHASES
from safe_support_ql.recording.seeds import COLLECTION
from safe_support_ql.safety.candidates import EXTRA_SLOTS
from safe_support_ql.safety.gate import REASONS, VERDICTS, Gate
from safe_support_ql.simulation.simulation import Simulation

UPDATES = 50  # of a round


def collect(config: configuration.Config, continuous: bool, ticks: int) -> Rows:
    """Whole episodes of beta until `ticks` are played, as rows of the replay."""
    robot = config.robot
    sim, gate = Simulation(robot), Gate(robot, config.gate, continuous, COLLECTION.start)
    policy = BehaviorPolicy(config.behavior, robot, COLLECTION.start)
    dtype = record_type(len(robot.observation_names), gate.support.size, len(robot.action_names))
    records: list[NDArray[np.void]] = []
    episode = 0
    while sim.control_ticks < ticks:
        first = True
        for outcome, decision in steps(sim, gate, policy, COLLECTION.start + episode, episode):
            if decision.candidates is not None:
                records.append(pack(
                    dtype, decision.sequence, decision.candidates, decision.index, VERDICTS.index(decision.verdict),
                    REASONS.index(decision.reason), PHASES.index("collection"), outcome.reward, first,
                    outcome.terminated, outcome.truncated, decision.intervention,
                ))  # fmt: skip
                first = False
        episode += 1
    sim.close()
    return replay_rows(np.concatenate(records), robot, config.behavior)


def dqn(trainer: Trainer, rows: Rows, widths: list[int]) -> DQN:
    """A DQN on the same transitions, with these hidden layers; an executed plan counts as the first action."""
    spec, config = trainer.spec, trainer.config
    actions = spec.candidates - EXTRA_SLOTS
    world = gymnasium.Env[Any, Any]()
    world.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (spec.observation_dim,))
    world.action_space = gymnasium.spaces.Discrete(actions)
    learner = DQN(
        "MlpPolicy", world, batch_size=config.batch_size, gamma=config.gamma, learning_rate=config.learning_rate,
        buffer_size=len(rows["sequence"]), policy_kwargs={"net_arch": widths}, device="cpu", seed=0,
    )  # fmt: skip
    learner.set_logger(Logger(folder=None, output_formats=[]))
    assert learner.replay_buffer is not None
    for i in np.flatnonzero(~rows["first"][1:]):
        executed = rows["executed"][i] if rows["executed"][i] < actions else 0
        learner.replay_buffer.add(
            rows["observation"][i], rows["observation"][i + 1], np.array([executed]), rows["reward"][i + 1],
            rows["terminated"][i + 1], [{}],
        )  # fmt: skip
    return learner


def spent(update: Callable[[], object]) -> float:
    """Milliseconds of CPU time that an update takes, of a round."""
    before = time.process_time()
    update()
    return 1e3 * (time.process_time() - before) / UPDATES


def measure(name: str, continuous: bool, ticks: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    config = configuration.load_robot(name)
    rows = collect(config, continuous, ticks)
    trainer = Trainer(replace(config.learner, seed=0, device="cpu"), problem_spec(config.robot, continuous))
    trainer.replay.append(rows)
    hidden, batch = trainer.config.hidden, trainer.config.batch_size
    widths = [hidden, hidden, max(1, hidden // 2)]
    other = dqn(trainer, rows, widths)
    updates = {"ours": lambda: trainer.update(UPDATES), "dqn": lambda: other.train(UPDATES, batch)}
    times: dict[str, list[float]] = {learner: [] for learner in updates}
    for i in range(rounds + 2):
        for learner, update in updates.items():
            taken = spent(update)
            if i >= 2:  # the first rounds warm up
                times[learner].append(taken)
    return {
        "robot": name, "actions": "continuous" if continuous else "discrete", "candidates": trainer.spec.candidates,
        "widths": widths, "batch": batch, "threads": torch.get_num_threads(), "rounds": rounds,
        "off_support": float((rows["log_weight"] == -np.inf).mean()),
        **{f"{key}_ms": np.percentile(values, [50, 90]).tolist() for key, values in times.items()},
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=robots.names(), help="one robot only")
    parser.add_argument("--ticks", type=int, default=3000, help="to collect and learn from (default 3000)")
    parser.add_argument("--rounds", type=int, default=40, help=f"of {UPDATES} updates each (default 40)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    titles = f"{'ms an update (CPU time)':24}{'K':>4}{'off':>6}{'ours p50':>10}{'p90':>7}"
    print(f"{titles}{'DQN p50':>9}{'p90':>7}{'ratio':>7}")
    results = []
    for name in [options.robot] if options.robot else robots.names():
        for continuous in (False, True):
            row = measure(name, continuous, options.ticks, options.rounds)
            (ours, ours90), (theirs, theirs90) = row["ours_ms"], row["dqn_ms"]
            print(
                f"{row['robot'] + ', ' + row['actions']:24}{row['candidates']:>4}{row['off_support']:>6.0%}"
                f"{ours:>10.2f}{ours90:>7.2f}{theirs:>9.2f}{theirs90:>7.2f}{ours / theirs:>7.2f}",
                flush=True,
            )
            results.append(row)
    shape, batch, threads = results[-1]["widths"], results[-1]["batch"], results[-1]["threads"]
    print(f"hidden layers {shape}, twice in ours; batch {batch}; {threads} thread")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
