"""Bad input to any command: one line that names the mistake and what would be right; exit status 2; nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_support_ql import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["COMMAND", "safe-support-ql --help"]),
        (["fly"], ["fly", "'train', 'simulate'"]),
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
        (["train", "--ticks", "0"], ["error: --ticks: must be a whole number of at least 1, not '0'"]),
        (["train", "--ticks", "many"], ["--ticks: must be a whole number", "'many'"]),
        (["train", "--ticks", "1000000000"], ["run: ticks is 1000000000", "[1, 1e+08]"]),
        (["train", "--seed", "900"], ["--seed: must be a whole number in [0, 799], not '900'"]),
        (["train", "--actions", "both"], ["--actions", "discrete", "continuous"]),
        (["train", "--config", "none.yaml"], ["none.yaml: cannot be read"]),
        (["train", "--resume", "runs/none"], ["runs/none: is not the folder of a run"]),
        (["train", "--resume", "runs/none", "--seed", "1"], ["--seed cannot be changed with --resume"]),
        (["train", "--resume", "runs/none", "--set", "gate.latch_after_s=1"], ["--set gate.latch_after_s=1 cannot"]),
        (["train", "--from-bag", "none"], ["none: cannot be read as a bag"]),
        (["replay", "none"], ["none: cannot be read as a bag"]),
        (["bag", "runs/none"], ["runs/none: is not the folder of a run"]),
        (["simulate", "--policy", "none.onnx"], ["none.onnx: no such policy", "behavior, none"]),
        (["simulate", "--policy", "clever"], ["clever: no such policy", "behavior, none"]),
        (["simulate", "--episodes", "-1"], ["--episodes: must be a whole number of at least 0, not '-1'"]),
        (["operator"], ["ACTION", "safe-support-ql operator --help"]),
        (["operator", "fly"], ["'fly'", "'watch', 'e-stop'"]),
        (["operator", "cap", "0"], ["SHARE: must be a number above 0, at most 1, not '0'"]),
        (["operator", "goal", "nan", "1"], ["X: must be a finite number, not 'nan'"]),
        (["operator", "--namespace", "3a", "reset"], ["--namespace /3a: ", "must not have a token that starts with"]),
        (["operator", "dead-man"], ["dead-man needs a terminal"]),
        (["ledger"], ["RUN", "safe-support-ql ledger --help"]),
        (["ledger", "runs/none"], ["runs/none: is not the folder of a run", "give runs/<robot>-<time>"]),
        (["evaluate", "runs/none"], ["runs/none: is not the folder of a run"]),
        (["evaluate", "runs/none", "--workers", "0"], ["--workers: must be a whole number of at least 1"]),
        (["evaluate", "runs/none", "--json", "nowhere/rows.json"], ["nowhere/rows.json", "cannot be written"]),
        (["report", "runs/none"], ["runs/none: is not the folder of a run"]),
        (["faults", "--robot", "unicycle"], ["unknown robot 'unicycle'", "cart_pole, diff_drive"]),
        (["faults", "--config", "none.yaml"], ["none.yaml: cannot be read"]),
        (["faults", "--set", "gate.colour=red"], ["gate: unknown key 'colour'"]),
        (["faults", "--only", "earthquake"], ["--only earthquake", "--list"]),
        (["faults", "--json", "nowhere/f.json"], ["nowhere/f.json", "cannot be written"]),
        (["falsify", "--mismatch", "none"], ["no mismatch 'none'", "nominal"]),
        (["falsify", "--config", "none.yaml"], ["none.yaml: cannot be read"]),
        (["falsify", "--steps", "0"], ["--steps: must be a whole number of at least 1"]),
        (["falsify", "--out", "/proc/nowhere"], ["/proc/nowhere", "cannot be written"]),
        (["calibrate", "--episodes", "0"], ["--episodes: must be a whole number of at least 1, not '0'"]),
        (["calibrate", "--set", "parameters.margin_growth=0"], ["margin_growth is 0, must be above 0"]),
        (["calibrate", "--robot", "unicycle"], ["unknown robot 'unicycle'"]),
    ],
)
def test_one_line_says_what_is_wrong_and_what_would_be_right(
    refused: Callable[..., str], tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    said = refused(*arguments)
    assert not [part for part in parts if part not in said], said
    assert not list(tmp_path.iterdir())


def test_help_comes_at_once() -> None:
    """Nothing heavy is imported for it."""
    code = (
        "import sys; from safe_support_ql import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "heavy = {'numpy', 'torch', 'rclpy', 'scipy', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout


def test_the_package_starts_as_a_module() -> None:
    command = [sys.executable, "-m", "safe_support_ql.cli", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: safe-support-ql ")
    assert not [
        command
        for command in cli.COMMANDS
        if f"    {command.__name__.rpartition('.')[2].replace('_', '-')}" not in done.stdout
    ]


def test_a_fault_of_the_program_does_not_look_like_an_unsafe_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> int:
        raise TypeError("a mistake")

    monkeypatch.setattr(cli.report, "run", broken)
    with pytest.raises(SystemExit) as left:
        cli.main(["report", "runs/none"])
    assert left.value.code == 3
