"""The graph of nodes, its environment, its processes, and what is shown of it."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from safe_support_ql import bringup, panel
from safe_support_ql.bringup import NODES, STOP_ORDER, Processes, Run
from safe_support_ql.recording.summary import Progress

ROOT = Path(__file__).resolve().parents[1]


def test_the_monitor_starts_and_stops_first_and_the_recorder_stops_last() -> None:
    assert NODES[0].name == "safety_monitor" and [spec.name for spec in NODES[-2:]] == ["simulator", "task"]
    assert STOP_ORDER[:3] == ("safety_monitor", "simulator", "task") and STOP_ORDER[-1] == "recorder"
    assert set(STOP_ORDER) == {spec.name for spec in NODES}
    for spec in NODES:
        assert (ROOT / "safe_support_ql" / "nodes" / f"{spec.name}.py").is_file()


def test_only_the_learner_may_die(tmp_path: Path) -> None:
    assert [spec.name for spec in NODES if spec.restarts] == ["learner"]


@pytest.mark.parametrize(
    ("policy", "node"), [("behavior", "behavior_policy"), ("none", None), ("policy.onnx", "inference")]
)
def test_simulate_has_one_policy(tmp_path: Path, policy: str, node: str | None) -> None:
    nodes = Run(tmp_path, kind="simulate", policy=policy).nodes
    assert set(nodes) - {"safety_monitor", "recorder", "simulator"} == ({node} if node else set())


def test_every_parameter_is_declared(tmp_path: Path) -> None:
    """A name that no node declares would be ignored by ROS without a word."""
    from safe_support_ql.nodes.lifecycle import PARAMETERS

    for spec in NODES:
        declared = {item.name: item for item in PARAMETERS[spec.name]}
        for name, value in bringup.parameters(spec.name, Run(tmp_path), Progress()).items():
            assert type(value) is type(declared[name].default), name


def test_a_run_stays_on_this_machine() -> None:
    wanted, unwanted = bringup.ros_environment({"ROS_STATIC_PEERS": "robot.lab", "ROS_DISCOVERY_SERVER": "robot:1"}, 42)
    assert wanted["ROS_DOMAIN_ID"] == "42" and wanted["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert sorted(unwanted) == ["ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS"]
    assert Path(wanted["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


def test_what_the_user_set_stays() -> None:
    own = {"ROS_DOMAIN_ID": "7", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "SHM",
           "FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml", "ROS_STATIC_PEERS": "robot.lab"}  # fmt: skip
    assert bringup.ros_environment(own, 42) == ({}, [])


def test_two_runs_get_two_domains() -> None:
    first, lock = bringup.claim_domain()
    second, other = bringup.claim_domain()
    try:
        assert first != second and {first, second} <= set(range(1, 102))
    finally:
        lock.release()
        other.release()


def test_a_domain_that_somebody_is_in_is_no_free_one(ros_domain) -> None:  # type: ignore[no-untyped-def]
    """A robot's drivers hold no lock of ours."""
    driver = "import rclpy; rclpy.init(); node = rclpy.create_node('driver'); print(flush=True); input()"
    assert not bringup.in_use(ros_domain.id)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", driver], env=ros_domain.env, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = bringup.in_use(ros_domain.id)
        process.communicate(b"\n", timeout=30)
    assert found
    free, lock = bringup.claim_domain()
    lock.release()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("", 7410 + 250 * free))
        other, lock = bringup.claim_domain()
        lock.release()
    assert other != free


