"""The carriage as a robot: topics, state, observation and task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safe_support_ql.parameters import build
from safe_support_ql.robots.base import Estimate, Inputs, Robot, Singles
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import Channel, CommandTopic, JointDrive, WorldSpec

from .model import CONTROL_HZ, Parameters, build_model

JOINT = "rail"
MASS = 1.0  # kg, of the carriage in toy.urdf
END = 5.0  # m, joint limit of toy.urdf: no carriage can be farther out


class Toy(Robot):
    """See the module."""

    name = "toy"
    parameters: Parameters
    passive_stop = True  # without commands the drive brakes
    silence = np.zeros(1)  # the command that it then obeys
    must_reach = False  # the task is to stay at the goal, not to arrive
    state_names = ("x", "v")
    action_names, action_units = ("speed",), ("m/s",)
    observation_names = ("x", "v", "goal_offset", "last_speed", "band_threshold")
    observation_units = ("m", "m/s", "m", "m/s", "m")

    def __init__(self, parameters: Parameters) -> None:
        """Everything follows from `parameters`."""
        p = self.parameters = parameters
        self.world = WorldSpec(
            physics_hz=240,
            control_hz=CONTROL_HZ,
            episode_s=p.episode_s,
            drive=JointDrive(
                urdf=str(Path(__file__).with_name("toy.urdf")),
                driven=(JOINT,),
                joints=(JOINT,),
                timeout=p.drive_timeout,
                control="velocity",
                max_force=MASS * p.acceleration,
            ),
            sensors={"joint_states": "joints", "goal_pose": "goal"},
        )
        self.channels = (
            Channel(
                "joint_states", "sensor_msgs/msg/JointState", ("position[]", "velocity[]"), max_age=0.1,
                joints=(JOINT,),
            ),
            Channel(
                "goal_pose", "geometry_msgs/msg/PoseStamped", ("pose.position.x",),
                constants={"header.frame_id": "world"}, latched=True,
            ),
        )  # fmt: skip
        self.command = CommandTopic("speed_command", "std_msgs/msg/Float64MultiArray", ("data[]",))
        self.action_low, self.action_high = np.array([-p.speed]), np.array([p.speed])
        self.lattice = (tuple(np.linspace(-p.speed, p.speed, 9).tolist()),)  # discrete actions
        self.continuous_points = (21,)
        self.observation_scale = np.array([p.limit, p.speed, p.limit, p.speed, 0.1], np.float32)
        self.model = build_model(p)

    def objection(self) -> str:
        """See Robot: what the margins leave at the end of a rollout, the outermost start has to keep."""
        left = max(self.parameters.limit - self.model.certificate.tightening[-1, 0] - self.parameters.band, 0.0)
        if self.parameters.span > left:
            return f"span is {self.parameters.span:g} m, must be at most {left:.3f} m for a start to be certified"
        return ""

    # --- state -------------------------------------------------------------------------------------------------------

    def estimate(self, inputs: Inputs) -> Estimate:
        """State (x, v) as the joint reports it, no occupied points, task (goal x,)."""
        state, goal = inputs["joint_states"], inputs["goal_pose"]
        if abs(state[0]) > END or abs(state[1]) > END:
            raise ValueError(f"joint_states: x = {state[0]:g} m, v = {state[1]:g} m/s; wrong units?")
        return Estimate(state, np.zeros((0, 2)), goal)

    def at_rest(self) -> Estimate:
        """See Robot."""
        return self.estimate({"joint_states": np.zeros(2), "goal_pose": np.zeros(1)})

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """The joint's coordinates are absolute, so nothing has to be turned or moved."""
        return now["joint_states"]

    def in_motion(self, state: Floats, centre: Floats) -> bool:
        """A drive that does not obey shows at a fifth of the full speed."""
        return bool(abs(state[1]) > 0.2 * self.parameters.speed)

    def truth_margins(self, truth: Floats) -> Floats:
        """(rail [m],) at the true (x, v)."""
        return np.array([self.parameters.limit - abs(truth[0])])

    # --- task --------------------------------------------------------------------------------------------------------

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """See observation_names. The plan has one centre only, so that is left out."""
        x, v = estimate.state
        return np.array([x, v, estimate.task[0] - x, previous[0], threshold], np.float32)

    def task(self, before: Inputs, action: Floats, after: Inputs) -> tuple[float, bool]:
        """-(distance to the goal / 1 m)^2; no success ends an episode."""
        return -float((after["joint_states"][0] - after["goal_pose"][0]) ** 2), False

    def sensed(self, inputs: Inputs) -> Floats:
        """See Robot: the joint shows all of it."""
        return inputs["joint_states"]

    def controller(self, observations: Singles) -> Floats:
        """Drive at a speed that is proportional to the distance from the goal."""
        return np.clip(2.0 * observations[:, 2:3].astype(np.float64), self.action_low, self.action_high)

    def initial_state(self, rng: np.random.Generator) -> Floats:
        """Standing somewhere."""
        return np.array([rng.uniform(-1.0, 1.0) * self.parameters.span, 0.0])

    def draw_goal(self, rng: np.random.Generator) -> Floats:
        """(goal x [m],)."""
        return rng.uniform(-1.0, 1.0, 1) * self.parameters.span


def make(parameters: Mapping[str, Any], where: str) -> Toy:
    """The robot with `parameters` over the defaults. Raises ValueError naming the key."""
    return Toy(build(Parameters, parameters, where))
