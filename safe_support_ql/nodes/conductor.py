"""Drives one run from outside the data path: lifecycle, phases, what to do when a node dies. It commands no robot.

Every node is driven by its lifecycle_msgs services, one call at a time, each with a timeout and a look at the process.
A node counts as ready once it answered. In the command line the conductor runs inside it and the nodes are its
children; as a process of its own (`ros2 launch`, parameter `run_dir`) the launch file owns the nodes and restarts a
dead learner.

Train: collection until `ticks`, extraction, then the behavior and the extracted policy on held-out arenas. Simulate:
one policy in real time. In both the monitor becomes active first and stops first, which stops the robot; the recorder
stops last. Numbers to show come from the ledger, so what is seen is what is on disk.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql import bringup, panel
from safe_support_ql.bringup import EVALUATION_SEEDS, SPECS, STOP_ORDER, TRAINING_SEEDS, Run
from safe_support_ql.config import Config
from safe_support_ql.nodes import messages
from safe_support_ql.safety.ledger import PHASES
from safe_support_ql.summary import Counts, Progress, Tail, summarise, write_json

START_S = 60.0  # until a new process answers: torch and a cold disk are slow
CONFIGURE_S = 120.0  # the monitor compiles its certificate
CALL_S = 10.0
ACTIVATE_S = 30.0  # a monitor waits for a dead predecessor to leave the graph
LEARNER_CALL_S = 60.0  # a learner at idle priority answers late, and ends an update and saves first
HEALTH_S = 5.0
LEDGER_S = 0.25
AFTER_CTRL_C_S = 3.0
SILENT_S = 15.0  # learner/status this old: is it still there?
RESTARTS = 5  # of the learner, in one run
SECOND_WINDS = 3  # of a simulator that gave up
EXTRACTION_S = 3600.0
EVALUATIONS = (("evaluation_behavior", "behavior_policy"), ("evaluation_policy", "inference"))


class Fault(RuntimeError):
    """The run cannot go on; one line that says why and what to do."""


class Refused(ValueError):
    """A node refused to be configured or activated: bad input, in its own words."""


class Died(Exception):
    """A node's process ended during a call to it."""


class Interrupted(Exception):
    """Ctrl-C."""


