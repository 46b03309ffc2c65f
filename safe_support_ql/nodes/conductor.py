"""Conducts one run: the order of its phases, and what happens if a node dies. It never commands the robot.

`safe-support-ql` runs the conductor in its own process, and the nodes are its children. With `ros2 launch` it is a
process of its own (parameter `run_dir`); the launch file then owns the nodes and restarts a dead learner.

Train: collection until `ticks`, extraction, then the behavior policy and the extracted policy on held-out arenas; on a
robot, which obeys no policy that was not validated, the behavior policy alone. Simulate: one policy in real time. In
both, the monitor becomes active first and stops first, which stops the robot; the recorder stops last. Displayed
numbers come from the ledger, so they are on disk.
"""

import functools
import operator
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql import bringup, panel
from safe_support_ql.bringup import SPECS, Run
from safe_support_ql.config import Config
from safe_support_ql.deployment.news import LOADED, News
from safe_support_ql.nodes import tables, topics
from safe_support_ql.nodes.graph import START_S, Graph, Interrupted
from safe_support_ql.nodes.lifecycle_client import LEARNER_CALL_S, Died, Fault, Refused
from safe_support_ql.nodes.refusals import Refusals
from safe_support_ql.nodes.remote_learner import RemoteLearner
from safe_support_ql.recording.episodes import NOTHING_TO_DO
from safe_support_ql.recording.files import SUMMARY, shown, write_json
from safe_support_ql.recording.parts import OutcomeTable
from safe_support_ql.recording.seeds import HELD_OUT, first_of_run
from safe_support_ql.recording.summary import Progress, summarise

HEALTH_S = 5.0
TELL_S = 60.0  # least time between two lines about refused messages of a topic
AFTER_CTRL_C_S = 3.0
STANDS_S = 3.0  # what keeps a robot from moving is told if it lasts so long
SILENT_S = 15.0  # if learner/status is older than this, look whether the learner was restarted
RESTARTS = 5  # of the learner, in one run
SECOND_WINDS = 3  # restarts of a simulator that gave up, in one run
EXTRACTION_S = 3600.0
EVALUATIONS = (("evaluation_behavior", "behavior_policy"), ("evaluation_policy", "inference"))


