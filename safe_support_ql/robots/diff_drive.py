"""A light differential-drive base with a lidar among static obstacles; the default robot.

Safe set: ground-truth clearance of the whole (circular) footprint, and limits on speed and turn rate.
Backup policy k: command zero speed and zero turn rate. Terminal set S_f: standing, which nothing pushes it out of.
Certificate state: (x, y, yaw, v, w) in the robot's frame at the instant of the scan, so it starts at (0, 0, 0, v, w).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np

from safe_support_ql.parameters import build, param
from safe_support_ql.robots.base import LATE, Estimate, Floats, Inputs, Model, Robot, Singles, outside
from safe_support_ql.robots.geometry import match_scans, nearest
from safe_support_ql.robots.world import (
    Channel,
    CommandTopic,
    DifferentialDrive,
    Lidar,
    ObstacleArena,
    Primitive,
    WorldSpec,
)

FAR = 1.0e3  # m, stands for "no occupied point within reach": keeps the point list non-empty and finite
ROUNDED = 1.0 + 1e-6  # ranges are 32 bit floats: the largest may come a little larger
FARTHEST_GOAL = 8.0  # m, goals farther away look this far in the observation


@dataclass(frozen=True)
class Parameters:
    """Everything of this robot that a user may set; SI units."""

    footprint_radius: float = param(0.17, "m", 0.05, 1.0, "circle about the axle centre that holds the whole base")
    clearance: float = param(0.05, "m", 0.0, 1.0, "h_clearance = distance from the footprint to any obstacle - this")
    speed: float = param(0.6, "m/s", 0.05, 3.0, "command saturation, forwards")
    reverse_speed: float = param(0.15, "m/s", 0.0, 3.0, "command saturation, backwards")
    turn_rate: float = param(1.5, "rad/s", 0.1, 6.0, "command saturation")
    speed_margin: float = param(0.3, "m/s", 0.0, 3.0, "the safe set's speed limit is the saturation plus this")
    turn_margin: float = param(1.0, "rad/s", 0.0, 6.0, "the safe set's turn limit is the saturation plus this")
    lag: float = param(0.1, "s", 0.01, 1.0, "first-order lag of the drive")
    acceleration: float = param(2.5, "m/s^2", 0.1, 20.0, "slew limit of the drive")
    turn_acceleration: float = param(10.0, "rad/s^2", 0.1, 100.0, "slew limit of the drive")
    dead_zone: float = param(0.05, "m/s", 0.0, 0.5, "slower speed commands count as zero: gives 'stopped' a mass")
    drive_timeout: float = param(0.25, "s", 0.05, 2.0, "T_drive: the drive stops by itself this long after a command")
    # Ensemble: how far the true motion may be from the odometry's, relative to nominal.
    motion_mismatch: float = param(0.2, "1", 0.0, 0.5, "ground speed and turn rate per odometry unit, +- this")
    lag_mismatch: float = param(0.3, "1", 0.0, 0.9, "lag of the drive, +- this")
    braking_mismatch: float = param(0.2, "1", 0.0, 0.9, "slew limit of the drive, - this")
    # Margins of docs/method.md.
    between_members: float = param(0.01, "m", 0.0, 0.5, "clearance a drive within the mismatches loses beside members")
    margin_model: float = param(0.005, "m", 0.0, 0.5, "model residual: clearance lost to the model at once")
    margin_growth: float = param(0.02, "m/s", 0.0, 1.0, "w_bar per second of rollout, up to the horizon")
    margin_terminal: float = param(0.008, "m", 0.0, 0.1, "creep left after the terminal speed is reached")
    margin_speed_estimate: float = param(0.06, "m/s", 0.0, 0.5, "e_0: error of the odometry's speed")
    lidar_noise: float = param(0.03, "m", 0.0, 0.5, "bound on the error of one range")
    terminal_speed: float = param(0.02, "m/s", 0.001, 0.2, "S_f: slower than this counts as standing")
    horizon: float = param(1.5, "s", 0.2, 10.0, "longest rollout; longer than any stop")
    checks_per_tick: int = param(2, "1", 1, 100, "certificate checks per control period")
    band: float = param(0.04, "m", 0.0, 0.5, "width b of the hysteresis band")
    noise_allowance: float = param(0.03, "m", 0.0, 0.5, "how far scan noise moves the margin of a standing robot")
    step_residual: float = param(0.0005, "m", 0.0, 0.1, "clearance one in-band step may lose unseen")
    band_budget: float = param(0.1, "m", 0.0, 1.0, "clearance in-band steps may spend before only the plan runs")
    # W, beyond which a tick counts as mismatch: what the robot may do outside of the members' predictions.
    residual_way: float = param(0.01, "m", 0.001, 1.0, "way of a tick, by odometry")
    residual_turn: float = param(0.04, "rad", 0.001, 1.0, "turn of a tick, by odometry")
    residual_speed: float = param(0.05, "m/s", 0.001, 1.0, "speed")
    residual_turn_rate: float = param(0.3, "rad/s", 0.001, 5.0, "turn rate")
    scan_residual_way: float = param(0.015, "m", 0.001, 1.0, "way of a tick, by matching scans")
    scan_residual_turn: float = param(0.02, "rad", 0.001, 1.0, "turn of a tick, by matching scans")
    scan_disagreement: float = param(0.12, "1", 0.01, 1.0, "share of a scan that no motion explains")
    scan_rays: int = param(180, "1", 180, 1440, "rays of the lidar over the full circle")
    scan_range: float = param(6.0, "m", 1.0, 100.0, "largest range of the lidar")
    policy_rays: int = param(36, "1", 4, 1440, "sectors the policy sees, each the nearest of its rays")
    input_age: float = param(0.25, "s", 0.02, 2.0, "older inputs count as missing")
    # World and task.
    scan_noise: float = param(0.01, "m", 0.0, 0.1, "standard deviation of a range, truncated at three of it")
    odometry_drift: float = param(0.01, "1", 0.0, 0.2, "relative drift of the odometry")
    arena_side: float = param(8.0, "m", 4.0, 50.0, "side of the walled square")
    obstacles_min: int = param(8, "1", 0, 100, "fewest obstacles")
    obstacles_max: int = param(14, "1", 0, 100, "most obstacles")
    obstacle_half_width_min: float = param(0.1, "m", 0.05, 2.0, "declared smallest obstacle: half its width")
    obstacle_half_width_max: float = param(0.16, "m", 0.1, 2.0, "largest obstacle: half its width")
    start_goal_distance: float = param(4.0, "m", 0.5, 50.0, "least distance from start to goal")
    corridor: float = param(0.5, "m", 0.1, 2.0, "half the least gap between two obstacles, or to a wall")
    goal_radius: float = param(0.3, "m", 0.05, 2.0, "closer than this is reached")
    episode_s: float = param(40.0, "s", 1.0, 600.0, "time limit of an episode")
    reward_progress: float = param(5.0, "1/m", 0.0, 100.0, "reward per metre come closer to the goal")
    reward_time: float = param(0.02, "1", 0.0, 1.0, "cost of a tick")
    reward_goal: float = param(1.0, "1", 0.0, 100.0, "reward for reaching the goal")


def step(x: tuple[Any, ...], u: tuple[Any, ...], member: tuple[Any, ...], dt: float) -> tuple[Any, ...]:
    """First-order lag with slew limit, then a unicycle about the mean velocity of the step.

    x = (x, y, yaw, v, w), v and w as the odometry measures them; u = (speed, turn rate) commanded;
    member = (ground_v, ground_w, response, acceleration, turn_acceleration, dead_zone), the first two being true motion
    per odometry unit and `response` = 1 - exp(-dt / lag), which is the same at every step.
    """
    px, py, yaw, v, w = x
    ground_v, ground_w, response, acceleration, turn_acceleration, dead_zone = member
    wanted = u[0] * (np.abs(u[0]) >= dead_zone)  # np.where would make an array of a scalar where this is compiled
    dv = np.minimum(np.maximum((wanted - v) * response, -acceleration * dt), acceleration * dt)
    dw = np.minimum(np.maximum((u[1] - w) * response, -turn_acceleration * dt), turn_acceleration * dt)
    turn = ground_w * (w + 0.5 * dw) * dt
    way = ground_v * (v + 0.5 * dv) * dt
    middle = yaw + 0.5 * turn
    return px + way * np.cos(middle), py + way * np.sin(middle), yaw + turn, v + dv, w + dw


def backup(x: tuple[Any, ...], centre: float, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """Brake: zero speed, zero turn rate, whatever the state."""
    return 0.0 * x[3], 0.0 * x[4]


def margins(x: tuple[Any, ...], points: Any, constants: tuple[float, ...]) -> tuple[Any, ...]:
    """(clearance [m], speed [m/s], turn rate [rad/s]) left before the safe set ends."""
    reach, speed_limit, turn_limit = constants[0], constants[1], constants[2]
    return nearest(x[0], x[1], points) - reach, speed_limit - np.abs(x[3]), turn_limit - np.abs(x[4])


def margins_from(x: tuple[Any, ...], seen: tuple[Any, ...], h: tuple[Any, ...], constants: Any) -> tuple[Any, ...]:
    """Clearance is lost no faster than way is made."""
    dx, dy = x[0] - seen[0], x[1] - seen[1]
    clearance = h[0] - np.sqrt(dx * dx + dy * dy)
    return clearance, constants[1] - np.abs(x[3]), constants[2] - np.abs(x[4])


def terminal(x: tuple[Any, ...], centre: float, constants: tuple[float, ...]) -> Any:
    """Standing: a circular footprint that turns on the spot loses no clearance."""
    return np.abs(x[3]) <= constants[3]


class DiffDrive(Robot):
    """See the module."""

    name = "diff_drive"
    parameters: Parameters
    state_names = ("x", "y", "yaw", "v", "w")
    action_names = ("speed", "turn_rate")
    action_units = ("m/s", "rad/s")

    def __init__(self, parameters: Parameters) -> None:
        """Derive topics, world, observation and model from `parameters`."""
        p = self.parameters = parameters
        self.world = _world(p)
        self.channels = _channels(p)
        self.command = CommandTopic(
            "cmd_vel",
            "geometry_msgs/msg/TwistStamped",
            ("twist.linear.x", "twist.angular.z"),
            "base_link",
            "geometry_msgs/msg/Twist",
            ("linear.x", "angular.z"),
        )
        self.errors = {
            "odom": np.array([0.0, 0.0, 0.0, 0.0, p.margin_speed_estimate, 0.0]),
            "scan": np.full(p.scan_rays, p.lidar_noise),
        }
        # 16 % and the odometry's own drift of up to three standard deviations stay within the ensemble's 20 %.
        self.mismatches = {
            "ground_fast": {"ground_speed": 1.16},
            "ground_slow": {"ground_speed": 0.84, "ground_turn": 1.16},
            "turn_slow": {"ground_speed": 1.16, "ground_turn": 0.84},
            "lag_long": {"lag": 1.2 * p.lag},
            "brakes_weak": {"acceleration": 0.8 * p.acceleration, "turn_acceleration": 0.8 * p.turn_acceleration},
        }
        drive, lidar = self.world.drive, self.world.lidar
        assert isinstance(drive, DifferentialDrive) and lidar
        self.beyond = {
            "wheels_slip": replace(self.world, drive=replace(drive, wheel=replace(drive.wheel, friction=0.05))),
            "load": replace(  # ten times the mass, and what that does to the drive
                self.world,
                drive=replace(
                    drive,
                    chassis=replace(drive.chassis, mass=10 * drive.chassis.mass),
                    lag=2.0 * p.lag,
                    acceleration=0.4 * p.acceleration,
                    turn_acceleration=0.4 * p.turn_acceleration,
                ),
            ),
            "lidar_tilted": replace(self.world, lidar=replace(lidar, tilt=0.15)),
        }
        self.action_low = np.array([-p.reverse_speed, -p.turn_rate])
        self.action_high = np.array([p.speed, p.turn_rate])
        turns = tuple(p.turn_rate * f for f in (-1.0, -0.6, -0.3, -0.12, 0.0, 0.12, 0.3, 0.6, 1.0))
        self.lattice = ((-p.reverse_speed, 0.0, 0.25 * p.speed, 0.5 * p.speed, 0.75 * p.speed, p.speed), turns)
        self.continuous_points = (6, 9)
        self.observation_names = (
            *(f"scan_{i}" for i in range(p.policy_rays)),
            "goal_distance", "goal_cos", "goal_sin", "v", "w", "last_speed", "last_turn_rate", "band_threshold",
        )  # fmt: skip
        self.observation_units = (
            *("1/(m + 0.5 m)",) * p.policy_rays,
            "m",
            "1",
            "1",
            "m/s",
            "rad/s",
            "m/s",
            "rad/s",
            "m",
        )
        self.observation_scale = np.array(
            [1.0] * p.policy_rays + [2.0, 1.0, 1.0, p.speed, p.turn_rate, p.speed, p.turn_rate, 0.05], np.float32
        )
        self.model = _model(p, self.period)
        # Farther points cannot matter: the longest way to a stop, the footprint, and every margin end before.
        top = (p.speed + p.speed_margin) * (1 + p.motion_mismatch)
        late = p.lag * (1 + p.lag_mismatch)
        # Age of the state and of its answer, the hold, and what rounding up to whole checks adds; then lag and braking.
        held = p.input_age + 1.2 * self.period + max(p.drive_timeout, 2.2 * self.period) + 2 * self.model.dt
        braking = top**2 / (2 * p.acceleration * (1 - p.braking_mismatch))
        way = top * max(held + late, self.period + p.drive_timeout + 2 * p.input_age) + braking
        self._reach = (
            min(way, top * p.horizon) + p.footprint_radius + p.clearance + self.model.tightening[-1, 0] + p.band
        )
        self._angles = -np.pi + np.arange(p.scan_rays) * (2 * np.pi / p.scan_rays)
        self._directions = np.stack([np.cos(self._angles), np.sin(self._angles)], axis=1)

    def objection(self) -> str:
        """See Robot."""
        p = self.parameters
        braking = p.terminal_speed / (2 * p.acceleration * (1 - p.braking_mismatch))  # s, where the slew limit acts
        creep = (1 + p.motion_mismatch) * p.terminal_speed * (p.lag * (1 + p.lag_mismatch) + braking)
        gap = self._reach * 2 * np.pi / p.scan_rays
        if gap > 2 * p.obstacle_half_width_min:
            return (
                f"obstacle_half_width_min is {p.obstacle_half_width_min:g} m, must be half of the {gap:.3f} m between "
                "two rays at the end of a stop; or drive slower, or take more rays"
            )
        if p.drive_timeout < 2 * self.period:
            return f"drive_timeout is {p.drive_timeout:g} s, must be {2 * self.period:g} s: a late command is none yet"
        if creep > p.margin_terminal:
            return f"margin_terminal is {p.margin_terminal:g} m, must cover the {creep:.4f} m left at terminal_speed"
        if 3 * p.scan_noise > p.lidar_noise + 1e-9:
            return f"lidar_noise is {p.lidar_noise:g} m, must be 3 scan_noise = {3 * p.scan_noise:g} m at least"
        if 0.0 < p.band <= p.noise_allowance:
            return f"noise_allowance is {p.noise_allowance:g} m, must be below band = {p.band:g} m: nothing would latch"
        if p.step_residual == 0.0:
            return "step_residual is 0 m, must be more: the band's budget would never be spent"
        return self._stuck() or self._cramped()

    def _stuck(self) -> str:
        """Why a drive at full speed is never certified, or moves at no command; '' where it is and does."""
        p, model = self.parameters, self.model
        if p.input_age < LATE * self.period:
            return f"input_age is {p.input_age:g} s, must be {LATE * self.period:g} s at least: a cycle may be so late"
        if p.dead_zone > p.speed:
            return f"dead_zone is {p.dead_zone:g} m/s, must be at most speed = {p.speed:g} m/s: no command would act"
        # Age of the state, the longest hold, and a stop from full speed.
        x: tuple[Any, ...] = tuple(np.full(len(model.members), v) for v in (0, 0, 0, max(p.speed, p.reverse_speed), 0))
        checks = p.checks_per_tick + max(model.holds)
        while not terminal(x, 0.0, model.constants).all():
            x = step(x, backup(x, 0.0, model.constants), tuple(model.members.T), model.dt)
            checks += 1
        if checks >= len(model.tightening):
            return (
                f"horizon is {p.horizon:g} s, must be {checks * model.dt:g} s at least: a period for the state's age, "
                f"the longest hold (drive_timeout = {p.drive_timeout:g} s) and a stop from full speed"
            )
        far = (self._reach + p.lidar_noise) / (1 - np.pi / p.scan_rays)
        if p.scan_range < far:
            return f"scan_range is {p.scan_range:g} m, must be {_up(far)} m at least: a stop from full speed takes that"
        return ""

    def _cramped(self) -> str:
        """Why the arena has no start that is certified; '' where it has."""
        p, model = self.parameters, self.model
        if p.arena_side < self._reach:
            side = _up(self._reach)
            return f"arena_side is {p.arena_side:g} m, must be {side} m at least: a stop from full speed takes that"
        if p.obstacles_min > p.obstacles_max:
            return f"obstacles_min is {p.obstacles_min}, must be at most obstacles_max = {p.obstacles_max}"
        if p.obstacle_half_width_min > p.obstacle_half_width_max:
            width = f"{p.obstacle_half_width_min:g} m, must be at most obstacle_half_width_max"
            return f"obstacle_half_width_min is {width} = {p.obstacle_half_width_max:g} m"
        # At its least clearance, a base that stands may turn: as the lidar sees it, less the margins of that rollout.
        kept = p.corridor * (1 - np.pi / p.scan_rays) - p.lidar_noise
        lost = model.tightening[min(p.checks_per_tick + max(model.holds), len(model.tightening) - 1), 0] + p.band
        lost += p.footprint_radius + p.clearance
        if lost > kept:
            need = (lost + p.lidar_noise) / (1 - np.pi / p.scan_rays)
            return (
                f"corridor is {p.corridor:g} m, must be {_up(need)} m at least for a start to be certified; or the sum "
                f"of footprint_radius = {p.footprint_radius:g} m, clearance = {p.clearance:g} m, band = {p.band:g} m "
                f"and margins must be {_up(lost - kept)} m less"
            )
        side = 2 * (np.sqrt(2.0) * p.obstacle_half_width_max + 2 * p.corridor)
        if p.obstacles_max and p.arena_side < side:
            wanted = f"{_up(side)} m at least for an obstacle and a corridor on each side"
            return f"arena_side is {p.arena_side:g} m, must be {wanted}"
        # Start and goal are drawn at random, and hardly ever farther apart than nine tenths of the diagonal.
        far = 0.9 * np.sqrt(2.0) * (p.arena_side - 2 * p.corridor)
        if p.start_goal_distance > far:
            distance = f"{p.start_goal_distance:g} m, must be at most {_up(far - 1e-3)} m"
            return f"start_goal_distance is {distance} in an arena of {p.arena_side:g} m"
        return ""

    def at_rest(self) -> Estimate:
        """See Robot."""
        nothing = np.full(self.parameters.scan_rays, np.inf)
        return self.estimate({"odom": np.array([0.0, 0, 0, 1, 0, 0]), "scan": nothing, "goal_pose": np.zeros(2)})

    def estimate(self, inputs: Inputs) -> Estimate:
        """State (0, 0, 0, v, w), the occupied points near it, task = pose and goal in the odometry frame."""
        odom, scan, goal = inputs["odom"], inputs["scan"], inputs["goal_pose"]
        _, _, qz, qw, v, w = odom
        if not 0.9 < qz * qz + qw * qw < 1.1:
            raise ValueError("odom: orientation is no unit quaternion about z; is the base level?")
        p = self.parameters
        if abs(v) > 2 * (p.speed + p.speed_margin) or abs(w) > 2 * (p.turn_rate + p.turn_margin):
            raise ValueError(f"odom: twist ({v:.2f} m/s, {w:.2f} rad/s) is beyond what this base can do; wrong units?")
        return Estimate(np.array([0.0, 0.0, 0.0, v, w]), self.occupied(scan), np.array([*_pose(odom), *goal]))

    def occupied(self, scan: Floats) -> Floats:
        """Points[M, 2] that bound the free space a ray crossed, robot frame, within reach.

        Between two neighbouring rays only the shorter of both is free, less half the gap there, by which the corner of
        a convex obstacle with interior angles >= 90 degrees can stand out, and less the bound on the range error.
        REP-117: +Inf is clear up to the largest range; -Inf, NaN and anything else say nothing, so the ray is occupied.
        """
        p = self.parameters
        ranges = self._ranges(scan)
        free = np.minimum(ranges, np.minimum(np.roll(ranges, 1), np.roll(ranges, -1)))
        free = np.maximum(free - p.lidar_noise - free * (np.pi / p.scan_rays), 0.0)
        near = free < self._reach
        if not near.any():
            return np.array([[FAR, FAR]])
        return np.asarray(self._directions[near] * free[near, None])

    def _ranges(self, scan: Floats) -> Floats:
        """Ranges in metres: +Inf is the largest one, what says nothing is zero."""
        largest = self.parameters.scan_range
        ranges = np.where(scan == np.inf, largest, scan)
        return np.where((ranges >= 0.0) & (ranges <= ROUNDED * largest), np.minimum(ranges, largest), 0.0)

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: float, threshold: float
    ) -> Singles:
        """See `observation_names`. Invalid rays show as 0 m, the way the certificate treats them."""
        p = self.parameters
        sectors = np.array([part.min() for part in np.array_split(self._ranges(inputs["scan"]), p.policy_rays)])
        x, y, yaw, gx, gy = estimate.task
        distance, bearing = np.hypot(gx - x, gy - y), np.arctan2(gy - y, gx - x) - yaw
        goal = (min(distance, FARTHEST_GOAL), np.cos(bearing), np.sin(bearing))
        # 1/(1 + r): what is near matters, and differences far away do not.
        return np.array([*(1.0 / (0.5 + sectors)), *goal, *estimate.state[3:], *previous, threshold], np.float32)

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State now in the robot's frame of `before`, by odometry."""
        x0, y0, yaw0 = _pose(before["odom"])
        x1, y1, yaw1 = _pose(now["odom"])
        cos, sin = np.cos(yaw0), np.sin(yaw0)
        dx, dy = x1 - x0, y1 - y0
        turn = (yaw1 - yaw0 + np.pi) % (2 * np.pi) - np.pi
        return np.array([cos * dx + sin * dy, -sin * dx + cos * dy, turn, now["odom"][4], now["odom"][5]])

    def residuals(self, before: Inputs, now: Inputs, low: Floats, high: Floats) -> dict[str, float]:
        """What the odometry says, and what the scans show: slip, and obstacles that move with the robot, show there."""
        p = self.parameters
        odometry = super().residuals(before, now, low, high)
        off, disagree = self._off_by_scan(before, now, self.relative(before, now)[:3], low[:3], high[:3])
        shown = dict(zip(("x by scan", "y by scan", "yaw by scan"), off, strict=True))
        return odometry | shown | {"part of the scan": disagree / p.scan_disagreement}

    def disagreements(self, states: Sequence[Inputs]) -> dict[str, float]:
        """The way by odometry, times what the ground may make of it, against the way between first and last scan.

        What a single tick shows of a slow base's slip is less than what scans leave open; several add up.
        """
        m = self.parameters.motion_mismatch
        steps = np.array([self.relative(before, now)[:3] for before, now in pairwise(states)])
        ways = np.array([_chained(steps * [v, v, w]) for v, w in product((1.0, 1.0 - m, 1.0 + m), repeat=2)])
        off, _ = self._off_by_scan(states[0], states[-1], ways[0], ways.min(axis=0), ways.max(axis=0))
        return dict(
            zip(("x by odometry and scan", "y by odometry and scan", "yaw by odometry and scan"), off, strict=True)
        )

    def _off_by_scan(
        self, before: Inputs, now: Inputs, guess: Floats, low: Floats, high: Floats
    ) -> tuple[Floats, float]:
        """(how far the way between two scans lies outside of low[3] to high[3], in W; share that disagrees)."""
        p = self.parameters
        old, new = (
            np.where(((r > 0.0) & (r <= ROUNDED * p.scan_range)) | (r == np.inf), r, np.nan)
            for r in (before["scan"], now["scan"])
        )
        pose, deviation, disagree = match_scans(old, new, self._angles, guess, p.scan_range)
        bound = np.array([p.scan_residual_way, p.scan_residual_way, p.scan_residual_turn])
        return np.where(deviation < 0.25 * bound, outside(pose, low, high) / bound, 0.0), disagree

    def place(self, states: Floats) -> Floats:
        """The axle's centre, in the robot's frame."""
        return np.column_stack([states[:, :2], np.zeros(len(states))])

    def truth_margins(self, truth: Floats) -> Floats:
        """(clearance, speed, turn rate) margins of truth = (x, y, yaw, v, w, clearance of the footprint)."""
        p = self.parameters
        return np.array(
            [
                truth[5] - p.clearance,
                p.speed + p.speed_margin - abs(truth[3]),
                p.turn_rate + p.turn_margin - abs(truth[4]),
            ]
        )

    def reward(self, before: Floats, action: Floats, after: Floats, goal: Floats) -> tuple[float, bool]:
        """Progress towards the goal, less a cost of time, plus a bonus on arrival."""
        p = self.parameters
        was, now = np.hypot(*(before[:2] - goal)), np.hypot(*(after[:2] - goal))
        reached = bool(now <= p.goal_radius)
        return float(p.reward_progress * (was - now) - p.reward_time + p.reward_goal * reached), reached

    def controller(self, observations: Singles) -> Floats:
        """Goal seeking: straight at the goal, blind to obstacles; the support takes out what would hit them."""
        p, first = self.parameters, self.parameters.policy_rays
        distance, cos, sin = observations[:, first : first + 3].astype(np.float64).T
        bearing = np.arctan2(sin, cos)
        speed = p.speed * np.clip(np.cos(bearing), 0.0, 1.0) ** 2 * np.clip(distance / 0.4, 0.3, 1.0)
        return np.stack([speed, np.clip(2.0 * bearing, -p.turn_rate, p.turn_rate)], axis=1)


