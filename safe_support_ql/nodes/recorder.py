"""The recorder node: the only writer of the journal (journal.bin) and the ledger (ledger.jsonl) in `run_dir`.

It reads `candidates`, `decision` and `outcome`, and publishes `recorder/heartbeat` every 0.2 s: every decision below
this number is journalled or listed as a gap. A recorder that lags therefore stops the robot, like a silent one. While
the disk refuses, for example because it is full, records wait in memory, heartbeats stop, and so does the robot. What
is written is in recording/run_record.py; this node passes messages to it and numbers back. A malformed message is
refused: what it leaves out of the journal is listed as a gap.

Beside these it keeps what the robot's sensors sent, byte for byte (recording/inputs.py), for bags. A disk that refuses
that costs the rest of it, and neither records nor the robot's motion.

Each second and at the end it publishes on `recorder/ledger_head` (latched) the hash of the ledger's newest line. Who
keeps it on another machine can prove that nothing before that line was changed: `safe-support-ql ledger RUN --head`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String, UInt64

from safe_support_ql.deployment.news import News
from safe_support_ql.nodes import lifecycle, native, tables, topics
from safe_support_ql.nodes.candidates import CandidateCodec
from safe_support_ql.recording.files import INPUTS
from safe_support_ql.recording.inputs import InputsWriter
from safe_support_ql.recording.join import WAIT_S
from safe_support_ql.recording.parts import OutcomeTable, Verdict
from safe_support_ql.recording.run_record import RunRecord
from safe_support_ql.safety.candidates import CandidateSet, candidate_layout

HEARTBEAT_S = 0.2
SYNC_S = 1.0


class Recorder(lifecycle.ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        """Declare parameters."""
        super().__init__("recorder")
        self.record: RunRecord | None = None
        self.inputs: InputsWriter | None = None

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
        self._hear_inputs([native.ChannelCodec(channel) for channel in robot.channels])
        self.heartbeat = self.advertise(UInt64, topics.HEARTBEAT, topics.LATEST)
        self.head = self.advertise(String, topics.LEDGER_HEAD, topics.LATCHED)
        decision = functools.partial(tables.decode_decision, size=self.codec.a)
        self.subscribe(PointCloud2, topics.CANDIDATES, self.codec.decode, self.on_candidates, topics.RECORDED)
        self.subscribe(DiagnosticArray, topics.DECISION, decision, self.on_decision, topics.RECORDED)
        self.subscribe(JointState, topics.OUTCOME, tables.decode_outcome, self.on_outcome, topics.RECORDED)
        self.subscribe(String, topics.MODEL_ACTIVE, tables.decode_news, self.on_news, topics.LATCHED)
        self.every(HEARTBEAT_S, self.on_heartbeat)
        self.every(SYNC_S, self.on_second)

    def _hear_inputs(self, codecs: list[native.ChannelCodec]) -> None:
        """Keep the messages of the channels, and where a simulator puts the robot."""
        self.lockstep = self.param("clock") == "lockstep"
        kinds = [(codec.channel.topic or codec.channel.name, codec.type, codec.channel.type) for codec in codecs]
        kinds.append((topics.EPISODE, DiagnosticArray, "diagnostic_msgs/msg/DiagnosticArray"))
        self.inputs = InputsWriter(self.run_dir() / INPUTS, [(topic, name) for topic, _, name in kinds])
        if self.inputs.aside is not None:
            self.get_logger().error(f"{INPUTS} was damaged, and is {self.inputs.aside.name} now; a new one is begun")
        for number, (topic, kind, _) in enumerate(kinds):
            hear = functools.partial(self.on_input, number, hasattr(kind, "header"))
            self.subscribe(kind, topic, bytes, hear, topics.HEARD, raw=True)

    def activate(self) -> None:
        """Start to record."""
        assert self.record is not None
        self.record.begin(self.param("robot_id"), self.param("clock"), self.param("seed"), self.param("judged_by"))
        self.on_heartbeat()

    def deactivate(self) -> None:
        """Write all decisions so far, complete or as a gap."""
        assert self.record is not None
        self.record.end()
        self.head.publish(String(data=self.record.head))
        self.get_logger().info(f"ledger head: {self.record.head}")

    def busy(self) -> bool:
        """Whether the monitor's last decisions, or their parts, may still come after a signal to all nodes."""
        there = self.count_publishers(topics.DECISION) > 0
        return self.active and self.record is not None and self.record.busy(there)

    def release(self) -> None:
        """Close both files."""
        record, self.record = self.record, None
        if record is not None:
            record.close()
        with self._keeping_inputs() as inputs:
            self.inputs = None
            if inputs is not None:
                inputs.close()

    def fail(self, error: Exception) -> None:
        """Stop confirming, so that the gate runs its plan. What can still be written is written."""
        if self.record is not None:
            self.record.failed = True

    def on_candidates(self, candidates: CandidateSet) -> None:
        """Keep a candidate set until its decision comes."""
        if self.active and self.record is not None:
            self.record.candidates(candidates)

    def on_decision(self, verdict: Verdict) -> None:
        """Queue a decision until its parts arrive, unless its number cannot follow those before."""
        if not self.active or self.record is None:
            return
        if problem := self.record.join.objection(verdict):
            self.refuse(topics.DECISION, problem)
        else:
            with self._keeping_inputs() as inputs:
                if inputs is not None and verdict.sequence > self.record.join.last:
                    inputs.mark(self._time(verdict.stamp_ns), verdict.sequence)
            self.record.decision(verdict)

    def on_news(self, news: News) -> None:
        """Which policy drives now."""
        if self.active and self.record is not None:
            self.record.policy(news.epoch, news.sha256, f"{news.said} {news.path}".strip())

    def on_input(self, number: int, stamped: bool, data: bytes) -> None:
        """Keep a message of a sensor."""
        if self.active:
            with self._keeping_inputs() as inputs:
                if inputs is not None:
                    inputs.message(self._time(native.serialized_stamp(data) if stamped else None), number, data)

    def _time(self, stamp_ns: int | None) -> int:
        """When something was heard; in lock-step its own stamp, which is all the time that there is."""
        return stamp_ns if self.lockstep and stamp_ns is not None else self.get_clock().now().nanoseconds

    @contextlib.contextmanager
    def _keeping_inputs(self) -> Iterator[InputsWriter | None]:
        try:
            yield self.inputs
        except OSError as error:
            self.inputs = None
            self.get_logger().error(f"{INPUTS}: {error}; from here on this run makes no complete bag")

    def on_outcome(self, arrived: tuple[OutcomeTable, int, str]) -> None:
        """Count an outcome; its reward waits for the decision."""
        if self.active and self.record is not None:
            self.record.outcome(*arrived)

    def on_second(self) -> None:
        """Write counters, fsync, and try again after a refusal of the disk."""
        if self.active and self.record is not None:
            self.record.each_second()
            with self._keeping_inputs() as inputs:
                if inputs is not None:
                    inputs.flush()
            self.head.publish(String(data=self.record.head))

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