class Conductor:
    """See the module. `processes` is None if a launch file owns the nodes."""

    def __init__(
        self, run: Run, settings: Config, where: Progress, processes: bringup.Processes | None, screen: panel.Screen
    ) -> None:
        """rclpy must be initialised."""
        self.run, self.settings, self.progress = run, settings, where
        self.processes, self.screen = processes, screen
        self.interrupted = False
        launched = f"ros2 launch {bringup.PACKAGE} train.launch.py resume:={shown(run.folder)}"
        self.how_to_resume = launched if processes is None else run.how_to_resume
        self.status = panel.Status(
            robot=run.robot_id if run.robot_id != "robot" else settings.robot.name,
            domain=os.environ.get("ROS_DOMAIN_ID", "0"),
        )
        self.graph = Graph(run, settings.robot, where, processes, SingleThreadedExecutor(), self._meanwhile)
        self.client = self.graph.client
        plan = (settings.run.ticks, settings.run.evaluation_episodes) if run.kind == "train" else ()
        self.ledger = panel.LedgerView(run.folder, self.status, *plan)
        self.remote = RemoteLearner(self.graph.node, run, settings) if run.remote_learner else None
        self.outcome: OutcomeTable = {}
        self._learner: dict[str, str] = {}
        self._learner_at = time.monotonic()
        self._learner_down = False
        self._gate, self._stands_since = "", time.monotonic()
        self._restarts = 0
        self._second_winds = 0
        self._told_error = self._told_gate = self._told_hold = ""
        self.refusals = Refusals(self.tell, TELL_S)
        hear = functools.partial(self.refusals.subscribe, self.graph.node)
        hear(JointState, topics.OUTCOME, tables.decode_outcome, self._on_outcome, topics.LATEST)
        hear(DiagnosticArray, topics.LEARNER_STATUS, tables.decode_learner, self._on_learner, topics.CHAIN)
        hear(String, topics.GATE_STATE, tables.decode_gate_state, self._on_gate, topics.LATCHED)
        hear(String, topics.MODEL_ACTIVE, tables.decode_news, self._on_model, topics.LATCHED)
        hear(String, topics.HOLD, operator.attrgetter("data"), self._on_hold, topics.LATCHED)

    # --- messages of the nodes -------------------------------------------------------------------------------------

    def _on_outcome(self, arrived: tuple[OutcomeTable, int, str]) -> None:
        self.outcome = arrived[0]

    def _on_learner(self, values: dict[str, str]) -> None:
        self._learner, self._learner_at = values, time.monotonic()
        self.status.learner = self._learner
        error = self._learner.get("error", "")
        if error and error != self._told_error:
            self.tell(f"learning stopped: {error}; collection continues")
        self._told_error = error

    def _on_hold(self, why: str) -> None:
        """On a robot: a person has to know why nothing moves. Between phases nobody is waited for."""
        why = why.replace(NOTHING_TO_DO, "")
        if why != self._told_hold and not self.interrupted:
            self.tell(f"waiting: {why}" if why else "policies may drive")
        self._told_hold = why

    def _on_model(self, news: News) -> None:
        """Another policy drives, or one was refused."""
        if news.said != LOADED:
            self.tell(f"policy {news.epoch}: {news.said}")

    def _on_gate(self, text: str) -> None:
        if not _stands(text) or not _stands(self._gate):
            self._stands_since = time.monotonic()
        self._gate = text

    # --- while it waits ---------------------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Show an event, which stays visible."""
        self.status.messages.append(text)
        self.screen.say(f"  {text}")

    def _meanwhile(self) -> None:
        """Watch the processes and draw. Raises Interrupted and Fault."""
        if self.interrupted:
            raise Interrupted
        if self.remote is not None:
            self.remote.work()
        self._look_at_processes()
        self.refresh()

    def refresh(self) -> None:
        """Read new lines of the ledger into the status, and show the status."""
        self.ledger.refresh()
        self.screen.show(self.status)

    def note(self, text: str) -> None:
        """Show what the conductor waits for."""
        self.status.note = text

    def _look_at_processes(self) -> None:
        """Restart a dead learner. Raises Fault if any other node died."""
        for name in self.graph.dead():
            assert self.processes is not None
            how, words = self.processes.how_it_ended(name), self.processes.last_words(name)
            if not SPECS[name].restarts:
                log = self.processes.log(name)
                raise self._fault(f"{name} died ({how}){_said(words)}. The robot was stopped. See {log}")
            self._restarts += 1
            if self._restarts > RESTARTS:
                self.processes.forget(name)
                self.tell(f"{name} died ({how}) for the {self._restarts}th time{_said(words)}; it is not started again")
                self._learner_down = False
                self.status.learner = {"state": "dead"}
                continue
            self.tell(f"{name} died ({how}){_said(words)}; started again, collection continues")
            self.graph.launch(name)
            self._learner_down = True

    # --- a run -------------------------------------------------------------------------------------------------------

    def _last_words(self, node: str) -> str:
        return _said(self.graph.last_words(node))

    def _fault(self, what: str) -> Fault:
        return Fault(f"{what}; continue with: {self.how_to_resume}")

    def train(self) -> None:
        """All phases, from where the run stands."""
        ticks, episodes = self.settings.run.ticks, self.settings.run.evaluation_episodes
        done = self.progress
        learned = done.ticks >= ticks and self._exported()
        evaluated = done.evaluated if learned else {}
        phases = EVALUATIONS if self.run.evaluates else (("evaluation_behavior", self.run.behavior),)
        left = [(phase, policy, evaluated.get(phase, 0)) for phase, policy in phases]
        if learned and all(before >= episodes for _, _, before in left):
            self.tell("this run is complete; larger --ticks or --evaluation-episodes continue it")
            return
        self.graph.start(self.note)
        seed = done.training_seed if done.training_seed is not None else first_of_run(self.run.seed)
        if done.ticks < ticks:
            self.play("collection", self.run.behavior, seed, ticks=ticks - done.ticks)
        if not learned:
            self.extract()
        if self.run.evaluates:
            self.client.configure("inference")
        else:
            self.tell(f"extracted; before a robot obeys it: safe-support-ql validate {shown(self.run.model)}")
        for phase, policy, before in left:
            if before < episodes:
                # Held-out arenas are played in order, so that their number determines the next one.
                self.play(phase, policy, HELD_OUT.start + before, episodes=episodes - before, before=before)

    def simulate(self) -> None:
        """One policy in real time."""
        self.graph.start(self.note)
        policy = {"behavior": "behavior_policy", "none": ""}.get(self.run.policy, "inference")
        if self.run.shadow:
            self.client.activate("inference")
            policy = self.run.behavior
        self.play("simulate", policy, first_of_run(self.run.seed), episodes=self.run.episodes)

    def _exported(self) -> bool:
        """Whether policy.onnx is newer than the last collected tick."""
        path = self.run.model.with_suffix(".json")
        return path.exists() and self.run.model.exists() and path.stat().st_mtime >= self.progress.collected_at

    def play(self, phase: str, policy: str, seed: int, ticks: int = 0, episodes: int = 0, before: int = 0) -> None:
        """One phase: `policy` drives until `ticks` or `episodes` are done. Raises Fault if that is not possible."""
        self.ledger.begin(phase, before)
        self.status.unit = "ticks" if ticks else "episodes"
        self.status.total = self.settings.run.ticks if ticks else before + episodes
        self.status.done, self.status.note = before, ""
        if policy:
            self.client.activate(policy)
        while True:
            self.client.set(self.run.source, phase=phase, first_seed=seed, episodes=episodes, ticks=ticks)
            self.outcome = {}
            self.client.activate(self.run.source)
            if self._until_done(policy):
                break
            # It gave up, as a simulator does on a machine that was suspended. Continue after its last outcome.
            last, source = self.outcome, self.run.source
            self._second_winds += 1
            if self._second_winds > SECOND_WINDS:
                raise self._fault(f"{source} gave up {self._second_winds} times{self._last_words(source)}")
            self.tell(f"{source} gave up{self._last_words(source)}; it continues with the next episode")
            if last:
                seed = int(last["seed"]) + 1
                ticks -= int(last["phase_ticks"]) if ticks else 0
                episodes -= int(last["phase_episodes"]) if episodes else 0
            if self.status.unit == "ticks" and ticks <= 0:
                break
        self.client.deactivate(self.run.source)
        if policy:
            self.client.deactivate(policy)
        self.refresh()

    def _until_done(self, policy: str) -> bool:
        """Wait for the end of a phase; false if the simulator gave up."""
        health = time.monotonic()
        while True:
            self.graph.spin(self._done, 0.5)
            if self._done():
                return True
            if self.run.on_hardware:
                self._tell_gate()
            elif self._gate.startswith("latched"):
                raise Fault(
                    f"safety_monitor {self._gate}. The robot runs its backup plan; remove the cause, "
                    f"then continue with: {self.how_to_resume}"
                )
            self._revive_learner()
            if time.monotonic() - health > HEALTH_S:
                health = time.monotonic()
                if self.client.state(self.run.source) != State.PRIMARY_STATE_ACTIVE:
                    return self._done()
                for node in ("safety_monitor", "recorder", policy):
                    if node and self.client.state(node) != State.PRIMARY_STATE_ACTIVE:
                        raise self._fault(f"{node} deactivated itself{self._last_words(node)}. The robot was stopped")

    def _tell_gate(self) -> None:
        """On a robot neither an e-stop nor a latch ends the run: a person at the robot goes on with a reset.

        Where the robot stands for another reason, that is told as well: nobody would know why nothing moves.
        """
        latched = self._gate.startswith("latched")
        stands = _stands(self._gate) and not self._told_hold
        if latched and self._gate != self._told_gate:
            space = self.graph.node.get_namespace().strip("/")
            run = f" --namespace {space}" if space else ""
            self.tell(f"{self._gate} (safe-support-ql operator{run} reset)")
            self._told_gate = self._gate
        elif not latched and self._told_gate.startswith("latched"):
            self.tell("the gate was reset; it goes on")
            self._told_gate = ""
        elif stands and self._gate != self._told_gate and time.monotonic() - self._stands_since > STANDS_S:
            self.tell(f"the gate is {self._gate}")
            self._told_gate = self._gate
        elif not _stands(self._gate):
            self._told_gate = ""

    def _done(self) -> bool:
        return bool(self.outcome.get("done"))

    def _revive_learner(self) -> None:
        """Configure and activate a restarted learner; it resumes from checkpoint and journal."""
        if "learner" not in self.run.nodes:
            return
        if self.processes is None and time.monotonic() - self._learner_at > SILENT_S:
            self._learner_down = True  # restarted by the launch file, or only slow: its state shows which
        if not self._learner_down:
            return
        try:
            state = self.client.state("learner", START_S)
            if state == State.PRIMARY_STATE_UNCONFIGURED:
                self.client.configure("learner")
                state = State.PRIMARY_STATE_INACTIVE
                if self.processes is None:
                    self.tell("learner was started again")
            if state == State.PRIMARY_STATE_INACTIVE:
                self.client.activate("learner")
            self._learner_down, self._learner_at = False, time.monotonic()
        except Died:
            return  # _look_at_processes restarts it and counts
        except (Refused, Fault) as error:
            self._learner_down, self._learner_at = False, time.monotonic() + 1e9
            self.tell(f"learner cannot be restarted: {error}; collection continues without it")

    def extract(self) -> None:
        """Stage two, after the learner has caught up with the journal."""
        self.ledger.begin("extraction")
        if self.remote is not None:
            self.tell("all is collected; waiting for the policy from `safe-support-ql learn` on another machine")
            if not self.remote.fetch(lambda: self.graph.spin(lambda: False, 0.1), self.tell, self.note, EXTRACTION_S):
                raise self._fault(f"no policy came from another machine within {EXTRACTION_S / 60:.0f} minutes")
            return
        self.status.total, self.status.left_s, self.status.ticks_per_s = 0.0, None, 0.0
        end = time.monotonic() + EXTRACTION_S
        asked = self._restarts - 1
        while time.monotonic() < end:
            self._revive_learner()
            if self.processes is not None and not self.processes.alive("learner") and self._restarts > RESTARTS:
                break
            if asked != self._restarts and not self._learner_down:
                try:
                    answer = self.client.call("learner", Trigger, "learner/extract", Trigger.Request(), LEARNER_CALL_S)
                except Died:
                    continue
                if not answer.success:
                    raise self._fault(f"learner cannot extract: {answer.message}")
                asked, self._learner = self._restarts, {}
            self.graph.spin(lambda: self._learner.get("state") in ("exported", "error"), 0.5)
            if self._learner.get("state") == "exported":
                return
            if self._learner.get("state") == "error":
                break
            self.status.note = _learning_note(self._learner)
        why = self._learner.get("error") or "the learner did not finish"
        raise self._fault(f"no policy was extracted: {why}; see {self.run.logs / 'learner.log'}")

    def stop(self) -> list[str]:
        """Stop the graph, see Graph.stop. Returns what went wrong."""
        self.note("stopping")
        if self.processes is None and self.interrupted:
            # Ctrl-C reached every node, and each stops by itself: the robot at once, the recorder last.
            self.graph.leave(AFTER_CTRL_C_S)
            return []
        return self.graph.stop()

    def summarise(self) -> dict[str, Any]:
        """Write summary.json from what is on disk. Raises ValueError or OSError."""
        content = summarise(self.run.folder, self.settings.robot.name, self.run.seed, self.settings.robot.must_reach)
        write_json(self.run.folder / SUMMARY, content)
        return content

    def close(self) -> None:
        self.graph.close()


