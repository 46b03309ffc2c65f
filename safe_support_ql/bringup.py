"""The one description of the graph: its nodes, their ROS parameters, and the order in which they start and stop.

`launching.py` and the command line both read it. Nodes become active in the order of NODES, the safety_monitor first
and last the simulator, or on a robot the task node. They stop in STOP_ORDER: the monitor first, because that stops the
robot, and the recorder last. The rest of this file: the folder of a run, the ROS environment, and the nodes as
processes without `ros2 launch`.
"""

import ctypes
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from safe_support_ql import config
from safe_support_ql.config import Config
from safe_support_ql.deployment import validation
from safe_support_ql.deployment.manifest import PolicyContract, load_manifest, manifest_path
from safe_support_ql.recording import chain
from safe_support_ql.recording.files import CONFIG, LOGS, POLICY, SESSION, shown, write_json
from safe_support_ql.recording.ledger import SENSORS, TRUTH
from safe_support_ql.recording.summary import Progress, progress

PACKAGE = "safe_support_ql"


@dataclass(frozen=True)
class NodeSpec:
    """One node. Its executable, its module in nodes/ and its log have the same name."""

    name: str
    restarts: bool = False  # whether it is started again if it dies; otherwise its death ends the run
    threads: int | None = 1  # of numerical libraries; more only compete for the cores; None: not limited


NODES = (
    NodeSpec("safety_monitor"),  # the only publisher of the command: certifies, decides
    NodeSpec("recorder"),  # writes journal and ledger, before anything counts
    NodeSpec("behavior_policy"),  # draws from beta inside the candidate set
    NodeSpec("teleoperation"),  # in its place where a person steers
    NodeSpec("inference"),  # serves policy.onnx over the same candidate set
    NodeSpec("learner", restarts=True, threads=None),  # learns from the journal, exports policy.onnx
    NodeSpec("simulator"),  # PyBullet behind the robot's own topics
    NodeSpec("task"),  # in its place on a robot: goals, rewards and ends of episodes
)
SPECS = {spec.name: spec for spec in NODES}
STOP_ORDER = (
    "safety_monitor",
    "simulator",
    "task",
    "behavior_policy",
    "teleoperation",
    "inference",
    "learner",
    "recorder",
)


@dataclass(frozen=True)
class Run:
    """One run: settings that its nodes and the conductor share, saved as session.json beside config.yaml."""

    folder: Path
    kind: str = "train"  # or "simulate", "faults", "offline": learnt from bags
    mode: str = "simulation"  # or "hardware": the robot is there already, and no simulator is started
    clock: str = "lockstep"
    stamped_cmd: bool = True  # whether the drive takes the command with a header
    continuous: bool = False
    seed: int = 0
    robot_id: str = "robot"
    remote_learner: bool = False  # train, on a robot: another machine learns, see nodes/learner_host.py
    teleop: bool = False  # train, on a robot: a person steers in the place of the behavior policy
    policy: str = "behavior"  # simulate: behavior, none, or the path of a policy.onnx
    episodes: int = 0  # simulate: 0 is endless
    shadow: bool = False  # simulate, on a robot: the policy only shows what it would do, and the behavior policy drives
    gui: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that this run needs, in the order in which they become active."""
        wanted = {"safety_monitor", "recorder", self.source}
        if self.kind == "train":
            wanted |= {self.behavior} | ({"inference"} if self.evaluates else set())
            if not self.remote_learner:
                wanted.add("learner")
        elif self.policy != "none":
            wanted.add("behavior_policy" if self.policy == "behavior" else "inference")
            if self.shadow:
                wanted.add(self.behavior)
        if self.kind == "faults" and self.policy == "behavior":
            wanted.add("learner")  # as in training
        return tuple(spec.name for spec in NODES if spec.name in wanted)

    @property
    def on_hardware(self) -> bool:
        return self.mode == "hardware"

    @property
    def evaluates(self) -> bool:
        """Whether training ends with episodes of the extracted policy: a robot obeys none that was not validated."""
        return not self.on_hardware

    @property
    def behavior(self) -> str:
        """The node that collects."""
        return "teleoperation" if self.teleop else "behavior_policy"

    @property
    def source(self) -> str:
        """The node that begins and ends episodes and says what came of them."""
        return "task" if self.on_hardware else "simulator"

    @property
    def config_file(self) -> Path:
        return self.folder / CONFIG

    @property
    def model(self) -> Path:
        """The policy that inference runs."""
        return Path(self.policy) if self.policy not in ("behavior", "none") else self.folder / POLICY

    @property
    def logs(self) -> Path:
        """The folder of the nodes' logs, one file per node."""
        return self.folder / LOGS

    @property
    def how_to_resume(self) -> str:
        program = Path(sys.executable).with_name("safe-support-ql")  # in an environment that is not active
        name = "safe-support-ql" if shutil.which("safe-support-ql") or not program.exists() else shown(program)
        return f"{name} train --resume {shown(self.folder)}"


