"""The parameters of the cart-pole, each with default, unit, range and meaning; config/cart_pole.yaml repeats them."""

from dataclasses import dataclass

from safe_support_ql.parameters import param


@dataclass(frozen=True)
class Parameters:
    """Every parameter of the cart-pole; SI units."""

    position_limit: float = param(1.0, "m", 0.2, 10.0, "safe set: |x| is at most this")
    angle_limit: float = param(0.2, "rad", 0.05, 0.5, "safe set: |theta| is at most this")
    force_limit: float = param(10.0, "N", 1.0, 100.0, "saturation of the actuator")
    # Nominal model. Masses are those of the URDF. PyBullet does not use the URDF's inertias by default but computes
    # them from the collision shapes: the pole is a 0.05 x 0.05 x 1 m box. Bullet damps links by 0.04 per second.
    cart_mass: float = param(1.0, "kg", 0.1, 100.0, "mass of the cart")
    pole_mass: float = param(0.1, "kg", 0.01, 10.0, "mass of the pole")
    pole_centre: float = param(0.5, "m", 0.05, 5.0, "from the hinge to the pole's centre of mass")
    pole_inertia: float = param(0.008354167, "kg m^2", 1e-5, 10.0, "about the pole's centre of mass")
    damping: float = param(0.04, "1/s", 0.0, 1.0, "damping of every link; grows with (1 + speed), as Bullet's does")
    # Ensemble: corners of the box of true parameters around the nominal ones.
    mass_mismatch: float = param(0.2, "1", 0.0, 0.4, "mismatch of cart and pole mass, +- this share")
    length_mismatch: float = param(0.2, "1", 0.0, 0.4, "mismatch of the pole length, +- this share; inertia follows")
    gain_mismatch: float = param(0.2, "1", 0.0, 0.4, "mismatch of the force per commanded force, +- this share")
    # Backup policy: discrete LQR of the nominal model.
    backup_position_weight: float = param(1.0, "1/m^2", 1e-3, 1e3, "weight of (x - centre)^2")
    backup_angle_weight: float = param(3.19, "1/rad^2", 1e-3, 1e3, "weight of theta^2")
    backup_speed_weight: float = param(0.091, "s^2/m^2", 1e-3, 1e3, "weight of x'^2")
    backup_turn_weight: float = param(0.934, "s^2/rad^2", 1e-3, 1e3, "weight of theta'^2")
    backup_force_weight: float = param(0.0044, "1/N^2", 1e-6, 1.0, "weight of force^2")
    centre_span: float = param(0.766, "m", 0.0, 10.0, "distance of the outermost centre (rest position) from x = 0")
    centres: int = param(9, "1", 1, 51, "number of centres, evenly spaced")
    horizon: float = param(2.5, "s", 0.5, 10.0, "longest rollout; a rollout ends earlier once it is inside S_f")
    checks_per_tick: int = param(1, "1", 1, 5, "certificate checks per control period; must divide the physics steps")
    # Margins of docs/method.md.
    position_error: float = param(5e-4, "m", 0.0, 0.1, "e_0: error of the measured x, at every tick")
    angle_error: float = param(2e-4, "rad", 0.0, 0.1, "e_0: error of the measured theta, at every tick")
    speed_error: float = param(2e-3, "m/s", 0.0, 1.0, "e_0: error of the measured x', at every tick")
    turn_error: float = param(5e-3, "rad/s", 0.0, 1.0, "e_0: error of the measured theta', at every tick")
    position_disturbance: float = param(1e-5, "m", 0.0, 0.1, "w_bar: change of x per tick that the model misses")
    angle_disturbance: float = param(1e-5, "rad", 0.0, 0.1, "w_bar: change of theta per tick that the model misses")
    speed_disturbance: float = param(3e-4, "m/s", 0.0, 1.0, "w_bar: change of x' per tick that the model misses")
    turn_disturbance: float = param(5e-4, "rad/s", 0.0, 1.0, "w_bar: change of theta' per tick that the model misses")
    command_delay: float = param(0.0005, "s", 0.0, 0.02, "a command acts later than assumed by at most this")
    saturated_ticks: int = param(
        10, "1", 1, 50, "ticks for which k may saturate at first; meanwhile errors grow open loop"
    )
    nonlinearity: float = param(1.05, "1", 1.0, 2.0, "error growth away from the upright, relative to the linear one")
    late_swings: int = param(2, "1", 0, 20, "number of late swings of the full force that add up")
    between_members: float = param(0.004, "1", 0.0, 0.5, "scaled margin that a model between the members may lose")
    band: float = param(0.02, "1", 0.0, 0.5, "width of the hysteresis band, in scaled margin")
    offered_ticks: int = param(
        2, "1", 0, 10, "if any actions pass when held this many ticks longer, beta draws only those; 0: all"
    )
    band_budget: float = param(0.1, "1", 0.0, 0.5, "scaled margin that in-band steps may spend before they are refused")
    input_age: float = param(0.1, "s", 0.02, 2.0, "inputs older than this count as missing")
    drive_timeout: float = param(0.1, "s", 0.04, 2.0, "the drive's effort is zero this long after a command")
    # Task.
    goal_range: float = param(0.6, "m", 0.0, 10.0, "goals are drawn within +- this; a goal beyond is clipped to it")
    start_range: float = param(0.6, "m", 0.0, 10.0, "episodes start within +- this")
    start_angle: float = param(0.03, "rad", 0.0, 0.5, "episodes start with |theta| up to this")
    start_speed: float = param(0.05, "m/s | rad/s", 0.0, 1.0, "episodes start with |x'| and |theta'| up to this")
    episode_s: float = param(10.0, "s", 1.0, 600.0, "time limit of an episode")
    reward_force: float = param(0.1, "1", 0.0, 10.0, "cost of full force for one tick; 1 m from the goal costs 1")
    # Scripted controller: LQR to the goal.
    controller_angle_weight: float = param(0.4, "1/rad^2", 0.0, 1e3, "weight of theta^2; (x - goal)^2 weighs 1 / m^2")
    controller_turn_weight: float = param(0.8, "s^2/rad^2", 0.0, 1e3, "weight of theta'^2")
    controller_force_weight: float = param(0.0013, "1/N^2", 1e-6, 1.0, "weight of force^2")
    controller_reach: float = param(0.97, "m", 0.05, 10.0, "a goal farther away is approached as if at this distance")
