"""The environments of Gymnasium: same gate and simulation as everywhere, nothing uncertified, a seed is an episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safe_support_ql import config, gym
from safe_support_ql.experiments.episodes import steps
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.environment import GATES, Environment
from safe_support_ql.simulation.simulation import Simulation

ROBOTS = sorted(path.stem for path in (Path(__file__).parents[2] / "config").glob("*.yaml"))
IDS = {robot: f"safe_support_ql.gym:{gym.environment_id(robot)}" for robot in ROBOTS}
BOTH = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
EVERY = pytest.mark.parametrize("robot", ROBOTS)
# Not what this package leaves to whoever learns: the action space is the actuator's, see docs/gymnasium.md.
LIMITS = "ignore:.*recommend using a symmetric and normalized space"


@pytest.fixture
def made() -> Iterator[list[gymnasium.Env[Any, Any]]]:
    """Environments to be closed after the test."""
    kept: list[gymnasium.Env[Any, Any]] = []
    yield kept
    for env in kept:
        env.close()


def make(made: list[gymnasium.Env[Any, Any]], robot: str, **options: Any) -> gymnasium.Env[Any, Any]:
    made.append(env := gymnasium.make(IDS[robot], **options))
    return env


def play(env: gymnasium.Env[Any, Any], seed: int | None, ticks: int, draws: int = 0) -> list[Any]:
    """All that an episode shows under random actions: observations, rewards, ends and info, in bytes."""
    rng = np.random.default_rng(draws)
    observation, info = env.reset(seed=seed)
    trace: list[Any] = [(observation.tobytes(), frozen(info))]
    for _ in range(ticks):
        observation, reward, terminated, truncated, info = env.step(draw(env, rng))
        trace.append((observation.tobytes(), reward, terminated, truncated, frozen(info)))
        if terminated or truncated:
            break
    return trace


def draw(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Any:
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(rng.integers(space.n))
    assert isinstance(space, gymnasium.spaces.Box)
    return rng.uniform(space.low, space.high).astype(np.float32)


def frozen(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value.tobytes() if isinstance(value, np.ndarray) else value for key, value in info.items()}


@EVERY
@BOTH
@pytest.mark.filterwarnings("error", LIMITS)
def test_the_checker_of_gymnasium_finds_nothing(made: list[Any], robot: str, continuous: bool) -> None:
    for gate in GATES:
        check_env(make(made, robot, continuous=continuous, gate=gate, render_mode="rgb_array").unwrapped)


@EVERY
@BOTH
@pytest.mark.parametrize("gate", ["plan", "nearest"])
def test_whatever_is_asked_nothing_unsafe_is_visited(made: list[Any], robot: str, continuous: bool, gate: str) -> None:
    """Some thousand ticks; what runs was certified before, or is the plan, or silence before the gate opens."""
    env, rng = make(made, robot, continuous=continuous, gate=gate), np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    core, replaced = env.unwrapped, 0
    assert isinstance(core, Environment)
    for _ in range(1000):
        before, plan = info, None if core._candidates is None else core._candidates.actions[core._candidates.plan]
        action = draw(env, rng)
        observation, _, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        replaced += info["replaced"]
        if info["reason"] == "closed":
            np.testing.assert_array_equal(info["executed"], core.robot.silence)
        elif info["executed_index"] >= 0:
            slot = info["executed_index"]
            np.testing.assert_array_equal(info["executed"], before["candidates"][slot])
            assert before["certified"][slot] or np.array_equal(info["executed"], plan)
        else:  # a foreign one
            assert continuous and info["verdict"].startswith("certified")
            np.testing.assert_array_equal(info["executed"], action)
        if terminated or truncated:
            observation, info = env.reset()
    assert replaced > 50 and info["unsafe_visits"] == 0


@EVERY
@BOTH
def test_a_seed_is_an_episode_whatever_was_played_before(made: list[Any], robot: str, continuous: bool) -> None:
    fresh = make(made, robot, continuous=continuous)
    used = make(made, robot, continuous=continuous)
    play(used, 1, 150, draws=1)
    play(used, None, 90, draws=2)  # left in the middle
    expected = play(fresh, 7, 200)
    assert play(used, 7, 200) == expected
    assert play(used, 8, 200)[0] != expected[0]
    assert play(fresh, 7, 200) == expected


@EVERY
def test_a_seed_is_a_sequence_of_episodes(made: list[Any], robot: str) -> None:
    one, other = make(made, robot), make(made, robot)
    arenas = []
    for env in (one, other):
        env.reset(seed=3)
        env.step(0)
        arenas.append([env.reset()[1]["arena"] for _ in range(3)])
    assert arenas[0] == arenas[1] and len(set(arenas[0])) == 3


@EVERY
@BOTH
def test_it_is_the_episode_that_is_played_elsewhere(made: list[Any], robot: str, continuous: bool) -> None:
    """Bit by bit that of the package's own loop, where a policy draws from the support."""
    arena, settings, rng = 860_000_000, config.load_robot(robot), np.random.default_rng(0)
    sim, gate = Simulation(settings.robot), Gate(settings.robot, settings.gate, continuous, 860_000_000)
    asked: list[Any] = []

    def policy(candidates: Any) -> Any:
        asked.append(candidates.actions[rng.choice(np.flatnonzero(candidates.support))])
        return asked[-1]

    env = make(made, robot, continuous=continuous)
    observation, _ = env.reset(options={"arena": arena})
    total = 0.0
    for outcome, decision in steps(sim, gate, policy, arena, 0):
        if decision.candidates is not None:
            np.testing.assert_array_equal(observation, decision.candidates.observation)
        assert total == outcome.episode_return
        if outcome.terminated or outcome.truncated or outcome.tick == 150:
            break
        action = asked[-1]
        if not continuous:
            core = env.unwrapped
            assert isinstance(core, Environment) and core._candidates is not None
            action = core._candidates.find(action)
        observation, reward, _, _, info = env.step(action)
        total += float(reward)
        np.testing.assert_array_equal(info["executed"], decision.action)
        assert info["verdict"] == decision.verdict and info["reason"] == decision.reason
    assert outcome.tick > 20
    sim.close()