class Conductor:
    """See the module. `processes` is None where somebody else owns the nodes."""

    def __init__(
        self, run: Run, settings: Config, where: Progress, processes: bringup.Processes | None, screen: panel.Screen
    ) -> None:
        """rclpy must be initialised."""
        self.run, self.settings, self.progress = run, settings, where
        self.processes, self.screen = processes, screen
        self.interrupted = False
        launched = f"ros2 launch {bringup.PACKAGE} train.launch.py resume:={panel.shown(run.folder)}"
        self.how_to_resume = launched if processes is None else run.how_to_resume
        self.status = panel.Status(
            robot=run.robot_id if run.robot_id != "robot" else settings.robot.name,
            folder=str(run.folder),
            domain=os.environ.get("ROS_DOMAIN_ID", "0"),
        )
        self.node = rclpy.create_node("conductor")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._outcome: JointState | None = None
        self._outcome_at = 0.0
        self._learner: dict[str, str] = {}
        self._learner_at = time.monotonic()
        self._learner_down = False
        self._gate = ""
        self._restarts = 0
        self._second_winds = 0
        self._watching = False  # deaths matter from the moment everybody was there
        self._ending = False
        self._read_at = 0.0
        self._episodes_before, self._episodes_at_start = 0, 0.0
        self._told_error = ""
        self._tail = Tail(run.folder / "ledger.jsonl")
        self._counts = Counts()
        self._counts.add(self._tail.read())
        self._rate: deque[tuple[float, float]] = deque(maxlen=12)
        node = self.node
        node.create_subscription(JointState, messages.OUTCOME, self._on_outcome, messages.LATEST)
        node.create_subscription(DiagnosticArray, messages.LEARNER_STATUS, self._on_learner, messages.CHAIN)
        node.create_subscription(String, messages.GATE_STATE, self._on_gate, messages.LATCHED)

    # --- what the nodes say ----------------------------------------------------------------------------------------

    def _on_outcome(self, message: JointState) -> None:
        self._outcome, self._outcome_at = message, time.monotonic()

    def _on_learner(self, message: DiagnosticArray) -> None:
        self._learner, self._learner_at = messages.decode_status(message), time.monotonic()
        self.status.learner = self._learner
        error = self._learner.get("error", "")
        if error and error != self._told_error:
            self.tell(f"learning stopped: {error}; collection goes on")
        self._told_error = error

    def _on_gate(self, message: String) -> None:
        self._gate = message.data

    def outcome(self) -> dict[str, float]:
        """The newest outcome, empty before there is one."""
        return messages.decode_outcome(self._outcome)[0] if self._outcome is not None else {}

    # --- waiting, which is all a conductor does --------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """An event that a person should see, also afterwards."""
        self.status.messages.append(text)
        self.screen.say(f"  {text}")

    def spin(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Serve callbacks, watch the processes and draw until `until`; false when the time is over first.

        Raises Interrupted and Fault.
        """
        end = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.05)
            if self._ending:
                continue
            if self.interrupted:
                raise Interrupted
            self._look_at_processes()
            self.refresh()
        return True

    def refresh(self) -> None:
        """New lines of the ledger into the status, and the status onto the screen."""
        status, counts = self.status, self._counts
        new = []
        if time.monotonic() - self._read_at > LEDGER_S:
            self._read_at = time.monotonic()
            new = self._tail.read()
        if new:
            counts.add(new)
            status.control_ticks = int(counts.total("control_ticks"))
            status.unsafe_visits = int(counts.total("unsafe_visits"))
            status.interventions = int(counts.total("interventions"))
            status.decisions = int(counts.total("decisions"))
            status.verdicts, status.empty_share = counts.verdicts(), counts.empty_share()
            stamps = [event["time"] for event in new if event["event"] == "counters"]
            if stamps:
                self._rate.append((stamps[-1], status.control_ticks))
                (t0, n0), (t1, n1) = self._rate[0], self._rate[-1]
                status.ticks_per_s = (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
            self._estimate()
        self.screen.show(status)

    def _estimate(self) -> None:
        """Where this phase stands, and about how long everything still takes."""
        status, counts = self.status, self._counts
        if status.phase == "collection":
            status.done = counts.of("collection", "control_ticks")
        elif status.phase in PHASES:
            status.done = self._episodes_before + (counts.of(status.phase, "episodes") - self._episodes_at_start)
        if not status.ticks_per_s or self.run.kind != "train":
            return
        played = counts.total("episodes")
        length = counts.total("control_ticks") / played if played else 100.0
        ticks = max(0.0, self.settings.run.ticks - counts.of("collection", "control_ticks"))
        episodes = 2.0 * self.settings.run.evaluation_episodes
        if status.phase == "evaluation_behavior":
            episodes -= status.done
        elif status.phase == "evaluation_policy":
            episodes = episodes / 2 - status.done
        status.left_s = (ticks + max(0.0, episodes) * length) / status.ticks_per_s

    def _look_at_processes(self) -> None:
        """Raises Fault where a node died that the run cannot do without; starts the learner again."""
        if self.processes is None or not self._watching:
            return
        for name in self.processes.dead():
            how, words = self.processes.how_it_ended(name), self.processes.last_words(name)
            if not SPECS[name].restarts:
                raise Fault(
                    f"{name} died ({how}){_said(words)}. The robot was stopped. See {self.processes.log(name)}; "
                    f"go on with: {self.how_to_resume}"
                )
            self._restarts += 1
            if self._restarts > RESTARTS:
                self.processes.forget(name)
                self.tell(f"{name} died ({how}) for the {self._restarts}th time{_said(words)}; it stays down")
                self._learner_down = False
                self.status.learner = {"state": "dead"}
                continue
            self.tell(f"{name} died ({how}){_said(words)}; started again, collection goes on")
            self.launch(name)
            self._learner_down = True

    # --- services ----------------------------------------------------------------------------------------------------

    def call(self, node: str, kind: Any, name: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """One service call. Raises Died where the process ends meanwhile, Fault where no answer comes."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        end = time.monotonic() + timeout_s
        restarts = self._restarts

        def gone() -> bool:
            if self.processes is not None and (restarts != self._restarts or not self.processes.alive(node)):
                return SPECS[node].restarts or self._ending
            return False

        while time.monotonic() < end and not gone():
            if not client.service_is_ready():
                self.spin(lambda: bool(client.service_is_ready()) or gone(), min(1.0, end - time.monotonic()))
                continue
            future = client.call_async(request)
            # A killed node's service looks ready until its lease ends, and a first request may meet half a connection:
            # ask again, but only what can be asked twice.
            again = 2.0 if kind is GetState else end - time.monotonic()
            self.spin(lambda f=future: f.done() or gone(), max(0.1, min(again, end - time.monotonic())))  # type: ignore[misc]
            if future.done():
                return future.result()
            client.remove_pending_request(future)
        if gone():
            raise Died(node)
        raise Fault(f"{node} did not answer {name} for {timeout_s:.0f} s{self._last_words(node)}")

    def state(self, node: str, timeout_s: float = CALL_S) -> int:
        """Its lifecycle state, a constant of lifecycle_msgs State."""
        return int(self.call(node, GetState, f"{node}/get_state", GetState.Request(), timeout_s).current_state.id)

    def change(self, node: str, transition: int, goal: int, timeout_s: float = CALL_S) -> None:
        """One transition to the state `goal`. Raises Refused with the node's own words."""
        request = ChangeState.Request(transition=Transition(id=transition))
        try:
            done = self.call(node, ChangeState, f"{node}/change_state", request, timeout_s).success
        except Fault:
            done = False  # the answer may be what was lost
        if not done and self.state(node) != goal:
            what = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}
            words = self._last_words(node).removeprefix(": ")
            raise Refused(words or f"{node} refused to {what.get(transition, 'change its state')}; see its log")

    def configure(self, node: str) -> None:
        """unconfigured -> inactive."""
        self.change(node, Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE, CONFIGURE_S)

    def activate(self, node: str) -> None:
        """inactive -> active."""
        self.change(node, Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE, ACTIVATE_S)

    def deactivate(self, node: str) -> None:
        """active -> inactive; nothing to do where it is not active."""
        patience = LEARNER_CALL_S if SPECS[node].restarts else CALL_S
        if self.state(node, patience) == State.PRIMARY_STATE_ACTIVE:
            self.change(node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, patience)

    def set(self, node: str, **values: Any) -> None:
        """Set parameters of an inactive node."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        for result in self.call(node, SetParameters, f"{node}/set_parameters", request).results:
            if not result.successful:
                raise Fault(f"{node}: {result.reason}")

    def _last_words(self, node: str) -> str:
        words = bringup.last_words(self.run.logs / f"{node}.log")
        words = words.removeprefix("configure refused: ").removeprefix("activate refused: ")
        return f": {words}" if words else ""

    # --- a run -------------------------------------------------------------------------------------------------------

    def launch(self, node: str) -> None:
        """Start the process of `node`, with the parameters of this run."""
        assert self.processes is not None
        self.processes.start(node, bringup.parameters(node, self.run, self.progress))

    def start(self) -> None:
        """Everybody there, configured, and active but for the simulator and the policies.

        Raises Refused where a node refuses its input, Fault where one does not come up.
        """
        nodes = self.run.nodes
        if self.processes is not None:
            for name in nodes:
                self.launch(name)
        self._watching = True
        for name in nodes:
            self.status.note = f"waiting for {name}"
            self.state(name, START_S)
        for name in nodes:
            if name == "inference" and self.run.kind == "train":
                continue  # there is no policy yet
            self.status.note = f"configuring {name}"
            self.configure(name)
        for name in nodes:
            if name not in ("simulator", "behavior_policy", "inference"):
                self.status.note = f"activating {name}"
                self.activate(name)
        self.status.note = ""

    def train(self) -> None:
        """All phases, from where the run stands."""
        ticks, episodes = self.settings.run.ticks, self.settings.run.evaluation_episodes
        done = self.progress
        learned = done.ticks >= ticks and self._exported()
        evaluated = done.evaluated if learned else {}
        left = [(phase, policy, evaluated.get(phase, 0)) for phase, policy in EVALUATIONS]
        if learned and all(before >= episodes for _, _, before in left):
            self.tell("this run is complete; more --ticks or --evaluation-episodes go on with it")
            return
        self.start()
        seed = done.training_seed if done.training_seed is not None else self.run.seed * TRAINING_SEEDS
        if done.ticks < ticks:
            self.play("collection", "behavior_policy", seed, ticks=ticks - done.ticks)
        if not learned:
            self.extract()
        self.configure("inference")
        for phase, policy, before in left:
            if before < episodes:
                # Held-out arenas in order, so that their number says which come next.
                self.play(phase, policy, EVALUATION_SEEDS + before, episodes=episodes - before, before=before)

    def simulate(self) -> None:
        """One policy in real time."""
        self.start()
        policy = {"behavior": "behavior_policy", "none": ""}.get(self.run.policy, "inference")
        self.play("simulate", policy, self.run.seed * TRAINING_SEEDS, episodes=self.run.episodes)

    def _exported(self) -> bool:
        """Whether policy.onnx comes from all that was collected."""
        path = self.run.model.with_suffix(".json")
        return path.exists() and self.run.model.exists() and path.stat().st_mtime >= self.progress.collected_at

    def play(self, phase: str, policy: str, seed: int, ticks: int = 0, episodes: int = 0, before: int = 0) -> None:
        """One phase: `policy` drives until `ticks` or `episodes` are done. Raises Fault where that is not possible."""
        self.status.phase, self.status.unit = phase, "ticks" if ticks else "episodes"
        self.status.total = self.settings.run.ticks if ticks else before + episodes
        self._episodes_before, self._episodes_at_start = before, self._counts.of(phase, "episodes")
        self.status.done, self.status.note = before, ""
        self._rate.clear()
        if policy:
            self.activate(policy)
        while True:
            self.set("simulator", phase=phase, first_seed=seed, episodes=episodes, ticks=ticks)
            self._outcome, self._outcome_at = None, time.monotonic()
            self.activate("simulator")
            if self._until_done(policy):
                break
            # The simulator gave up: on a machine that was suspended, say. What it did counts, and it goes on after it.
            last = self.outcome()
            self._second_winds += 1
            if self._second_winds > SECOND_WINDS:
                raise Fault(
                    f"simulator gave up {self._second_winds} times{self._last_words('simulator')}; "
                    f"go on with: {self.how_to_resume}"
                )
            self.tell(f"simulator gave up{self._last_words('simulator')}; it goes on in the next arena")
            if last:
                seed = int(last["seed"]) + 1
                ticks -= int(last["phase_ticks"]) if ticks else 0
                episodes -= int(last["phase_episodes"]) if episodes else 0
            if self.status.unit == "ticks" and ticks <= 0:
                break
        self.deactivate("simulator")
        if policy:
            self.deactivate(policy)
        self.refresh()

    def _until_done(self, policy: str) -> bool:
        """Wait for the end of a phase; false where the simulator gave up."""
        health = time.monotonic()
        while True:
            self.spin(self._done, 0.5)
            if self._done():
                return True
            if self._gate.startswith("latched"):
                raise Fault(
                    f"safety_monitor {self._gate}. The robot runs its backup plan; remove the cause, "
                    f"then go on with: {self.how_to_resume}"
                )
            self._revive_learner()
            if time.monotonic() - health > HEALTH_S:
                health = time.monotonic()
                if self.state("simulator") != State.PRIMARY_STATE_ACTIVE:
                    return self._done()
                for node in ("safety_monitor", "recorder", policy):
                    if node and self.state(node) != State.PRIMARY_STATE_ACTIVE:
                        raise Fault(
                            f"{node} deactivated itself{self._last_words(node)}. The robot was stopped; "
                            f"go on with: {self.how_to_resume}"
                        )

    def _done(self) -> bool:
        return self._outcome is not None and bool(self.outcome()["done"])

    def _revive_learner(self) -> None:
        """A learner that was started again is configured and activated; it resumes from checkpoint and journal."""
        if "learner" not in self.run.nodes:
            return
        if self.processes is None and time.monotonic() - self._learner_at > SILENT_S:
            self._learner_down = True  # the launch file started it again, or it is only slow: its state tells
        if not self._learner_down:
            return
        try:
            state = self.state("learner", START_S)
            if state == State.PRIMARY_STATE_UNCONFIGURED:
                self.configure("learner")
                state = State.PRIMARY_STATE_INACTIVE
                if self.processes is None:
                    self.tell("learner was started again")
            if state == State.PRIMARY_STATE_INACTIVE:
                self.activate("learner")
            self._learner_down, self._learner_at = False, time.monotonic()
        except Died:
            return  # once more; _look_at_processes counts
        except (Refused, Fault) as error:
            self._learner_down, self._learner_at = False, time.monotonic() + 1e9
            self.tell(f"learner did not come back: {error}; collection goes on without it")

    def extract(self) -> None:
        """Stage two, after the learner has caught up with the journal."""
        self.status.phase, self.status.total, self.status.left_s = "extraction", 0.0, None
        self._rate.clear()
        self.status.ticks_per_s = 0.0
        end = time.monotonic() + EXTRACTION_S
        asked = self._restarts - 1
        while time.monotonic() < end:
            self._revive_learner()
            if self.processes is not None and not self.processes.alive("learner") and self._restarts > RESTARTS:
                break
            if asked != self._restarts and not self._learner_down:
                try:
                    answer = self.call("learner", Trigger, "learner/extract", Trigger.Request(), LEARNER_CALL_S)
                except Died:
                    continue
                if not answer.success:
                    raise Fault(f"learner cannot extract: {answer.message}; go on with: {self.how_to_resume}")
                asked, self._learner = self._restarts, {}
            self.spin(lambda: self._learner.get("state") in ("exported", "error"), 0.5)
            if self._learner.get("state") == "exported":
                return
            if self._learner.get("state") == "error":
                break
            self.status.note = _learning_note(self._learner)
        why = self._learner.get("error") or "it did not come to an end"
        raise Fault(f"no policy was extracted: {why}; see {self.run.logs / 'learner.log'}; "
                    f"go on with: {self.how_to_resume}")  # fmt: skip

    def stop(self) -> list[str]:
        """Stop everybody in order, each for a bounded time, whatever happened. Returns what did not go well."""
        self._ending = True
        trouble: list[str] = []
        self.status.note = "stopping"
        if self.processes is None and self.interrupted:
            # Ctrl-C went to every node, and each stops by itself: the robot at once, the recorder last.
            self.spin(lambda: False, AFTER_CTRL_C_S)
            return trouble
        for node in STOP_ORDER:
            if node not in self.run.nodes or (self.processes is not None and not self.processes.alive(node)):
                continue
            try:
                self.deactivate(node)
            except (Died, Fault, Refused) as error:
                trouble.append(str(error))
            if node == "safety_monitor" and self.run.clock == "realtime":
                # The plan runs on until the robot stands: the world must go on for as long.
                model = self.settings.robot.model
                self.spin(lambda: False, model.dynamics.dt * len(model.certificate.tightening) + 0.2)
        return trouble

    def summarise(self) -> dict[str, Any]:
        """Write summary.json from what is on disk. Raises ValueError or OSError."""
        content = summarise(self.run.folder, self.settings.robot.name, self.run.seed, self.settings.robot.must_reach)
        write_json(self.run.folder / "summary.json", content)
        return content

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()


def join_graph() -> None:
    """Start ROS in this process; Ctrl-C stays the caller's, or the context would be gone before anything is stopped."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)


