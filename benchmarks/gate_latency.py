"""How long the gate takes: state in to candidates out, and request in to command out, in real time.

    python benchmarks/gate_latency.py [--robot diff_drive] [--cycles 5000] [--json FILE]

Each robot in its shipped configuration, every node a process of its own over DDS, conducted as `safe-support-ql`
conducts it: with the behavior policy alone, then with a learner beside it as `make train` runs it (idle priority, on
the journal that the run writes). In real time half an update per decision would let the learner rest; its budget is
lifted here, so that it never does, as in a lock-step collection.

Measured inside the monitor, by a subclass of the node that only notes times: an observer could not tell the wait for
the gate's own clock, decoding and the certificate apart, and one more reader would burden the publishers that are
measured. The shipped node has no line for it. A cycle costs about fifteen looks at the clock more, a few microseconds.
All times are of the system clock, as DDS stamps are; it must not be set meanwhile.

"In" is the moment at which the sender's DDS stamped the message (of a state: of the last channel that completed it),
"out" the return of publish(), when the message is in the socket. A state that completes a period begins a cycle at
once; one that comes too early, or into an open cycle, waits, and `work` is the time without that. Parts:

    transport         sender's DDS to receiver's DDS
    wake and take     until rclpy has made a Python message of it; longer where the monitor is certifying just then
    decode            message to vector, and the gate's checks of an input; of a request, its reading
    certificate       Gate.begin: state estimate, plan tube, every candidate's rollouts
    decide            Gate.request: which candidate it is, whether it is certified, where the plan is expected next
    encode            vector to message; the decision's, too, which is made before the command goes out
    publish           from a Python message through DDS into the socket

`rclpy and DDS` is transport, wake and take, and publish together.

A timing fails nothing: whether the gate's two limits hold is printed. An unsafe visit or a run that stops does.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql import bringup, config, panel, robots
from safe_support_ql.recording.summary import Progress

WARM_S = 5.0  # not counted: first arena, first updates
REQUEST_LIMIT_MS = 5.0
FILE = "latency.npz"
STATE = ("episode", "sent", "arrived", "taken", "handled", "begun", "certified", "encoded", "out")
REQUEST = ("sent", "arrived", "taken", "read", "decided", "encoded", "out")
STATE_ROW, REQUEST_ROW = "state in, candidates out", "request in, command out"

# --- the monitor's process -------------------------------------------------------------------------------------------


def monitor() -> None:
    """The safety monitor, noting times; they go to the folder of the run when it ends."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from safe_support_ql.nodes import lifecycle
    from safe_support_ql.nodes.safety_monitor import SafetyMonitor

    # Rows of integers: nothing that the garbage collector would have to look at.
    states, requests, commands = array.array("q"), array.array("q"), array.array("q")
    take = rclpy_implementation.Subscription.take_message
    newest = (0, 0, 0)  # sent, arrived, taken: the message whose callback runs

    def timed_take(handle: Any, kind: Any, raw: bool) -> Any:
        nonlocal newest
        found = take(handle, kind, raw)
        if found is not None:
            newest = (found[1]["source_timestamp"], found[1]["received_timestamp"], time.time_ns())
        return found

    rclpy_implementation.Subscription.take_message = timed_take

    class TimedMonitor(SafetyMonitor):
        def configure(self) -> None:
            super().configure()
            self.file = self.run_dir() / FILE
            self.stamps: dict[str, Any] = {
                codec.channel.name: None
                for codec in self.codecs
                if codec.channel.with_state and not codec.channel.latched
            }
            self.state = (0, 0, 0, 0)
            gate: Any = self.gate
            gate.request, self.decide_times = timed(gate.request)
            self.candidate_output.publish, self.candidate_times = timed(self.candidate_output.publish)
            self.command_output.publish, self.command_times = timed(self.command_output.publish)

        def on_channel(self, codec: Any, reading: Any) -> None:
            if codec.channel.name in self.stamps:
                self.stamps[codec.channel.name] = reading[1]
                if len(set(self.stamps.values())) == 1:
                    self.state = (*newest, 0)
            super().on_channel(codec, reading)

        def fresh(self, now: int) -> bool:
            if not self.state[-1]:  # the channel that completed the state was taken
                self.state = (*self.state[:-1], time.time_ns())
            return super().fresh(now)

        def begin(self, now_ns: int) -> None:
            begun = time.time_ns()
            super().begin(now_ns)
            if self.open and self.gate is not None:
                certified = begun + 1000 * self.certificate_us
                states.extend((self.gate.episode, *self.state, begun, certified, *self.candidate_times))

        def publish(self, decision: Any, decided_ns: int) -> None:
            super().publish(decision, decided_ns)
            commands.append(self.command_times[1])

        def on_request(self, request: Any) -> None:
            before = len(commands)
            super().on_request(request)
            if len(commands) > before:
                requests.extend((*newest, *self.decide_times, *self.command_times))

    node: Any = None

    def make() -> Any:
        nonlocal node
        node = TimedMonitor()
        return node

    status = lifecycle.run(make)
    if status == 0:
        np.savez(
            node.file,
            state=np.array(states).reshape(-1, len(STATE)),
            request=np.array(requests).reshape(-1, len(REQUEST)),
            command=np.array(commands),
        )
    sys.stdout.flush()
    os._exit(status)  # as every node's process ends


