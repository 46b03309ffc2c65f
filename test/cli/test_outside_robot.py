"""The commands that need no ROS, as processes, for a robot that is a package of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "safe_support_ql.cli"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, "--robot", "toy"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def test_calibrate(toy: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "calibrate", "--episodes", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no shipped margin or range is too small" in done.stdout and "3 manoeuvres, 0 unsafe visits" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.endswith(" NO")]


def test_falsify_searches_and_keeps_its_shards(toy: Path, tmp_path: Path) -> None:
    arguments = ("falsify", "--steps", "200", "--workers", "1", "--mismatch", "brakes_weak")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "runs/falsify-toy/falsify.json").read_text())
    assert found["robot"] == "toy" and {row["mismatch"] for row in found["worlds"]} == {"brakes_weak"}
    assert all(row["counted_steps"] >= 100 and row["unsafe_visits"] == 0 for row in found["worlds"])
    again = run(tmp_path, *arguments)
    assert again.returncode == 0 and "3 of 3 shards are already there" in again.stdout


def test_falsify_deletes_one_margin_at_a_time(toy: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "falsify", "--margins")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "runs/falsify-toy/margins.json").read_text())
    assert len(rows) == 5 and all(row["shown"] for row in rows)


@pytest.mark.parametrize(
    ("by", "arguments"),
    [
        ("falsify", ["falsify", "--workers", "1"]),
        ("falsify --margins", ["falsify", "--margins"]),
        ("calibrate", ["calibrate", "--episodes", "1"]),
    ],
)
def test_without_claims_it_is_refused_and_told_where_to_write_them(
    toy: Path, tmp_path: Path, by: str, arguments: list[str]
) -> None:
    (toy / "claims.py").unlink()
    done = run(tmp_path, *arguments)
    expected = f"robot 'toy' makes no claims: {by} needs toy_robot/claims.py, see docs/add_a_robot.md"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]  # nothing was written
