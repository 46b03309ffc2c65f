"""The base as a Robot: topics, world, estimate, residuals, observation, reward and scripted controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from safe_support_ql.parameters import build
from safe_support_ql.robots.base import Estimate, Inputs, Robot, Singles, outside
from safe_support_ql.robots.diff_drive import model
from safe_support_ql.robots.diff_drive.objection import objection
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.geometry import match_scans
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.world import (
    Channel,
    CommandTopic,
    DifferentialDrive,
    Lidar,
    ObstacleArena,
    Primitive,
    WorldSpec,
)

FAR = 1.0e3  # m, distance of a point that stands for "no occupied point within reach": the list is never empty
ROUNDED = 1.0 + 1e-6  # ranges are 32 bit floats: the largest may arrive a little larger
FARTHEST_GOAL = 8.0  # m, the observation shows a goal farther away at this distance
FEWEST_RETURNS = 3  # per scan: with fewer, an open hall and a dead lidar look the same


class DiffDrive(Robot):
    """See the module."""

    name = "diff_drive"
    parameters: Parameters
    passive_stop = True
    must_reach = True
    silence = np.zeros(2)
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
        self.model = model.build_model(p, self.period)
        # Points farther than this do not matter: the longest stop, plus footprint, clearance, tightening and band.
        top = (p.speed + p.speed_margin) * (1 + p.motion_mismatch)
        late = p.lag * (1 + p.lag_mismatch)
        # The delay and the hold at their longest, rounded up to whole checks; then lag and braking.
        held = p.input_age + 1.2 * self.period + max(p.drive_timeout, 2.2 * self.period) + 2 * self.model.dynamics.dt
        braking = top**2 / (2 * p.acceleration * (1 - p.braking_mismatch))
        stop = top * max(held + late, self.period + p.drive_timeout + 2 * p.input_age) + braking
        self._reach = (
            min(stop, top * p.horizon)
            + p.footprint_radius
            + p.clearance
            + self.model.certificate.tightening[-1, 0]
            + p.band
        )
        self._angles = -np.pi + np.arange(p.scan_rays) * (2 * np.pi / p.scan_rays)
        self._directions = np.stack([np.cos(self._angles), np.sin(self._angles)], axis=1)

    def objection(self) -> str:
        """See Robot."""
        return objection(self.parameters, self.model, self.period, self._reach)

    def at_rest(self) -> Estimate:
        """See Robot."""
        nothing = np.full(self.parameters.scan_rays, np.inf)
        return self.estimate({"odom": np.array([0.0, 0, 0, 1, 0, 0]), "scan": nothing, "goal_pose": np.zeros(2)})

    def estimate(self, inputs: Inputs) -> Estimate:
        """State (0, 0, 0, v, w), the occupied points within reach, task = pose and goal in the odometry frame."""
        odom, scan, goal = inputs["odom"], inputs["scan"], inputs["goal_pose"]
        _, _, qz, qw, v, w = odom
        if not 0.9 < qz * qz + qw * qw < 1.1:
            raise ValueError("odom: orientation is no unit quaternion about z; is the base level?")
        p = self.parameters
        if abs(v) > 2 * (p.speed + p.speed_margin) or abs(w) > 2 * (p.turn_rate + p.turn_margin):
            raise ValueError(f"odom: twist ({v:.2f} m/s, {w:.2f} rad/s) is beyond what this base can do; wrong units?")
        state, task = np.array([0.0, 0.0, 0.0, v, w]), np.array([*_pose(odom), *goal])
        return Estimate(state, self.occupied(scan), task, self.blindness(scan))

    def blindness(self, scan: Floats) -> str:
        """Why the scan proves no free space: too few rays returned a range; '' if enough did."""
        returned = int(((scan > 0.0) & (scan <= ROUNDED * self.parameters.scan_range)).sum())
        if returned >= FEWEST_RETURNS:
            return ""
        return (
            f"scan: {returned} of {len(scan)} rays returned a range, at least {FEWEST_RETURNS} must; uncover the "
            "lidar, check its power and its driver, or put something within its range"
        )

    def occupied(self, scan: Floats) -> Floats:
        """Points[M, 2] that bound the free space of the rays, in the robot's frame, within reach.

        Between two neighbouring rays, space is free up to the shorter range, less two allowances: half the gap between
        the rays, by which the corner of a convex obstacle with interior angles >= 90 degrees can stand out, and the
        bound on the range error. REP-117: +Inf is free up to the largest range; a ray of -Inf, NaN or anything else has
        no information and is occupied.
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
        """Ranges in metres: +Inf becomes the largest range, a ray without information 0."""
        largest = self.parameters.scan_range
        ranges = np.where(scan == np.inf, largest, scan)
        return np.where((ranges >= 0.0) & (ranges <= ROUNDED * largest), np.minimum(ranges, largest), 0.0)

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """See `observation_names`. A ray without information shows as 0 m, as in the certificate."""
        p = self.parameters
        sectors = np.array([part.min() for part in np.array_split(self._ranges(inputs["scan"]), p.policy_rays)])
        x, y, yaw, gx, gy = estimate.task
        distance, bearing = np.hypot(gx - x, gy - y), np.arctan2(gy - y, gx - x) - yaw
        goal = (min(distance, FARTHEST_GOAL), np.cos(bearing), np.sin(bearing))
        # 1/(0.5 + r): differences between near ranges matter, differences between far ones do not.
        return np.array([*(1.0 / (0.5 + sectors)), *goal, *estimate.state[3:], *previous, threshold], np.float32)

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State at `now` in the robot's frame at `before`, by odometry."""
        x0, y0, yaw0 = _pose(before["odom"])
        x1, y1, yaw1 = _pose(now["odom"])
        cos, sin = np.cos(yaw0), np.sin(yaw0)
        dx, dy = x1 - x0, y1 - y0
        turn = (yaw1 - yaw0 + np.pi) % (2 * np.pi) - np.pi
        return np.array([cos * dx + sin * dy, -sin * dx + cos * dy, turn, now["odom"][4], now["odom"][5]])

    def residuals(self, before: Inputs, now: Inputs, low: Floats, high: Floats) -> dict[str, float]:
        """Residuals by odometry and by scans; the scans also show slip, and obstacles that move with the robot."""
        p = self.parameters
        odometry = super().residuals(before, now, low, high)
        off, disagree = self._off_by_scan(before, now, self.relative(before, now)[:3], low[:3], high[:3])
        shown = dict(zip(("x by scan", "y by scan", "yaw by scan"), off, strict=True))
        return odometry | shown | {"part of the scan": disagree / p.scan_disagreement}

    def disagreements(self, states: Sequence[Inputs]) -> dict[str, float]:
        """Motion by odometry, within its mismatch, against the motion between the first and the last scan.

        The slip of a slow base in one tick is smaller than the uncertainty of scans; over several ticks it adds up.
        """
        m = self.parameters.motion_mismatch
        steps = np.array([self.relative(before, now)[:3] for before, now in pairwise(states)])
        poses = np.array([_chained(steps * [v, v, w]) for v, w in product((1.0, 1.0 - m, 1.0 + m), repeat=2)])
        off, _ = self._off_by_scan(states[0], states[-1], poses[0], poses.min(axis=0), poses.max(axis=0))
        return dict(
            zip(("x by odometry and scan", "y by odometry and scan", "yaw by odometry and scan"), off, strict=True)
        )

    def _off_by_scan(
        self, before: Inputs, now: Inputs, guess: Floats, low: Floats, high: Floats
    ) -> tuple[Floats, float]:
        """(how far the pose of `now` by scans lies outside low[3] to high[3], in W; share of points that disagree)."""
        p = self.parameters
        old, new = (
            np.where(((r > 0.0) & (r <= ROUNDED * p.scan_range)) | (r == np.inf), r, np.nan)
            for r in (before["scan"], now["scan"])
        )
        pose, deviation, disagree = match_scans(old, new, self._angles, guess, p.scan_range)
        bound = np.array([p.scan_residual_distance, p.scan_residual_distance, p.scan_residual_turn])
        return np.where(deviation < 0.25 * bound, outside(pose, low, high) / bound, 0.0), disagree

    def towards(self, observation: Singles, truth: Floats, target: Floats) -> Singles:
        """See Robot; truth = (x, y, yaw, v, w, clearance)."""
        x, y, yaw = truth[:3]
        dx, dy = target[0] - x, target[1] - y
        bearing = np.arctan2(dy, dx) - yaw
        moved, first = observation.copy(), self.parameters.policy_rays
        moved[first : first + 3] = np.hypot(dx, dy), np.cos(bearing), np.sin(bearing)
        return moved

    def place(self, states: Floats) -> Floats:
        """The middle of the axle, in the robot's frame."""
        return np.column_stack([states[:, :2], np.zeros(len(states))])

    def in_motion(self, state: Floats, centre: Floats) -> bool:
        """At half the largest speed or more."""
        return bool(abs(state[3]) >= 0.5 * self.parameters.speed)

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
        """Goal seeking: straight to the goal. It ignores obstacles; the support excludes what would hit them."""
        p, first = self.parameters, self.parameters.policy_rays
        distance, cos, sin = observations[:, first : first + 3].astype(np.float64).T
        bearing = np.arctan2(sin, cos)
        speed = p.speed * np.clip(np.cos(bearing), 0.0, 1.0) ** 2 * np.clip(distance / 0.4, 0.3, 1.0)
        return np.stack([speed, np.clip(2.0 * bearing, -p.turn_rate, p.turn_rate)], axis=1)


