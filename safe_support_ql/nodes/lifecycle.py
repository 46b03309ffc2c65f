"""The base class of every node: ROS parameters of all nodes, guarded callbacks, and a robust lifecycle.

PARAMETERS declares the ROS parameters of every node: another one goes there. `fixed` ones can be set only before
`configure`, the others while the node is not active. A change at another time, a wrong type or a value out of range is
refused, all or nothing.

It corrects rclpy 7.1, in which an invalid transition raises out of spin, exceptions in lifecycle callbacks are lost,
and Ctrl-C invalidates the context before anything can be published. Here an invalid transition is answered with
success=false; an exception in a callback is logged and deactivates the node (see `fail`); a signal first deactivates
and cleans up the node, and then ends the context.
"""

import functools
import gc
import inspect
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from safe_support_ql import bringup, config
from safe_support_ql.nodes import topics
from safe_support_ql.nodes.executor import ShortPathExecutor
from safe_support_ql.nodes.refusals import Refusals, decoded
from safe_support_ql.nodes.tables import encode_status
from safe_support_ql.recording.ledger import PHASES, SENSORS, TRUTH

WAKE_S = 0.1  # longest time until a signal is noticed
LEAVE_S = 5.0
GATE_PRIORITY, ROBOT_PRIORITY = 40, 41  # SCHED_FIFO priorities in real time, below the kernel's own threads


@dataclass(frozen=True)
class Declared:
    """One parameter with the type of `default`. Numbers lie in [low, high]; text is one of `options`, if there are."""

    name: str
    default: Any
    doc: str
    fixed: bool = True
    options: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    live: bool = False  # whether it can be set at any time, also while the node is active


COMMON = (
    Declared("config", "", "path of the run's configuration (YAML)"),
    Declared("run_dir", "", "folder of the run: journal, ledger, checkpoint, policy"),
    Declared("clock", "realtime", "lockstep: each state waits for its decision, and nothing is ever late",
             options=("realtime", "lockstep")),
    Declared("continuous", False, "continuous actions: a lattice shifted at each tick"),
    Declared("seed", 0, "seed of all random draws of this node", low=0, high=2**31 - 1),
    Declared("robot_id", "robot", "name of this robot in a fleet"),
    Declared("stamped_cmd", True, "command with a header, if the robot has both types"),
)  # fmt: skip

EPISODIC = (
    Declared("phase", "collection", "phase that the ticks are counted for", fixed=False, options=PHASES),
    Declared("first_seed", 0, "seed of the first episode; the next one takes the next", False, low=0, high=2**62),
    Declared("first_episode", 1, "number of the first episode after configure", low=1, high=2**32 - 1),
    Declared("episodes", 0, "stop after this many episodes; 0: endless", False, low=0, high=2**31 - 1),
    Declared("ticks", 0, "stop after this many control ticks; 0: endless", False, low=0, high=2**31 - 1),
)

OWN: dict[str, tuple[Declared, ...]] = {
    "simulator": (
        *EPISODIC,
        Declared("gui", False, "show PyBullet's window"),
        Declared("lidar_phase_s", 0.0, "real time: lidars measure so long after the odometry", False, low=0, high=1),
        Declared(
            "lidar_turn_s", 0.0, "real time: a turn of a lidar takes so long; 0: as declared", False, low=0, high=1
        ),
    ),
    "safety_monitor": (
        Declared("first_sequence", 0, "number of the first decision, one after the journal's last", low=0, high=2**62),
        Declared("recorder_required", True, "only the plan runs until a recorder is heard"),
        Declared("simulated", False, "a simulator may announce on 'episode' that it moved the robot"),
        Declared(
            "speed_cap",
            -1.0,
            "share of the range of each action that may be asked for; -1: session.speed_cap",
            False,
            low=-1,
            high=1,
            live=True,
        ),
    ),
    "task": EPISODIC,
    "behavior_policy": (),
    "teleoperation": (),
    "inference": (
        Declared("model", "", "path of policy.onnx, with policy.json beside it"),
        Declared("greedy", False, "request the likeliest candidate instead of a draw", fixed=False),
        Declared("validated", True, "only policies with a validation report that passed may drive"),
        Declared("shadow", False, "answer on 'shadow', which the gate does not hear"),
    ),
    "recorder": (Declared("judged_by", TRUTH, "what shows an unsafe visit, for the ledger", options=(TRUTH, SENSORS)),),
    "learner": (),
}
PARAMETERS = {node: COMMON + own for node, own in OWN.items()}


