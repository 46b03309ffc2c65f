"""Claims are optional: what a robot does not claim is refused by name, and never tried as another robot's."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import beyond, calibrate, falsify, kernel, margins, worlds
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.claims import Claims

SILENT = """
from safe_support_ql.robots.cart_pole import robot


class Silent(robot.CartPole):
    name = "silent"


def make(parameters, where):
    return Silent(robot.make(parameters, where).parameters)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a robot that claims nothing."""
    path = tmp_path / "silent"
    path.mkdir()
    (path / "__init__.py").touch()
    (path / "robot.py").write_text(SILENT)
    robots.__path__.append(str(tmp_path))
    yield path
    robots.__path__.remove(str(tmp_path))
    for module in [name for name in sys.modules if name.startswith("safe_support_ql.robots.silent")]:
        del sys.modules[module]
    importlib.invalidate_caches()


def silent() -> Robot:
    return robots.make("silent", {})


def test_a_robot_without_claims_is_refused_by_every_experiment(folder: Path, tmp_path: Path) -> None:
    robot, raw = silent(), {"robot": "silent"}
    assert robots.claims_of(robot) == Claims() and worlds.names(robot) == ("nominal",)
    settings = config.parse(raw, "configuration")
    shards = falsify.plan(raw, ["nominal"], 10)
    refused = {
        "falsify": lambda: falsify.campaign(shards, tmp_path / "shards"),
        "falsify --margins": lambda: margins.run(robot),
        "calibrate": lambda: calibrate.calibrate(settings, 1),
        "benchmarks/mismatch.py": lambda: beyond.singly(robot),
        "benchmarks/kernel.py": lambda: kernel.outer_kernel(robot, 0, 2, 2),
    }
    for command, play in refused.items():
        with pytest.raises(ValueError) as caught:
            play()
        expected = f"robot 'silent' makes no claims: {command} needs robots/silent/claims.py, see docs/add_a_robot.md"
        assert str(caught.value) == expected
    with pytest.raises(ValueError, match="makes no claims: falsify"):
        falsify.bounds(robot, [])
    assert not (tmp_path / "shards").exists()


def test_a_few_claims_suffice_and_a_part_that_is_missing_is_named(folder: Path) -> None:
    (folder / "claims.py").write_text(
        textwrap.dedent("""
            from safe_support_ql.robots.claims import Claims, Search

            def claims(robot):
                return Claims(mismatches={"force_weak": {"gain": 0.9}}, search=Search())
        """)
    )
    importlib.invalidate_caches()
    robot = silent()
    assert worlds.names(robot) == ("nominal", "force_weak") and robots.claimed(robot, "search", "falsify").begin is None
    result = falsify.run_shard(falsify.Shard({"robot": "silent"}, "force_weak", "random", 0, 20))
    assert result["counted_steps"] >= 20 and result["unsafe_visits"] == 0
    with pytest.raises(ValueError, match="makes no claim 'kernel': a test needs kernel in robots/silent/claims.py"):
        robots.claimed(robot, "kernel", "a test")


@pytest.mark.parametrize("name", ["diff_drive", "cart_pole"])
def test_claims_name_parameters_and_fields_that_there_are(name: str) -> None:
    robot = config.load_robot(name).robot
    claims = robots.claims_of(robot)
    parameters = set(vars(robot.parameters))
    assert {key for fields in claims.mismatches.values() for key in fields} <= set(vars(robot.world.drive))
    assert set(claims.errors) <= set(robot.world.sensors)
    assert claims.margins and claims.calibration
    assert set(claims.margins.zero) <= parameters
    assert {key for case in claims.margins.cases for key in (*case.own, *case.common)} <= parameters
    spec = claims.calibration
    assert {*spec.model, *spec.growth, *spec.others, *spec.errors, *spec.ensemble.scale} <= parameters
    nominal = robot.model.dynamics.members[0]
    assert np.array_equal(spec.ensemble.member(nominal, np.ones(len(spec.ensemble.names))), nominal)


def test_a_robot_from_outside_is_part_of_the_hash_and_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load_robot("diff_drive")
    ours = settings.safety_hash
    monkeypatch.setattr(robots, "provenance", lambda name: f"{name} 1.0 0123")
    assert settings.safety_hash != ours and falsify.safety_hash(settings) != ours
