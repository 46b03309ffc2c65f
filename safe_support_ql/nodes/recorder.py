"""The recorder node: the only writer of the journal (journal.bin) and the ledger (ledger.jsonl) in `run_dir`.

It reads `candidates`, `decision` and `outcome`, and publishes `recorder/heartbeat` every 0.2 s: every decision below
this number is journalled or listed as a gap. A recorder that lags therefore stops the robot, like a silent one. While
the disk refuses, for example because it is full, records wait in memory, heartbeats stop, and so does the robot. What
is written is in recording/run_record.py; this node passes messages to it and numbers back.
"""

from __future__ import annotations

import os

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import UInt64

from safe_support_ql.nodes import lifecycle, tables, topics
from safe_support_ql.nodes.candidates import CandidateCodec
from safe_support_ql.recording.join import WAIT_S
from safe_support_ql.recording.run_record import RunRecord
from safe_support_ql.safety.candidates import candidate_layout

HEARTBEAT_S = 0.2
SYNC_S = 1.0


class Recorder(lifecycle.ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("recorder")
        self.record: RunRecord | None = None

    def configure(self) -> None:
        """Open, or continue, journal and ledger. Raises ValueError and OSError as RunWriter does."""
        settings = self.load_config()
        robot, continuous = settings.robot, self.param("continuous")
        self.codec = CandidateCodec(robot, continuous)
        header = {
            "observation": self.codec.d,
            "candidates": self.codec.k,
            "action": self.codec.a,
            "robot": robot.name,
            "layout": candidate_layout(robot, continuous),
            "safety_sha256": settings.safety_hash,
        }
        # A lost part loses one record, and must not look like a recorder that lags.
        wait_s = min(WAIT_S, settings.gate.recorder_timeout_s / 2)
        self.record = RunRecord(self.run_dir(), header, robot.period, wait_s, self.get_logger(), self._report)
        self.heartbeat = self.advertise(UInt64, topics.HEARTBEAT, topics.LATEST)
        self.subscribe(PointCloud2, topics.CANDIDATES, self.on_candidates, topics.RECORDED)
        self.subscribe(DiagnosticArray, topics.DECISION, self.on_decision, topics.RECORDED)
        self.subscribe(JointState, topics.OUTCOME, self.on_outcome, topics.RECORDED)
        self.every(HEARTBEAT_S, self.on_heartbeat)
        self.every(SYNC_S, self.on_second)

    def activate(self) -> None:
        """Start to record."""
        assert self.record is not None
        self.record.begin(self.param("robot_id"), self.param("clock"), self.param("seed"))
        self.on_heartbeat()

    def deactivate(self) -> None:
        """Write all decisions so far, complete or as a gap."""
        assert self.record is not None
        self.record.end()

    def busy(self) -> bool:
        """Whether the monitor's last decisions, or their parts, may still come after a signal to all nodes."""
        return self.active and self.record is not None and self.record.busy()

    def release(self) -> None:
        """Close both files."""
        record, self.record = self.record, None
        if record is not None:
            record.close()

    def fail(self, error: Exception) -> None:
        """Stop confirming, so that the gate runs its plan. What can still be written is written."""
        if self.record is not None:
            self.record.failed = True

    def on_candidates(self, message: PointCloud2) -> None:
        """Keep a candidate set until its decision comes."""
        if self.active and self.record is not None:
            self.record.candidates(self.codec.decode(message))

    def on_decision(self, message: DiagnosticArray) -> None:
        """Queue a decision until its parts arrive."""
        if self.active and self.record is not None:
            self.record.decision(tables.decode_decision(message))

    def on_outcome(self, message: JointState) -> None:
        """Count an outcome; its reward waits for the decision."""
        if self.active and self.record is not None:
            self.record.outcome(*tables.decode_outcome(message))

    def on_second(self) -> None:
        """Write counters, fsync, and try again after a refusal of the disk."""
        if self.active and self.record is not None:
            self.record.each_second()

    def on_heartbeat(self) -> None:
        """Write the decisions that are complete and confirm them, if possible."""
        if not self.active or self.record is None:
            return
        confirmed = self.record.confirm()
        if confirmed is not None:
            self.heartbeat.publish(UInt64(data=confirmed))


def main() -> None:
    """Run the node as a process."""
    # A message for the recorder must not preempt the other nodes: no preemption on wake-up, in any thread.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    lifecycle.main(Recorder)


if __name__ == "__main__":
    main()