def test_a_closed_terminal_stops_a_run_but_not_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    for inherited, expected in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
        monkeypatch.setattr(signal, "getsignal", lambda number, inherited=inherited: inherited)
        assert (signal.SIGHUP in bringup.stop_signals()) is expected
        assert {signal.SIGINT, signal.SIGTERM} <= set(bringup.stop_signals())


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    from safe_support_ql import config

    settings = config.load_robot("diff_drive")
    folders = {bringup.create_run(tmp_path, settings).folder for _ in range(3)}
    assert len(folders) == 3


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Processes whose 'nodes' are three-line modules."""
    nodes = tmp_path / "toys" / "nodes"
    nodes.mkdir(parents=True)
    (tmp_path / "toys" / "__init__.py").touch()
    (nodes / "__init__.py").touch()
    (nodes / "polite.py").write_text("import sys, time\nprint(sys.argv[1:])\ntime.sleep(60)\n")
    (nodes / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(60)\n"
    )
    (nodes / "broken.py").write_text("raise SystemExit('[ERROR] [1.0] [broken]: key x must be y')\n")
    monkeypatch.setattr(bringup, "PACKAGE", "toys")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Processes(tmp_path)


def _said(children: Processes, node: str) -> str:
    end = time.monotonic() + 20
    while not children.last_words(node) and time.monotonic() < end:
        time.sleep(0.05)
    return children.last_words(node)


def test_processes_get_parameters_and_a_session_of_their_own(children: Processes) -> None:
    children.start("polite", {"path": "a b", "n": 1, "flag": True}, {"odom": "odom_true"})
    assert 'path:="a b"' in _said(children, "polite") and "n:=1" in _said(children, "polite")
    assert "flag:=true" in _said(children, "polite") and "odom:=odom_true" in _said(children, "polite")
    assert os.getsid(children.pid("polite")) == children.pid("polite")  # Ctrl-C reaches the parent alone
    children.stop(["polite"])
    assert not children.alive("polite") and not children.dead()


def test_who_does_not_stop_is_killed(children: Processes) -> None:
    children.start("stubborn", {})
    _said(children, "stubborn")
    before = time.monotonic()
    children.stop(["stubborn"], patience_s=0.5)
    assert not children.alive("stubborn") and 0.5 <= time.monotonic() - before < 10


def test_a_death_is_told_with_the_last_error(children: Processes) -> None:
    children.start("broken", {})
    children.start("polite", {})
    assert _said(children, "broken") == "key x must be y"
    _said(children, "polite")
    os.kill(children.pid("polite"), signal.SIGKILL)
    end = time.monotonic() + 20
    while len(children.dead()) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert children.dead() == ["broken", "polite"]
    assert children.how_it_ended("broken") == "exit status 1"
    assert children.how_it_ended("polite") == "killed by SIGKILL"


def test_the_panel_fits_80_columns() -> None:
    from rich.console import Console

    verdicts = {"certified": 0.97, "certified_band": 0.02, "plan_held": 0.009, "no_proof": 0.001}
    learner = {"state": "training", "q_loss": "0.1234567", "alpha": "0.03", "kl": "1.5", "updates": "40000.0"}
    status = panel.Status("diff_drive", "101", "evaluation_behavior", "", 12, 50, "episodes", 123456, 151.2,
                          0, 12, 130000, verdicts, 0.002, learner, 3700.0, ["learner died: " + "x" * 100])  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel.draw(status))
    text = console.export_text()
    assert all(len(row) <= 80 for row in text.splitlines())
    for part in ("12 of 50 episodes", "151/s", "certified_band 2.0%", "no_proof 0.1%", "Q loss 0.123", "KL 1.5"):
        assert part in text
    assert "1:01:40" in text
    texts: list[str] = []
    panel.Lines(texts.append).show(status)
    assert all(len(row) <= 80 for row in texts[0].splitlines())
    line = " ".join(texts[0].split())
    for part in ("unsafe visits 0", "interventions 12", "ESS share -", "empty supports 0.20%", "time left 1:01:40"):
        assert part in line


def test_a_run_keeps_every_setting_of_its_learner(tmp_path: Path) -> None:
    """So that a changed default changes no run; the seed stays the run's where none was set."""
    from safe_support_ql import config

    settings = config.load_robot("diff_drive", {"learner.gamma": 0.9})
    run = bringup.create_run(tmp_path, settings, seed=3)
    _, resumed, _ = bringup.open_run(run.folder)
    assert resumed.learner == settings.learner and resumed.learner.seeded(run.seed).seed == 3
    assert resumed.raw["learner"] == dataclasses.asdict(settings.learner)


NODE = """import time
from safe_support_ql import bringup
bringup.die_with_parent()
print('up', flush=True)
time.sleep(60)
"""
STARTER = """import os, subprocess, sys
from safe_support_ql import bringup
told = os.environ | {bringup.PARENT: str(os.getpid())}
node = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=told)
print(node.pid, flush=True)
node.wait()
"""


def test_a_node_does_not_outlive_who_started_it() -> None:
    """Not even one that was killed with a signal that it cannot answer, as a launch process may be."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER, NODE], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert starter.stdout is not None
    node = psutil.Process(int(starter.stdout.readline()))
    assert starter.stdout.readline() == "up\n"
    starter.kill()
    node.wait(30.0)
    orphan = subprocess.run(
        [sys.executable, "-c", NODE], env=os.environ | {bringup.PARENT: "1"}, cwd=ROOT, capture_output=True, text=True
    )
    assert orphan.returncode == 1 and "whoever started this node is gone" in orphan.stderr