def join_graph() -> None:
    """Start ROS in this process. The caller handles Ctrl-C: rclpy would end the context before the nodes stop."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)


def leave_graph() -> None:
    rclpy.shutdown()


def other_monitors(seconds: float) -> list[str]:
    """Full names of safety monitors seen in the domain within `seconds`; a killed one stays visible for its lease."""
    node = rclpy.create_node("conductor_look")
    try:
        end, found = time.monotonic() + seconds, set[str]()
        while time.monotonic() < end and not found:
            time.sleep(0.1)
            names = node.get_node_names_and_namespaces()
            found = {f"{space.rstrip('/')}/{name}" for name, space in names if name == "safety_monitor"}
        return sorted(found)
    finally:
        node.destroy_node()


def heed_signals(conductor: Any, processes: bringup.Processes | None) -> None:
    """The first Ctrl-C asks the conductor, or the campaign, to stop; the second kills the nodes that are its own."""

    def interrupt(number: int, frame: Any) -> None:
        if conductor.interrupted and processes is not None:
            processes.kill()
        conductor.interrupted = True

    for number in bringup.stop_signals():
        signal.signal(number, interrupt)


def conduct(conductor: Conductor) -> int:
    """Conduct the run to its end: exit status 0, 1 with an unsafe visit, 2 refused input, 3 a fault, 130 Ctrl-C.

    In every case the nodes stop in order, and what was recorded is kept.
    """
    screen, run = conductor.screen, conductor.run
    status, why = 0, ""
    try:
        if run.kind == "train":
            conductor.train()
        else:
            conductor.simulate()
    except Interrupted:
        status = 130
    except Refused as error:
        status, why = 2, str(error)
    except Fault as error:
        status, why = 3, str(error)
    except Died as error:
        status, why = 3, f"{error} died; continue with: {conductor.how_to_resume}"
    if status == 130:
        hurry = " (Ctrl-C again: at once)" if conductor.processes is not None else ""
        conductor.tell(f"stopping: the robot first, the recorder last{hurry}")
    trouble = conductor.stop()
    screen.close()
    if why:
        print(f"error: {why}", file=sys.stderr)
    for text in trouble:
        print(f"while stopping: {text}", file=sys.stderr)
    if status == 2:
        return 2  # refused before anything moved
    try:
        content = conductor.summarise()
        print("\n" + panel.closing(content, run.folder))
        if content["unsafe_visits"] and status in (0, 3):
            status = 1
    except (OSError, ValueError) as error:
        print(f"no summary: {error}", file=sys.stderr)
        status = status or 3
    if status in (3, 130) and run.kind == "train":
        print(f"to continue: {conductor.how_to_resume}")
    sys.stdout.flush()
    return status


def _stands(gate: str) -> bool:
    """Whether a robot stands in this state of the gate; 'nominal' has a cause where only the plan is left."""
    return gate.startswith(("closed", "backup", "latched", "nominal: "))


def _said(words: str) -> str:
    return f": {words}" if words else ""


def _learning_note(values: dict[str, str]) -> str:
    state = values.get("state", "")
    if state == "extracting":
        return f"update {values.get('extraction_updates', '0')}"
    return f"learning continues, update {values.get('updates', '?')} of {values.get('budget', '?')}" if state else ""


def main() -> None:
    """Conduct a run whose nodes a launch file owns."""
    bringup.die_with_parent()
    join_graph()
    look = rclpy.create_node("conductor_parameters")
    folder = look.declare_parameter("run_dir", "").value
    look.destroy_node()
    try:
        if not folder:
            raise ValueError("parameter 'run_dir' is empty, must be the folder of a run that a launch file prepared")
        run, settings, where = bringup.open_run(Path(folder))
        conductor = Conductor(run, settings, where, None, panel.make(terminal=False))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    heed_signals(conductor, None)
    status = conduct(conductor)
    conductor.close()
    leave_graph()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # do not wait for threads of Fast DDS


if __name__ == "__main__":
    main()
