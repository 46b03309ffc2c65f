"""Episodes on a robot: what begins, ends and cuts them off, their rewards, and the visits that sensors show."""

from __future__ import annotations

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.recording.episodes import JUMPED, NO_GOAL, NOTHING_TO_DO, SETTLING, Episodes
from safe_support_ql.recording.session import Limits, SessionConfig
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.scan import full_circle
from safe_support_ql.simulation.simulation import Simulation

NS = 100_000_000  # a control period
GOALS = [[1.0, 0.0], [-1.0, 0.0]]
ROBOT = config.load_robot("diff_drive").robot
assert isinstance(ROBOT, DiffDrive)


class Robot:
    """A base at (x, 0) in a room, and its episodes."""

    def __init__(self, goals: list[list[float]], episodes: int = 0, ticks: int = 0, **limits: float) -> None:
        self.episodes = Episodes(ROBOT, goals, 5, 1, Limits(SessionConfig(**limits)))  # type: ignore[arg-type]
        self.episodes.begin("collection", 100, episodes, ticks)
        self.episodes.propose()
        self.x, self.near, self.tick = 0.0, 2.0, 0

    def decides(self, times: int = 1, gate: str = "nominal") -> dict[str, float]:
        """The newest of so many outcomes."""
        for _ in range(times):
            self.tick += 1
            goal = self.episodes.goal
            inputs = {
                "odom": np.array([self.x, 0.0, 0.0, 1.0, 0.0, 0.0]),
                "scan": full_circle(np.full(180, self.near), 6.0).vector(),
                "goal_pose": np.zeros(2) if goal is None else goal,
            }
            table = self.episodes.after(inputs, self.tick * NS, np.zeros(2), gate, self.tick)
        return table

    def drives(self, x: float) -> dict[str, float]:
        """To x, 0.1 m in a tick; the outcome there."""
        while abs(x - self.x) > 1e-9:
            self.x += float(np.clip(x - self.x, -0.1, 0.1))
            table = self.decides()
        return table

    def begins(self) -> dict[str, float]:
        """Until an episode runs."""
        return self.decides(SETTLING + 1)


def test_an_episode_ends_at_its_goal_and_the_next_one_has_another() -> None:
    base = Robot(GOALS)
    first = base.begins()
    assert first["first"] and base.episodes.running and first["tick"] == 0
    goal = base.episodes.goal
    assert goal is not None
    reached = base.drives(0.8 * goal[0])
    p = ROBOT.parameters
    assert reached["terminated"] and reached["reached"] and not reached["truncated"] and not reached["first"]
    assert reached["reward"] == pytest.approx(0.1 * p.reward_progress - p.reward_time + p.reward_goal)
    assert base.episodes.goal is not None and base.episodes.goal[0] == -goal[0]
    following = base.begins()
    assert following["first"] and base.decides()["episode"] == reached["episode"] + 1
    assert base.decides()["seed"] == 101


def test_no_transition_leads_into_an_episode() -> None:
    """Every outcome says `first`, from the end of an episode to the state that the next one begins with."""
    base = Robot(GOALS)
    base.begins()
    assert base.episodes.goal is not None
    assert base.drives(0.8 * base.episodes.goal[0])["terminated"]
    assert all(base.decides()["first"] for _ in range(SETTLING + 1)) and not base.decides()["first"]


@pytest.mark.parametrize("gate", ["latched", "closed"])
def test_a_gate_that_latches_cuts_an_episode_off_and_a_reset_goes_on(gate: str) -> None:
    base = Robot(GOALS)
    base.begins()
    cut = base.decides(gate=gate)
    assert cut["truncated"] and not cut["terminated"] and not base.episodes.running
    base.decides(20, gate=gate)
    assert not base.episodes.running
    base.begins()
    assert base.episodes.running


def test_the_time_limit_and_enough_ticks_truncate() -> None:
    base = Robot(GOALS)
    base.begins()
    last = base.decides(base.episodes.time_limit)
    assert last["truncated"] and last["tick"] == base.episodes.time_limit and not base.episodes.done
    base = Robot(GOALS, ticks=7)
    base.begins()
    assert not base.decides(6)["done"]
    last = base.decides()
    assert last["truncated"] and last["done"] and base.episodes.waiting == NOTHING_TO_DO
    base = Robot(GOALS, episodes=1)
    base.begins()
    assert base.decides(base.episodes.time_limit)["done"]


def test_a_jump_of_the_odometry_waits_for_a_person_or_a_new_goal() -> None:
    """Goals are in its frame: after a driver began anew, they are somewhere else."""
    for goes_on in (lambda e: e.resume(), lambda e: e.take(np.array([2.0, 0.0]))):
        base = Robot(GOALS)
        base.begins()
        base.x = 5.0
        jump = base.decides()
        assert jump["truncated"] and jump["first"] and jump["reward"] == 0.0
        assert base.episodes.waiting == f"paused: {JUMPED}" and base.episodes.goal is None
        base.episodes.propose()
        base.decides(20)
        assert not base.episodes.running and base.episodes.goal is None
        goes_on(base.episodes)
        base.episodes.propose()
        base.begins()
        assert base.episodes.running


