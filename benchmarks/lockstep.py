"""What ROS adds to a control tick, beside the bare costs of the same machine in the same run.

    python benchmarks/lockstep.py [--robot diff_drive] [--ticks 3000] [--json FILE]

Four measurements: bare PyBullet stepping of the robot's world; a bare rclpy round trip between two processes (one
message there, one back); the lock-step chain of real node processes without the learner; the same with the learner
training beside it. What ROS adds to a tick is its period less physics, sensing (scan and ground truth) and certificate,
which the nodes time themselves and send along.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import bringup, config

ECHO = """
import rclpy
from sensor_msgs.msg import JointState
from safe_support_ql.nodes import topics
rclpy.init()
node = rclpy.create_node("echo")
back = node.create_publisher(JointState, "back", topics.CHAIN)
node.create_subscription(JointState, "there", back.publish, topics.CHAIN)
rclpy.spin(node)
"""


def bare_physics(robot: Any, ticks: int = 300) -> dict[str, float]:
    """Control ticks/s of stepping alone, and milliseconds of sensing."""
    from safe_support_ql.simulation.simulation import Simulation

    sim = Simulation(robot)
    sim.reset(0)
    sim.command(robot.action_high * 0.3)
    began = time.perf_counter()
    for _ in range(ticks * sim.substeps):
        sim.world.step()
    stepped = time.perf_counter()
    for _ in range(ticks):
        sim.sense()
    sensed = time.perf_counter()
    sim.close()
    return {"ticks_per_s": ticks / (stepped - began), "sense_ms": 1e3 * (sensed - stepped) / ticks}


def round_trip(count: int = 2000) -> dict[str, float]:
    """Milliseconds from publishing a JointState to its echo from another process."""
    import rclpy
    from sensor_msgs.msg import JointState

    from safe_support_ql.nodes import topics

    process = subprocess.Popen([sys.executable, "-c", ECHO])
    node = rclpy.create_node("round_trip")
    try:
        there = node.create_publisher(JointState, "there", topics.CHAIN)
        heard: list[float] = []
        node.create_subscription(JointState, "back", lambda _: heard.append(time.perf_counter()), topics.CHAIN)
        message = JointState(name=["a", "b"], position=[0.0, 0.0])
        deadline = time.monotonic() + 30.0
        while not heard:
            there.publish(message)
            rclpy.spin_once(node, timeout_sec=0.1)
            if time.monotonic() > deadline:
                raise SystemExit("no echo within 30 s: is DDS blocked on the loopback?")
        with contextlib.suppress(StopIteration):
            while heard[-1] > time.perf_counter() - 0.2:
                rclpy.spin_once(node, timeout_sec=0.2)
        times = []
        for _ in range(count):
            heard.clear()
            sent = time.perf_counter()
            there.publish(message)
            while not heard:
                rclpy.spin_once(node, timeout_sec=1.0)
            times.append(1e3 * (heard[0] - sent))
        return {"p50_ms": float(np.median(times)), "p99_ms": float(np.percentile(times, 99))}
    finally:
        node.destroy_node()
        process.kill()
        process.wait()


def chain(robot: str, ticks: int, learner: bool, folder: Path) -> dict[str, float]:
    """Lock-step over DDS with every node in its own process."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import JointState

    from safe_support_ql.nodes import tables, topics
    from safe_support_ql.recording.summary import Progress

    settings = config.load_robot(robot)
    run = bringup.create_run(folder, settings)
    names = ["safety_monitor", "recorder", "behavior_policy", *(["learner"] if learner else []), "simulator"]
    node = rclpy.create_node("driver")
    processes = {}
    for name in names:
        values = bringup.parameters(name, run, Progress()) | ({"ticks": ticks} if name == "simulator" else {})
        arguments = [f"-p{key}:={json.dumps(value)}" for key, value in values.items() if value != ""]
        pairs = [part for item in arguments for part in ("-p", item[2:])]
        processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"safe_support_ql.nodes.{name}", "--ros-args", *pairs],
            env=os.environ | bringup.node_environment(name),
            stderr=subprocess.DEVNULL,
        )

    def call(name: str, transition: int) -> None:
        client = node.create_client(ChangeState, f"/{name}/change_state")
        if not client.wait_for_service(timeout_sec=60.0):
            raise SystemExit(f"{name} does not answer")
        request = ChangeState.Request()
        request.transition.id = transition
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=120.0)
        if not future.done() or not future.result().success:
            raise SystemExit(f"{name} refused transition {transition}")

    arrivals: list[float] = []
    outcomes: list[bytes] = []
    decisions: list[bytes] = []

    def on_outcome(raw: bytes) -> None:
        arrivals.append(time.perf_counter())
        outcomes.append(raw)

    try:
        for name in names:
            call(name, Transition.TRANSITION_CONFIGURE)
        # Raw: whoever measures must not take the time of those that are measured.
        node.create_subscription(JointState, topics.OUTCOME, on_outcome, topics.RECORDED, raw=True)
        node.create_subscription(DiagnosticArray, topics.DECISION, decisions.append, topics.RECORDED, raw=True)
        for name in names:
            call(name, Transition.TRANSITION_ACTIVATE)
        began = time.monotonic()
        while len(outcomes) < ticks:
            rclpy.spin_once(node, timeout_sec=0.5)
            dead = [name for name, process in processes.items() if process.poll() is not None]
            if dead or time.monotonic() - began > ticks / 20 + 60:
                raise SystemExit(f"the chain stopped after {len(outcomes)} ticks; dead: {dead or 'none'}")
        took = time.monotonic() - began
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
        node.destroy_node()
    told = [tables.decode_outcome(deserialize_message(raw, JointState))[0] for raw in outcomes]
    physics = np.array([table["wall_us"] for table in told[1:]]) / 1e3
    sense = np.array([table["sense_us"] for table in told[1:]]) / 1e3
    certificate = np.array(
        [tables.decode_decision(deserialize_message(raw, DiagnosticArray)).certificate_us for raw in decisions]
    ) / 1e3  # fmt: skip
    period = 1e3 * np.diff(arrivals)
    return {
        "ticks_per_s": len(outcomes) / took,
        "period_p50_ms": float(np.median(period)),
        "period_p99_ms": float(np.percentile(period, 99)),
        "physics_p50_ms": float(np.median(physics)),
        "sense_p50_ms": float(np.median(sense)),
        "certificate_p50_ms": float(np.median(certificate)),
        "ros_p50_ms": float(np.median(period) - np.median(physics) - np.median(sense) - np.median(certificate)),
        "unsafe_visits": told[-1]["unsafe_visits"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="diff_drive")
    parser.add_argument("--ticks", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    robot = config.load_robot(arguments.robot).robot
    domain, _lock = bringup.claim_domain()
    wanted, unwanted = bringup.ros_environment(os.environ, domain)
    os.environ.update(wanted)
    for name in unwanted:
        del os.environ[name]
    import rclpy

    rclpy.init()
    result: dict[str, Any] = {"robot": arguments.robot, "cores": os.cpu_count(), "physics": bare_physics(robot)}
    result["round_trip"] = round_trip()
    with tempfile.TemporaryDirectory() as folder:
        result["alone"] = chain(arguments.robot, arguments.ticks, False, Path(folder) / "alone")
        result["with_learner"] = chain(arguments.robot, arguments.ticks, True, Path(folder) / "learner")
    rclpy.shutdown()
    physics, trip = result["physics"], result["round_trip"]
    print(
        f"bare PyBullet stepping    {physics['ticks_per_s']:8.0f} control ticks/s; sensing {physics['sense_ms']:.2f} ms"
    )
    print(f"bare rclpy round trip     {trip['p50_ms']:8.2f} ms p50, {trip['p99_ms']:.2f} ms p99")
    parts = f"{'period':>8}{'p99':>7}{'physics':>9}{'sense':>7}{'certif.':>8}{'ROS':>7}"
    print(f"\n{'lock-step chain':22}{'ticks/s':>9}{parts}")
    for label, row in (("without the learner", result["alone"]), ("with the learner", result["with_learner"])):
        print(
            f"{label:22}{row['ticks_per_s']:9.1f}{row['period_p50_ms']:8.2f}{row['period_p99_ms']:7.1f}"
            f"{row['physics_p50_ms']:9.2f}{row['sense_p50_ms']:7.2f}{row['certificate_p50_ms']:8.2f}{row['ros_p50_ms']:7.2f}"
        )
    print("period and its parts in ms, p50; ROS = period - physics - sense - certificate")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
