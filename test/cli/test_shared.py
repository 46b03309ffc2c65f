"""The configuration that options ask for, and opening a run to read it."""

from __future__ import annotations

import argparse
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
    assert "mine.yaml: is not YAML" in refused(command, "--config", str(path))
    path.write_text("robot: cart_pole\n")
    assert "--robot says 'diff_drive'" in refused(command, "--config", str(path), "--robot", "diff_drive")


def test_reading_a_run_writes_nothing(begun: bringup.Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in begun.folder.rglob("*")}
    run, settings = bringup.read_run(begun.folder)
    assert run == begun and settings.safety_hash == config.load_robot("diff_drive").safety_hash
    assert {path: path.stat().st_mtime_ns for path in begun.folder.rglob("*")} == before


@pytest.mark.parametrize("command", [["ledger"], ["evaluate"], ["report"], ["train", "--resume"]])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("session.json", None, "is not the folder of a run; give runs/<robot>-<time>"),
        ("session.json", b"{", "session.json: is damaged (Expecting"),
        ("session.json", b"\xff", "session.json: is damaged ("),
        ("session.json", b"[]", "session.json: is damaged ("),
        ("session.json", b'{"colour": 1}', "'colour'"),
        ("config.yaml", None, "config.yaml: cannot be read (No such file or directory)"),
        ("config.yaml", b"robot: [x", "config.yaml: is not YAML"),
    ],
)
def test_every_command_opens_a_run_in_the_same_way(
    refused: Refused, begun: bringup.Run, command: list[str], name: str, content: bytes | None, said: str
) -> None:
    path = begun.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    line = refused(*command, str(begun.folder))
    assert str(begun.folder) in line and said in line


def test_an_unfinished_run_has_no_policy_to_show(refused: Refused, begun: bringup.Run) -> None:
    for command in ("evaluate", "report"):
        assert "its training is not finished" in refused(command, str(begun.folder))


def test_a_run_that_recorded_nothing_has_no_ledger(refused: Refused, begun: bringup.Run) -> None:
    assert "ledger.jsonl: cannot be read" in refused("ledger", str(begun.folder))