def _up(metres: float) -> float:
    """`metres` rounded up to the millimetre, so that what an objection names is accepted."""
    return float(np.ceil(1e3 * metres) / 1e3)


def _pose(odom: Floats) -> tuple[float, float, float]:
    return float(odom[0]), float(odom[1]), float(2.0 * np.arctan2(odom[2], odom[3]))


def _chained(steps: Floats) -> Floats:
    """The pose[3] after steps[N, 3], each in the frame of the one before."""
    x, y, yaw = 0.0, 0.0, 0.0
    for dx, dy, turn in steps:
        cos, sin = np.cos(yaw), np.sin(yaw)
        x, y, yaw = x + cos * dx - sin * dy, y + sin * dx + cos * dy, yaw + turn
    return np.array([x, y, yaw])


def _model(p: Parameters, period: float) -> Model:
    fast, slow = 1 + p.motion_mismatch, 1 - p.motion_mismatch
    drive = (p.acceleration, p.turn_acceleration, p.dead_zone)
    weak = (p.acceleration * (1 - p.braking_mismatch), p.turn_acceleration * (1 - p.braking_mismatch), p.dead_zone)
    dt = period / p.checks_per_tick
    late, early = p.lag * (1 + p.lag_mismatch), p.lag * (1 - p.lag_mismatch)
    nominal, slack, quick = (1.0 - np.exp(-dt / lag) for lag in (p.lag, late, early))
    # All corners with the longest way per odometry unit, and the two with the shortest that lose most beside them; what
    # the box may still lose, between_members covers. The first row is nominal.
    far, near = product((fast,), (fast, slow), (slack, quick), (weak, drive)), product((slow,), (fast, slow))
    rows = [(v, w, lag, *brakes) for v, w, lag, brakes in far] + [(v, w, slack, *drive) for v, w in near]
    members = np.array([(1, 1, nominal, *drive), *rows])
    checks = int(np.ceil(p.horizon / dt))
    seconds = np.arange(checks + 1) * dt
    speed = max(0.1, (p.speed + p.speed_margin) * (1 - 1 / fast))
    top = p.speed + p.speed_margin - speed  # of what the odometry may measure under a certified action
    between = 0.5 * fast * top * dt  # half the way between two checks: the nearest point may lie there
    # A wrong speed stays wrong while the slew limit acts: through two full reversals at the longest.
    slewing = 2 * (p.speed + p.reverse_speed) / (p.acceleration * (1 - p.braking_mismatch))
    estimate = fast * p.margin_speed_estimate * np.minimum(seconds, slewing)
    clearance = p.margin_model + p.between_members + between + p.margin_terminal + estimate + p.margin_growth * seconds
    # The safe set limits the true speeds, and the state holds those that the odometry measures: `fast` lies between.
    turn = max(0.3, (p.turn_rate + p.turn_margin) * (1 - 1 / fast))
    ways = (p.residual_way, p.residual_way, p.residual_turn, p.residual_speed, p.residual_turn_rate)
    residual = np.array(ways)
    tightening = np.stack([clearance, np.full_like(seconds, speed), np.full_like(seconds, turn)], axis=1)
    return Model(
        step=step,
        backup=backup,
        margins=margins,
        margins_from=margins_from,
        terminal=terminal,
        members=members,
        centres=np.zeros((1, 1)),
        constants=(
            p.footprint_radius + p.clearance,
            p.speed + p.speed_margin,
            p.turn_rate + p.turn_margin,
            p.terminal_speed,
        ),
        margin_names=("clearance", "speed", "turn_rate"),
        tightening=tightening,
        scale=np.array([1.0, 1.0, 1.0]),
        checks_per_tick=p.checks_per_tick,
        dt=dt,
        offered_longer=0,  # holds contain the drive's timeout
        holds=(p.checks_per_tick, int(np.ceil(p.drive_timeout / dt))),
        band=p.band,
        noise_allowance=p.noise_allowance,
        step_residual=p.step_residual,
        band_budget=p.band_budget,
        residual=residual,
        uneven=0.1,
        slack=3.0 * residual,
    )


