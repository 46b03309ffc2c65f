"""Bad input: one line that names the file, the key and what would be right; exit status 2; nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from safe_support_ql import bringup, cli, config
from safe_support_ql.deployment.manifest import Manifest, encode_manifest
from safe_support_ql.experiments import faults

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command in an empty folder; its one line, after checking that it is the only one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        said = capsys.readouterr()
        assert left.value.code == 2
        assert not said.out and said.err.startswith("error: ") and said.err.count("\n") == 1, said
        return said.err

    return run


@pytest.fixture
def begun(tmp_path: Path) -> bringup.Run:
    """A run that was prepared and recorded nothing."""
    return bringup.create_run(tmp_path / "runs", config.load_robot("diff_drive"), seed=3)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--robot", "unicycle"], ["unknown robot 'unicycle'", "cart_pole, diff_drive"]),
        (
            ["train", "--set", "gate.colour=red"],
            ["diff_drive.yaml with gate.colour=red: gate: unknown key", "latch_after_s"],
        ),
        (["train", "--set", "parameters.sped=1"], ["parameters.sped=1: parameters: unknown key", "did you mean speed"]),
        (["train", "--set", "wheels.size=1"], ["wheels.size", "sections:", "gate"]),
        (["train", "--set", "gate.latch_after_s"], ["gate.latch_after_s", "section.key=value"]),
        (["train", "--set", "gate.latch_after_s=-1"], ["gate: latch_after_s is -1", "[0.05, 60]"]),
        (["train", "--set", "parameters.speed=fast"], ["parameters: speed is 'fast'", "finite number"]),
        (["train", "--ticks", "0"], ["run: ticks is 0", "[1, 1e+08]"]),
        (["train", "--ticks", "many"], ["--ticks", "'many'"]),
        (["faults", "--robot", "unicycle"], ["unknown robot 'unicycle'", "cart_pole, diff_drive"]),
        (["faults", "--only", "earthquake"], ["--only earthquake", "--list"]),
        (["faults", "--json", "nowhere/f.json"], ["nowhere/f.json", "cannot be written"]),
        (["train", "--seed", "900"], ["--seed is 900", "[0, 799]"]),
        (["train", "--actions", "both"], ["--actions", "discrete", "continuous"]),
        (["train", "--config", "none.yaml"], ["none.yaml: cannot be read"]),
        (["train", "--resume", "runs/none"], ["runs/none", "give the folder of a run"]),
        (["train", "--resume", "runs/none", "--seed", "1"], ["--seed cannot be changed with --resume"]),
        (["train", "--resume", "runs/none", "--set", "gate.latch_after_s=1"], ["--set gate.latch_after_s=1 cannot"]),
        (["simulate", "--policy", "none.onnx"], ["none.onnx: no such policy", "behavior, none"]),
        (["simulate", "--policy", "clever"], ["clever: no such policy", "behavior, none"]),
        (["evaluate", "runs/none"], ["runs/none", "give the folder of a run"]),
        (["evaluate", "runs/none", "--json", "nowhere/rows.json"], ["nowhere/rows.json", "cannot be written"]),
        (["falsify", "--mismatch", "none"], ["no mismatch 'none'", "nominal"]),
        (["falsify", "--out", "/proc/nowhere"], ["/proc/nowhere", "cannot be written"]),
        (["report", "runs/none"], ["runs/none", "give the folder of a run"]),
        (["simulate", "--episodes", "-1"], ["--episodes is -1", "0 or more"]),
        (["ledger", "runs/none"], ["runs/none", "give the folder of a run"]),
        (["fly"], ["fly"]),
    ],
)
def test_one_line_says_what_is_wrong_and_what_would_be_right(
    refused: Refused, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    said = refused(*arguments)
    assert not [part for part in parts if part not in said], said
    assert not list(tmp_path.iterdir())


def test_a_damaged_configuration_is_named(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("robot: [diff_drive\n")
    assert "mine.yaml: is no YAML" in refused("train", "--config", str(path))
    path.write_text("robot: cart_pole\n")
    assert "--robot says 'diff_drive'" in refused("train", "--config", str(path), "--robot", "diff_drive")


def test_a_folder_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused("train", "--runs-dir", "file/runs")
    assert "file/runs: cannot be written" in said and "--runs-dir" in said


@pytest.mark.parametrize(("key", "value"), [("robot", "cart_pole"), ("safety_sha256", "0"), ("policy_sha256", "0")])
def test_a_model_of_something_else_is_refused(refused: Refused, tmp_path: Path, key: str, value: str) -> None:
    settings = config.load_robot("diff_drive")
    model = tmp_path / "policy.onnx"
    model.write_bytes(b"graph")
    facts = {
        "robot": "diff_drive", "observation_names": ["x"], "observation_units": ["m"], "action_names": ["v"],
        "action_units": ["m/s"], "candidates": 3, "candidate_layout": "lattice", "alpha": 0.1, "gamma": 0.9,
        "seeds": [0], "git_revision": "-", "package_version": "0", "created": "-",
        "policy_sha256": hashlib.sha256(b"graph").hexdigest(), "safety_sha256": settings.safety_hash, "training": {},
    }  # fmt: skip
    (tmp_path / "policy.json").write_bytes(encode_manifest(Manifest(**(facts | {key: value}))))
    said = refused("simulate", "--policy", "policy.onnx")
    assert f"'{key}' is '{value}', must be" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["session.json", "config.yaml", "ledger.jsonl", "journal.bin"])
def test_a_damaged_run_is_not_resumed(refused: Refused, begun: bringup.Run, name: str) -> None:
    (begun.folder / name).write_bytes(b'{"\n{"seq": 1}\n' + b" " * 5000)
    assert name in refused("train", "--resume", str(begun.folder))


@pytest.mark.parametrize("command", [["ledger"], ["evaluate"], ["report"], ["train", "--resume"]])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("session.json", None, "cannot be read (No such file or directory); give the folder of a run"),
        ("session.json", b"{", "is damaged (Expecting"),
        ("session.json", b"\xff", "is damaged ("),
        ("session.json", b"[]", "is damaged ("),
        ("session.json", b'{"colour": 1}', "'colour'"),
        ("config.yaml", None, "cannot be read (No such file or directory)"),
        ("config.yaml", b"robot: [x", "is no YAML"),
    ],
)
def test_every_command_opens_a_run_in_the_same_way(
    refused: Refused, begun: bringup.Run, command: list[str], name: str, content: bytes | None, said: str
) -> None:
    path = begun.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    line = refused(*command, str(begun.folder))
    assert str(path) in line and said in line


def test_an_unfinished_run_has_no_policy_to_show(refused: Refused, begun: bringup.Run) -> None:
    for command in ("evaluate", "report"):
        assert "training has yet to be resumed" in refused(command, str(begun.folder))


def test_a_resumed_run_is_not_cut_short(refused: Refused, begun: bringup.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun.config_file.read_text()
    opened = bringup.open_run(begun.folder)
    monkeypatch.setattr(bringup, "open_run", lambda folder: (*opened[:2], replace(opened[2], ticks=1853)))
    assert "1853 are collected" in refused("train", "--resume", str(begun.folder), "--ticks", "100")
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


def test_help_comes_at_once() -> None:
    """Nothing heavy is imported for it."""
    code = (
        "import sys; from safe_support_ql import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "heavy = {'numpy', 'torch', 'rclpy', 'scipy', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout


def test_the_run_folder_holds_the_configuration_as_used(begun: bringup.Run) -> None:
    run, settings, where = bringup.open_run(begun.folder)
    assert run == begun and where.ticks == 0 and where.first_sequence == 0
    assert settings.safety_hash == config.load_robot("diff_drive").safety_hash
    assert json.loads((begun.folder / "session.json").read_text())["seed"] == 3
    assert "latch_after_s" in begun.config_file.read_text()  # defaults, too: they may change later


@pytest.mark.parametrize(("visits", "status"), [(0, 0), (1, 1)])
def test_the_fault_campaign_ends_with_a_table_json_and_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, visits: int, status: int
) -> None:
    """The graph is not started here: test/system/test_faults.py plays faults on it."""

    def play(settings: object, phase: str, picked: list[faults.Fault], runs: Path, show: Callable[..., None]) -> None:
        for fault in picked:
            seen = faults.Seen([(0.001, "request", "")], logs=[(0.001, fault.cause)], refused=1, visits=visits)
            show(faults.judge(fault, replace(seen, state="nominal"), "cart_pole", phase))

    monkeypatch.setattr(cli, "play", play)
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
