"""How long a policy takes: beside bare ONNX Runtime, and as the node of a run with a learner on the same cores.

    python benchmarks/inference.py runs/<run> [--cycles 5000]

1. `bare` is InferenceSession.run on arrays that are ready. `policy` is what the node calls in its place: it draws the
   noise, checks what goes in and comes out, and finds the candidate. Both by turns, on the recorded candidate sets.
2. The nodes of a real-time run, with a learner that never rests beside them (a process under SCHED_IDLE, as the learner
   node's worker is). From the moment at which the gate's DDS stamped the candidates to the return of publish() of the
   request. A request that comes later than a control period after the candidates is of no use.

A timing fails nothing: whether the limits hold is printed.
"""

from __future__ import annotations

import argparse
import array
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # after the thread limit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this revision, whichever one is installed

from benchmarks import gate_latency
from safe_support_ql import bringup, panel
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.recording.journal import CERTIFIED, OFFERED, PLAN, JournalReader
from safe_support_ql.recording.summary import Progress
from safe_support_ql.safety.candidates import CandidateSet

ADDED_LIMIT = 1.2
FILE = "answers.npy"


def node() -> None:
    """The inference node, noting times; they go to the folder of the run when it ends."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from safe_support_ql.nodes import lifecycle
    from safe_support_ql.nodes.inference import Inference

    answers, sent = array.array("q"), 0
    take = rclpy_implementation.Subscription.take_message

    def timed_take(handle: Any, kind: Any, raw: bool) -> Any:
        nonlocal sent
        if (found := take(handle, kind, raw)) is not None:
            sent = found[1]["source_timestamp"]
        return found

    rclpy_implementation.Subscription.take_message = timed_take

    class Timed(Inference):
        def on_candidates(self, candidates: CandidateSet) -> None:
            began = sent
            super().on_candidates(candidates)
            answers.append(time.time_ns() - began)

    made: list[Timed] = []

    def make() -> Timed:
        made.append(Timed())
        return made[0]

    folder = next(Path(word.partition(":=")[2].strip('"')) for word in sys.argv if word.startswith("model:="))
    status = lifecycle.run(make)
    np.save(folder.with_name(FILE), np.array(answers))
    os._exit(status)  # as every node's process ends


class Processes(gate_latency.Processes):
    """The nodes as always, but for the inference node, which notes times."""

    noting, file = "inference", Path(__file__)


def learn(folder: Path) -> None:
    """Learn from the journal of a run until somebody ends this process."""
    from safe_support_ql.learning.ingest import collected, problem_spec, replay_rows
    from safe_support_ql.learning.trainer import Trainer

    run, settings = bringup.read_run(folder)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    trainer = Trainer(settings.learner.seeded(0), problem_spec(settings.robot, run.continuous))
    records = collected(JournalReader(folder / "journal.bin").read())
    trainer.replay.append(replay_rows(records, settings.robot, settings.behavior))
    while True:
        trainer.update(100)


def sets(folder: Path) -> list[CandidateSet]:
    """The newest candidate sets of a run."""
    records = JournalReader(folder / "journal.bin").read()[-1000:]
    return [
        CandidateSet(
            int(one["id"]), int(one["stamp_ns"]), int(one["episode"]), one["observation"], one["actions"],
            one["flags"] & CERTIFIED > 0, one["flags"] & OFFERED > 0, np.zeros(len(one["flags"]), np.bool_),
            one["flags"] & PLAN > 0, one["margin"], np.zeros(len(one["flags"]), np.uint8),
        )
        for one in records
    ]  # fmt: skip


def beside_bare(model: Path, folder: Path) -> None:
    """The first table."""
    run, settings = bringup.read_run(folder)
    policy = OnnxPolicy(model, PolicyContract.of(settings.robot, run.continuous, settings.safety_hash))
    actor, session = Actor(policy, 0), policy._session
    bare, ours = [], []
    for candidates in sets(folder) * 3:
        zeros = np.zeros((1, len(candidates.margin)), np.float32)
        inputs = {
            "observation": candidates.observation[None], "candidates": candidates.actions[None],
            "support": candidates.support[None], "is_plan": candidates.is_plan[None],
            "log_proposal": zeros, "noise": zeros,
        }  # fmt: skip
        began = time.perf_counter()
        session.run(["action", "log_prob"], inputs)
        middle = time.perf_counter()
        actor(candidates)
        bare.append(middle - began)
        ours.append(time.perf_counter() - middle)
    print(f"{'ms':<10}{'p50':>8}{'p99':>8}{'p99.9':>8}")
    show("bare", bare)
    show("policy", ours)
    added = float(np.median(ours) / np.median(bare))
    print(f"policy / bare at p50: {added:.2f} <= {ADDED_LIMIT}: {'holds' if added <= ADDED_LIMIT else 'DOES NOT HOLD'}")


def show(name: str, seconds: Any) -> None:
    print(f"{name:<10}" + "".join(f"{1e3 * value:8.3f}" for value in np.percentile(seconds, (50, 99, 99.9))))


def beside_a_learner(model: Path, folder: Path, cycles: int) -> None:
    """The second table."""
    from safe_support_ql.nodes import conductor as conducting

    old, settings = bringup.read_run(folder)
    with tempfile.TemporaryDirectory() as runs:
        run = bringup.create_run(
            Path(runs), settings, kind="simulate", clock="realtime", policy=str(model), continuous=old.continuous
        )
        processes = Processes(run.logs)
        conductor = conducting.Conductor(run, settings, Progress(), processes, panel.Lines(lambda *_: None))
        learner = subprocess.Popen([sys.executable, __file__, str(folder), "--learn"])
        try:
            conductor.graph.start(conductor.note)
            conductor.play("simulate", "inference", 0, ticks=cycles)
            conductor.stop()
        finally:
            learner.kill()
            processes.stop(bringup.STOP_ORDER)
            conductor.close()
        answers = np.load(model.with_name(FILE)) / 1e9
        model.with_name(FILE).unlink()
        decisions = JournalReader(run.folder / "journal.bin").read()
    period, p999 = settings.robot.period, float(np.percentile(answers, 99.9))
    show("node", answers)
    print(f"{len(answers)} answers to {len(decisions)} states, longest {1e3 * answers.max():.1f} ms")
    print(f"node at p99.9: {1e3 * p999:.1f} <= {1e3 * period:.0f} ms: {'holds' if p999 <= period else 'DOES NOT HOLD'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--cycles", type=int, default=5000, help="control periods beside the learner, default 5000")
    parser.add_argument("--learn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder, model = options.run.resolve(), (options.run / "policy.onnx").resolve()
    if options.learn:
        learn(folder)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    beside_bare(model, folder)
    _lock = gate_latency.isolate()
    from safe_support_ql.nodes import conductor as conducting

    conducting.join_graph()
    beside_a_learner(model, folder, options.cycles)
    conducting.leave_graph()


if __name__ == "__main__":
    node() if "--ros-args" in sys.argv else main()
