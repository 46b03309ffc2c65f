"""The parameters of the base, each with default, unit, range and meaning; config/diff_drive.yaml repeats them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from safe_support_ql.parameters import param, section
from safe_support_ql.robots import footprint
from safe_support_ql.robots.scan import LidarSetup


@dataclass(frozen=True)
class Parameters:
    """Every parameter of the base; SI units."""

    footprint_radius: float = param(0.17, "m", 0.05, 1.0, "radius about the middle of the axle that contains the base")
    footprint: tuple[tuple[float, ...], ...] = param(
        (), "m", -2.0, 2.0, "corners [x, y] of a convex outline about the middle of the axle, in place of the radius"
    )
    clearance: float = param(0.05, "m", 0.0, 1.0, "safe set: the footprint is at least this far from any obstacle")
    obstacle_speed: float = param(0.0, "m/s", 0.0, 2.0, "largest speed of people and others who move by themselves")
    speed: float = param(0.6, "m/s", 0.05, 3.0, "command saturation, forwards")
    reverse_speed: float = param(0.15, "m/s", 0.0, 3.0, "command saturation, backwards")
    turn_rate: float = param(1.5, "rad/s", 0.1, 6.0, "command saturation")
    speed_margin: float = param(0.3, "m/s", 0.0, 3.0, "the safe set's speed limit is the saturation plus this")
    turn_margin: float = param(1.0, "rad/s", 0.0, 6.0, "the safe set's turn limit is the saturation plus this")
    lag: float = param(0.1, "s", 0.01, 1.0, "first-order lag of the drive")
    acceleration: float = param(2.5, "m/s^2", 0.1, 20.0, "slew limit of the drive")
    turn_acceleration: float = param(10.0, "rad/s^2", 0.1, 100.0, "slew limit of the drive")
    dead_zone: float = param(0.05, "m/s", 0.0, 0.5, "slower speed commands count as zero, so that beta can stop")
    drive_timeout: float = param(0.25, "s", 0.05, 2.0, "the drive stops by itself this long after its last command")
    # Ensemble: how far the true motion may differ from the odometry, relative to nominal.
    motion_mismatch: float = param(0.2, "1", 0.0, 0.5, "mismatch of true motion per odometry unit, +- this share")
    lag_mismatch: float = param(0.3, "1", 0.0, 0.9, "mismatch of the lag of the drive, +- this share")
    braking_mismatch: float = param(0.2, "1", 0.0, 0.9, "mismatch of the slew limits of the drive, lower by this share")
    # Margins of docs/method.md.
    between_members: float = param(0.01, "m", 0.0, 0.5, "clearance a model of the box may lose beyond every member")
    margin_model: float = param(0.005, "m", 0.0, 0.5, "model residual: clearance lost to model errors at once")
    margin_growth: float = param(0.02, "m/s", 0.0, 1.0, "w_bar: clearance lost to model errors per second of rollout")
    margin_terminal: float = param(0.008, "m", 0.0, 0.1, "distance that the base creeps on below the terminal speed")
    margin_speed_estimate: float = param(0.06, "m/s", 0.0, 0.5, "e_0: error of the odometry's speed")
    # What an error of the heading costs a footprint with corners: each times the distance of the farthest one.
    between_members_turn: float = param(0.02, "rad", 0.0, 0.5, "turn of a model of the box beyond every member")
    margin_model_turn: float = param(0.01, "rad", 0.0, 0.5, "model residual: turn that the model misses at once")
    margin_growth_turn: float = param(0.04, "rad/s", 0.0, 1.0, "turn that the model misses per second of rollout")
    margin_turn_estimate: float = param(0.1, "rad/s", 0.0, 1.0, "error of the odometry's turn rate")
    lidar_noise: float = param(0.03, "m", 0.0, 0.5, "bound on the error of one range of a lidar")
    terminal_speed: float = param(0.02, "m/s", 0.001, 0.2, "S_f: slower than this counts as standing")
    horizon: float = param(1.5, "s", 0.2, 10.0, "longest rollout; longer than any stop")
    checks_per_tick: int = param(2, "1", 1, 100, "certificate checks per control period")
    band: float = param(0.04, "m", 0.0, 0.5, "width of the hysteresis band")
    noise_allowance: float = param(0.03, "m", 0.0, 0.5, "how far scan noise moves the margin of a standing robot")
    step_residual: float = param(0.0005, "m", 0.0, 0.1, "clearance that one in-band step may lose unnoticed")
    band_budget: float = param(0.1, "m", 0.0, 1.0, "clearance that in-band steps may spend before they are refused")
    # W: a residual beyond it counts as a mismatch.
    residual_distance: float = param(0.01, "m", 0.001, 1.0, "W: distance of a tick by odometry")
    residual_turn: float = param(0.04, "rad", 0.001, 1.0, "W: turn of a tick by odometry")
    residual_speed: float = param(0.05, "m/s", 0.001, 1.0, "W: speed by odometry")
    residual_turn_rate: float = param(0.3, "rad/s", 0.001, 5.0, "W: turn rate by odometry")
    scan_residual_distance: float = param(0.015, "m", 0.001, 1.0, "W: distance of a tick by matching scans")
    scan_residual_turn: float = param(0.02, "rad", 0.001, 1.0, "W: turn of a tick by matching scans")
    scan_disagreement: float = param(0.12, "1", 0.01, 1.0, "W: share of a scan that no motion explains")
    scan_rays: int = param(180, "1", 180, 1440, "rays of the simulated lidar, and bearings that scans are compared at")
    scan_range: float = param(6.0, "m", 1.0, 100.0, "largest range that is believed")
    policy_rays: int = param(36, "1", 4, 1440, "sectors that the policy sees; each is the shortest of its rays")
    input_age: float = param(0.25, "s", 0.02, 2.0, "odometry older than this counts as missing")
    scan_age: float = param(0.25, "s", 0.02, 2.0, "scans older than this count as missing")
    lidars: tuple[LidarSetup, ...] = section(LidarSetup, "how each is mounted, and what its driver writes")
    odom_topic: str = param("odom", "", doc="topic of the odometry")
    odom_frame: str = param("odom", "", doc="frame_id of the odometry and of goals")
    base_frame: str = param("base_link", "", doc="child_frame_id of the odometry, and frame_id of commands")
    goal_topic: str = param("goal_pose", "", doc="topic of goals")
    command_topic: str = param("cmd_vel", "", doc="topic of commands")
    # World and task.
    scan_noise: float = param(0.01, "m", 0.0, 0.1, "standard deviation of the simulated noise, cut off at 3 times that")
    odometry_drift: float = param(0.01, "1", 0.0, 0.2, "simulated drift of the odometry, relative")
    arena_side: float = param(8.0, "m", 4.0, 50.0, "side of the walled square")
    obstacles_min: int = param(8, "1", 0, 100, "fewest obstacles")
    obstacles_max: int = param(14, "1", 0, 100, "most obstacles")
    obstacle_half_width_min: float = param(0.1, "m", 0.05, 2.0, "half the width of the smallest possible obstacle")
    obstacle_half_width_max: float = param(0.16, "m", 0.1, 2.0, "half the width of the largest simulated obstacle")
    walkers: int = param(0, "1", 0, 50, "discs that walk about in the simulated arena")
    walker_speed: float = param(0.3, "m/s", 0.0, 3.0, "speed of each of them")
    start_goal_distance: float = param(4.0, "m", 0.5, 50.0, "least distance from start to goal")
    corridor: float = param(0.5, "m", 0.1, 2.0, "half the least gap between two obstacles, or to a wall")
    goal_radius: float = param(0.3, "m", 0.05, 2.0, "a goal closer than this counts as reached")
    episode_s: float = param(40.0, "s", 1.0, 600.0, "time limit of an episode")
    reward_progress: float = param(5.0, "1/m", 0.0, 100.0, "reward per metre of progress towards the goal")
    reward_time: float = param(0.02, "1", 0.0, 1.0, "cost of a tick")
    reward_goal: float = param(1.0, "1", 0.0, 100.0, "reward for reaching the goal")

    @cached_property
    def outline(self) -> tuple[float, ...]:
        """The footprint as footprint.py takes it; () for a disc. Raises ValueError saying what is wrong with it."""
        return footprint.outline(self.footprint) if self.footprint else ()

    @cached_property
    def farthest(self) -> float:
        """rho: the distance of the farthest point of the footprint from the middle of the axle, in metres."""
        return footprint.outer(self.outline) if self.outline else self.footprint_radius

    @cached_property
    def nearest(self) -> float:
        """The distance of the nearest edge of the footprint from the middle of the axle, in metres."""
        return footprint.inner(self.outline) if self.outline else self.footprint_radius

    @property
    def lever(self) -> float:
        """By how much a turn on the spot moves the farthest corner, in m/rad; 0 for a disc."""
        return self.farthest if self.outline else 0.0
