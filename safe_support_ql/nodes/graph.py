"""The nodes of one run, brought up and stopped in order by whoever drives them: the conductor, a fault campaign.

A node counts as ready once it answered. Nothing here knows what a run is for.
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

START_S = 60.0  # until a new process answers: torch and a cold disk are slow
AFTER_PLAN_S = 0.2


class Interrupted(Exception):
    """Ctrl-C."""


class Graph:
    """One run's nodes, and a node of this process that talks to them: `node`, served by `spin`.

    `processes` is None where somebody else owns the nodes, a launch file for one.
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

        `meanwhile` is called while the graph waits, until it stops, and may raise; `renamed` holds, by node, which
        topics have another name there. Numbers go on after `progress`.
        """
        self.run, self.robot, self.progress, self.processes = run, robot, progress, processes
        self.node = rclpy.create_node("conductor")
        self.executor = executor
        self.executor.add_node(self.node)
        self.client = LifecycleClient(self.node, self.spin, self._watch, self.last_words)
        self._meanwhile, self._renamed = meanwhile, renamed or {}
        self._launches: Counter[str] = Counter()
        self._watching = False  # deaths matter from the moment everybody was there
        self._ending = False

    def spin(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Serve callbacks until `until`; false when the time is over first. Raises what `meanwhile` raises."""
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
        """Nodes whose process ended without being asked, once everybody was there."""
        return self.processes.dead() if self.processes is not None and self._watching else []

    def last_words(self, node: str) -> str:
        """What the log of `node` says last, '' if nothing."""
        words = bringup.last_words(self.run.logs / f"{node}.log")
        return words.removeprefix("configure refused: ").removeprefix("activate refused: ")

    def _watch(self, node: str) -> Callable[[], bool]:
        """Whether the process of `node` ended since this call, and `meanwhile` does not end the run for it."""
        launches = self._launches[node]

        def gone() -> bool:
            if self.processes is None or (launches == self._launches[node] and self.processes.alive(node)):
                return False
            return SPECS[node].restarts or self._ending

        return gone

    # --- up and down -------------------------------------------------------------------------------------------------

    def start(self, note: Callable[[str], None]) -> None:
        """Everybody there, configured, and active but for the simulator and the policies. `note` shows each step.

        Raises Refused where a node refuses its input, Fault where one does not come up.
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
            if name not in ("simulator", "behavior_policy", "inference"):
                note(f"activating {name}")
                self.client.activate(name)
        note("")

    def leave(self, seconds: float) -> None:
        """The nodes stop by themselves: only serve callbacks for so long."""
        self._ending = True
        self.spin(lambda: False, seconds)

    def stop(self) -> list[str]:
        """Stop everybody in order, each for a bounded time, whatever happened. Returns what did not go well."""
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
                # The plan runs on until the robot stands: the world must go on for as long.
                self.spin(lambda: False, self.robot.model.horizon_s + AFTER_PLAN_S)
        return trouble

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
