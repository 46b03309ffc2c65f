"""The learner node: learns from the actions that the journal in `run_dir` holds. It cannot command the robot.

Publishes `learner/status` at 1 Hz and on change (values: state, error, updates, budget, records, q_loss, alpha, kl,
effective_sample_share, ...). The state is one of waiting (no transition yet), training, idle (all records read, all
updates done), extracting, exported, error, inactive. The service `~/extract` (std_srvs/Trigger) answers at once. Stage
two starts when all records are read and the update budget (updates_per_tick x records of collection) is spent; it
writes policy.onnx and policy.json. `learner/status` shows its progress.

A worker thread under SCHED_IDLE reads, learns and writes, so that neither the other nodes nor the lifecycle services
wait for it. checkpoint.pt is written every 30 s, at the end of extraction and on deactivation (also by SIGINT and
SIGTERM). The learner resumes from it and reads the journal from its first record. It learns only from records of the
phase `collection`. Curves for TensorBoard: run_dir/tensorboard.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import Trigger

from safe_support_ql.nodes import lifecycle, tables, topics
from safe_support_ql.recording.files import CHECKPOINT, CURVES, JOURNAL, LEDGER, POLICY
from safe_support_ql.recording.journal import JournalReader
from safe_support_ql.recording.ledger import newest_head

if TYPE_CHECKING:
    from safe_support_ql.learning.trainer import Trainer

CHECKPOINT_S = 30.0
POLL_S = 0.1
SLICE = 4  # updates between two looks at the journal and at requests to the worker
CURVES_S = 2.0


class Learner(lifecycle.ManagedNode):
    """See the module. The worker owns the trainer from activation to deactivation; the node only reads `metrics`."""

    def __init__(self) -> None:
        super().__init__("learner")
        self.trainer: Trainer | None = None
        self.worker: threading.Thread | None = None
        self.state = "inactive"

    def configure(self) -> None:
        """Build the trainer and load the checkpoint, if there is one. Raises ValueError naming key or file."""
        from safe_support_ql.learning.checkpoint import load_checkpoint
        from safe_support_ql.learning.ingest import problem_spec
        from safe_support_ql.learning.trainer import Trainer

        settings = self.settings = self.load_config()
        robot = settings.robot
        self.folder = self.run_dir()
        self.continuous = self.param("continuous")
        self.trainer = Trainer(settings.learner.seeded(self.param("seed")), problem_spec(robot, self.continuous))
        checkpoint = self.folder / CHECKPOINT
        if checkpoint.exists():
            load_checkpoint(checkpoint, self.trainer)
        self.reader: JournalReader | None = None
        self.metrics: dict[str, float] = {}
        self.error = ""
        self.state = "inactive"
        self.extract_asked = threading.Event()
        self.stop_asked = threading.Event()
        self.status = self.advertise(DiagnosticArray, topics.LEARNER_STATUS, topics.CHAIN)
        self.serve(Trigger, "~/extract", self.on_extract)
        self.every(POLL_S, self.watch)
        self.told, self.told_at = "", 0.0

    def activate(self) -> None:
        self.stop_asked.clear()
        self.extract_asked.clear()
        self.error = ""
        self.state = "waiting"
        self.worker = threading.Thread(target=self.work, name="learner")
        self.worker.start()

    def deactivate(self) -> None:
        """Stop the worker, which writes a checkpoint."""
        if self.worker is not None:
            self.stop_asked.set()
            self.worker.join()
            self.worker = None
        self.state = "inactive"
        self.tell()

    def release(self) -> None:
        self.trainer = None
        self.reader = None

    # --- ROS side ------------------------------------------------------------------------------------------------

    def on_extract(self, request: Any, response: Any) -> None:
        if not self.active or self.state == "error":
            response.message = self.error or "the learner is not active"
            return
        self.extract_asked.set()
        response.success, response.message = True, "accepted; learner/status shows the progress"

    def watch(self) -> None:
        """Status at 1 Hz and on change. A failed worker does not deactivate the node: its error must stay visible."""
        if self.active and (self.state != self.told or time.monotonic() - self.told_at >= 1.0):
            self.tell()

    def tell(self) -> None:
        if self.state == "error" and self.told != "error":
            self.get_logger().error(f"learning stopped: {self.error}; the journal and the last checkpoint are kept")
        self.told, self.told_at = self.state, time.monotonic()
        level = "error" if self.state == "error" else "ok"
        values = {"state": self.state, "error": self.error, **self.metrics}
        stamp = self.get_clock().now().nanoseconds
        robot = self.param("robot_id")
        self.status.publish(tables.encode_status("learner: status", stamp, self.state, level, values, robot))

    # --- worker --------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """The worker's thread: learn until it must stop, then write a checkpoint."""
        failure = self._attempt("learning", self.learn)
        if failure is not None:
            self.error, self.state = str(failure), "error"

    def learn(self) -> None:
        from safe_support_ql.learning.checkpoint import save_checkpoint

        assert self.trainer is not None
        # torch's threads inherit the idle priority of this thread: the other nodes always go first.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        trainer, folder = self.trainer, self.folder
        curves = Curves(folder / CURVES)
        saved = drawn = time.monotonic()
        try:
            while not self.stop_asked.is_set():
                fresh = self.ingest(trainer)
                budget = int(trainer.config.updates_per_tick * trainer.replay.appended)
                left = budget - trainer.updates if len(trainer.replay) else 0
                self.metrics |= {"records": trainer.replay.appended, "budget": budget, "updates": trainer.updates}
                if left > 0:
                    self.state = "training"
                    self.metrics |= trainer.update(min(SLICE, left))
                elif not fresh and self.extract_asked.is_set():
                    self.extract(trainer, curves)
                    save_checkpoint(folder / CHECKPOINT, trainer)
                    saved = time.monotonic()
                elif not fresh:
                    if self.state != "exported":
                        self.state = "idle" if len(trainer.replay) else "waiting"
                    self.stop_asked.wait(POLL_S)
                now = time.monotonic()
                if now - saved > CHECKPOINT_S and trainer.replay.appended >= trainer.rows_consumed:
                    save_checkpoint(folder / CHECKPOINT, trainer)
                    saved = now
                if now - drawn > CURVES_S and "q_loss" in self.metrics:
                    curves.add(self.metrics, trainer.updates)
                    drawn = now
        finally:
            # Until the journal has been read again, nothing is newer than the existing checkpoint.
            if trainer.updates and trainer.replay.appended >= trainer.rows_consumed:
                save_checkpoint(folder / CHECKPOINT, trainer)
            curves.close()

    def ingest(self, trainer: Trainer) -> int:
        """Append the new records of the journal; returns how many were read."""
        if self.reader is None:
            if not (self.folder / JOURNAL).exists():
                return 0
            self.reader = JournalReader(self.folder / JOURNAL)
            header, spec = self.reader.header, trainer.spec
            found = (header["observation"], header["candidates"], header["action"], header["safety_sha256"])
            if found != (spec.observation_dim, spec.candidates, spec.action_dim, self.settings.safety_hash):
                raise ValueError(
                    f"{self.reader.path}: recorded for another robot, action space or safety configuration"
                )
        records = self.reader.read()
        from safe_support_ql.learning.ingest import collected, replay_rows

        if len(learned := collected(records)):
            trainer.replay.append(replay_rows(learned, self.settings.robot, self.settings.behavior))
        return len(records)

    def extract(self, trainer: Trainer, curves: Curves) -> None:
        """Stage two: write the files that inference reads."""
        self.state = "extracting"

        def progress(updates: int, metrics: dict[str, float]) -> None:
            self.metrics |= {f"extraction_{name}": value for name, value in metrics.items()}
            self.metrics["extraction_updates"] = updates
            curves.add({f"extraction_{name}": value for name, value in metrics.items()}, updates)
            if self.stop_asked.is_set():
                raise _StopExtraction

        from safe_support_ql.learning.export import publish_policy

        settings = self.settings
        try:
            path, robot = self.folder / POLICY, settings.robot
            publish_policy(
                path, trainer, robot, self.continuous, settings.safety_hash, progress,
                lambda: newest_head(self.folder / LEDGER),
            )  # fmt: skip
        except _StopExtraction:
            return
        self.extract_asked.clear()
        self.state = "exported"


class _StopExtraction(Exception):
    """Deactivated during extraction: nothing is written."""


class Curves:
    """Scalars for TensorBoard, written without torch."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

        self._writer = EventFileWriter(str(folder))

    def add(self, values: dict[str, float], step: int) -> None:
        """One point on each curve."""
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        summary = Summary(value=[Summary.Value(tag=name, simple_value=float(v)) for name, v in values.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()


def main() -> None:
    # One thread: the other nodes need the cores as well. torch reads this when `configure` imports it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lifecycle.main(Learner)


if __name__ == "__main__":
    main()