def hardware(stamped_cmd: bool) -> dict[str, Any]:
    """The fields of a Run on a robot."""
    return {"mode": "hardware", "clock": "realtime", "stamped_cmd": stamped_cmd}


def stop_signals() -> tuple[signal.Signals, ...]:
    """Signals that stop a process, including that of a closed terminal, unless it is ignored (nohup)."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hangs_up else ()))


def parameters(node: str, run: Run, progress: Progress) -> dict[str, Any]:
    """ROS parameters of `node`, as plain values. In a resumed run, numbers continue after the journal's last."""
    common = {
        "config": str(run.config_file),
        "run_dir": str(run.folder),
        "clock": run.clock,
        "continuous": run.continuous,
        "seed": run.seed,
        "robot_id": run.robot_id,
        "stamped_cmd": run.stamped_cmd,
    }
    own: dict[str, dict[str, Any]] = {
        "safety_monitor": {"first_sequence": progress.first_sequence, "simulated": not run.on_hardware},
        "recorder": {"judged_by": SENSORS if run.on_hardware else TRUTH},
        "task": {"first_episode": progress.first_episode},
        "simulator": {"first_episode": progress.first_episode} | ({"gui": True} if run.gui else {}),
        # In simulation, policies are tried before they are validated.
        "inference": {
            "model": str(run.model),
            "shadow": run.shadow,
            "validated": run.on_hardware and not run.shadow,
        },
    }
    return common | own.get(node, {})


def create_run(runs_dir: Path, settings: Config, **choices: Any) -> Run:
    """A new folder in `runs_dir` with config.yaml and session.json. Raises ValueError if it cannot be written."""
    name = f"{settings.robot.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for number in range(100):  # for several runs in one second
            folder = (runs_dir / (f"{name}-{number}" if number else name)).resolve()
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        run = Run(folder, **choices)
        run.logs.mkdir()
        save_run(run, settings)
    except OSError as error:
        raise ValueError(f"{runs_dir}: cannot be written ({error.strerror}); give another --runs-dir") from None
    return run


def deploy_run(runs_dir: Path, settings: Config, model: Path, stamped_cmd: bool, **choices: Any) -> Run:
    """A new run in which a robot obeys a validated policy: a copy in its folder, so that what was checked is driven.

    As a shadow it commands nothing, and needs no report. Raises ValueError where the policy, its manifest or its report
    does not fit, or nothing can be written.
    """
    shadow = choices.get("shadow", False)
    check = check_contract if shadow else check_validated
    check(model, settings, choices["continuous"])
    run = create_run(runs_dir, settings, kind="simulate", **hardware(stamped_cmd), **choices)
    copy = run.folder / model.name
    try:
        for source in (model, manifest_path(model), *(() if shadow else (validation.report_path(model),))):
            shutil.copyfile(source, run.folder / source.name)
        # A file may have been replaced since the check.
        check(copy, settings, choices["continuous"])
    except (OSError, ValueError) as error:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise ValueError(str(error)) from None
    run = dataclasses.replace(run, policy=str(copy))
    save_run(run, settings)
    return run


