"""A robot of somebody else: an installed package that announces itself by an entry point, and nothing in this one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql import config, robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.experiments import beyond, falsify, kernel
from safe_support_ql.experiments.adversary import ROUNDING
from safe_support_ql.experiments.episodes import play
from safe_support_ql.safety.gate import Gate, GateConfig
from safe_support_ql.simulation.simulation import Simulation

OURS = ("diff_drive", "cart_pole")
BRAKE = """

def brake(x):
    return 0.0 * x[1]
"""


def test_an_installed_package_is_found_by_its_entry_point(toy: Path) -> None:
    settings = config.load_robot("toy")
    assert {*OURS, "toy"} <= set(robots.names())
    assert robots.folder("toy") == toy and config.default_path("toy") == toy / "toy.yaml"
    assert type(settings.robot).__module__ == "toy_robot.robot"
    with pytest.raises(ValueError, match="toy.yaml with parameters.limit=99.*: parameters: limit is 99.*must lie in"):
        config.load_robot("toy", {"parameters.limit": 99.0})
    with pytest.raises(ValueError, match="parameters: span is 0.49 m, must be at most 0.4"):
        config.load_robot("toy", {"parameters.span": 0.49})


def test_without_the_package_there_is_no_such_robot() -> None:
    with pytest.raises(ValueError, match="unknown robot 'toy'; known robots: .*diff_drive"):
        config.load_robot("toy")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("robot.py", 'name = "toy"', 'name = "diff_drive"', "robot 'toy': its class .* name = 'diff_drive', must be"),
        ("robot.py", "import numpy as np", "import no_such_library", "robot 'toy': .* cannot be imported: No module"),
        ("robot.py", "class Toy", "clas Toy", "robot 'toy': toy_robot.robot cannot be imported: SyntaxError"),
        ("robot.py", "def make(", "def build_it(", "robot 'toy': toy_robot.robot has no function make"),
        ("toy.yaml", "robot: toy", "robot: cart_pole", "toy.yaml: .*"),
        ("robot.py", 'state_names = ("x", "v")', 'state_names = ("x",)', "'toy': at_rest...state has 2, must have 1"),
        (
            "robot.py",
            "silence = np.zeros(1)",
            "silence = np.zeros(2)",
            "silence has 2, must have 1: one for each of ac",
        ),
        ("robot.py", "    silence = ", "    quiet = ", "robot 'toy': it has no 'silence', see Robot in robots/base.py"),
        ("robot.py", '{"joint_states": "joints"', '{"odom": "joints"', "world.sensors: 'joint_states' is not filled"),
        (
            "model.py",
            "    gain, acceleration = member\n",
            "    gain, acceleration = member\n    if u[0]: pass\n",
            "model: step.. fails on arrays .ValueError: The truth value .*; it must hold arithmetic",
        ),
        ("model.py", "return (0.0 * x[1],)", "return 0.0 * x[1]", "model: backup.. must return a tuple of 1"),
    ],  # fmt: skip
)
def test_a_broken_package_is_named_in_one_line(toy: Path, file: str, old: str, new: str, said: str) -> None:
    (toy / file).write_text((toy / file).read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=said) as refused:
        config.load_robot("toy")
    assert "\n" not in str(refused.value)


def test_what_shows_later_is_named_as_well(toy: Path) -> None:
    (toy / "model.py").write_text((toy / "model.py").read_text().replace("0.0 * x[1]", "brake(x)") + BRAKE)
    with pytest.raises(ValueError, match="cannot be compiled: .*brake.*; they may call .* numba.njit"):
        Gate(config.load_robot("toy").robot, GateConfig(), True, 0)
    (toy / "toy.urdf").write_text((toy / "toy.urdf").read_text().replace("rail", "line"))
    with pytest.raises(ValueError, match="toy.urdf: has no joint 'rail', only .*line"):
        Simulation(config.load_robot("toy").robot)


def test_a_name_that_is_taken_is_refused(toy: Path) -> None:
    (points,) = toy.parent.glob("toy_robot-*.dist-info/entry_points.txt")
    points.write_text(points.read_text() + "cart_pole = toy_robot\n")
    with pytest.raises(ValueError, match="robot 'cart_pole' is both in safe_support_ql and in toy.robot; uninstall"):
        config.load_robot("cart_pole")


def test_it_runs_behind_the_gate(toy: Path) -> None:
    settings = config.load_robot("toy", {"parameters.episode_s": 5.0})
    sim, gate = Simulation(settings.robot), Gate(settings.robot, settings.gate, True, 0)
    results = [play(sim, gate, BehaviorPolicy(settings.behavior, settings.robot, 0), seed, seed) for seed in range(3)]
    sim.close()
    assert sum(result.unsafe_visits for result in results) == 0
    assert all(result.ticks == 100 and result.verdicts["no_proof"] == 0 for result in results)


def test_its_members_enclose_what_the_simulator_does(toy: Path) -> None:
    """Its nominal drive, from every speed under every command, less what `growth` allows for."""
    robot = config.load_robot("toy").robot
    dynamics, sim = robot.model.dynamics, Simulation(robot)
    allowed = np.array([robot.parameters.growth * dynamics.dt, 1e-3])  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    sim.reset(0)
    for _ in range(200):
        x, u = np.array([0.0, rng.uniform(-0.5, 0.5)]), rng.uniform(-0.5, 0.5, 1)
        sim.world.set_state(x)
        sim.tick(u)
        met = np.array([dynamics.step(tuple(x), tuple(u), tuple(member), dynamics.dt) for member in dynamics.members])
        truth = sim.world.truth()
        assert (met.min(axis=0) - allowed <= truth).all() and (truth <= met.max(axis=0) + allowed).all(), (x, u)
    sim.close()


def test_every_error_that_it_claims_is_covered(toy: Path) -> None:
    robot = config.load_robot("toy").robot
    rows = beyond.singly(robot, (1.0,), episodes=5)
    assert {row["error"] for row in rows} == {"gain_mismatch", "acceleration_mismatch", "position_error", "speed_error"}
    assert all(row["least"][0] >= -ROUNDING for row in rows), rows
    assert beyond.together(robot, (1.0,))[0]["holds"] == 1.0


def test_a_claim_that_it_does_not_make_is_named(toy: Path) -> None:
    expected = "robot 'toy' makes no claim 'kernel': benchmarks/kernel.py needs kernel in toy_robot/claims.py"
    with pytest.raises(ValueError, match=expected):
        kernel.outer_kernel(config.load_robot("toy").robot, 0, 2, 2)


def test_a_drive_between_the_members_gets_hardly_farther_than_they_do(toy: Path) -> None:
    """What `between_members` is for: up to four commands, then the plan, from any speed; both ends of the rail."""
    robot = config.load_robot("toy").robot
    model, rng, n = robot.model, np.random.default_rng(0), 20000
    low, high = model.dynamics.members.min(axis=0), model.dynamics.members.max(axis=0)
    members = [tuple(rng.uniform(low, high, (n, 2)).T), *(tuple(row) for row in model.dynamics.members)]
    x = [(np.zeros(n), rng.uniform(-0.55, 0.55, n))] * len(members)
    commands, worst = rng.integers(1, 5, n), 0.0
    for tick in range(12):
        u = (np.where(tick < commands, rng.uniform(-0.5, 0.5, n), 0.0),)
        x = [model.dynamics.step(at, u, member, model.dynamics.dt) for at, member in zip(x, members, strict=True)]
        true, met = x[0][0], np.array([at[0] for at in x[1:]])
        worst = max(worst, float((true - met.max(axis=0)).max()), float((met.min(axis=0) - true).max()))
    assert 0.001 < worst < robot.parameters.between_members, worst  # type: ignore[attr-defined]


# --- what a policy and a falsification are bound to ------------------------------------------------------------------


def change_model(toy: Path) -> None:
    """One byte, in a comment."""
    with open(toy / "model.py", "a") as file:
        file.write("#")


def change_data(toy: Path) -> None:
    (toy / "toy.urdf").write_text((toy / "toy.urdf").read_text().replace("1 kg", "2 kg"))


def change_measured(toy: Path) -> None:
    """A file of any kind that its code may read."""
    (toy / "identified.json").write_text("{}")


def change_version(toy: Path) -> None:
    (metadata,) = toy.parent.glob("toy_robot-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 0.1.0", "Version: 0.1.1"))


@pytest.mark.parametrize("change", [change_model, change_data, change_measured, change_version])
def test_its_files_and_its_version_are_part_of_the_hash(toy: Path, change) -> None:  # type: ignore[no-untyped-def]
    ours = {name: config.load_robot(name).safety_hash for name in OURS}
    settings = config.load_robot("toy")
    before, contract = settings.safety_hash, PolicyContract.of(settings.robot, False, settings.safety_hash)
    assert config.load_robot("toy").safety_hash == before
    change(toy)
    after = config.load_robot("toy").safety_hash
    assert after != before
    assert dataclasses.replace(contract, safety_hash=after) != contract
    assert {name: config.load_robot(name).safety_hash for name in OURS} == ours


def test_a_falsification_of_changed_code_is_void(toy: Path, tmp_path: Path) -> None:
    shards = falsify.plan(config.load_robot("toy").raw, ["nominal"], 20)[:1]
    said: list[str] = []
    (first,) = falsify.campaign(shards, tmp_path / "shards", say=said.append)
    assert falsify.campaign(shards, tmp_path / "shards", say=said.append) == [first]
    assert said[-1] == "1 of 1 shards are already there"
    change_model(toy)
    (again,) = falsify.campaign(shards, tmp_path / "shards", say=said.append)
    assert "1 shards are void and run again" in "\n".join(said)
    assert again["hash"] != first["hash"] and again["unsafe_visits"] == first["unsafe_visits"] == 0
