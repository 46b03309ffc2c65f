"""Starts and stops the nodes of one run in order, for the conductor and the fault campaign.

A node counts as ready once it has answered. Nothing here depends on the kind of run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

import rclpy
from rclpy.executors import Executor

from safe_support_ql import bringup
from safe_support_ql.bringup import SPECS, STOP_ORDER, Run
from safe_support_ql.nodes.lifecycle_client import Died, Fault, LifecycleClient, Refused
from safe_support_ql.recording.summary import Progress
from safe_support_ql.robots.base import Robot

START_S = 60.0  # longest wait for the answer of a new process: torch and a cold disk are slow
AFTER_PLAN_S = 0.2


class Interrupted(Exception):
    """Ctrl-C."""


class Graph:
    """The nodes of one run, and a node of this process that calls them: `node`, served by `spin`.

    `processes` is None if the nodes are not children of this process, for example with a launch file.
    """

    def __init__(
        self,
        run: Run,
        robot: Robot,
        progress: Progress,
        processes: bringup.Processes | None,
        executor: Executor,
        meanwhile: Callable[[], None],
        renamed: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """rclpy must be initialised.

        `meanwhile` is called while the graph waits, until it stops, and may raise. `renamed`: node -> topic -> its name
        for that node. Numbers continue after `progress`.
        """
        self.run, self.robot, self.progress, self.processes = run, robot, progress, processes
        self.node = rclpy.create_node("conductor")
        self.executor = executor
        self.executor.add_node(self.node)
        self.client = LifecycleClient(self.node, self.spin, self._watch, self.last_words)
        self._meanwhile, self._renamed = meanwhile, renamed or {}
        self._launches: Counter[str] = Counter()
        self._watching = False  # dead processes matter once all have been started
        self._ending = False

    def spin(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Serve callbacks until `until` is true; false after `timeout_s`. Raises what `meanwhile` raises."""
        end = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.05)
            if not self._ending:
                self._meanwhile()
        return True

    # --- processes ---------------------------------------------------------------------------------------------------

    def launch(self, node: str) -> None:
        """Start the process of `node`, with the parameters of this run."""
        assert self.processes is not None
        self.processes.start(node, bringup.parameters(node, self.run, self.progress), self._renamed.get(node))
        self._launches[node] += 1

    def dead(self) -> list[str]:
        """Nodes whose process ended by itself after the start."""
        return self.processes.dead() if self.processes is not None and self._watching else []

    def last_words(self, node: str) -> str:
        """The last relevant line in the log of `node`, '' if there is none."""
        words = bringup.last_words(self.run.logs / f"{node}.log")
        return words.removeprefix("configure refused: ").removeprefix("activate refused: ")

    def _watch(self, node: str) -> Callable[[], bool]:
        """A function: whether the process of `node` has ended since, unless `meanwhile` ends the run for that."""
        launches = self._launches[node]

        def gone() -> bool:
            if self.processes is None or (launches == self._launches[node] and self.processes.alive(node)):
                return False
            return SPECS[node].restarts or self._ending

        return gone

    # --- up and down -------------------------------------------------------------------------------------------------

    def start(self, note: Callable[[str], None]) -> None:
        """Start and configure all nodes, and activate all but the source of episodes and the policies.

        `note` shows each step. Raises Refused if a node refuses its input, Fault if one does not start.
        """
        nodes = self.run.nodes
        if self.processes is not None:
            for name in nodes:
                self.launch(name)
        self._watching = True
        for name in nodes:
            note(f"waiting for {name}")
            self.client.state(name, START_S)
        for name in nodes:
            if name == "inference" and self.run.kind == "train":
                continue  # there is no policy yet
            note(f"configuring {name}")
            self.client.configure(name)
        for name in nodes:
            if name not in (self.run.source, self.run.behavior, "inference"):
                note(f"activating {name}")
                self.client.activate(name)
        note("")

    def leave(self, seconds: float) -> None:
        """Serve callbacks for `seconds`, while the nodes stop by themselves."""
        self._ending = True
        self.spin(lambda: False, seconds)

    def stop(self) -> list[str]:
        """Stop all nodes in order, each within a bounded time, in every situation. Returns what went wrong."""
        self._ending = True
        trouble: list[str] = []
        for node in STOP_ORDER:
            if node not in self.run.nodes or (self.processes is not None and not self.processes.alive(node)):
                continue
            try:
                self.client.deactivate(node)
            except (Died, Fault, Refused) as error:
                trouble.append(str(error))
            if node == "safety_monitor" and self.run.clock == "realtime":
                # The plan runs until the robot stands: the simulation must continue until then.
                self.spin(lambda: False, self.robot.model.horizon_s + AFTER_PLAN_S)
        return trouble

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
