"""The cart-pole as a Robot: topics, world, estimate, observation, reward and scripted controller.

It has no passive safe state: without a command the pole falls, so a lost state or a dead monitor is uncoverable.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.parameters import build
from safe_support_ql.robots.base import LATE, Estimate, Inputs, Robot, Singles
from safe_support_ql.robots.cart_pole import model
from safe_support_ql.robots.cart_pole.parameters import Parameters
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import Channel, CommandTopic, JointDrive, WorldSpec

TRAVEL = 15.0  # m, joint limit of the URDF: no slider can report more
OFF_REST = 0.05  # m from the centre: beyond this it counts as moving
FASTEST = 30.0  # m/s and rad/s, more than its joints can reach
FALLEN = 40.0  # rad, more than a pole can turn at that rate until an unsafe visit ends the episode


class CartPole(Robot):
    name = "cart_pole"
    parameters: Parameters
    passive_stop = False
    must_reach = False
    silence = np.zeros(1)
    frame_id = "world"
    state_names = ("x", "theta", "x_rate", "theta_rate")
    action_names = ("force",)
    action_units = ("N",)
    observation_units = ("m", "rad", "m/s", "rad/s", "m", "m", "N", "m", "1")
    observation_names = (
        "x", "theta", "x_rate", "theta_rate", "goal_offset", "goal", "last_force", "plan_centre", "band_threshold",
    )  # fmt: skip

    def __init__(self, parameters: Parameters) -> None:
        """Derive everything from `parameters`. Raises ValueError if they allow no certificate."""
        p = self.parameters = parameters
        joints = ("slider_to_cart", "cart_to_pole")
        self.world = WorldSpec(
            physics_hz=model.PHYSICS_HZ,
            control_hz=model.CONTROL_HZ,
            episode_s=p.episode_s,
            drive=JointDrive(urdf="cartpole.urdf", driven=joints[:1], joints=joints, timeout=p.drive_timeout),
            sensors={"joint_states": "joints", "goal_pose": "goal"},
        )
        self.channels = (
            Channel(
                "joint_states", "sensor_msgs/msg/JointState", ("position[]", "velocity[]"), p.input_age,
                joints=joints,
            ),
            Channel(
                "goal_pose", "geometry_msgs/msg/PoseStamped", ("pose.position.x",),
                constants={"header.frame_id": "world"}, latched=True,
            ),
        )  # fmt: skip
        self.command = CommandTopic("effort_command", "std_msgs/msg/Float64MultiArray", ("data[]",))
        force = p.force_limit
        self.action_low, self.action_high = np.array([-force]), np.array([force])
        self.lattice = ((-force, -0.5 * force, 0.0, 0.5 * force, force),)
        self.continuous_points = (21,)
        self.observation_scale = np.array(
            [p.position_limit, p.angle_limit, 1.0, 1.0, p.goal_range or 1.0, p.goal_range or 1.0, force,
             p.position_limit, p.band or 1.0], np.float32,
        )  # fmt: skip
        self.model = model.build_model(p)
        self._gain = model.lqr(
            model.nominal(p),
            np.array([1.0, p.controller_angle_weight, 0.0, p.controller_turn_weight]),
            p.controller_force_weight,
        )

    def objection(self) -> str:
        if self.model.certificate.step_residual == 0.0:
            return "all *_disturbance are 0, one must be more: the band's budget would never be spent"
        p = self.parameters
        if p.input_age < LATE * self.period:
            return f"input_age is {p.input_age:g} s, must be at least {LATE * self.period:g} s: a cycle may be late"
        return ""

    def at_rest(self) -> Estimate:
        return self.estimate({"joint_states": np.zeros(4), "goal_pose": np.zeros(1)})

    def estimate(self, inputs: Inputs) -> Estimate:
        """State (x, theta, x', theta') as measured; task (goal x [m],) clipped to the goal range."""
        joints, goal = _vector(inputs, "joint_states", 4), _vector(inputs, "goal_pose", 1)
        if abs(joints[0]) > TRAVEL:
            raise ValueError(f"joint_states: cart at {joints[0]:g} m, the slider ends at {TRAVEL:g} m")
        if np.abs(joints[2:]).max() > FASTEST:
            raise ValueError(f"joint_states: speeds {joints[2]:g} m/s and {joints[3]:g} rad/s; wrong units?")
        return Estimate(joints, np.zeros((0, 2)), self._clip(goal))

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """See `observation_names`; SI units, the threshold in scaled margin."""
        goal = estimate.task[0]
        return np.array([*estimate.state, goal - estimate.state[0], goal, previous[0], *centre, threshold], np.float32)

    @property
    def observation_bounds(self) -> tuple[Singles, Singles]:
        """See Robot: what an estimate admits, and what the drive can be told."""
        p, centres = self.parameters, self.model.certificate.centres[:, 0]
        high = [
            TRAVEL,
            FALLEN,
            FASTEST,
            FASTEST,
            TRAVEL + p.goal_range,
            p.goal_range,
            p.force_limit,
            centres.max(),
            p.band,
        ]
        low = [*(-value for value in high[:7]), centres.min(), 0.0]
        return np.array(low, np.float32), np.array(high, np.float32)

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """The state at `now`: joint coordinates are absolute."""
        return _vector(now, "joint_states", 4)

    def place(self, states: Floats) -> Floats:
        """The tip of the pole, above the track."""
        length, lean = 2.0 * self.parameters.pole_centre, states[:, 1]
        tip = [states[:, 0] + length * np.sin(lean), np.zeros(len(states)), length * np.cos(lean)]
        return np.stack(tip, axis=1)

    def in_motion(self, state: Floats, centre: Floats) -> bool:
        """OFF_REST or more away from the centre of its plan."""
        return bool(abs(state[0] - centre[0]) >= OFF_REST)

    def truth_margins(self, truth: Floats) -> Floats:
        """(track [m], lean [rad]) at truth = (joint positions, joint velocities)."""
        return np.array([self.parameters.position_limit - abs(truth[0]), self.parameters.angle_limit - abs(truth[1])])

    def sensed(self, inputs: Inputs) -> Floats:
        """See Robot: the joints show all of it."""
        return _vector(inputs, "joint_states", 4)

    def task(self, before: Inputs, action: Floats, after: Inputs) -> tuple[float, bool]:
        """-(distance to the goal / 1 m)^2 - reward_force (F / F_max)^2; success never ends an episode."""
        p = self.parameters
        distance = after["joint_states"][0] - self._clip(after["goal_pose"])[0]
        return float(-(distance**2) - p.reward_force * (action[0] / p.force_limit) ** 2), False

    def controller(self, observations: Singles) -> Floats:
        """LQR to the goal [N, 1]; goals beyond controller_reach are moved to it, which bounds speed and lean."""
        p = self.parameters
        offset = np.clip(observations[:, 4].astype(np.float64), -p.controller_reach, p.controller_reach)
        state = np.column_stack([-offset, observations[:, 1:4]])
        return np.clip(-(state @ self._gain), -p.force_limit, p.force_limit)[:, None]

    def initial_state(self, rng: np.random.Generator) -> Floats:
        """(x, theta, x', theta') at the start of an episode, near rest."""
        return rng.uniform(-1.0, 1.0, 4) * self._largest_start()

    def outermost_starts(self) -> Floats:
        """See Robot; the other half is the same mirrored."""
        return np.array([(1.0, *signs) for signs in product((-1.0, 1.0), repeat=3)]) * self._largest_start()

    def _largest_start(self) -> Floats:
        p = self.parameters
        return np.array([p.start_range, p.start_angle, p.start_speed, p.start_speed])

    def draw_goal(self, rng: np.random.Generator) -> Floats:
        """(goal x [m],) of an episode."""
        return rng.uniform(-1.0, 1.0, 1) * self.parameters.goal_range

    def _clip(self, goal: Floats) -> Floats:
        return np.clip(goal[:1], -self.parameters.goal_range, self.parameters.goal_range)


def _vector(inputs: Inputs, channel: str, size: int) -> Floats:
    vector = np.asarray(inputs[channel], np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"{channel}: expected {size} finite numbers, got {vector.tolist()}")
    return vector


def make(parameters: Mapping[str, Any], where: str) -> CartPole:
    """The robot with `parameters` over the defaults. Raises ValueError naming the key in `where`."""
    return CartPole(build(Parameters, parameters, where))
