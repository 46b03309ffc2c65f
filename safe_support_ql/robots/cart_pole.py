"""pybullet_data's cart-pole: hold the cart at a goal while the pole stays up.

Safe set: |x| and |theta| within limits. Backup policy k: LQR about one of several rest positions (centres), clipped as
the actuator clips it. Terminal set S_f: an ellipsoid about the centre, invariant for every member of the ensemble.
State (x [m], theta [rad], x' [m/s], theta' [rad/s]), absolute; theta > 0 leans towards +x. Action: force on the cart
[N].
No passive safe state exists: without a command the pole falls, so a lost state or a dead monitor is uncoverable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba.extending import register_jitable
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov
from scipy.optimize import minimize

from safe_support_ql.parameters import build, param
from safe_support_ql.robots.base import LATE, Estimate, Floats, Inputs, Model, Robot, Singles
from safe_support_ql.robots.world import Channel, CommandTopic, JointEffort, WorldSpec

GRAVITY = 9.81  # m/s^2, what the simulator sets
PHYSICS_HZ = 250
CONTROL_HZ = 50
TRAVEL = 15.0  # m, joint limit of the URDF: no slider can report more
FASTEST = 30.0  # m/s and rad/s, beyond what any of its joints can reach


@dataclass(frozen=True)
class Parameters:
    """Everything of this robot that a user may set; SI units."""

    position_limit: float = param(1.0, "m", 0.2, 10.0, "safe set: |x| at most this")
    angle_limit: float = param(0.2, "rad", 0.05, 0.5, "safe set: |theta| at most this")
    force_limit: float = param(10.0, "N", 1.0, 100.0, "saturation of the actuator")
    # Nominal model. Masses are the URDF's. PyBullet ignores the URDF's inertias unless it is told to use them and takes
    # the collision shapes' instead: the pole is a 0.05 x 0.05 x 1 m box. Its links are damped by 0.04 per second.
    cart_mass: float = param(1.0, "kg", 0.1, 100.0, "cart")
    pole_mass: float = param(0.1, "kg", 0.01, 10.0, "pole")
    pole_centre: float = param(0.5, "m", 0.05, 5.0, "from the hinge to the pole's centre of mass")
    pole_inertia: float = param(0.008354167, "kg m^2", 1e-5, 10.0, "about the pole's centre of mass")
    damping: float = param(0.04, "1/s", 0.0, 1.0, "of every link's velocity; grows with (1 + speed), as Bullet's does")
    # Ensemble: corners of the box of true parameters around nominal.
    mass_mismatch: float = param(0.2, "1", 0.0, 0.4, "cart and pole mass, +- this")
    length_mismatch: float = param(0.2, "1", 0.0, 0.4, "pole length, +- this; inertia follows mass and length")
    gain_mismatch: float = param(0.2, "1", 0.0, 0.4, "force per commanded force, +- this")
    # Backup policy: discrete LQR of the nominal model.
    backup_position_weight: float = param(1.0, "1/m^2", 1e-3, 1e3, "weight of (x - centre)^2")
    backup_angle_weight: float = param(3.19, "1/rad^2", 1e-3, 1e3, "weight of theta^2")
    backup_speed_weight: float = param(0.091, "s^2/m^2", 1e-3, 1e3, "weight of x'^2")
    backup_turn_weight: float = param(0.934, "s^2/rad^2", 1e-3, 1e3, "weight of theta'^2")
    backup_force_weight: float = param(0.0044, "1/N^2", 1e-6, 1.0, "weight of force^2")
    centre_span: float = param(0.766, "m", 0.0, 10.0, "outermost rest position")
    centres: int = param(9, "1", 1, 51, "rest positions, evenly spaced")
    horizon: float = param(2.5, "s", 0.5, 10.0, "longest rollout; it ends early inside S_f")
    checks_per_tick: int = param(1, "1", 1, 5, "certificate checks per control period; must divide the physics steps")
    # Margins of docs/method.md.
    position_error: float = param(5e-4, "m", 0.0, 0.1, "e_0: error of the measured x, at every tick")
    angle_error: float = param(2e-4, "rad", 0.0, 0.1, "e_0: error of the measured theta, at every tick")
    speed_error: float = param(2e-3, "m/s", 0.0, 1.0, "e_0: error of the measured x', at every tick")
    turn_error: float = param(5e-3, "rad/s", 0.0, 1.0, "e_0: error of the measured theta', at every tick")
    position_disturbance: float = param(1e-5, "m", 0.0, 0.1, "w_bar: change of x per tick the model misses")
    angle_disturbance: float = param(1e-5, "rad", 0.0, 0.1, "w_bar: change of theta per tick the model misses")
    speed_disturbance: float = param(3e-4, "m/s", 0.0, 1.0, "w_bar: change of x' per tick the model misses")
    turn_disturbance: float = param(5e-4, "rad/s", 0.0, 1.0, "w_bar: change of theta' per tick the model misses")
    command_delay: float = param(0.0005, "s", 0.0, 0.02, "a command acts this much later than the state says, at most")
    saturated_ticks: int = param(
        10, "1", 1, 50, "ticks for which k may saturate at first, so that errors grow open loop"
    )
    nonlinearity: float = param(1.05, "1", 1.0, 2.0, "growth of errors away from the upright, over the linear one's")
    late_swings: int = param(2, "1", 0, 20, "late swings of the full force that add up")
    between_members: float = param(0.004, "1", 0.0, 0.5, "scaled margin a model between the members may lose")
    band: float = param(0.02, "1", 0.0, 0.5, "width b of the hysteresis band, in scaled margin")
    offered_ticks: int = param(
        2, "1", 0, 10, "beta draws what passes held for so many ticks more, where such is; 0 all"
    )
    band_budget: float = param(0.1, "1", 0.0, 0.5, "scaled margin in-band steps may spend before only the plan runs")
    input_age: float = param(0.1, "s", 0.02, 2.0, "older inputs count as missing")
    drive_timeout: float = param(0.1, "s", 0.04, 2.0, "the drive's effort is zero this long after a command")
    # Task.
    goal_range: float = param(0.6, "m", 0.0, 10.0, "goals are drawn within +- this; goals beyond are clipped to it")
    start_range: float = param(0.6, "m", 0.0, 10.0, "episodes start within +- this")
    start_angle: float = param(0.03, "rad", 0.0, 0.5, "episodes start with |theta| up to this")
    start_speed: float = param(0.05, "m/s | rad/s", 0.0, 1.0, "episodes start with |x'| and |theta'| up to this")
    episode_s: float = param(10.0, "s", 1.0, 600.0, "time limit of an episode")
    reward_force: float = param(0.1, "1", 0.0, 10.0, "cost of full force for one tick; 1 m off the goal costs 1")
    # Scripted controller: LQR to the goal.
    controller_angle_weight: float = param(0.4, "1/rad^2", 0.0, 1e3, "weight of theta^2; (x - goal)^2 weighs 1 / m^2")
    controller_turn_weight: float = param(0.8, "s^2/rad^2", 0.0, 1e3, "weight of theta'^2")
    controller_force_weight: float = param(0.0013, "1/N^2", 1e-6, 1.0, "weight of force^2")
    controller_reach: float = param(0.97, "m", 0.05, 10.0, "a goal farther away is approached as if at this distance")


@register_jitable  # a plain function in Python, compiled where compiled code calls it
def accelerations(q: Any, v: Any, w: Any, force: Any, member: tuple[Any, ...]) -> tuple[Any, Any]:
    """(x'', theta'') of the cart-pole with Bullet's link damping; member as in step.

    Lagrange's equations; damping as in btMultiBody's articulated-body pass: force -d m v (1 + |v|) on each link's
    centre of mass and torque -d I w (1 + |w|), with d the damping of 0.04 / s. Pinned to PyBullet by a test.
    """
    cart, pole, length, inertia, gain, damping, _ = member
    s, c = np.sin(q), np.cos(q)
    along, up = v + length * c * w, -length * s * w  # velocity of the pole's centre of mass
    drag = pole * damping * (1.0 + np.sqrt(along * along + up * up))
    f = gain * force + pole * length * s * w * w - cart * damping * (1.0 + np.abs(v)) * v - drag * along
    torque = (
        pole * GRAVITY * length * s
        - drag * (along * length * c - up * length * s)
        - inertia * damping * (1.0 + np.abs(w)) * w
    )
    total, coupling, about = cart + pole, pole * length * c, inertia + pole * length * length
    determinant = total * about - coupling * coupling
    return (about * f - coupling * torque) / determinant, (total * torque - coupling * f) / determinant


def step(x: tuple[Any, ...], u: tuple[Any, ...], member: tuple[Any, ...], dt: float) -> tuple[Any, ...]:
    """The state after dt seconds of the force u held, as PyBullet integrates it.

    member = (cart mass, pole mass, pole centre, pole inertia, gain, damping, physics step). Bullet takes dt / h
    semi-implicit Euler steps of h; this takes one midpoint step whose moments (mean time, mean square and cubic time of
    those h-steps) are Bullet's: the same to third order, with two force evaluations, and exact for dt = h. h = 0 is
    continuous time, as on hardware.
    """
    p, q, v, w = x
    h = member[6]
    a, b = accelerations(q, v, w, u[0], member)
    late = 0.5 * (dt - h)
    square = (dt * dt - h * h) / 6.0
    a2, b2 = accelerations(q + late * w + square * b, v + late * a, w + late * b, u[0], member)
    cubic = dt * (dt + h) / 6.0
    return p + dt * v + cubic * (2.0 * a2 + a), q + dt * w + cubic * (2.0 * b2 + b), v + dt * a2, w + dt * b2


def backup(x: tuple[Any, ...], centre: float, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """LQR about rest at `centre`, clipped to the actuator's range; constants = (limits of x, theta, F, K[4], ...)."""
    force = -(constants[3] * (x[0] - centre) + constants[4] * x[1] + constants[5] * x[2] + constants[6] * x[3])
    return (np.minimum(np.maximum(force, -constants[2]), constants[2]),)