def test_a_pause_cuts_off_and_keeps_the_goal() -> None:
    base = Robot(GOALS)
    base.begins()
    goal = base.episodes.goal
    base.episodes.pause("by a person")
    assert base.decides()["truncated"] and "by a person" in base.episodes.waiting
    base.decides(20)
    assert not base.episodes.running
    base.episodes.resume()
    base.begins()
    assert base.episodes.running and base.episodes.goal is goal


def test_a_goal_that_somebody_moves_begins_another_episode() -> None:
    base = Robot([])
    base.decides(20)
    assert base.episodes.waiting == NO_GOAL
    base.episodes.take(np.array([1.5, 0.0]))
    base.begins()
    base.episodes.take(np.array([0.5, 0.5]))
    moved = base.decides()
    assert moved["truncated"] and moved["first"] and moved["reward"] == 0.0, "no motion towards this goal"
    base.begins()
    assert base.episodes.running and base.episodes.goal is not None and base.episodes.goal[1] == 0.5


def test_sensors_show_an_unsafe_visit_once_also_between_episodes() -> None:
    p = ROBOT.parameters
    base = Robot([])
    base.near = p.footprint_radius + p.clearance - p.lidar_noise - 0.01
    assert base.decides(5)["unsafe_visits"] == 1 and "by its sensors" in base.episodes.visit
    base.near = p.footprint_radius + p.clearance - p.lidar_noise + 0.01  # noise may hide that much
    assert base.decides(5)["unsafe_visits"] == 1
    base.near = 0.18
    assert base.decides()["unsafe_visits"] == 2 and base.decides()["min_margin"] < 0.0


def test_the_simulator_and_a_robot_have_the_same_task() -> None:
    """Bit by bit: the same inputs and actions give the same rewards and ends, whoever adds them up."""
    for name in ("diff_drive", "cart_pole"):
        robot = config.load_robot(name).robot
        sim = Simulation(robot)
        outcome = sim.reset(4)
        episodes = Episodes(robot, [], 1, 1, Limits(SessionConfig()))
        episodes.begin("collection", 4, 0, 0)
        episodes.take(sim.sense()["goal_pose"])
        action = 0.3 * robot.action_high
        for tick in range(SETTLING + 1):
            episodes.after(sim.sense(), (tick + 1) * NS, action, "nominal", tick)
        for tick in range(30):
            outcome = sim.tick(action)
            table = episodes.after(sim.sense(), (tick + SETTLING + 2) * NS, action, "nominal", tick)
            assert (table["reward"], table["terminated"]) == (outcome.reward, outcome.terminated)
        assert table["episode_return"] == outcome.episode_return
        sim.close()


@pytest.mark.parametrize(("limit", "named"), [({"distance": 0.5}, "0.5 m"), ({"time": 0.5}, "0.5 s of driving")])
def test_a_session_ends_by_a_pause_and_a_person_lets_it_drive_as_much_again(
    limit: dict[str, float], named: str
) -> None:
    base = Robot([[9.0, 0.0]], **limit)
    base.begins()
    for again in range(1, 3):
        while not base.episodes.paused:
            base.drives(base.x + 0.1)
        assert named in base.episodes.paused and base.x == pytest.approx(0.5 * again, abs=0.11)
        base.decides(20)  # standing, nothing is counted
        base.episodes.resume()
        base.begins()
    assert base.episodes.running


def test_what_is_driven_between_episodes_counts_for_no_session() -> None:
    base = Robot([], distance=0.5)
    base.drives(3.0)
    assert base.episodes.waiting == NO_GOAL


def test_what_a_person_paused_stays_so_over_a_jump_and_a_new_goal() -> None:
    base = Robot(GOALS)
    base.begins()
    base.episodes.pause("by a person")
    base.x = 50.0
    base.decides(2)
    assert "by a person" in base.episodes.paused and JUMPED in base.episodes.paused
    base.episodes.take(np.array([51.0, 0.0]))
    assert base.episodes.waiting.startswith("paused: by a person")
    base.episodes.resume()
    assert not base.episodes.waiting


def test_while_somebody_is_absent_nothing_counts_and_it_goes_on_by_itself_to_the_same_goal() -> None:
    base = Robot(GOALS, time=5.0)
    base.begins()
    goal, ticks = base.episodes.goal, base.episodes._ticks
    base.episodes.absent = "nobody holds the dead-man switch"
    assert base.decides()["truncated"] and base.decides(200)["idle"]
    assert base.episodes.waiting == base.episodes.absent and base.episodes._ticks == ticks + 1
    assert not base.episodes.paused, "the session's five seconds were not driven"
    base.episodes.absent = ""
    base.begins()
    assert base.episodes.running and base.episodes.goal is goal
