"""The robot's side of a learner on another machine: it gives the record of the run, and takes the policy."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from rclpy.node import Node

from safe_support_ql.bringup import Run, check_contract
from safe_support_ql.config import Config
from safe_support_ql.nodes.courier import Courier
from safe_support_ql.recording.files import CONFIG, JOURNAL, LEDGER, MANIFEST, POLICY, SESSION

SILENT_S = 15.0  # after which the learner's silence is told


class RemoteLearner:
    """See the module; the other side is learner_host.py."""

    def __init__(self, node: Node, run: Run, settings: Config) -> None:
        """Give from now on."""
        self.node, self.run, self.settings = node, run, settings
        self._gives = Courier(node, run.folder.name, run.folder, (CONFIG, SESSION, JOURNAL, LEDGER), ())

    def work(self) -> None:
        """Call it often."""
        self._gives.work()

    def fetch(
        self, spin: Callable[[], object], tell: Callable[[str], None], note: Callable[[str], None], seconds: float
    ) -> bool:
        """Ask for the policy until it is there and its manifest is right; false after so many `seconds`.

        `spin` serves messages for a moment.
        """
        incoming, end = self.run.folder / "incoming", time.monotonic() + seconds
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        takes = Courier(self.node, self.run.folder.name, incoming, (), (MANIFEST, POLICY))
        takes.size = (self.run.folder / JOURNAL).stat().st_size
        while time.monotonic() < end:
            takes.work()
            spin()
            silent = time.monotonic() - self._gives.heard
            note(
                takes.problem
                or (f"learner not heard for {silent:.0f} s" if silent > SILENT_S else "extracting elsewhere")
            )
            if not takes.complete(MANIFEST, POLICY):
                continue
            try:
                check_contract(incoming / POLICY, self.settings, self.run.continuous)
            except ValueError as error:
                tell(f"refused: {error}; it is fetched again")
                takes.forget(MANIFEST, POLICY)
                continue
            for name in (POLICY, MANIFEST):
                os.replace(incoming / name, self.run.folder / name)
            shutil.rmtree(incoming)
            return True
        return False
