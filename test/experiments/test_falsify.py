"""The search for unsafe states: short forms of the campaign and of the table of margins, which can fail."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.experiments import falsify, margins
from safe_support_ql.experiments.worlds import in_world
from safe_support_ql.robots.cart_pole import margins as pole_margins
from safe_support_ql.robots.cart_pole import model as cart_pole
from safe_support_ql.robots.claims import NOMINAL
from safe_support_ql.robots.diff_drive import margins as base_margins
from safe_support_ql.simulation.simulation import Simulation

ROBOTS = ("diff_drive", "cart_pole")
ZERO = {"diff_drive": {**base_margins.ZERO, "drive_timeout": 0.05}, "cart_pole": pole_margins.ZERO}
HARD = {"diff_drive": "ground_fast", "cart_pole": "force_weak"}


def shard(robot: str, mismatch: str = NOMINAL, steps: int = 200, **changes: object) -> falsify.Shard:
    return replace(falsify.Shard(config.load_robot(robot).raw, mismatch, "random", 1, steps), **changes)


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_gate_withstands_the_search_near_the_boundary(robot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(falsify, "EPISODE_S", 3.0)
    result = falsify.run_shard(shard(robot, HARD[robot], 500))
    assert result["counted_steps"] >= 500 and result["unsafe_visits"] == 0, result["visits"]
    assert result["near"] >= 0.2 * result["counted_steps"]
    assert sum(result["histogram"]) == result["counted_steps"] and result["histogram"][0] == 0


def hard_attack(space: falsify.Space, least: float) -> falsify.Floats:
    """Measurements at their bounds to the wrong side, and requests for the action of least margin, or as drawn."""
    attack = np.clip(np.zeros(len(space.low)), space.low, space.high)
    attack[space.part["least" if least else "noise"]] = 1.0
    for name, part in space.part.items():
        if name.startswith("bias"):
            attack[part] = -1.0 if name == "bias odom" else 1.0
    return attack


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_same_attacks_break_a_gate_without_margins_only(robot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(falsify, "EPISODE_S", 3.0)
    visits = {}
    for monitor in ({}, ZERO[robot]):
        duel = falsify.Duel(shard(robot, HARD[robot], monitor=monitor))
        for n in range(8):
            duel.play(hard_attack(duel.space, n % 2))
            if duel.tally.unsafe_visits:
                break
        visits[len(monitor)] = duel.tally
        duel.sim.close()
    with_, without = visits[0], visits[len(ZERO[robot])]
    assert with_.unsafe_visits == 0 and with_.smallest_margin > 0.0
    assert without.unsafe_visits >= 1 and without.smallest_margin < 0.0 and "attack" in without.visits[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"obstacle_speed": 0.3, "walkers": 8},
        {"footprint": [[0.25, 0.18], [-0.25, 0.18], [-0.25, -0.18], [0.25, -0.18]]},
    ],
)
def test_the_gate_withstands_the_search_among_walkers_and_with_corners(changes: dict[str, Any]) -> None:
    wider = {"corridor": 0.75, "obstacles_min": 4, "obstacles_max": 8}
    settings = {f"parameters.{name}": value for name, value in (changes | wider).items()}
    result = falsify.run_shard(
        falsify.Shard(config.load_robot("diff_drive", settings).raw, "nominal", "random", 1, 120)
    )
    assert result["unsafe_visits"] == 0 and result["counted_steps"] >= 120


def test_the_cross_entropy_search_reports_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(falsify, "POPULATION", 5)
    result = falsify.run_shard(shard("cart_pole", kind="search"))
    assert result["unsafe_visits"] == 0 and 0.0 < result["smallest_margin"] < 2.0


@pytest.mark.parametrize(
    ("robot", "margin"),
    [
        ("diff_drive", "motion_mismatch"),
        ("diff_drive", "drive_timeout"),
        ("diff_drive", "age of the state"),
        ("diff_drive", "age of a scan"),
        ("diff_drive", "stamp_error"),
        ("diff_drive", "margin_turn_estimate"),
        ("diff_drive", "between checks, corners"),
        ("cart_pole", "gain_mis"),
        ("cart_pole", "age of"),
    ],
)
def test_a_margin_is_what_keeps_it_safe(robot: str, margin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "EPISODES", 6)
    made = config.load_robot(robot).robot
    case = next(case for case in margins.cases(made) if case.margin.startswith(margin))
    row = margins.run_case(made, case)
    assert row["least_with"] >= 0.0 > row["least_without"] and row["shown"]
    assert margin in margins.table([row])


def test_every_parameter_that_is_a_margin_stands_in_a_table() -> None:
    """And every margin that the method asks for: with a scenario, or with the reason why there is none."""
    for robot in ROBOTS:
        made = config.load_robot(robot).robot
        rows = " ".join(case.margin for case in margins.cases(made))
        named = set(re.findall(r"\w+", rows))
        endings = ("_mismatch", "_error", "_disturbance", "_noise", "_delay", "_timeout", "_swings", "nonlinearity")
        starts = (
            "margin_",
            "between_",
            "band",
            "input_age",
            "scan_age",
            "residual_",
            "scan_residual",
            "scan_disagreement",
        )
        for name in vars(made.parameters):
            if name.endswith(endings) and name != "scan_noise" or name.startswith(starts):
                assert name in named, f"{robot}: {name}"
        for name in ("age of the state", "max_skew_s", "saturation of the plan", "between checks"):
            assert name in rows, f"{robot}: {name}"
        assert "actuation delay" in rows or "command_delay" in named, robot
        assert "W of the comparison" in rows or {"residual_distance", "scan_residual_distance"} <= named, robot
        assert named & {"lidar", "lidar_noise"}, robot


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_table_says_what_is_true_and_what_is_kept(robot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "duel", lambda *_, stamped: 0.0)
    made = config.load_robot(robot).robot
    for case in margins.cases(made):
        text = margins.table([margins.run_case(made, case)]).replace("\n    ", " ")
        assert "the model's own arithmetic" in text.replace("\n", " ")
        for name, value in case.common.items():
            assert (f"corners in '{name}'" if isinstance(value, tuple) else f"{name} {value:g}") in text, text
        assert case.why_not in text and max(map(len, text.splitlines()[:4])) <= 80


def test_an_interrupted_campaign_goes_on_and_a_changed_hash_voids_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    settings = config.load_robot("cart_pole")
    hashes = {"": falsify.safety_hash(settings)}
    hashes["changed"] = falsify.safety_hash(config.load_robot("cart_pole", {"parameters.band": 0.05}))
    assert len(set(hashes.values())) == 2
    now = hashes[""]
    monkeypatch.setattr(falsify, "safety_hash", lambda config: now)

    def play(one: falsify.Shard) -> dict[str, object]:
        calls.append(one.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"name": one.name, "hash": now, "steps": one.steps, "unsafe_visits": 0,
                "counted_steps": one.steps, "wall_s": 1.0}  # fmt: skip

    monkeypatch.setattr(falsify, "run_shard", play)
    shards = falsify.plan(settings.raw, [NOMINAL], 50_000)
    assert [one.name for one in shards if one.kind == "random"] == [f"nominal-random-000{i}" for i in range(3)]
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        falsify.campaign(shards, tmp_path, say=said.append)
    results = falsify.campaign(shards, tmp_path, say=said.append)
    assert [result["name"] for result in results] == [one.name for one in shards]
    assert len(calls) == len(shards) + 1 and not list(tmp_path.glob("*.tmp"))

    # One shard of another safety code, one torn in the middle: both run again, and the first is told of.
    of_old = tmp_path / f"{shards[0].name}.json"
    of_old.write_text(json.dumps(json.loads(of_old.read_text()) | {"hash": "another"}))
    torn = tmp_path / f"{shards[1].name}.json"
    torn.write_text(torn.read_text()[:20])
    calls.clear()
    calls += ["", "", ""]
    falsify.campaign(shards, tmp_path, say=said.append)
    assert calls[3:] == [shards[0].name, shards[1].name]
    assert any(text.startswith("1 shards are void") for text in said)

    # Another configuration voids all of them.
    now = hashes["changed"]
    falsify.campaign(shards, tmp_path, say=said.append)
    assert any(text.startswith(f"{len(shards)} shards are void") for text in said)


def test_a_mismatch_has_the_declared_effect() -> None:
    """The cart-pole's in PyBullet against the model with those parameters; the base's by the distance driven."""
    robot = config.load_robot("cart_pole").robot
    factors = {
        "cart_heavy": (1.18, 1, 1, 1, 1, 1, 1), "pole_heavy": (1, 1.18, 1, 1.18, 1, 1, 1),
        "pole_short": (1, 0.82, 0.82, 0.82**3, 1, 1, 1), "force_weak": (1, 1, 1, 1, 0.82, 1, 1),
        "damping_high": (1, 1, 1, 1, 1, 1.18, 1),
    }  # fmt: skip
    assert set(factors) == set(robots.claims_of(robot).mismatches)
    rng = np.random.default_rng(0)
    for name, factor in factors.items():
        world = Simulation(in_world(robot, name, exact=True)).world
        world.reset(rng, 0)
        member = tuple(robot.model.dynamics.members[0] * factor)
        for _ in range(20):
            z, force = rng.uniform(-1.0, 1.0, 4) * [1.0, 0.2, 1.5, 1.5], rng.uniform(-10.0, 10.0)
            world.set_state(z)
            world.command(np.array([force]))
            world.step()
            expected = cart_pole.step(tuple(z), (force,), member, 1 / cart_pole.PHYSICS_HZ)
            # A pole 18 % shorter keeps its thickness, so its inertia is not quite the cube.
            assert np.abs(world.truth() - expected).max() < (2e-4 if name == "pole_short" else 1e-8), name
        world.close()

    base = config.load_robot("diff_drive").robot
    assert len(robots.claims_of(base).mismatches) == 5
    for name, distance, turn in (("ground_fast", 1.16, 1.0), ("turn_slow", 1.16, 0.84)):
        sim = Simulation(in_world(base, name, exact=True))
        sim.reset(1)
        for _ in range(10):
            sim.tick(np.array([0.3, 0.5]))
        odom, truth = sim.sense()["odom"], sim.world.truth()
        assert truth[3] / odom[4] == pytest.approx(distance, rel=0.02)
        assert truth[4] / odom[5] == pytest.approx(turn, rel=0.05)
        sim.close()


def test_only_independent_trials_of_the_random_search_are_bounded() -> None:
    shards = [
        {"mismatch": "nominal", "kind": kind, "episodes": 150, "latched": 1, "unsafe_visits": 0}
        for kind in ("random", "random", "search")
    ]
    text = falsify.bounds(config.load_robot("diff_drive").robot, shards)
    assert "0 of 300 unsafe, below 9.9e-03" in text and "2 of 300 episodes latched" in text
    assert "0 of 2 unsafe" in falsify.bounds(config.load_robot("cart_pole").robot, shards), "its episodes are not"


def test_a_search_that_stays_away_from_the_boundary_shows_too_little() -> None:
    near, far = {"near": 30, "counted_steps": 100}, {"near": 0, "counted_steps": 100}
    assert not falsify.objection([near]) and "only 15.0%" in falsify.objection([near, far])
