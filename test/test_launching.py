"""What the launch files share, as far as it needs no `launch`: their arguments, and the run that these ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_support_ql import bringup, config, launching, robots

FILES = {"train": launching.TRAIN, "simulate": launching.SIMULATE}


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
    again, _ = launching.train(values("train", resume=run.folder, ticks=9, seed=5))
    assert again == run, "a run that goes on keeps its seed"
    assert config.load(run.config_file).run.ticks == 9


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
        ("simulate", {"config": "no.yaml"}, "no.yaml"),
    ],
)
def test_bad_input_is_refused_by_name(file: str, given: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        getattr(launching, file)(values(file, runs_dir=tmp_path, **given))
    assert not list(tmp_path.iterdir()), "a run that is refused leaves no folder"
