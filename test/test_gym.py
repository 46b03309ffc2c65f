"""An environment of Gymnasium for every robot, ours or installed, and what learns in it: stable-baselines3."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from safe_support_ql import gym, robots
from safe_support_ql.simulation.environment import Environment

ROOT = Path(__file__).resolve().parents[1]
OURS = {"cart_pole": "safe_support_ql/CartPole-v0", "diff_drive": "safe_support_ql/DiffDrive-v0"}
PEERS = pytest.mark.skipif(
    importlib.util.find_spec("sb3_contrib") is None,
    reason="stable-baselines3 and sb3-contrib are missing: python3 -m pip install -c constraints.txt '.[peers]'",
)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(gymnasium.registry)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def test_every_robot_has_an_environment() -> None:
    assert {robot: gym.environment_id(robot) for robot in OURS} == OURS
    assert {gym.environment_id(robot) for robot in robots.names()} <= set(gymnasium.registry)


def test_making_one_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for robot, id in OURS.items():
            gym.register()  # again: nothing is overridden
            env = gymnasium.make(id)
            assert isinstance(env.unwrapped, Environment) and env.unwrapped.robot.name == robot
            # The limit of time is the simulation's own; a second one would cut episodes where a robot changes its own.
            assert env.spec is not None and env.spec.max_episode_steps is None
            env.reset(seed=0)
            env.step(0)
            env.close()


def test_gymnasium_alone_finds_it() -> None:
    """In a process that imported nothing of ours."""
    code = (
        f"import gymnasium; print(gymnasium.make('safe_support_ql.gym:{OURS['cart_pole']}').reset(seed=0)[1]['arena'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 0 <= int(done.stdout) < 800_000_000


def test_a_robot_of_another_package_has_one_too(toy: Path) -> None:
    assert "safe_support_ql/Toy-v0" not in gymnasium.registry
    gym.register()
    for continuous in (False, True):
        env = gymnasium.make("safe_support_ql/Toy-v0", continuous=continuous, render_mode="rgb_array")
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(300):
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        assert info["unsafe_visits"] == 0 and isinstance(env.render(), np.ndarray)
        env.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("id", OURS.values())
def test_several_play_side_by_side(id: str, mode: str) -> None:
    """Each as if it were alone."""
    envs = gymnasium.make_vec(f"safe_support_ql.gym:{id}", num_envs=2, vectorization_mode=mode)
    alone = gymnasium.make(id)
    try:
        observations, infos = envs.reset(seed=5)
        observation, info = alone.reset(seed=6)
        for action in (0, 1, 2, 3):
            np.testing.assert_array_equal(observations[1], observation)
            np.testing.assert_array_equal(infos["certified"][1], info["certified"])
            assert infos["unsafe_visits"].tolist() == [0, 0]
            observations, _, _, _, infos = envs.step(np.array([4, action]))
            observation, _, _, _, info = alone.step(action)
    finally:
        envs.close()
        alone.close()


# --- stable-baselines3 ------------------------------------------------------------------------------------------------


@PEERS
@pytest.mark.parametrize("id", OURS.values())
@pytest.mark.parametrize("learner", ["DQN", "SAC", "MaskablePPO"])
def test_learners_of_others_train_without_a_visit(learner: str, id: str) -> None:
    import sb3_contrib
    import stable_baselines3

    options: dict[str, Any] = {"learning_starts": 100}
    if learner == "MaskablePPO":
        options = {"n_steps": 128, "batch_size": 64}
    algorithm = getattr(sb3_contrib if learner == "MaskablePPO" else stable_baselines3, learner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(id, continuous=learner == "SAC")
        model = algorithm("MlpPolicy", env, seed=0, device="cpu", **options)
        before = [parameter.detach().clone() for parameter in model.policy.parameters()]
        model.learn(300)
    assert model.num_timesteps >= 300
    assert any(bool((a != b).any()) for a, b in zip(before, model.policy.parameters(), strict=True))
    core = env.unwrapped
    assert isinstance(core, Environment) and core.unsafe_visits == 0
    env.close()


@PEERS
def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer steps and arenas than the page asks for."""
    (example,) = re.findall(r"```python\n(import gymnasium\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for asked, here in (("learn(20_000)", "learn(1_024)"), ("900_000_050", "900_000_001"), ("of 50", "of 1")):
        assert asked in example
        example = example.replace(asked, here)
    exec(example, {})
    assert re.fullmatch(r"reached [01] of 1 goals, 0 unsafe visits\n", capsys.readouterr().out)
