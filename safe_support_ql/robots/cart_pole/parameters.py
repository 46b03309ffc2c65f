"""What a user may set of the cart-pole; SI units."""

from __future__ import annotations

from dataclasses import dataclass

from safe_support_ql.parameters import param


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