def _pose(odom: Floats) -> tuple[float, float, float]:
    return float(odom[0]), float(odom[1]), float(2.0 * np.arctan2(odom[2], odom[3]))


def _chained(steps: Floats) -> Floats:
    """The pose[3] after steps[N, 3], each in the frame of the previous one."""
    x, y, yaw = 0.0, 0.0, 0.0
    for dx, dy, turn in steps:
        cos, sin = np.cos(yaw), np.sin(yaw)
        x, y, yaw = x + cos * dx - sin * dy, y + sin * dx + cos * dy, yaw + turn
    return np.array([x, y, yaw])


def _channels(p: Parameters) -> tuple[Channel, ...]:
    scan = {
        "angle_min": -np.pi,
        "angle_increment": 2 * np.pi / p.scan_rays,
        "range_max": p.scan_range,
        "header.frame_id": "base_link",
    }
    hidden = p.footprint_radius + p.clearance
    unseen = (
        f"footprint and clearance end at {hidden:g} m, what is nearer than range_min is not seen; set it in the driver"
    )
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
        Channel(
            "scan",
            "sensor_msgs/msg/LaserScan",
            ("ranges[]",),
            p.input_age,
            p.scan_rays,
            scan,
            finite=False,
            limits={"range_min": (0.0, hidden, unseen)},
        ),
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
            # The casters hang 2 mm above the ground and only limit the pitch. If the base rested on them, its wheels
            # would slip at every start and stop, and the odometry's heading would be off by 0.1 rad each time.
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
    """The robot with `parameters` over the defaults. Raises ValueError naming the key in `where`."""
    return DiffDrive(build(Parameters, parameters, where))
