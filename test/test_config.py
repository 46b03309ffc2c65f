"""A configuration under which a run would wait for ever is refused when it is read, and what it names is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from safe_support_ql import config, robots

CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    # robot, what is refused, words of the refusal, and the nearest settings that are accepted
    ("diff_drive", {"horizon": 0.2}, "horizon is 0.2 s, must be at least 0.9 s", {"horizon": 0.9}),
    ("diff_drive", {"drive_timeout": 2.0}, "horizon is 1.5 s, must be at least 2.65 s",
     {"drive_timeout": 2.0, "horizon": 2.65}),
    ("diff_drive", {"policy_rays": 181}, "policy_rays is 181, must be at most scan_rays = 180", {"policy_rays": 180}),
    ("diff_drive", {"acceleration": 0.1, "horizon": 10.0, "terminal_speed": 0.001, "scan_rays": 1440,
                    "obstacle_half_width_min": 2.0, "obstacle_half_width_max": 2.0, "braking_mismatch": 0.9},
     "takes more than 10 s: lower speed, or raise acceleration", {}),
    ("cart_pole", {"start_speed": 1.0}, "at the start x = 0.6, .*; start_range, start_angle, start_speed "
     "times 0.4 would do", {"start_range": 0.24, "start_angle": 0.012, "start_speed": 0.4}),
    ("cart_pole", {"start_angle": 0.178, "start_range": 0.922}, "x = 0.922, .* times 0.6 would do",
     {"start_range": 0.553, "start_angle": 0.106, "start_speed": 0.03}),
    ("diff_drive", {"input_age": 0.02}, "input_age is 0.02 s, must be at least 0.125 s", {"input_age": 0.125}),
    ("diff_drive", {"footprint_radius": 1.0}, "footprint_radius = 1 m, .* must be 0.707 m less",
     {"footprint_radius": 0.293}),
    ("diff_drive", {"band": 0.5}, "band = 0.5 m and margins must be 0.337 m less",
     {"band": 0.163, "speed": 0.5, "speed_margin": 0.4}),
    ("diff_drive", {"corridor": 0.3}, "corridor is 0.3 m, must be at least 0.375 m", {"corridor": 0.375}),
    ("diff_drive", {"speed_margin": 0.2}, "speed_margin is 0.2 m/s, so that full speed is never certified; 0.228",
     {"speed_margin": 0.228}),
    ("diff_drive", {"turn_margin": 0.7}, "turn_margin is 0.7 rad/s, so that full speed is never certified",
     {"turn_margin": 0.75}),
    ("diff_drive", {"scan_range": 1.0}, "scan_range is 1 m, must be at least 1.659 m", {"scan_range": 1.659}),
    ("diff_drive", {"dead_zone": 0.5, "speed": 0.3}, "dead_zone is 0.5 m/s, must be at most speed = 0.3 m/s",
     {"dead_zone": 0.3, "speed": 0.3}),
    ("diff_drive", {"speed": 3.0, "scan_rays": 720, "horizon": 5.0, "scan_range": 100.0, "arena_side": 7.0},
     "arena_side is 7 m, must be at least 7.979 m: a stop",
     {"speed": 2.6, "speed_margin": 0.7, "scan_rays": 720, "horizon": 5.0, "scan_range": 100.0, "arena_side": 7.979}),
    ("diff_drive", {"arena_side": 4.0, "corridor": 0.9}, "arena_side is 4 m, must be at least 4.053 m",
     {"arena_side": 4.053, "corridor": 0.9, "start_goal_distance": 2.0}),
    ("diff_drive", {"obstacles_min": 20}, "obstacles_min is 20, must be at most obstacles_max = 14",
     {"obstacles_min": 14}),
    ("diff_drive", {"obstacle_half_width_min": 0.3}, "obstacle_half_width_min is 0.3 m, must be at most",
     {"obstacle_half_width_min": 0.16}),
    ("diff_drive", {"start_goal_distance": 10.0}, "start_goal_distance is 10 m, must be at most 8.909 m",
     {"start_goal_distance": 8.909}),
    ("diff_drive", {"gate.request_deadline_s": 0.11}, "request_deadline_s is 0.11 s, must be at most 0.1 s",
     {"gate.request_deadline_s": 0.1}),
    ("diff_drive", {"gate.latch_after_s": 0.05}, "latch_after_s is 0.05 s, must be 0.1 s at least",
     {"gate.latch_after_s": 0.1}),
    ("diff_drive", {"gate.recorder_timeout_s": 0.3}, "recorder_timeout_s is 0.3 s, must lie in .0.4, 60",
     {"gate.recorder_timeout_s": 0.4}),
    ("cart_pole", {"input_age": 0.02}, "input_age is 0.02 s, must be at least 0.025 s", {"input_age": 0.025}),
]  # fmt: skip


def load(robot: str, changes: dict[str, Any]) -> config.Config:
    return config.load_robot(robot, {k if "." in k else f"parameters.{k}": v for k, v in changes.items()})


@pytest.mark.parametrize(("robot", "wrong", "words", "right"), CASES)
def test_what_would_wait_for_ever_is_refused_and_the_nearest_that_works_is_not(
    robot: str, wrong: dict[str, Any], words: str, right: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        load(robot, wrong)
    assert "\n" not in str(refusal.value)
    load(robot, right)


@pytest.mark.parametrize("name", config.profiles())
def test_a_profile_is_a_configuration_that_certifies_something(name: str) -> None:
    assert config.load(config.profile(name)).robot.name in robots.names()


@pytest.mark.parametrize("name", [None, *config.profiles()])
def test_a_base_learns_over_about_a_metre_and_its_temperature_fits_what_a_tick_earns(name: str | None) -> None:
    """Both are per control tick, so a slower base needs its own: with those of no base it learns nothing."""
    settings = config.load_robot("diff_drive") if name is None else config.load(config.profile(name))
    parameters: Any = settings.robot.parameters
    step = parameters.speed * settings.robot.period  # m
    assert 0.9 < step / (1.0 - settings.learner.gamma) < 2.0
    assert 0.08 < settings.learner.alpha / (parameters.reward_progress * step) < 0.2


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="profile is 'none', must be one of: turtlebot3_burger"):
        config.profile("none")


@pytest.mark.parametrize("goal", [[1.0], [1.0, 2.0, 0.0], []])
def test_a_goal_of_another_size_is_refused_before_any_process_starts(goal: list[float]) -> None:
    with pytest.raises(ValueError, match=r"run: goals has .*; each must have 2 numbers, as 'goal_pose' has"):
        config.load_robot("diff_drive", {"run.goals": [[1.0, 2.0], goal]})
    assert config.load_robot("diff_drive", {"run.goals": [[1.0, 2.0]]}).run.goals == ((1.0, 2.0),)


def test_a_refusal_of_the_last_check_names_the_configuration() -> None:
    lean = {"between_members": 0.5, "centre_span": 0.0, "band": 0.4, "start_range": 0.0, "start_angle": 0.0}
    load("cart_pole", lean)
    with pytest.raises(ValueError, match="with .*: parameters: nothing can be certified even at rest .* 'lean'"):
        load("cart_pole", lean | {"band": 0.5})


@pytest.mark.parametrize("values", ["parameters: [1, 2]", "parameters: 5"])
def test_a_section_that_holds_no_keys_is_refused(values: str, tmp_path: Path) -> None:
    (file := tmp_path / "own.yaml").write_text(f"robot: diff_drive\n{values}\n")
    with pytest.raises(ValueError, match="own.yaml: parameters: expected one 'key: value' per line"):
        config.load(file, {"parameters.speed": 0.4})


def test_an_empty_section_and_the_robot_as_a_section(tmp_path: Path) -> None:
    (file := tmp_path / "own.yaml").write_text("robot: diff_drive\nparameters:\n")
    assert config.load(file, {"parameters.speed": 0.4}).raw["parameters"] == {"speed": 0.4}
    with pytest.raises(ValueError, match="--set robot.x: expected section.key=value"):
        config.load(file, {"robot.x": 1})


def test_files_are_found_where_pip_alone_put_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No source tree beside the package, and no ROS active."""
    (share := tmp_path / "share/safe_support_ql/config").mkdir(parents=True)
    (share / "other.yaml").touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    assert config.shipped("other.yaml") == share / "other.yaml"


@pytest.mark.parametrize("robot", ["diff_drive", "cart_pole"])
def test_a_shipped_configuration_lists_every_setting(robot: str) -> None:
    """Its first line says so, and a user's own file is a copy of it."""
    raw = yaml.safe_load(config.default_path(robot).read_text())
    parts = {"parameters": type(config.load_robot(robot).robot.parameters), **config.PARTS}
    for name, part in parts.items():
        assert {field.name for field in dataclasses.fields(part)} == set(raw[name]), name
