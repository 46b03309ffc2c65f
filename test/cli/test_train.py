"""What `train` refuses before anything starts, and how a run is resumed. test/system/test_train.py plays runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from safe_support_ql import bringup, config

Refused = Callable[..., str]


def test_a_folder_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused("train", "--runs-dir", "file/runs")
    assert "file/runs: cannot be written" in said and "--runs-dir" in said


@pytest.mark.parametrize("name", ["session.json", "config.yaml", "ledger.jsonl", "journal.bin"])
def test_a_damaged_run_is_not_resumed(refused: Refused, begun: bringup.Run, name: str) -> None:
    (begun.folder / name).write_bytes(b'{"\n{"seq": 1}\n' + b" " * 5000)
    assert name in refused("train", "--resume", str(begun.folder))


def test_a_resumed_run_is_not_cut_short(refused: Refused, begun: bringup.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun.config_file.read_text()
    opened = bringup.open_run(begun.folder)
    monkeypatch.setattr(bringup, "open_run", lambda folder: (*opened[:2], replace(opened[2], ticks=1853)))
    assert "the run has collected 1853" in refused("train", "--resume", str(begun.folder), "--ticks", "100")
    assert begun.config_file.read_text() == before


def test_how_to_resume_names_a_command_that_is_there(begun: bringup.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begun.folder.parent)
    monkeypatch.setenv("PATH", "/nowhere")
    program = Path(sys.executable).with_name("safe-support-ql")
    named, *arguments = begun.how_to_resume.split()
    assert arguments == ["train", "--resume", begun.folder.name]
    assert named == (str(program) if program.exists() else "safe-support-ql")


def test_a_run_has_one_user(refused: Refused, begun: bringup.Run) -> None:
    with filelock.FileLock(begun.folder / ".lock"):
        assert "another process works in it" in refused("train", "--resume", str(begun.folder))


def test_the_run_folder_holds_the_configuration_as_used(begun: bringup.Run) -> None:
    run, settings, where = bringup.open_run(begun.folder)
    assert run == begun and where.ticks == 0 and where.first_sequence == 0
    assert settings.safety_hash == config.load_robot("diff_drive").safety_hash
    assert json.loads((begun.folder / "session.json").read_text())["seed"] == 3
    assert "latch_after_s" in begun.config_file.read_text()  # also defaults, which may change later
