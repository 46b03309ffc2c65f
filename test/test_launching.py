"""What the launch files share, as far as it needs no `launch`: their arguments, and the run that these ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_support_ql import bringup, config, launching, robots
from safe_support_ql.recording.summary import Progress

FILES = {
    "train": launching.TRAIN,
    "simulate": launching.SIMULATE,
    "deploy": launching.DEPLOY,
    "validate": launching.VALIDATE,
}


def values(file: str, **given: object) -> dict[str, str]:
    """What the launch file `file` would hand on."""
    return {item.name: item.default for item in FILES[file]} | {name: str(value) for name, value in given.items()}


@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_described_once_and_its_default_is_a_choice(file: str) -> None:
    names = [item.name for item in FILES[file]]
    assert len(set(names)) == len(names)
    for item in FILES[file]:
        assert item.doc and (not item.choices or item.default in item.choices), item.name
    closed = {item.name: item.choices for item in FILES[file] if item.choices}
    assert closed["robot"] == robots.names() and set(closed["actions"]) == {"discrete", "continuous"}


def test_train_makes_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    run, progress = launching.train(values("train", runs_dir=tmp_path, seed=3, actions="continuous", ticks=7))
    assert (run.kind, run.clock, run.seed, run.continuous, progress.ticks) == ("train", "lockstep", 3, True, 0)
    assert config.load(run.config_file).run.ticks == 7
    again, _ = launching.train(values("train", resume=run.folder, ticks=9))
    assert again == run, "a run that goes on keeps its seed"
    assert config.load(run.config_file).run.ticks == 9
    with pytest.raises(ValueError, match="actions, seed: a resumed run keeps its own"):
        launching.train(values("train", resume=run.folder, seed=5, actions="continuous"))


def test_a_run_on_a_robot_has_no_simulator(tmp_path: Path) -> None:
    run, _ = launching.train(values("train", runs_dir=tmp_path, mode="hardware", stamped_cmd="false"))
    assert run.on_hardware and run.clock == "realtime" and "task" in run.nodes and "simulator" not in run.nodes
    told = {node: bringup.parameters(node, run, Progress()) for node in run.nodes}
    assert not told["safety_monitor"]["simulated"] and not told["safety_monitor"]["stamped_cmd"]
    assert told["recorder"]["judged_by"] == "its sensors"
    assert bringup.environment_of(run, {"ROS_STATIC_PEERS": "robot.lab"}) == ({}, [], None), "the robot must be found"
    with pytest.raises(ValueError, match="stamped_cmd"):
        launching.train(values("train", runs_dir=tmp_path, stamped_cmd="false"))


def test_simulate_makes_a_run_in_real_time(tmp_path: Path) -> None:
    run, _ = launching.simulate(values("simulate", runs_dir=tmp_path, robot="cart_pole", episodes=2, gui="true"))
    assert (run.kind, run.clock, run.policy, run.episodes, run.gui) == ("simulate", "realtime", "behavior", 2, True)
    assert bringup.open_run(run.folder)[1].robot.name == "cart_pole"


@pytest.mark.parametrize(
    ("file", "given", "named"),
    [
        ("train", {"ticks": "many"}, "ticks"),
        ("train", {"resume": "nowhere"}, "is not the folder of a run"),
        ("simulate", {"policy": "no.onnx"}, "no.json"),
        ("deploy", {"model": "no.onnx"}, "no.json"),
        ("deploy", {}, "model is empty"),
        ("simulate", {"config": "no.yaml"}, "no.yaml"),
        ("train", {"robot": "cart_pole", "profile": "turtlebot4"}, "this configuration is of 'diff_drive'"),
    ],
)
def test_bad_input_is_refused_by_name(file: str, given: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        getattr(launching, file)(values(file, runs_dir=tmp_path, **given))
    assert not list(tmp_path.iterdir()), "a run that is refused leaves no folder"


def test_validate_is_the_command_of_the_same_name(tmp_path: Path) -> None:
    model = tmp_path / "policy.onnx"
    with pytest.raises(ValueError, match="no such policy"):
        launching.validate(values("validate", model=model))
    model.touch()
    asked = launching.validate(values("validate", model=model, profile="turtlebot3_burger", workers=1))
    assert asked == [
        "validate", str(model), "--profile", "turtlebot3_burger", "--actions", "discrete", "--workers", "1",
    ]  # fmt: skip
    asked = launching.validate(values("validate", model=model, robot="cart_pole"))
    assert asked[2:] == ["--robot", "cart_pole", "--actions", "discrete", "--workers", "2"]


def test_a_person_steers_a_robot_only_and_a_shadow_needs_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="teleop is for mode:=hardware"):
        launching.train(values("train", runs_dir=tmp_path, teleop="true"))
    run, _ = launching.train(values("train", runs_dir=tmp_path, teleop="true", mode="hardware"))
    assert "teleoperation" in run.nodes and "behavior_policy" not in run.nodes