def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """(track [m], lean [rad]) left before the safe set ends."""
    return constants[0] - np.abs(x[0]), constants[1] - np.abs(x[1])


def terminal(x: tuple[Any, ...], centre: float, constants: tuple[float, ...]) -> Any:
    """Inside {z' P z <= rho} about `centre`, shrunk where the track ends; constants[7:] = (P[10], rho, room, reach)."""
    _, _, _, _, _, _, _, p00, p01, p02, p03, p11, p12, p13, p22, p23, p33, rho, room, reach = constants
    p, q, v, w = x[0] - centre, x[1], x[2], x[3]
    value = (
        p00 * p * p + p11 * q * q + p22 * v * v + p33 * w * w
        + 2.0 * (p01 * p * q + p02 * p * v + p03 * p * w + p12 * q * v + p13 * q * w + p23 * v * w)
    )  # fmt: skip
    free = np.maximum(room - np.abs(centre), 0.0) / reach
    return value <= np.minimum(rho, free * free)


class CartPole(Robot):
    """See the module."""

    name = "cart_pole"
    parameters: Parameters
    frame_id = "world"
    state_names = ("x", "theta", "x_rate", "theta_rate")
    action_names = ("force",)
    action_units = ("N",)
    observation_units = ("m", "rad", "m/s", "rad/s", "m", "m", "N", "m", "1")
    observation_names = (
        "x", "theta", "x_rate", "theta_rate", "goal_offset", "goal", "last_force", "plan_centre", "band_threshold",
    )  # fmt: skip

    def __init__(self, parameters: Parameters) -> None:
        """Derive everything from `parameters`. Raises ValueError if they leave no certificate."""
        p = self.parameters = parameters
        joints = ("slider_to_cart", "cart_to_pole")
        self.world = WorldSpec(
            physics_hz=PHYSICS_HZ,
            control_hz=CONTROL_HZ,
            episode_s=p.episode_s,
            drive=JointEffort("cartpole.urdf", joints[:1], joints, p.drive_timeout),
            sensors={"joint_states": "joints", "goal_pose": "goal"},
        )
        self.channels = (
            Channel(
                "joint_states", "sensor_msgs/msg/JointState", ("position[]", "velocity[]"), p.input_age, len(joints),
                {"name": list(joints)},
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
        self.model = _model(p)
        self.errors = {"joint_states": _bounds(p)[0]}
        self.mismatches = {
            "cart_heavy": {"link_masses": {"slider_to_cart": 1.18 * p.cart_mass}},
            "pole_heavy": {"link_masses": {"cart_to_pole": 1.18 * p.pole_mass}},
            "pole_short": {
                "urdf_edits": (("0.05 0.05 1.0", "0.05 0.05 0.82"), ("0 0 0.5", "0 0 0.41")),
                "link_masses": {"cart_to_pole": 0.82 * p.pole_mass},
            },
            "force_weak": {"gain": 0.82},
            "damping_high": {"damping": 1.18 * p.damping},
        }
        drive = self.world.drive
        assert isinstance(drive, JointEffort)
        self.beyond = {
            "load": replace(self.world, drive=replace(drive, link_masses={"slider_to_cart": 2.0 * p.cart_mass})),
            "force_lost": replace(self.world, drive=replace(drive, gain=0.5)),
            "track_sticky": replace(self.world, drive=replace(drive, damping=1.0)),
        }
        self._gain = _lqr(
            _nominal(p),
            np.array([1.0, p.controller_angle_weight, 0.0, p.controller_turn_weight]),
            p.controller_force_weight,
        )

    def objection(self) -> str:
        """See Robot."""
        if self.model.step_residual == 0.0:
            return "all *_disturbance are 0, one must be more: the band's budget would never be spent"
        p, model = self.parameters, self.model
        if p.input_age < LATE * self.period:
            return f"input_age is {p.input_age:g} s, must be {LATE * self.period:g} s at least: a cycle may be so late"
        # What the margins leave at the end of a rollout, which the outermost start has to keep.
        x, lean = np.maximum(model.scale * (1 - p.band) - model.tightening[-1], 0.0)
        if p.start_range > x:
            return f"start_range is {p.start_range:g} m, must be at most {_down(x)} m for a start to be certified"
        if p.start_angle > lean:
            angle = f"{p.start_angle:g} rad, must be at most {_down(lean)} rad"
            return f"start_angle is {angle} for a start to be certified"
        return ""

    def at_rest(self) -> Estimate:
        """See Robot."""
        return self.estimate({"joint_states": np.zeros(4), "goal_pose": np.zeros(1)})

    def estimate(self, inputs: Inputs) -> Estimate:
        """State (x, theta, x', theta') as the joints report it; task (goal x [m],) clipped to the goal range."""
        joints, goal = _vector(inputs, "joint_states", 4), _vector(inputs, "goal_pose", 1)
        if abs(joints[0]) > TRAVEL:
            raise ValueError(f"joint_states: cart at {joints[0]:g} m, the slider ends at {TRAVEL:g} m")
        if np.abs(joints[2:]).max() > FASTEST:
            raise ValueError(f"joint_states: speeds {joints[2]:g} m/s and {joints[3]:g} rad/s; wrong units?")
        return Estimate(joints, np.zeros((0, 2)), self._clip(goal))

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: float, threshold: float
    ) -> Singles:
        """See observation_names; SI units, threshold in scaled margin."""
        goal = estimate.task[0]
        return np.array([*estimate.state, goal - estimate.state[0], goal, previous[0], centre, threshold], np.float32)

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """The state at `now`: joint coordinates are absolute."""
        return _vector(now, "joint_states", 4)

    def place(self, states: Floats) -> Floats:
        """The tip of the pole, above the track."""
        length, lean = 2.0 * self.parameters.pole_centre, states[:, 1]
        tip = [states[:, 0] + length * np.sin(lean), np.zeros(len(states)), length * np.cos(lean)]
        return np.stack(tip, axis=1)

    def truth_margins(self, truth: Floats) -> Floats:
        """(track [m], lean [rad]) at the true joint positions and velocities."""
        return np.array([self.parameters.position_limit - abs(truth[0]), self.parameters.angle_limit - abs(truth[1])])

    def reward(self, before: Floats, action: Floats, after: Floats, goal: Floats) -> tuple[float, bool]:
        """-(distance to the goal / 1 m)^2 - reward_force (F / F_max)^2; the task never ends by success."""
        p = self.parameters
        distance = after[0] - self._clip(goal)[0]
        return float(-(distance**2) - p.reward_force * (action[0] / p.force_limit) ** 2), False

    def controller(self, observations: Singles) -> Floats:
        """LQR to the goal [N, 1]; a goal beyond controller_reach counts as that far, which bounds speed and lean."""
        p = self.parameters
        offset = np.clip(observations[:, 4].astype(np.float64), -p.controller_reach, p.controller_reach)
        state = np.column_stack([-offset, observations[:, 1:4]])
        return np.clip(-(state @ self._gain), -p.force_limit, p.force_limit)[:, None]

    def initial_state(self, rng: np.random.Generator) -> Floats:
        """(x, theta, x', theta') at the start of an episode: near rest, and certified."""
        p = self.parameters
        return rng.uniform(-1.0, 1.0, 4) * np.array([p.start_range, p.start_angle, p.start_speed, p.start_speed])

    def draw_goal(self, rng: np.random.Generator) -> Floats:
        """(goal x [m],) of an episode."""
        return rng.uniform(-1.0, 1.0, 1) * self.parameters.goal_range

    def _clip(self, goal: Floats) -> Floats:
        return np.clip(goal[:1], -self.parameters.goal_range, self.parameters.goal_range)


def _down(value: float) -> float:
    """`value` rounded down, so that what an objection names is accepted."""
    return float(np.floor(1e3 * value) / 1e3)


def _vector(inputs: Inputs, channel: str, size: int) -> Floats:
    vector = np.asarray(inputs[channel], np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"{channel}: expected {size} finite numbers, got {vector.tolist()}")
    return vector


def _nominal(p: Parameters) -> Floats:
    return np.array(
        [p.cart_mass, p.pole_mass, p.pole_centre, p.pole_inertia, 1.0, p.damping, 1.0 / PHYSICS_HZ]
    )  # fmt: skip


def _ensemble(p: Parameters) -> Floats:
    """Nominal and four corners [5, 7].

    Authority per command (gain / cart mass) and the pole's speed (length) are each at both ends. A heavy pole makes
    every corner worse, because it pushes the cart; a light one adds nothing. That the corners stand for the box is
    measured, not proved: a test draws models from the box, and `between_members` is the margin for what they lose.
    """
    rows = [_nominal(p)]
    for weak, long in ((1, -1), (1, 1), (-1, -1), (-1, 1)):
        mass, length = 1.0 + p.mass_mismatch, 1.0 + long * p.length_mismatch
        scale = [1.0 + weak * p.mass_mismatch, mass, length, mass * length**2, 1.0 - weak * p.gain_mismatch, 1.0, 1.0]
        rows.append(rows[0] * np.array(scale))
    return np.array(rows)


def _bounds(p: Parameters) -> tuple[Floats, Floats]:
    """(e_0[4], w_bar[4]) in the units of the state."""
    return (
        np.array([p.position_error, p.angle_error, p.speed_error, p.turn_error]),
        np.array([p.position_disturbance, p.angle_disturbance, p.speed_disturbance, p.turn_disturbance]),
    )


def _linear(member: Floats) -> tuple[Floats, Floats]:
    """A[4, 4], B[4] of one control period about rest, by central differences of step."""
    size = 1e-5

    def column(i: int) -> Floats:
        z, parameters = size * np.eye(5)[i], tuple(member)
        ahead, back = (np.array(step(tuple(s * z[:4]), (s * z[4],), parameters, 1 / CONTROL_HZ)) for s in (1, -1))
        return np.asarray((ahead - back) / (2 * size))

    return np.column_stack([column(i) for i in range(4)]), column(4)


def _lqr(member: Floats, weights: Floats, force_weight: float) -> Floats:
    """K[4] of the discrete LQR, u = -K z; weights[4] in units of 1 / state^2."""
    a, b = _linear(member)
    cost = solve_discrete_are(a, b[:, None], np.diag(weights), np.array([[force_weight]]))
    return np.asarray((b @ cost @ a) / (force_weight + b @ cost @ b))


def _common_lyapunov(loops: list[Floats]) -> tuple[Floats, float]:
    """(P[4, 4], rate): ||A z||_P <= rate ||z||_P for every closed loop A, the smallest rate that descent finds.

    The rate is quasi-convex in P, so descent on its softened maximum from the nominal solution does; the exact rate is
    then computed, so a poor search can cost size of S_f but never its invariance.
    """
    start = solve_discrete_lyapunov(loops[0].T, np.eye(4))
    unit = np.sqrt(np.diag(start))  # states in these units make P well conditioned
    scaled = [unit[:, None] * loop / unit for loop in loops]
    lower = np.tril_indices(4)

    def root(x: Any) -> Floats:
        r = np.zeros((4, 4))
        r[lower] = x
        return r.T

    def rates(x: Any) -> Floats:
        r = root(x)
        inverse = np.linalg.pinv(r)
        return np.array([np.linalg.norm(r @ loop @ inverse, 2) for loop in scaled])

    def soft(x: Any, width: float) -> float:
        rate = rates(x)
        return float(rate.max() + width * np.log(np.exp((rate - rate.max()) / width).sum()))

    x = np.linalg.cholesky(start / unit / unit[:, None])[lower]
    for width in (0.02, 0.005, 0.001):
        x = minimize(soft, x, (width,), method="BFGS").x
    p = root(x) * unit
    return p.T @ p, float(rates(x).max())


def _tubes(p: Parameters, member: Floats, gain: Floats, ticks: int) -> Floats:
    """Bounds [ticks + 1, 2] of |error| in (x, theta) of a rollout against the truth of the same `member`.

    For the candidate's own tick, and while k saturates, errors grow open loop (A), then as A - B K: the largest over
    every number of open ticks up to saturated_ticks. |C Phi| e_0 for the start, |C Phi| w_bar for each tick, and
    |C Phi B| |K| e_0 for each closed one, because k acts on the measured state. Entry by entry, so there is no
    Lipschitz constant to lose on. Late commands are late_swings impulses of full swing at their worst moment.
    """
    a, b = _linear(member)
    e0, w = _bounds(p)
    measured = float(np.abs(gain) @ e0)
    late = 2.0 * p.force_limit * p.command_delay * CONTROL_HZ
    opened = [np.linalg.matrix_power(a, t) for t in range(p.saturated_ticks + 1)]
    settled = [np.eye(4)]
    for _ in range(ticks):
        settled.append((a - np.outer(b, gain)) @ settled[-1])
    closed = np.array(settled)[:, :2]  # what an error does to (x, theta) t closed ticks later
    steady = np.abs(closed) @ w + np.abs(closed @ b) * measured
    worst = np.zeros((ticks + 1, 2))
    for open_ticks in range(1, p.saturated_ticks + 1):
        bound, impulse = np.zeros((ticks + 1, 2)), np.zeros((ticks + 1, 2))
        for u in range(open_ticks + 1):  # an error that enters after tick u; the first one is that of the start
            before = np.array(opened[: open_ticks - u + 1])[:, :2]
            after = closed[1 : ticks - open_ticks + 1] @ opened[open_ticks - u]
            path = np.concatenate([before, after])
            bound[u:] += np.abs(path) @ (w if u else e0)
            if u:
                impulse[u:] = np.maximum(impulse[u:], np.abs(path @ b) * late)
        bound[open_ticks + 1 :] += np.cumsum(steady, axis=0)[: ticks - open_ticks]
        swing = np.maximum.accumulate(np.abs(closed @ b) * late)[: ticks - open_ticks]
        impulse[open_ticks + 1 :] = np.maximum(impulse[open_ticks + 1 :], swing)
        worst = np.maximum(worst, bound + p.late_swings * impulse)
    return np.asarray(p.nonlinearity * np.maximum.accumulate(worst))


def _model(p: Parameters) -> Model:
    dt = 1.0 / CONTROL_HZ / p.checks_per_tick
    substeps = PHYSICS_HZ // CONTROL_HZ
    if substeps % p.checks_per_tick:
        raise ValueError(f"checks_per_tick is {p.checks_per_tick}, must divide {substeps} physics steps")
    members = _ensemble(p)
    weights = [p.backup_position_weight, p.backup_angle_weight, p.backup_speed_weight, p.backup_turn_weight]
    gain = _lqr(members[0], np.array(weights), p.backup_force_weight)
    linear = [_linear(member) for member in members]
    lyapunov, rate = _common_lyapunov([a - np.outer(b, gain) for a, b in linear])
    if not rate < 1.0:
        raise ValueError("backup weights and mismatches leave no common Lyapunov function; choose smaller mismatches")

    ticks = int(np.ceil(p.horizon * CONTROL_HZ))
    if p.saturated_ticks > ticks:
        raise ValueError(f"saturated_ticks is {p.saturated_ticks}, must be at most the {ticks} ticks of the horizon")
    tube = np.max([_tubes(p, member, gain, ticks) for member in members], axis=0)
    limits = np.array([p.position_limit, p.angle_limit])
    e0, w = _bounds(p)
    # Between two checks dt apart a coordinate passes its larger end by at most dt^2 / 8 of its acceleration.
    corner = (np.array(p.angle_limit), 0.0, 0.0, -p.force_limit)
    fastest = np.max([np.abs(accelerations(*corner, tuple(member))) for member in members], axis=0)
    margin = tube + dt**2 / 8 * fastest + p.between_members * limits

    # S_f: the largest {z' P z <= rho} with |theta| inside its limit less the tube, and |K z|, measured with error,
    # inside the actuator's; |x| is a matter of the centre.
    spread = np.linalg.inv(lyapunov)
    lean = (p.angle_limit - margin[-1, 1]) / np.sqrt(spread[1, 1])
    effort = (p.force_limit - np.abs(gain) @ e0) / np.sqrt(gain @ spread @ gain)
    room = p.position_limit - margin[-1, 0]
    reach = float(np.sqrt(spread[0, 0]))
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 4), axis=-1).reshape(-1, 4)
    largest = np.sqrt(np.einsum("ni,ij,nj->n", signs * w, lyapunov, signs * w).max())
    radius = min(lean, effort)
    if min(radius, (room - p.centre_span) / reach) <= largest / (1.0 - rate):
        raise ValueError(
            f"no invariant terminal set about x = centre_span = {p.centre_span:g} m: margins leave {room:.3f} m "
            f"and {p.angle_limit - margin[-1, 1]:.3f} rad; choose smaller centre_span, errors or disturbances"
        )
    constants = (*limits, p.force_limit, *gain, *lyapunov[np.triu_indices(4)], radius**2, room, reach)

    checks = -(-np.arange(ticks * p.checks_per_tick + 1) // p.checks_per_tick)  # the tick each check is part of
    # What an error of the state, or of one step, does to (x, theta) at any later time: absolute values of Phi_t's rows.
    nominal = linear[0][0] - np.outer(linear[0][1], gain)
    later = np.array([np.abs(np.linalg.matrix_power(nominal, t)[:2]) for t in range(ticks)])
    # A prediction misses by both measurements and the disturbance; where a tick is uneven, by a late command, too.
    residual = np.max([np.abs(a) @ e0 for a, _ in linear], axis=0) + e0 + w
    late = np.max([np.abs(b) for _, b in linear], axis=0) * 2.0 * p.force_limit * p.command_delay * CONTROL_HZ
    return Model(
        step=step,
        backup=backup,
        margins=margins,
        terminal=terminal,
        members=members,
        centres=np.linspace(-p.centre_span, p.centre_span, p.centres)[:, None] if p.centres > 1 else np.zeros((1, 1)),
        constants=tuple(float(value) for value in constants),
        margin_names=("track", "lean"),
        tightening=np.ascontiguousarray(margin[checks]),
        scale=limits,
        checks_per_tick=p.checks_per_tick,
        dt=dt,
        offered_longer=p.offered_ticks * p.checks_per_tick,
        holds=(p.checks_per_tick,),  # an effort of zero is no stop, so there is no drive timeout to certify
        band=p.band,
        noise_allowance=float((later @ e0 / limits).max()),
        step_residual=float((later @ w / limits).max()),
        band_budget=p.band_budget,
        residual=residual,
        uneven=0.01,
        slack=residual + late,
    )


def make(parameters: Mapping[str, Any], where: str) -> CartPole:
    """The robot with `parameters` over the defaults. Raises ValueError naming the key."""
    return CartPole(build(Parameters, parameters, where))