def leave_graph() -> None:
    """End ROS in this process."""
    rclpy.shutdown()


def other_monitors(seconds: float) -> list[str]:
    """Full names of safety monitors in the domain, seen within `seconds`; a killed one may linger for its lease."""
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


def conduct(conductor: Conductor) -> int:
    """The run and its end: exit status 0, 1 with an unsafe visit, 2 refused input, 3 a fault, 130 Ctrl-C.

    Every way out stops the nodes in order and keeps what was recorded.
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
        status, why = 3, f"{error} died; go on with: {conductor.how_to_resume}"
    if status == 130:
        hurry = " (Ctrl-C again: at once)" if conductor.processes is not None else ""
        conductor.tell(f"stopping: the robot first, what writes last{hurry}")
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
        print(f"to go on: {conductor.how_to_resume}")
    sys.stdout.flush()
    return status


def _said(words: str) -> str:
    return f": {words}" if words else ""


def _learning_note(values: dict[str, str]) -> str:
    state = values.get("state", "")
    if state == "extracting":
        return f"update {values.get('extraction_updates', '0')}"
    return f"learning goes on, update {values.get('updates', '?')} of {values.get('budget', '?')}" if state else ""


def main() -> None:
    """Conduct a run whose nodes a launch file owns."""
    join_graph()
    look = rclpy.create_node("conductor_parameters")
    folder = look.declare_parameter("run_dir", "").value
    look.destroy_node()
    try:
        if not folder:
            raise ValueError("parameter 'run_dir' is empty; give the folder of a run that a launch file prepared")
        run, settings, where = bringup.open_run(Path(folder))
        conductor = Conductor(run, settings, where, None, panel.make(terminal=False))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    def interrupt(number: int, frame: Any) -> None:
        conductor.interrupted = True

    for number in bringup.stop_signals():
        signal.signal(number, interrupt)
    status = conduct(conductor)
    conductor.close()
    leave_graph()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads of Fast DDS need not be waited for


if __name__ == "__main__":
    main()