@EVERY
def test_the_mask_is_what_runs_unchanged(made: list[Any], robot: str) -> None:
    env, rng = make(made, robot), np.random.default_rng(0)
    core = env.unwrapped
    assert isinstance(core, Environment)
    _, info = env.reset(seed=0)
    for tick in range(300):
        mask = core.action_masks()
        np.testing.assert_array_equal(mask, info["action_mask"])
        assert core._candidates is not None
        plan = core._candidates.is_plan[: len(mask)]
        assert mask.any() and not (mask[:-1] & ~info["certified"][:-1] & ~plan[:-1]).any()
        if tick < 2:  # the gate is closed
            assert mask.tolist() == [False] * (len(mask) - 1) + [True]
        _, _, terminated, truncated, info = env.step(int(rng.choice(np.flatnonzero(mask))))
        assert not info["replaced"] or info["reason"] == "closed"
        if terminated or truncated:
            break


@EVERY
def test_the_last_action_is_the_plan(made: list[Any], robot: str) -> None:
    env = make(made, robot)
    env.reset(seed=2)
    for _ in range(100):
        _, _, _, _, info = env.step(env.action_space.n - 1)  # type: ignore[attr-defined]
        assert info["reason"] in ("closed", "plan_requested") and info["unsafe_visits"] == 0


@EVERY
def test_nearest_replaces_by_a_certified_candidate_and_plan_by_the_plan(made: list[Any], robot: str) -> None:
    """The same arena and the same requests, the extreme ones of the actuator."""
    verdicts = {}
    for gate in ("plan", "nearest"):
        env = make(made, robot, continuous=True, gate=gate)
        env.reset(options={"arena": 860_000_001})
        infos = [env.step(env.action_space.high)[4] for _ in range(60)]  # type: ignore[attr-defined]
        verdicts[gate] = [info["reason"] for info in infos]
        assert sum(info["replaced"] for info in infos) > 5 and infos[-1]["unsafe_visits"] == 0
    assert "uncertified_request" in verdicts["plan"] and "uncertified_request" not in verdicts["nearest"]