class ManagedNode(LifecycleNode):
    """Subclasses override `configure`, `activate`, `deactivate` and `release`, and raise to refuse; see the module."""

    def __init__(self, name: str) -> None:
        """Declare the parameters of the node `name`; entities are created in `configure`."""
        super().__init__(name)
        self.active = False
        self.leaving = False  # after a signal: transitions from outside are refused
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._table = {item.name: item for item in PARAMETERS[name]}
        for item in self._table.values():
            self.declare_parameter(item.name, item.default, _descriptor(item))
        self.add_on_set_parameters_callback(self._check_parameters)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._own: list[Any] = []
        self.refusals = Refusals(self.get_logger().warning)  # no error: `last_words` looks for what ended a node
        self._refusal_output = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, topics.CHAIN)
        self.create_timer(1.0, self._guarded(self._show_refusals), clock=self.steady)

    # --- for subclasses ------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read parameters, create entities. Raise ValueError or OSError with one clear line to refuse."""

    def activate(self) -> None:
        """Begin to act. Raise to refuse."""

    def deactivate(self) -> None:
        """Stop to act; the last safe command is sent here."""

    def release(self) -> None:
        """Free what `configure` created, even if that failed half-way. Topics and timers are removed anyway."""

    def fail(self, error: Exception) -> None:
        """Called after an exception in a callback. Default: deactivate, because the node can no longer be trusted."""
        if self.active:
            self.trigger_deactivate()

    def busy(self) -> bool:
        """Whether the reaction to a signal must wait, for at most LEAVE_S."""
        return False

    def refuse(self, topic: str, why: str) -> None:
        """A message on `topic` is malformed: count it, log it, go on. /diagnostics shows the counts."""
        self.refusals.refuse(topic, why)

    def objection(self, transition: str) -> str:
        """Why the requested transition with this label is refused at present; '' if it is allowed."""
        return ""

    def linger(self) -> float:
        """Seconds to continue spinning after the last deactivation, until the robot has stopped."""
        return 0.0

    def get_state(self) -> str:
        """Label of the lifecycle state."""
        return str(self._state_machine.current_state[1])

    def param(self, name: str) -> Any:
        return self.get_parameter(name).value

    def load_config(self) -> config.Config:
        """The run's configuration. Raises ValueError naming what is wrong."""
        path = self.param("config")
        if not path:
            raise ValueError("parameter 'config' is empty, must be the path of a configuration (YAML)")
        return config.load(Path(path))

    def run_dir(self) -> Path:
        """The run's folder. Raises ValueError if there is none."""
        path = Path(self.param("run_dir"))
        if not self.param("run_dir") or not path.is_dir():
            raise ValueError(f"parameter 'run_dir' is '{self.param('run_dir')}', must be an existing folder")
        return path

    def subscribe(
        self, kind: Any, topic: str, decode: Callable[[Any], Any], callback: Callable[[Any], None], qos: QoSProfile,
        native: bool = False, lasting: bool = False, raw: bool = False,
    ) -> Any:  # fmt: skip
        """A guarded subscription: what `decode` makes of a message goes to `callback`.

        A message for which `decode` raises ValueError is refused, see `refuse`. It is removed at cleanup unless
        `lasting`. A `native` one warns of an incompatible QoS. `raw`: messages come as bytes, as they were serialized.
        """
        hear = self._guarded(decoded(decode, callback, functools.partial(self.refuse, topic)))
        events = SubscriptionEventCallbacks(use_default_callbacks=native)
        entity = self.create_subscription(kind, topic, hear, qos, event_callbacks=events, raw=raw)
        if not lasting:
            self._own.append((self.destroy_subscription, entity))
        return entity

    def advertise(self, kind: Any, topic: str, qos: QoSProfile, native: bool = False) -> Any:
        """A plain publisher, removed at cleanup: a lifecycle publisher would silently drop the last stop command."""
        events = PublisherEventCallbacks(use_default_callbacks=native)
        entity = self.create_publisher(kind, topic, qos, event_callbacks=events)
        self._own.append((self.destroy_publisher, entity))
        return entity

    def every(self, period: float, callback: Callable[[], None]) -> Any:
        """A guarded timer on the steady clock, removed at cleanup."""
        entity = self.create_timer(period, self._guarded(callback), clock=self.steady)
        self._own.append((self.destroy_timer, entity))
        return entity

    def serve(self, kind: Any, name: str, callback: Callable[[Any, Any], Any], lasting: bool = False) -> Any:
        """A service, removed at cleanup unless `lasting`. After an exception it answers with `response` as it is."""

        def guarded(request: Any, response: Any) -> Any:
            self._guarded(lambda: callback(request, response))()
            return response

        entity = self.create_service(kind, name, guarded)
        if not lasting:
            self._own.append((self.destroy_service, entity))
        return entity

    def _guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # after any error, the node must fail closed
                self._report(f"{getattr(callback, '__name__', 'callback')} failed", error)
                self._attempt("fail", functools.partial(self.fail, error))

        return guarded

    def _show_refusals(self) -> None:
        """In /diagnostics, once a second, if there were any since the start of the process."""
        if not self.refusals.counts:
            return
        name = f"{self.get_fully_qualified_name().lstrip('/')}: refused messages"
        now_ns, newest = self.get_clock().now().nanoseconds, self.refusals.newest
        robot = self.param("robot_id")
        self._refusal_output.publish(encode_status(name, now_ns, newest, "warn", dict(self.refusals.counts), robot))

    def _attempt(self, what: str, action: Callable[[], None]) -> Exception | None:
        """Run `action`; report and return what it raises."""
        try:
            action()
        except Exception as error:  # after any error, a transition must end in a defined state
            self._report(what, error)
            return error
        return None

    def _report(self, what: str, error: Exception) -> None:
        expected = isinstance(error, ValueError | OSError)
        where = "" if expected else f" ({_origin(error)})"
        self.get_logger().error(f"{what}: {str(error) or type(error).__name__}{where}")
        if not expected:
            self.get_logger().debug("".join(traceback.format_exception(error)))

    # --- transitions ---------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """unconfigured -> inactive, or back with everything released."""
        if self._attempt("configure refused", self.configure) is None:
            # Before a process logs its first line, rclpy looks for who wrote it, in all modules: now, not at a fault.
            inspect.getmodule(inspect.currentframe())
            return TransitionCallbackReturn.SUCCESS
        self._release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> active, or back."""
        gc.collect()
        gc.freeze()  # existing objects live long: garbage collection in a control tick need not visit them
        self.active = True
        if self._attempt("activate refused", self.activate) is None:
            return TransitionCallbackReturn.SUCCESS
        self.active = False
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """active -> inactive, even after an error."""
        self.active = False
        self._attempt("deactivate", self.deactivate)
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> unconfigured with everything released, even after an error."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """any -> finalized."""
        if self.active:
            self.active = False
            self._attempt("deactivate", self.deactivate)
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error of rclpy itself: release everything; the node is then unconfigured."""
        self.active = False
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _release(self) -> None:
        self._attempt("cleanup", self.release)
        for destroy, entity in self._own:
            destroy(entity)
        self._own.clear()

    def _on_change_state(self, request: Any, response: Any) -> Any:
        transitions = self._state_machine.available_transitions
        label = request.transition.label
        asked = [item[1] for item in transitions if (label == item[1] if label else request.transition.id == item[0])]
        if self.leaving:
            problem = "any more: the node is stopping"
        elif asked:
            problem = self.objection(asked[0])
        else:
            possible = ", ".join(sorted({item[1] for item in transitions})) or "nothing"
            problem = f"while {self._state_machine.current_state[1]}; possible: {possible}"
        if not problem:
            return self._change_state(request, response)
        self.get_logger().warning(f"transition '{label or request.transition.id}' is not possible {problem}")
        response.success = False
        return response

    # --- parameters ----------------------------------------------------------------------------------------------

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        state = self._state_machine.current_state[1] if hasattr(self, "_state_machine") else "unconfigured"
        for parameter in parameters:
            declared = self._table.get(parameter.name)
            if declared is None:
                continue  # such as use_sim_time
            problem = _problem(declared, parameter.value)
            if not declared.live and (self.active or (declared.fixed and state == "inactive")):
                when = "before configure" if declared.fixed else "while inactive"
                problem = f"parameter '{parameter.name}' can be set only {when}; the node is {state}"
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)