def _channels(p: Parameters) -> tuple[Channel, ...]:
    scan = {
        "angle_min": -np.pi,
        "angle_increment": 2 * np.pi / p.scan_rays,
        "range_max": p.scan_range,
        "header.frame_id": "base_link",
    }
    return (
        Channel(
            "odom",
            "nav_msgs/msg/Odometry",
            (
                "pose.pose.position.x",
                "pose.pose.position.y",
                "pose.pose.orientation.z",
                "pose.pose.orientation.w",
                "twist.twist.linear.x",
                "twist.twist.angular.z",
            ),
            p.input_age,
            constants={"header.frame_id": "odom", "child_frame_id": "base_link"},
        ),
        Channel("scan", "sensor_msgs/msg/LaserScan", ("ranges[]",), p.input_age, p.scan_rays, scan, finite=False),
        Channel(
            "goal_pose",
            "geometry_msgs/msg/PoseStamped",
            ("pose.position.x", "pose.position.y"),
            constants={"header.frame_id": "odom"},
            latched=True,
        ),
    )


def _world(p: Parameters) -> WorldSpec:
    wheel_radius, clear = 0.05, 0.02
    return WorldSpec(
        physics_hz=240,
        control_hz=10,
        episode_s=p.episode_s,
        drive=DifferentialDrive(
            chassis=Primitive("cylinder", (0.75 * p.footprint_radius, 0.06), 3.0, (0.0, 0.0, clear + 0.04)),
            wheel=Primitive("cylinder", (wheel_radius, 0.02), 0.2, friction=1.0),
            # The casters hang 2 mm above the ground and only catch the pitch: resting on them, the wheels would lose
            # their grip at every start and stop, and the odometry its heading (0.1 rad at a time).
            caster=Primitive("sphere", (0.02,), 0.05, (0.6 * p.footprint_radius, 0.0, 0.022), 0.0),
            track=1.5 * p.footprint_radius,
            motor_torque=2.0,
            lag=p.lag,
            acceleration=p.acceleration,
            turn_acceleration=p.turn_acceleration,
            dead_zone=p.dead_zone,
            timeout=p.drive_timeout,
            odometry_drift=p.odometry_drift,
        ),
        footprint_radius=p.footprint_radius,
        lidar=Lidar(p.scan_rays, 0.0, p.scan_range, 0.2, p.scan_noise),
        arena=ObstacleArena(
            side=p.arena_side,
            count=(p.obstacles_min, p.obstacles_max),
            half_width=(p.obstacle_half_width_min, p.obstacle_half_width_max),
            height=0.6,
            start_goal_distance=p.start_goal_distance,
            corridor=p.corridor,
            goal_radius=p.goal_radius,
        ),
        sensors={"odom": "odometry", "scan": "lidar", "goal_pose": "goal"},
    )


def make(parameters: Mapping[str, Any], where: str) -> DiffDrive:
    """The robot with `parameters` over the defaults. Raises ValueError naming the key."""
    return DiffDrive(build(Parameters, parameters, where))
