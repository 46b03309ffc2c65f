"""Real nodes over real DDS for a robot that is a package of its own: every command that runs or reads a graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "safe_support_ql.cli"]
# Episodes of 4 s, so that a short run has several, and a learner that is done at once.
SHORT = ["--set", "parameters.episode_s=4.0", "--set", "learner.extraction_updates=100", "--set", "learner.hidden=32"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(ros_domain, toy: Path, tmp_path: Path) -> Run:  # type: ignore[no-untyped-def]
    """A command and its arguments to its end; `status` is the one that it must have."""
    # The domain is the command line's own: that it finds one is part of what is tested.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ROS_", "FAST"))}

    def play(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*CLI, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return play


def test_from_training_to_a_policy_that_changed_code_may_not_serve(run: Run, toy: Path, tmp_path: Path) -> None:
    run("train", "--robot", "toy", "--ticks", "400", "--evaluation-episodes", "1", *SHORT)
    (folder,) = (tmp_path / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["robot"] == "toy" and summary["unsafe_visits"] == 0
    assert {"behavior", "policy", "reference"} <= set(summary["evaluation"])

    report = json.loads(run("ledger", str(folder), "--json").stdout)
    assert report["unsafe_visits"] == 0 and not report["missing"] and not report["problems"]
    run("evaluate", str(folder), "--episodes", "1", "--workers", "1", "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert set(rows) == {"behavior", "reference", "policy"} and not any(row["unsafe_visits"] for row in rows.values())
    run("report", str(folder))
    assert (folder / "report.png").stat().st_size > 0

    own = ("--robot", "toy", "--config", str(folder / "config.yaml"))  # whose margins the policy was trained under
    simulate = ("simulate", *own, "--policy", str(folder / "policy.onnx"))
    run(*simulate, "--episodes", "1", "--runs-dir", "driven")
    (driven,) = (tmp_path / "driven").iterdir()
    assert json.loads((driven / "summary.json").read_text())["unsafe_visits"] == 0

    with open(toy / "model.py", "a") as file:  # one byte, in a comment
        file.write("#")
    for command in (simulate, ("evaluate", str(folder))):
        (said,) = run(*command, status=2).stderr.splitlines()
        assert "'safety_sha256' is" in said and "use its run's config.yaml and that code, or train again" in said


def test_it_survives_faults(run: Run, tmp_path: Path) -> None:
    arguments = ("--robot", "toy", "--phase", "collection", "--json", str(tmp_path / "faults.json"))
    done = run("faults", *arguments, "--only", "NaN: joint_states, once", "changed load")
    assert "2 of 2 faults passed" in done.stdout
    results = json.loads((tmp_path / "faults.json").read_text())["faults"]
    assert [result["robot"] for result in results] == ["toy", "toy"]
    assert all(result["passed"] and result["unsafe_visits"] == 0 for result in results)
