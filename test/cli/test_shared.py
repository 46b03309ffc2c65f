"""The configuration that options ask for, and opening a run to read it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_support_ql import bringup, config
from safe_support_ql.cli import shared

Refused = Callable[..., str]


def options(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{"robot": None, "config": None, "set": []} | changes)


def test_the_default_robot_stands_where_neither_robot_nor_configuration_is_named(tmp_path: Path) -> None:
    assert shared.load(options()).robot.name == shared.DEFAULT_ROBOT
    assert shared.load(options(robot="cart_pole")).robot.name == "cart_pole"
    path = tmp_path / "mine.yaml"
    path.write_text("robot: cart_pole\n")
    assert shared.load(options(config=path)).robot.name == "cart_pole"


def test_defaults_give_way_to_what_the_user_sets() -> None:
    defaults = {"parameters.episode_s": 600.0}
    assert shared.load(options(), defaults).raw["parameters"]["episode_s"] == 600.0
    assert shared.load(options(set=["parameters.episode_s=7"]), defaults).raw["parameters"]["episode_s"] == 7


@pytest.mark.parametrize("command", ["train", "simulate", "faults", "falsify", "calibrate"])
def test_a_damaged_configuration_is_named(refused: Refused, tmp_path: Path, command: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("robot: [diff_drive\n")
    assert "mine.yaml: is no YAML" in refused(command, "--config", str(path))
    path.write_text("robot: cart_pole\n")
    assert "--robot says 'diff_drive'" in refused(command, "--config", str(path), "--robot", "diff_drive")


def test_reading_a_run_writes_nothing(begun: bringup.Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in begun.folder.rglob("*")}
    run, settings = shared.open_for_reading(begun.folder)
    assert run == begun and settings.safety_hash == config.load_robot("diff_drive").safety_hash
    assert {path: path.stat().st_mtime_ns for path in begun.folder.rglob("*")} == before


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"colour": "red"})])
def test_a_damaged_session_is_named(refused: Refused, begun: bringup.Run, content: str) -> None:
    (begun.folder / "session.json").write_text(content)
    for command in ("ledger", "evaluate", "report"):
        assert "session.json: is damaged" in refused(command, str(begun.folder))


def test_an_unfinished_run_has_no_policy_to_show(refused: Refused, begun: bringup.Run) -> None:
    for command in ("evaluate", "report"):
        assert "its training is not finished" in refused(command, str(begun.folder))


def test_a_run_that_recorded_nothing_has_no_ledger(refused: Refused, begun: bringup.Run) -> None:
    assert "ledger.jsonl: cannot be read" in refused("ledger", str(begun.folder))
