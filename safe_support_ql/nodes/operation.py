"""What a person at the robot does and sees, without a ROS installation: the services, topics and states of a run."""

from __future__ import annotations

import functools
import math
import operator
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import InvalidNamespaceException
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_namespace import validate_namespace
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from safe_support_ql.nodes import tables, topics

FOUND_S, ANSWERED_S = 10.0, 10.0
LOOK_S = 0.5  # between two lines: a gate that hesitates changes its state with every tick
MOVED_M, TURNED, STILL_S = 0.05, 0.1, 10.0  # a pose that differs by less is told again after STILL_S
SILENT_S = 2.0  # then the newest pose says nothing any more
HERE = "start a run, and set its ROS_DOMAIN_ID here"
SERVICES = {  # by action: the service, and what is asked
    "e-stop": ("safety_monitor/e_stop", SetBool, SetBool.Request(data=True)),
    "release": ("safety_monitor/e_stop", SetBool, SetBool.Request(data=False)),
    "reset": ("safety_monitor/reset", Trigger, Trigger.Request()),
    "pause": ("task/pause", Trigger, Trigger.Request()),
    "resume": ("task/resume", Trigger, Trigger.Request()),
}


class Operator:
    """A node for one action of a person."""

    def __init__(self, namespace: str) -> None:
        """`namespace` is that of the run's nodes. Raises ValueError if it is none."""
        namespace = "/" + namespace.strip("/")
        try:
            validate_namespace(namespace)
        except InvalidNamespaceException as error:
            raise ValueError(f"--namespace {namespace}: {str(error).splitlines()[0].rstrip(':')}") from None
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C is a KeyboardInterrupt
        self._node = rclpy.create_node("operator", namespace=namespace)

    def close(self) -> None:
        self._node.destroy_node()
        rclpy.shutdown()

    def ask(self, action: str) -> str:
        """What the service of `action` answers. Raises ValueError if it refuses, or does not answer."""
        name, kind, request = SERVICES[action]
        answer = self._call(name, kind, request)
        if not answer.success:
            raise ValueError(f"{action} is refused: {answer.message}")
        return answer.message or "done"

    def cap(self, share: float) -> str:
        """Widen or narrow what may be asked for to `share` of the range of each action. Raises ValueError as `ask`."""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=share)
        request = SetParameters.Request(parameters=[Parameter(name="speed_cap", value=value)])
        (result,) = self._call("safety_monitor/set_parameters", SetParameters, request).results
        if not result.successful:
            raise ValueError(f"cap is refused: {result.reason}")
        return f"{share:.0%} of the range of each action may be asked for"

    def goal(self, x: float, y: float) -> str:
        """Send a goal, in the frame of the odometry. Raises ValueError if nothing is heard that shows its topic."""
        odometry = self._hear_odometry()
        names = self._heard_by("task", PoseStamped)
        if not names:
            raise ValueError("the task node of this run takes no goal on a topic of geometry_msgs/msg/PoseStamped")
        message = PoseStamped()
        message.header.frame_id = odometry.header.frame_id
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.pose.position.x, message.pose.position.y, message.pose.orientation.w = x, y, 1.0
        publisher = self._node.create_publisher(PoseStamped, names[0], topics.CHAIN)
        self._wait(lambda: publisher.get_subscription_count() > 0, FOUND_S, f"nobody hears {names[0]}", HERE)
        publisher.publish(message)
        publisher.wait_for_all_acked()
        return f"({x:g}, {y:g}) in '{odometry.header.frame_id}' is sent on {names[0]}"

    def watch(self, say: Callable[[str], None]) -> None:
        """Say what changes, until Ctrl-C: the gate, why it waits, the policy, the pose in the odometry frame."""
        newest, told = dict[str, str](), dict[str, str]()
        for label, topic, read in (
            ("gate", topics.GATE_STATE, tables.decode_gate_state),
            ("waits", topics.HOLD, operator.attrgetter("data")),
            ("policy", topics.MODEL_ACTIVE, lambda message: tables.decode_news(message).said),
        ):
            hear = functools.partial(_take, newest, label, read)
            self._node.create_subscription(String, topic, hear, topics.LATCHED)
        poses: list[Odometry] = []
        self._odometry(poses)
        last, since, heard_at = (0.0, 0.0, 0.0), 0.0, 0.0
        say("watching; Ctrl-C ends it, and nothing else")
        alone = time.monotonic() + FOUND_S  # somebody may watch before a run begins
        while True:
            if not newest and time.monotonic() > alone:
                say(f"no gate is heard so far; {HERE}")
                alone = math.inf
            end = time.monotonic() + LOOK_S
            while (left := end - time.monotonic()) > 0.0:
                rclpy.spin_once(self._node, timeout_sec=left)
            for label, text in newest.items():
                if text != told.get(label, ""):
                    say(f"{label}: {text or 'no longer'}")
            told = dict(newest)
            now = time.monotonic()
            if not poses:
                if 0.0 < heard_at < now - SILENT_S:
                    say(f"odometry: nothing came for {SILENT_S:g} s; where it is now is not known")
                    heard_at = 0.0
                continue
            message, heard_at = poses.pop(), now
            pose = _pose(message)
            apart = max(abs(pose[0] - last[0]), abs(pose[1] - last[1])) >= MOVED_M or abs(pose[2] - last[2]) >= TURNED
            if apart or now - since > STILL_S:
                speed, frame = message.twist.twist.linear.x, message.header.frame_id
                say(f"{frame}: x {pose[0]:.2f} m, y {pose[1]:.2f} m, yaw {pose[2]:.2f} rad, {speed:.2f} m/s")
                last, since = pose, now

    def dead_man(self, say: Callable[[str], None]) -> None:
        """Publish true on `dead_man` while a key of the terminal is held, until q or Ctrl-C."""
        publisher = self._node.create_publisher(Bool, topics.DEAD_MAN, topics.CHAIN)
        say("hold the space bar: the robot may drive as long as you do; q ends it")
        with _keys() as read:
            while (key := read(0.1)) != "q":
                if key:
                    publisher.publish(Bool(data=True))
                rclpy.spin_once(self._node, timeout_sec=0.0)
        publisher.publish(Bool(data=False))
        publisher.wait_for_all_acked()

    def _odometry(self, heard: list[Odometry]) -> None:
        """Keep the newest odometry of the monitor's topics in `heard`, once its topic is known."""

        def keep(message: Odometry) -> None:
            heard[:] = [message]

        def look() -> None:
            for name in self._heard_by("safety_monitor", Odometry):
                self._node.create_subscription(Odometry, name, keep, topics.SENSOR)
                timer.cancel()

        timer = self._node.create_timer(0.2, look)

    def _hear_odometry(self) -> Odometry:
        heard: list[Odometry] = []
        self._odometry(heard)
        self._wait(lambda: bool(heard), FOUND_S, "no odometry of a run was heard", HERE)
        return heard[0]

    def _heard_by(self, name: str, kind: Any) -> list[str]:
        """Topics of type `kind` that node `name` of the run subscribes to; none while it is not seen."""
        known = self._node.get_node_names_and_namespaces()
        space = self._node.get_namespace()
        if (name, space) not in known:
            return []
        wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        pairs = self._node.get_subscriber_names_and_types_by_node(name, space)
        return [topic for topic, kinds in pairs if wanted in kinds]

    def _call(self, name: str, kind: Any, request: Any) -> Any:
        client = self._node.create_client(kind, name)
        self._wait(client.service_is_ready, FOUND_S, f"{client.srv_name} was not seen", HERE)
        future = client.call_async(request)
        self._wait(future.done, ANSWERED_S, f"{client.srv_name} did not answer", "look at the log of the run")
        return future.result()

    def _wait(self, done: Callable[[], bool], seconds: float, what: str, remedy: str) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise ValueError(f"{what} within {seconds:g} s; {remedy}")
            rclpy.spin_once(self._node, timeout_sec=0.1)


def _take(newest: dict[str, str], label: str, read: Callable[[Any], str], message: Any) -> None:
    try:
        newest[label] = read(message)
    except ValueError as error:  # a stranger's message
        newest[label] = str(error)


def _pose(message: Odometry) -> tuple[float, float, float]:
    position, turned = message.pose.pose.position, message.pose.pose.orientation
    yaw = 2.0 * float(np.arctan2(turned.z, turned.w))
    return position.x, position.y, (yaw + np.pi) % (2.0 * np.pi) - np.pi


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key, without an echo; '' if none was pressed."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        pressed = os.read(terminal, 1024).decode(errors="replace") if ready else ""
        return "q" if "q" in pressed else pressed[-1:]

    tty.setcbreak(terminal)
    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