@EVERY
@BOTH
def test_without_a_gate_everything_runs_and_visits_are_counted(made: list[Any], robot: str, continuous: bool) -> None:
    env = make(made, robot, continuous=continuous, gate="none")
    wanted = np.zeros(len(env.unwrapped.robot.action_high), np.float32)
    wanted[0] = env.unwrapped.robot.action_high[0]  # straight on
    visits = 0
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        for _ in range(400):
            action = wanted if continuous else np.abs(info["candidates"][:-1] - wanted).sum(axis=1).argmin()
            observation, _, terminated, truncated, info = env.step(action)
            assert observation in env.observation_space and not info["replaced"] and info["verdict"] == "ungated"
            np.testing.assert_allclose(info["executed"], wanted)
            if terminated or truncated:
                break
        assert terminated and info["is_success"] == (info["unsafe_visits"] == visits)
        visits = info["unsafe_visits"]
    assert visits > 0


@EVERY
def test_what_is_no_number_never_reaches_a_drive(made: list[Any], robot: str) -> None:
    for gate in GATES:
        env = make(made, robot, continuous=True, gate=gate).unwrapped  # the wrapper that checks would refuse it
        env.reset(seed=0)
        for bad in (np.nan, np.inf, 1e30):
            for _ in range(3):
                _, _, _, _, info = env.step(np.full(env.action_space.shape, bad))
                assert np.isfinite(info["executed"]).all() and info["executed"] in env.action_space


@EVERY
def test_misuse_is_refused(made: list[Any], robot: str) -> None:
    env = make(made, robot).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(ValueError, match="unknown option 'map'; known options: arena"):
        env.reset(options={"map": 1})
    with pytest.raises(ValueError, match="option 'arena' is -1, must be a whole number from 0 on"):
        env.reset(options={"arena": -1})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action is 99, must be a whole number from 0 to"):
        env.step(99)
    continuous = make(made, robot, continuous=True).unwrapped
    continuous.reset(seed=0)
    with pytest.raises(ValueError, match="action has shape .9,., must have"):
        continuous.step(np.zeros(9))
    with pytest.raises(ValueError, match="continuous actions have no mask"):
        continuous.action_masks()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="gate is 'off', must be one of 'plan', 'nearest', 'none'"):
        gymnasium.make(IDS[robot], gate="off")


def test_an_end_needs_a_reset_and_a_close_may_be_followed_by_one(made: list[Any]) -> None:
    env = make(made, "cart_pole", overrides={"parameters.episode_s": 1.0}).unwrapped
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(50)]
    assert ends[-1] == (False, True) and not any(any(end) for end in ends[:-1])
    with pytest.raises(gymnasium.error.ResetNeeded, match="the episode is over"):
        env.step(0)
    env.close()
    env.close()
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)


@EVERY
def test_the_picture_shows_the_world(made: list[Any], robot: str) -> None:
    env = make(made, robot, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
    assert len(np.unique(first.reshape(-1, 3), axis=0)) >= 4  # ground, what is in the way, robot, goal
    for _ in range(30):
        env.step(env.action_space.n - 1)  # type: ignore[attr-defined]
    assert env.metadata["render_fps"] == env.unwrapped.robot.world.control_hz
    plain = make(made, robot)
    plain.reset(seed=0)
    assert plain.unwrapped.render() is None


def test_who_walks_about_is_part_of_the_episode_and_of_the_picture(made: list[Any]) -> None:
    overrides = {"parameters.walkers": 3, "parameters.obstacle_speed": 0.3, "parameters.corridor": 0.55}
    fresh = make(made, "diff_drive", overrides=overrides, render_mode="rgb_array")
    used = make(made, "diff_drive", overrides=overrides)
    play(used, 1, 60)
    assert play(used, 7, 100) == play(fresh, 7, 100)
    image = fresh.render()
    assert isinstance(image, np.ndarray) and (image == (150, 120, 60)).all(axis=2).sum() > 100
