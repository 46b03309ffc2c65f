"""A robot is one module and one YAML, and nothing else: a toy one is added here and used by all above robots/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_support_ql import config, robots
from safe_support_ql.behavior.policies import BehaviorPolicy
from safe_support_ql.experiments.episodes import play
from safe_support_ql.safety.gate import Gate
from safe_support_ql.simulation.simulation import Simulation

MODULE = '''
"""A cart without a pole to balance: the cart-pole's slider, safe while |x| <= limit, braked by a PD law."""

from dataclasses import dataclass

import numpy as np

from safe_support_ql.parameters import build, param
from safe_support_ql.robots.base import Estimate, Robot
from safe_support_ql.robots.model import Certificate, Detection, Dynamics, Model
from safe_support_ql.robots.world import Channel, CommandTopic, JointDrive, WorldSpec


@dataclass(frozen=True)
class Parameters:
    limit: float = param(1.0, "m", 0.1, 10.0)


def step(x, u, member, dt):
    acceleration = u[0] / member[0]
    v = x[1] + dt * acceleration
    return x[0] + dt * v, v


def backup(x, centre, constants):
    return (np.minimum(np.maximum(-8.0 * x[1], -10.0), 10.0),)


def margins(x, points, constants):
    return (constants[0] - np.abs(x[0]),)


def terminal(x, centre, constants):
    return np.abs(x[1]) <= 0.02


class Toy(Robot):
    name = "toy"
    passive_stop, must_reach, silence = True, False, np.zeros(1)
    state_names, action_names, action_units = ("x", "v"), ("force",), ("N",)
    observation_names, observation_units = ("x", "v", "last_force"), ("m", "m/s", "N")
    observation_scale = np.ones(3, np.float32)
    action_low, action_high = np.array([-10.0]), np.array([10.0])
    lattice, continuous_points = ((-10.0, -5.0, 0.0, 5.0, 10.0),), (21,)

    def __init__(self, p):
        self.parameters = p
        self.world = WorldSpec(
            physics_hz=240, control_hz=20, episode_s=5.0,
            drive=JointDrive(urdf="cartpole.urdf", driven=("slider_to_cart",), joints=("slider_to_cart",), timeout=0.2),
            sensors={"joint_states": "joints"},
        )
        self.channels = (Channel("joint_states", "sensor_msgs/msg/JointState", ("position[]", "velocity[]"), 0.25, 1),)
        self.command = CommandTopic("effort_command", "std_msgs/msg/Float64MultiArray", ("data[]",))
        dt = self.period
        steps = int(2.0 / dt)
        # The pole hangs on the cart here and pulls it: its mass is in the ensemble, its swing in the tightening.
        self.model = Model(
            dynamics=Dynamics(step=step, members=np.array([[1.1], [1.0], [1.4]]), dt=dt, checks_per_tick=1),
            certificate=Certificate(
                backup=backup, margins=margins, terminal=terminal, constants=(p.limit,), centres=np.zeros((1, 1)),
                margin_names=("track",), tightening=np.linspace(0.05, 0.15, steps + 1)[:, None], scale=np.ones(1),
                holds=(1,), band=0.02, noise_allowance=0.01, step_residual=0.001, band_budget=0.05,
            ),
            detection=Detection(residual=np.full(2, 0.2), slack=np.full(2, 0.2)),
        )

    def estimate(self, inputs):
        return Estimate(inputs["joint_states"], np.zeros((0, 2)), np.zeros(0))

    def at_rest(self):
        return self.estimate({"joint_states": np.zeros(2)})

    def observation(self, inputs, estimate, previous, centre, threshold):
        return np.array([*estimate.state, *previous], np.float32)

    def relative(self, before, now):
        return now["joint_states"]

    def in_motion(self, state, centre):
        return abs(state[1]) > 0.1

    def truth_margins(self, truth):
        return np.array([self.parameters.limit - abs(truth[0])])

    def reward(self, before, action, after, goal):
        return -float(after[0] ** 2), False

    def controller(self, observations):
        return np.zeros((len(observations), 1))

    def initial_state(self, rng):
        return np.array([rng.uniform(-0.3, 0.3), 0.0])

    def draw_goal(self, rng):
        return np.zeros(1)


def make(parameters, where):
    return Toy(build(Parameters, parameters, where))
'''


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").touch()
    (tmp_path / "toy" / "robot.py").write_text(MODULE)
    (tmp_path / "toy.yaml").write_text("robot: toy\nparameters:\n  limit: 1.2\nbehavior:\n  controller_share: 0.0\n")
    robots.__path__.append(str(tmp_path))
    yield tmp_path / "toy.yaml"
    robots.__path__.remove(str(tmp_path))


def test_a_toy_robot_runs_behind_the_gate(toy: Path) -> None:
    settings = config.load(toy)
    assert "toy" in robots.names() and settings.robot.truth_margins(settings.robot.action_low * 0)[0] == 1.2
    sim = Simulation(settings.robot)
    gate = Gate(settings.robot, settings.gate, True, 0)
    results = [play(sim, gate, BehaviorPolicy(settings.behavior, settings.robot, 0), seed, seed) for seed in range(3)]
    assert sum(result.unsafe_visits for result in results) == 0
    assert all(result.ticks == 100 for result in results)
    sim.close()


def test_its_parameters_are_checked(toy: Path) -> None:
    with pytest.raises(ValueError, match="limit is 99.*must lie in"):
        config.load(toy, {"parameters.limit": 99.0})