def check_contract(model: Path, settings: Config, continuous: bool) -> None:
    """Raises ValueError as `load_manifest` if a policy was not made for this robot and these settings."""
    load_manifest(model, PolicyContract.of(settings.robot, continuous, settings.safety_hash))


def check_validated(model: Path, settings: Config, continuous: bool) -> None:
    """Raises ValueError, one line with the reason, if a robot with these settings may not obey this policy."""
    check_contract(model, settings, continuous)
    validation.check(model, settings.safety_hash, settings.validation, chain.key())


def save_run(run: Run, settings: Config) -> None:
    config.save(settings, run.config_file)
    choices = dataclasses.asdict(run)
    del choices["folder"]
    write_json(run.folder / SESSION, choices)


def read_run(folder: Path) -> tuple[Run, Config]:
    """An existing run and its configuration. Raises ValueError naming the file and what would be right."""
    path = folder.resolve() / SESSION
    if not path.exists():
        raise ValueError(f"{folder}: is not the folder of a run; give runs/<robot>-<time>")
    try:
        run = Run(path.parent, **json.loads(path.read_text()))
        return run, config.load(run.config_file)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); start a new run") from None


def run_of(model: Path) -> tuple[Path | None, bool | None]:
    """(configuration, whether actions are continuous) of the run in whose folder a policy lies; None where in none.

    Raises ValueError as read_run does.
    """
    folder = model.parent
    if not (folder / CONFIG).exists() or not (folder / SESSION).exists():
        return None, None
    return folder / CONFIG, read_run(folder)[0].continuous


def open_run(folder: Path) -> tuple[Run, Config, Progress]:
    """A run to continue, and its progress. Raises ValueError as read_run does, and if it cannot be written."""
    run, settings = read_run(folder)
    try:
        run.logs.mkdir(exist_ok=True)
        (run.folder / ".writable").touch()
        (run.folder / ".writable").unlink()
        return run, settings, progress(run.folder)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be opened ({error.strerror}); it must be writable") from None


def enclave(node: str) -> str:
    """The name under which config/sros2_policy.xml says what a node may do; it has no effect without SROS 2."""
    return f"/{PACKAGE}/{node}"


def node_environment(node: str) -> dict[str, str]:
    """Environment variables of `node` in addition to those of its parent."""
    threads = SPECS[node].threads if node in SPECS else 1
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def ros_environment(environ: Mapping[str, str], domain: int | None) -> tuple[dict[str, str], list[str]]:
    """Environment variables (to set, to remove) that keep a simulated run on this machine, with fast discovery.

    Variables that the user set stay, except addresses of other machines: a simulated run must never command a robot on
    the network. `domain` is used if the user set none.
    """
    wanted = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",  # a killed process leaves 0.5 MB in /dev/shm with shared memory
    }
    if domain is not None:
        wanted["ROS_DOMAIN_ID"] = str(domain)
    profile = config.shipped("fastdds.xml")
    # Fast DDS 2.14 of Jazzy reads this variable; 3.x of later releases reads FASTDDS_DEFAULT_PROFILES_FILE.
    if profile.exists() and "FASTDDS_DEFAULT_PROFILES_FILE" not in environ:
        wanted["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    stays_here = "ROS_AUTOMATIC_DISCOVERY_RANGE" not in environ
    remove = [name for name in ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "ROS_LOCALHOST_ONLY") if name in environ]
    return {k: v for k, v in wanted.items() if k not in environ}, remove if stays_here else []


def environment_of(
    run: Run, environ: Mapping[str, str]
) -> tuple[dict[str, str], list[str], filelock.BaseFileLock | None]:
    """Environment variables (to set, to remove) for the nodes of `run`, and the lock of the domain that it claims.

    A simulated run has a domain of its own, unless the user chose one. On a robot nothing changes: its nodes must be
    found. Raises ValueError if all domains are taken.
    """
    if run.on_hardware:
        return {}, [], None
    domain, lock = (None, None) if "ROS_DOMAIN_ID" in environ else claim_domain()
    return *ros_environment(environ, domain), lock


