"""The learner of a robot on another machine: it learns from a copy of the journal, and gives the policy back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from safe_support_ql import bringup
from safe_support_ql.bringup import Run
from safe_support_ql.nodes import tables, topics
from safe_support_ql.nodes.courier import Courier
from safe_support_ql.nodes.graph import START_S
from safe_support_ql.nodes.lifecycle_client import LEARNER_CALL_S, Died, Fault, LifecycleClient, Refused
from safe_support_ql.recording.files import CHECKPOINT, CONFIG, JOURNAL, LEDGER, MANIFEST, POLICY, SESSION
from safe_support_ql.recording.summary import Progress

RUN = "run.txt"  # in the folder: the robot's run that it belongs to
TELL_S = 10.0
SILENT_S = 5.0


class LearnerHost:
    """See the module."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """`folder` is made, or goes on with what is in it. Raises ValueError if it cannot be written."""
        self.folder, self.tell, self.stopped = folder.resolve(), tell, False
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            known = (self.folder / RUN).read_text().strip() if (self.folder / RUN).exists() else ""
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("learner_host")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.processes = bringup.Processes(self.folder / "logs")
        takes = (CONFIG, SESSION, JOURNAL, LEDGER)
        self.courier = Courier(self.node, known, self.folder, (MANIFEST, POLICY), takes)
        self.courier.may_give, self.courier.renewed = self._may_give, self._on_renewed
        self.status: dict[str, str] = {}
        self.asked, self.extracting, self.exported = 0, 0, 0  # sizes of the robot's journal
        self.begun = False  # whether the extraction was seen to run
        hear = topics.LEARNER_STATUS
        self.node.create_subscription(DiagnosticArray, hear, self._on_status, topics.CHAIN)
        self.client = LifecycleClient(self.node, self._spin, lambda name: self._gone, self._words)

    def _on_status(self, message: Any) -> None:
        try:
            self.status = tables.decode_learner(message)
        except ValueError:
            return
        if self.extracting and self.status.get("state") != "exported":
            self.begun = True  # else it is the policy before that it has exported
        elif self.extracting and self.begun:
            self.exported, self.extracting = self.extracting, 0
            self.tell("extracted; the robot fetches the policy")

    def _may_give(self, name: str, size: int) -> bool:
        """The robot asks for a policy once it has collected: from a journal of that size."""
        self.asked = max(self.asked, size)
        return 0 < size <= self.exported

    def _on_renewed(self, name: str) -> None:
        """Another journal than the one that was learnt from: begin anew."""
        if name == JOURNAL:
            self.tell("the robot's journal is another one now; learning begins anew")
            self.processes.stop(("learner",), 30.0)
            (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def _words(self, name: str) -> str:
        return self.processes.last_words(name)

    def _gone(self) -> bool:
        return self.stopped or not self.processes.alive("learner")

    def _spin(self, until: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not until():
            if self.courier.other:
                raise ValueError(
                    f"{self.folder}: belongs to {self.courier.run}, and the robot runs {self.courier.other}; give "
                    "another folder"
                )
            if time.monotonic() > end or self.stopped:
                return False
            self.courier.work()
            self.executor.spin_once(timeout_sec=0.05)
        return True

    def run(self) -> None:
        """Until Ctrl-C. Raises ValueError where this folder, or the robot's run, does not do."""
        self.tell("waiting for a robot's run (train --remote-learner)")
        self._spin(lambda: self.courier.complete(CONFIG, SESSION), 1e9)
        if self.stopped:
            return
        (self.folder / RUN).write_text(self.courier.run + "\n")
        run = Run(self.folder, **json.loads((self.folder / SESSION).read_text()))
        self.tell(f"learning for {self.courier.run}")
        told = heard = time.monotonic()
        while not self.stopped:
            if not self.processes.alive("learner"):
                self._start(run)
            self._spin(lambda: False, 0.5)
            if self.asked > max(self.extracting, self.exported) and self.copied >= self.asked:
                self._extract()
            now = time.monotonic()
            if now - self.courier.heard > SILENT_S and now - heard > TELL_S:
                self.tell(
                    f"the robot has not been heard for {now - self.courier.heard:.0f} s; it goes on when it is back"
                )
                heard = now
            elif now - told > TELL_S and self.courier.problem:
                self.tell(self.courier.problem)
                told = now
            elif now - told > TELL_S:
                state, updates = self.status.get("state", "-"), self.status.get("updates", "0")
                self.tell(f"{self.copied / 1e6:.2f} MB of the journal, {state}, {updates} updates")
                told = now

    @property
    def copied(self) -> int:
        """Bytes of the robot's journal that are here."""
        path = self.folder / JOURNAL
        return path.stat().st_size if path.exists() else 0

    def _start(self, run: Run) -> None:
        self.extracting = 0  # it knows of none
        self.processes.start("learner", bringup.parameters("learner", run, Progress()))
        try:
            if self.client.state("learner", START_S) == State.PRIMARY_STATE_UNCONFIGURED:
                self.client.configure("learner")
            self.client.activate("learner")
        except (Died, Fault, Refused) as error:
            self.processes.stop(("learner",))
            why = "it died" if isinstance(error, Died) else error
            self.tell(f"the learner did not start: {why}; see {self.processes.log('learner')}; it is tried again")

    def _extract(self) -> None:
        try:
            answer = self.client.call("learner", Trigger, "learner/extract", Trigger.Request(), LEARNER_CALL_S)
        except (Died, Fault):
            return
        if answer.success:
            self.extracting, self.begun = self.asked, False
            self.tell("the robot has collected; extracting a policy")

    def close(self) -> None:
        """Stop the learner, which saves what it has learnt."""
        self.stopped = True
        self.processes.stop(("learner",), 30.0)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()


def host(folder: Path, tell: Callable[[str], None]) -> None:
    """Learn in `folder` until Ctrl-C or SIGTERM. Raises ValueError as LearnerHost does."""
    made = LearnerHost(folder, tell)

    def stop(number: int, frame: Any) -> None:
        made.stopped = True

    for number in bringup.stop_signals():
        signal.signal(number, stop)
    try:
        made.run()
    finally:
        made.close()