def _problem(declared: Declared, value: Any) -> str:
    if type(value) is not type(declared.default):
        return f"parameter '{declared.name}' is {value!r}, must be of type {type(declared.default).__name__}"
    if declared.options and value not in declared.options:
        return f"parameter '{declared.name}' is {value!r}, must be one of: {', '.join(declared.options)}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not declared.low <= value <= declared.high:
        return f"parameter '{declared.name}' is {value}, must lie in [{declared.low:g}, {declared.high:g}]"
    return ""


def _descriptor(item: Declared) -> ParameterDescriptor:
    choices = f" ({' | '.join(item.options)})" if item.options else ""
    descriptor = ParameterDescriptor(description=item.doc + choices)
    if type(item.default) is int and math.isfinite(item.low):
        descriptor.integer_range = [IntegerRange(from_value=int(item.low), to_value=int(item.high), step=1)]
    return descriptor


def _origin(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    name = type(error).__name__
    return f"{name} in {Path(frame[0].filename).name}:{frame[0].lineno}" if frame else name


def real_time_priority(priority: int) -> str:
    """Give all threads of this process real-time priority; returns why that failed, '' if it worked.

    0 gives them ordinary priority again.
    """
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setscheduler(int(thread), policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        except ProcessLookupError:
            continue
        except OSError as error:
            return error.strerror or str(error)
    return ""


def run(make: Callable[[], ManagedNode]) -> int:
    """Spin the node until a signal or its shutdown transition, then clean up. Returns the exit status."""
    stop = False

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    for number in bringup.stop_signals():
        signal.signal(number, ask_to_stop)
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = make()
    except Exception as error:  # a bad parameter file or name: one line instead of a traceback
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    executor = ShortPathExecutor()
    executor.add_node(node)
    node.create_timer(WAKE_S, lambda: None, clock=node.steady)  # Python handles a signal only between two waits
    try:
        while not stop and node.get_state() != "finalized":
            executor.spin_once()
        until = time.monotonic() + LEAVE_S
        while node.busy() and time.monotonic() < until:
            executor.spin_once()
        node.leaving = True
        if node.active:
            node.trigger_deactivate()
        until = time.monotonic() + node.linger()
        while time.monotonic() < until:
            executor.spin_once()  # the wake timer bounds each wait
        if node.get_state() != "finalized":
            node.trigger_shutdown()
    except ExternalShutdownException:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return 0


def main(make: Callable[[], ManagedNode]) -> None:
    """`run`, as the entry point of a process."""
    bringup.die_with_parent()
    status = run(make)
    sys.stdout.flush()
    # Do not wait for threads of Fast DDS and torch: everything that matters was written and closed above.
    os._exit(status)