def claim_domain() -> tuple[int, filelock.BaseFileLock]:
    """A ROS domain that nobody on this machine is in, and the lock that reserves it among the runs of this user.

    Domains above 101 use ports that Linux assigns to others, and a real robot may use 0. Raises ValueError if all are
    taken.
    """
    folder = Path(tempfile.gettempdir()) / f"ros_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for offset in range(101):
        domain = 1 + (37 * os.getpid() + offset) % 101  # not one just released: a killed node stays visible there
        lock = filelock.FileLock(folder / f"{domain}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        if not in_use(domain):
            return domain, lock
        lock.release()
    raise ValueError(f"all ROS domains from 1 to 101 are taken; the locks are in {folder}, or set ROS_DOMAIN_ID")


PARTICIPANTS = 120  # that one machine may have in a domain; the first of a long-lived process need not be number 0


def in_use(domain: int) -> bool:
    """Whether somebody on this machine is in that domain, such as a robot's drivers: its ports are taken (DDSI 9.6)."""
    multicast = 7400 + 250 * domain
    for port in (multicast, *(multicast + 10 + 2 * participant for participant in range(PARTICIPANTS))):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return True
    return False


# --- nodes as processes ----------------------------------------------------------------------------------------------

PARENT = "SAFE_SUPPORT_QL_PARENT"  # environment variable: the process id of who started a node and has to outlive it


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM at the death of PARENT: the robot stops if the command line or launch is killed.

    That happens inside the node, because code between fork and exec can hang in a process with threads.
    """
    if parent := os.environ.get(PARENT):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != int(parent):
            sys.exit("whoever started this node is gone")


class Processes:
    """The nodes of one run as child processes, each in a session of its own, so that Ctrl-C reaches only the parent.

    The output of a node is appended to logs/<node>.log.
    """

    def __init__(self, logs: Path) -> None:
        """`logs`: an existing folder for the logs."""
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, parameters: Mapping[str, Any], remap: Mapping[str, str] | None = None) -> None:
        """Start `node`, with its topics renamed by `remap`. Raises OSError."""
        arguments = [f"{PACKAGE}.nodes.{node}", "--ros-args", "--enclave", enclave(node)]
        for old, new in (remap or {}).items():
            arguments += ["-r", f"{old}:={new}"]
        for key, value in parameters.items():
            arguments += ["-p", f"{key}:={json.dumps(value)}"]  # JSON is valid YAML, and its quotes keep text as text
        with open(self.log(node), "ab") as log:
            self._running[node] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())} | node_environment(node),
                start_new_session=True,
            )

    def log(self, node: str) -> Path:
        return self.logs / f"{node}.log"

    def alive(self, node: str) -> bool:
        process = self._running.get(node)
        return process is not None and process.poll() is None

    def dead(self) -> list[str]:
        """Nodes that ended by themselves."""
        return [node for node, process in self._running.items() if process.poll() is not None]

    def how_it_ended(self, node: str) -> str:
        """Its end in words: 'exit status 1' or 'killed by SIGKILL'."""
        status = self._running[node].poll()
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"

    def forget(self, node: str) -> None:
        """Do not report its death again."""
        self._running.pop(node, None)

    def pid(self, node: str) -> int:
        return self._running[node].pid

    def last_words(self, node: str) -> str:
        """The last relevant line of its log, '' if there is none; see `last_words` below."""
        return last_words(self.log(node))

    def stop(self, order: Iterable[str], patience_s: float = 5.0) -> None:
        """Send SIGTERM to one after the other, and SIGKILL to those that do not end within `patience_s`."""
        for node in order:
            process = self._running.pop(node, None)
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()


def last_words(log: Path) -> str:
    """The most relevant line of a log, without ROS's prefix: the last error, or else the last line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith(("[ERROR]", "[FATAL]")) or "Error: " in line[:60]]
    line = (errors or lines or [""])[-1]
    if line.startswith("[") and "]: " in line:  # [ERROR] [1700000000.0] [recorder]: text
        line = line.split("]: ", 1)[1]
    return line[:300]