def timed(function: Any) -> tuple[Any, list[int]]:
    """`function`, and where its newest call began and ended."""
    times = [0, 0]

    def call(*arguments: Any) -> Any:
        times[0] = time.time_ns()
        result = function(*arguments)
        times[1] = time.time_ns()
        return result

    return call, times


# --- a run -----------------------------------------------------------------------------------------------------------


class Processes(bringup.Processes):
    """The nodes as always, but for one that notes times: its process is this file's."""

    noting, file = "safety_monitor", Path(__file__)

    def start(self, node: str, parameters: Any, remap: Any = None) -> None:
        """See bringup.Processes."""
        if node != self.noting:
            super().start(node, parameters, remap)
            return
        pairs = [part for key, value in parameters.items() for part in ("-p", f"{key}:={json.dumps(value)}")]
        own = self.file.resolve()
        path = os.pathsep.join([str(own.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(self.log(node), "ab") as log:
            self._running[node] = subprocess.Popen(
                [sys.executable, "-m", own.stem, "--ros-args", *pairs],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ
                | {"PYTHONPATH": path, bringup.PARENT: str(os.getpid())}
                | bringup.node_environment(node),
                start_new_session=True,
            )


def measure(robot: str, cycles: int, learner: bool, folder: Path) -> dict[str, Any]:
    """One run of about `cycles` control periods; raises SystemExit where it stops early."""
    from safe_support_ql.nodes import conductor as conducting

    settings = config.load_robot(robot, {"learner.updates_per_tick": 1000.0} if learner else None)
    kind = "train" if learner else "simulate"
    run = bringup.create_run(folder, settings, kind=kind, clock="realtime")
    processes = Processes(run.logs)
    conductor = conducting.Conductor(run, settings, Progress(), processes, panel.Lines(lambda *_: None))
    period = settings.robot.period
    try:
        conductor.graph.start(conductor.note)
        ticks = cycles + round(WARM_S / period)
        conductor.play("collection" if learner else "simulate", "behavior_policy", 0, ticks=ticks)
        seen, visits = dict(conductor.status.learner), int(conductor.outcome["unsafe_visits"])
        conductor.stop()
    except (conducting.Fault, conducting.Refused, conducting.Died) as error:
        raise SystemExit(f"{robot}: the run stopped: {error}") from None
    finally:
        processes.stop(bringup.STOP_ORDER)
        conductor.close()
    result = evaluate(dict(np.load(run.folder / FILE)), 1e3 * period)
    if learner:
        result["learner"] = {"state": seen.get("state", "unknown"), "updates": int(seen.get("updates", 0))}
    return result | {"unsafe_visits": visits}


def evaluate(times: dict[str, Any], period_ms: float) -> dict[str, Any]:
    """Percentiles of one run."""
    cycle = dict(zip(STATE, times["state"].T, strict=True))
    answer = dict(zip(REQUEST, times["request"].T, strict=True))
    counted_from = cycle["out"][0] + int(1e9 * WARM_S)
    counted = cycle["out"] > counted_from
    gap = np.where(np.diff(cycle["episode"]) == 0, np.diff(cycle["out"]), 0)[counted[1:]]
    cycle = {name: values[counted] for name, values in cycle.items()}
    answer = {name: values[answer["out"] > counted_from] for name, values in answer.items()}
    command = times["command"][times["command"] > counted_from]
    # A state that two cycles saw, because the next one was late, counts with the first of them.
    _, fresh = np.unique(cycle["sent"], return_index=True)
    cycles = len(cycle["out"])
    cycle = {name: values[fresh] for name, values in cycle.items()}

    def span(table: dict[str, Any], start: str, end: str) -> Any:
        return (table[end] - table[start]) / 1e6

    wait = span(cycle, "handled", "begun")
    work = span(cycle, "sent", "out") - wait
    whole = span(answer, "sent", "out")
    return {
        "period_ms": period_ms,
        "cycles": cycles,
        "states_seen_twice": cycles - len(fresh),
        "requests_answered": len(whole),
        "candidates_gap_ms": float(gap.max()) / 1e6,
        "commands_gap_ms": float(np.diff(command).max()) / 1e6,
        STATE_ROW: {
            "all": row(work + wait),
            "wait for a cycle": row(wait),
            "work": row(work),
            "transport": row(span(cycle, "sent", "arrived"), work),
            "wake and take": row(span(cycle, "arrived", "taken"), work),
            "decode": row(span(cycle, "taken", "handled"), work),
            "certificate": row(span(cycle, "begun", "certified"), work),
            "encode": row(span(cycle, "certified", "encoded"), work),
            "publish": row(span(cycle, "encoded", "out"), work),
            "rclpy and DDS": row(span(cycle, "sent", "taken") + span(cycle, "encoded", "out"), work),
        },
        REQUEST_ROW: {
            "all": row(whole),
            "transport": row(span(answer, "sent", "arrived"), whole),
            "wake and take": row(span(answer, "arrived", "taken"), whole),
            "decode": row(span(answer, "taken", "read"), whole),
            "decide": row(span(answer, "read", "decided"), whole),
            "encode": row(span(answer, "decided", "encoded"), whole),
            "publish": row(span(answer, "encoded", "out"), whole),
            "rclpy and DDS": row(span(answer, "sent", "taken") + span(answer, "encoded", "out"), whole),
        },
    }


def row(ms: Any, of: Any = None) -> dict[str, float]:
    """Percentiles, and the share of the mean of `of`; parts add up in their shares only."""
    p50, p99, p999 = np.percentile(ms, (50, 99, 99.9))
    values = {"p50_ms": p50, "p99_ms": p99, "p99_9_ms": p999, "longest_ms": ms.max(), "samples": len(ms)}
    if of is not None:
        values["share"] = ms.mean() / of.mean()
    return {name: float(value) for name, value in values.items()}


def limits(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the gate promises, and whether it held here."""
    request, state = result[REQUEST_ROW]["all"]["p99_ms"], result[STATE_ROW]
    half = result["period_ms"] / 2
    values = {
        "request to command, p99": (request, REQUEST_LIMIT_MS),
        "sum of both p99, work": (state["work"]["p99_ms"] + request, half),
        "sum of both p99, with the wait": (state["all"]["p99_ms"] + request, half),
    }
    return {name: {"ms": ms, "limit_ms": most, "holds": ms <= most} for name, (ms, most) in values.items()}


def show(robot: str, label: str, result: dict[str, Any]) -> None:
    """One run as a table."""
    title = f"{robot}, {label}"
    print(f"\n{title:30}{'p50':>9}{'p99':>9}{'p99.9':>9}{'longest':>9}{'share':>7}")
    for path in (STATE_ROW, REQUEST_ROW):
        for name, values in result[path].items():
            text = path if name == "all" else f"  {name}" if "share" not in values else f"    {name}"
            share = f"{values['share']:7.0%}" if "share" in values else ""
            parts = [values[key] for key in ("p50_ms", "p99_ms", "p99_9_ms", "longest_ms")]
            print(f"{text:30}" + "".join(f"{ms:9.3f}" for ms in parts) + share)
    for path in (STATE_ROW, REQUEST_ROW):
        n = int(result[path]["all"]["samples"])
        print(f"{path}: {n} samples, {n // 100} beyond p99, {n // 1000} beyond p99.9")
    unanswered = max(0, result["cycles"] - result["requests_answered"])
    print(
        f"{result['cycles']} cycles, {unanswered} without a request in time, {result['states_seen_twice']} without a "
        f"new state"
    )
    candidates, commands, period = result["candidates_gap_ms"], result["commands_gap_ms"], result["period_ms"]
    print(f"longest gap: candidates {candidates:.1f} ms, commands {commands:.1f} ms; period {period:.0f} ms")
    if "learner" in result:
        print(f"learner: {result['learner']['updates']} updates, at the end {result['learner']['state']}")
    for name, limit in limits(result).items():
        verdict = "holds" if limit["holds"] else "DOES NOT HOLD"
        print(f"{name:32}{limit['ms']:8.3f} ms <= {limit['limit_ms']:4.1f} ms: {verdict}")
    if result["unsafe_visits"]:
        print(f"UNSAFE VISITS: {result['unsafe_visits']}")
    sys.stdout.flush()


def isolate() -> Any:
    """Put this process and its children in a ROS domain of their own; the lock that keeps it."""
    domain, lock = bringup.claim_domain()
    wanted, unwanted = bringup.ros_environment(os.environ, domain)
    os.environ.update(wanted)
    for name in unwanted:
        del os.environ[name]
    return lock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=robots.names(), help="default: every robot")
    parser.add_argument("--cycles", type=int, default=5000, help="control periods of each run, default 5000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    arguments = parser.parse_args()
    _lock = isolate()
    from safe_support_ql.nodes import conductor as conducting

    conducting.join_graph()
    report: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg(), "robots": {}}
    print(f"{report['cores']} cores, load {report['load'][0]:.1f} before; times in ms; shares are of mean times")
    with tempfile.TemporaryDirectory() as folder:
        for robot in [arguments.robot] if arguments.robot else robots.names():
            rows = report["robots"][robot] = {}
            for label, learner in (("alone", False), ("with the learner", True)):
                result = measure(robot, arguments.cycles, learner, Path(folder))
                rows[label] = result | {"limits": limits(result)}
                show(robot, label, result)
    conducting.leave_graph()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))
    if any(result["unsafe_visits"] for rows in report["robots"].values() for result in rows.values()):
        sys.exit(1)


if __name__ == "__main__":
    monitor() if "--ros-args" in sys.argv else main()
