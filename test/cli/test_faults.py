"""The fault campaign as a command. No graph is started here: test/system/test_faults.py plays faults on one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from safe_support_ql import cli
from safe_support_ql.cli import faults as command
from safe_support_ql.cli import shared
from safe_support_ql.experiments import faults


@pytest.mark.parametrize(("visits", "status"), [(0, 0), (1, 1)])
def test_the_fault_campaign_ends_with_a_table_json_and_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, visits: int, status: int
) -> None:
    def play(settings: object, phase: str, picked: list[faults.Fault], runs: Path, show: Callable[..., None]) -> None:
        for fault in picked:
            seen = faults.Seen([(0.001, "request", "")], logs=[(0.001, fault.cause)], refused=1, visits=visits)
            show(faults.judge(fault, replace(seen, state="nominal"), "cart_pole", phase))

    monkeypatch.setattr(command, "play", play)
    path = tmp_path / "faults.json"
    with pytest.raises(SystemExit) as left:
        cli.main(["faults", "--robot", "cart_pole", "--only", "NaN: joint_states, once", "--json", str(path)])
    assert left.value.code == status
    rows = json.loads(path.read_text())["faults"]
    assert [row["phase"] for row in rows] == ["collection", "deployment"]
    keys = {"name", "robot", "phase", "covered", "unsafe_visits", "reaction_s", "state", "message", "passed"}
    assert all(keys <= set(row) and row["passed"] is not bool(visits) for row in rows)
    text = capsys.readouterr().out
    assert f"{0 if visits else 2} of 2 faults passed" in text and ("1 unsafe visits" in text) is bool(visits)
    assert max(len(line) for line in text.splitlines() if line.startswith("NaN")) <= 80


def test_the_list_holds_the_faults_of_a_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("robot: cart_pole\n")
    with pytest.raises(SystemExit) as left:  # 'learner killed' is a fault of one phase only
        cli.main(["faults", "--config", str(path), "--only", "learner killed", "NaN: joint_states", "--list"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert said.count("NaN: joint_states, once") == 2 and said.count("learner killed") == 1


def test_no_episode_ends_during_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(robot="cart_pole", config=None, set=[])
    assert command.long_episodes(options).raw["parameters"]["episode_s"] == command.EPISODE_S

    @dataclass
    class Endless:
        speed: float = 1.0

    robot = argparse.Namespace(parameters=Endless())
    asked = []

    def load(options: argparse.Namespace, defaults: object = None) -> argparse.Namespace:
        asked.append(defaults)
        return argparse.Namespace(robot=robot)

    monkeypatch.setattr(shared, "load", load)
    assert command.long_episodes(options).robot is robot and asked == [None]
