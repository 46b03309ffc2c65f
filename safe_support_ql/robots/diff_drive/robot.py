"""The base as a Robot: topics, world, estimate, residuals, observation, reward and scripted controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safe_support_ql.parameters import build
from safe_support_ql.robots.base import Estimate, Inputs, Perception, Robot, Singles, Stamped
from safe_support_ql.robots.diff_drive import model
from safe_support_ql.robots.diff_drive.objection import objection
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.diff_drive.perception import LidarPerception, warm_up
from safe_support_ql.robots.footprint import from_outline, inside
from safe_support_ql.robots.free_space import SPACING, Rays, boundary
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import (
    FIELDS,
    LidarSetup,
    Limits,
    Scan,
    contradiction,
    full_circle,
    masked,
    readings,
    setup_objection,
)  # fmt: skip
from safe_support_ql.robots.world import (
    Channel,
    CommandTopic,
    DifferentialDrive,
    Lidar,
    ObstacleArena,
    Primitive,
    WorldSpec,
)

SIDEWAYS = 0.1  # m/s, more than filters make of noise
FARTHEST_GOAL = 8.0  # m, the observation shows a goal farther away at this distance


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
        self.frame_id = p.base_frame
        self.world = _world(p)
        self.channels = _channels(p)
        self.command = CommandTopic(
            p.command_topic,
            "geometry_msgs/msg/TwistStamped",
            ("twist.linear.x", "twist.angular.z"),
            p.base_frame,
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
        self.reach = (
            min(stop, top * p.horizon) + p.farthest + p.clearance + self.model.certificate.tightening[-1, 0] + p.band
        )
        self._sectors = np.arange(p.policy_rays) * p.scan_rays // p.policy_rays  # the first ray of each
        self.grid = -np.pi + np.arange(p.scan_rays) * (2 * np.pi / p.scan_rays)
        tightening = self.model.certificate.tightening[:, 0]
        self.hidden = p.nearest + p.clearance + tightening[0]
        # Unknown space begins where an action still certifies that does not come nearer to it, see free_space.py.
        pocket = p.farthest + p.clearance + tightening[-1] + p.band
        self.pocket = pocket + SPACING**2 / (8 * pocket)
        narrowest = 2 * p.obstacle_half_width_min
        farthest = (self.reach + p.lidar_noise) / (1 - np.pi / p.scan_rays)
        self._limits = Limits(narrowest / self.reach, self.hidden, farthest)
        self._setups = {setup.name: setup for setup in p.lidars}

    def objection(self) -> str:
        """See Robot."""
        return objection(self.parameters, self.model, self.period, self.reach)

    def at_rest(self) -> Estimate:
        """See Robot."""
        nothing = full_circle(np.full(self.parameters.scan_rays, np.inf), self.parameters.scan_range).vector()
        scans = {name: nothing for name in self._setups}
        return self.estimate({"odom": np.array([0.0, 0, 0, 1, 0, 0]), **scans, "goal_pose": np.zeros(2)})

    def perception(self) -> Perception:
        """See Robot. What it calls is compiled by now, so that no decision waits for that."""
        warm_up()
        return LidarPerception(self)

    def admit(self, channel: str, vector: Floats) -> float:
        """See Robot; it is scans that describe themselves."""
        if channel not in self._setups:
            return 0.0
        scan, setup = Scan.of(vector), self._setups[channel]
        if wrong := contradiction(scan, setup, self._limits):
            raise ValueError(f"{channel}: {wrong}")
        return scan.ends(setup)

    def estimate(self, inputs: Inputs) -> Estimate:
        """As LidarPerception does, from one scan of each lidar, cast at once and believed where nothing returned."""
        perception = LidarPerception(self, at_once=True)
        return perception.estimate(inputs, 0, {name: (Stamped(vector, 0, 0),) for name, vector in inputs.items()})

    def motion(self, inputs: Inputs) -> tuple[Floats, Floats]:
        """State (0, 0, 0, v, w) and task: pose and goal in the odometry frame. Raises ValueError as `estimate` does."""
        odom = inputs["odom"]
        if wrong := self.implausible(odom):
            raise ValueError(f"odom: {wrong}")
        return np.array([0.0, 0.0, 0.0, odom[4], odom[5]]), np.array([*_pose(odom), *inputs["goal_pose"]])

    def implausible(self, odom: Floats) -> str:
        """Why odom[6] cannot be true of this base; '' if it can."""
        p, (_, _, qz, qw, v, w) = self.parameters, odom
        if not 0.9 < qz * qz + qw * qw < 1.1:
            return "orientation is no unit quaternion about z; is the base level?"
        if abs(v) > 2 * (p.speed + p.speed_margin) or abs(w) > 2 * (p.turn_rate + p.turn_margin):
            return f"twist ({v:.2f} m/s, {w:.2f} rad/s) is beyond what this base can do; wrong units?"
        return ""

    def bounded(self, rays: Rays) -> tuple[Floats, Floats, Floats]:
        """(points[M, 2], unknown[M], free[N]) that bound the free space of `rays`; see `boundary`."""
        narrowest = 2 * self.parameters.obstacle_half_width_min
        points, unknown, free = boundary(
            rays.ranges, rays.bearings, rays.origins, rays.error, rays.turned, rays.wide, self.reach, self.pocket,
            narrowest, bool(self.parameters.outline) or self.parameters.obstacle_speed > 0.0,
        )  # fmt: skip
        return points, unknown, free

    def observation(
        self, inputs: Inputs, estimate: Estimate, previous: Floats, centre: Floats, threshold: float
    ) -> Singles:
        """See `observation_names`. Where nothing returned, the largest range is shown."""
        sectors = np.minimum.reduceat(estimate.scene, self._sectors)
        x, y, yaw, gx, gy = estimate.task
        distance, bearing = np.hypot(gx - x, gy - y), np.arctan2(gy - y, gx - x) - yaw
        goal = (min(distance, FARTHEST_GOAL), np.cos(bearing), np.sin(bearing))
        # 1/(0.5 + r): differences between near ranges matter, differences between far ones do not.
        return np.array([*(1.0 / (0.5 + sectors)), *goal, *estimate.state[3:], *previous, threshold], np.float32)

    @property
    def observation_bounds(self) -> tuple[Singles, Singles]:
        """See Robot: what an estimate admits, and what the drive can be told."""
        p = self.parameters
        fastest = [2 * (p.speed + p.speed_margin), 2 * (p.turn_rate + p.turn_margin)]
        low = [*[0.0] * p.policy_rays, 0.0, -1.0, -1.0, *(-v for v in fastest), *self.action_low, 0.0]
        high = [*[2.0] * p.policy_rays, FARTHEST_GOAL, 1.0, 1.0, *fastest, *self.action_high, p.band]
        return np.array(low, np.float32), np.array(high, np.float32)

    def relative(self, before: Inputs, now: Inputs) -> Floats:
        """State at `now` in the robot's frame at `before`, by odometry."""
        x0, y0, yaw0 = _pose(before["odom"])
        x1, y1, yaw1 = _pose(now["odom"])
        cos, sin = np.cos(yaw0), np.sin(yaw0)
        dx, dy = x1 - x0, y1 - y0
        turn = (yaw1 - yaw0 + np.pi) % (2 * np.pi) - np.pi
        return np.array([cos * dx + sin * dy, -sin * dx + cos * dy, turn, now["odom"][4], now["odom"][5]])

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
        """(clearance, speed, turn rate) margins of truth = (x, y, yaw, v, w, clearance of the footprint).

        Where somebody walks, that of a base that stands counts as infinite: it cannot give way (passive safety).
        """
        p = self.parameters
        return np.array(
            [
                np.inf if p.walkers and self._stands(truth) else truth[5] - p.clearance,
                p.speed + p.speed_margin - abs(truth[3]),
                p.turn_rate + p.turn_margin - abs(truth[4]),
            ]
        )

    def sensed(self, inputs: Inputs) -> Floats:
        """See Robot: the clearance is that of the nearest return, with all that noise may hide in its favour."""
        odom = inputs["odom"]
        return np.array([*_pose(odom), odom[4], odom[5], self.nearest_return(inputs)[0] + self.parameters.lidar_noise])

    def nearest_return(self, inputs: Inputs) -> tuple[float, float]:
        """(metres from the footprint, bearing from the axle [rad]) of the nearest return of any lidar.

        (inf, 0) if there is none. With corners, the bearing is that of the return nearest to the axle.
        """
        p, found = self.parameters, (np.inf, 0.0)
        for name, setup in self._setups.items():
            if name not in inputs:
                continue
            scan = Scan.of(inputs[name])
            ranges, _ = readings(scan, setup)
            seen = np.isfinite(ranges) & (ranges > 0.0) & ~masked(scan, setup)
            angles = scan.bearings(setup)[seen]
            points = np.column_stack([setup.x + ranges[seen] * np.cos(angles), setup.y + ranges[seen] * np.sin(angles)])
            far = np.hypot(points[:, 0], points[:, 1])
            outside = ~inside(points, p.outline) if p.outline else far > p.footprint_radius  # else its own parts
            if not outside.any():
                continue
            points, far = points[outside], far[outside]
            away = (
                from_outline(0.0, 0.0, 0.0, points, p.outline, p.farthest)
                if p.outline
                else far.min() - p.footprint_radius
            )
            found = min(found, (float(away), float(np.arctan2(*points[far.argmin()][::-1]))))
        return found

    def travelled(self, before: Inputs, after: Inputs) -> float:
        """See Robot."""
        return float(np.hypot(*self.relative(before, after)[:2]))

    def carried(self, before: Inputs, after: Inputs, seconds: float) -> bool:
        """See Robot: farther, or turned more, than at twice the largest speeds."""
        p, moved = self.parameters, self.relative(before, after)
        return bool(
            np.hypot(moved[0], moved[1]) > 2 * (p.speed + p.speed_margin) * seconds
            or abs(moved[2]) > 2 * (p.turn_rate + p.turn_margin) * seconds
        )

    def waits(self, truth: Floats) -> bool:
        """See Robot."""
        p = self.parameters
        return bool(p.walkers) and self._stands(truth) and bool(truth[5] < p.clearance)

    def _stands(self, truth: Floats) -> bool:
        """Whether no point of the footprint is faster than terminal_speed."""
        p = self.parameters
        return bool(abs(truth[3]) + p.farthest * abs(truth[4]) <= p.terminal_speed)

    def task(self, before: Inputs, action: Floats, after: Inputs) -> tuple[float, bool]:
        """Progress towards the goal by odometry, less a cost of time, plus a bonus on arrival."""
        p, goal = self.parameters, after["goal_pose"]
        was, now = (float(np.hypot(*(inputs["odom"][:2] - goal))) for inputs in (before, after))
        reached = now <= p.goal_radius
        return p.reward_progress * (was - now) - p.reward_time + p.reward_goal * reached, reached

    def reached(self, truth: Floats, goal: Floats) -> bool:
        """See Robot: within twice goal_radius. Odometry drifts, and so ends some episodes a little before the goal."""
        return bool(np.hypot(*(truth[:2] - goal)) <= 2 * self.parameters.goal_radius)

    def controller(self, observations: Singles) -> Floats:
        """Goal seeking: straight to the goal. It ignores obstacles; the support excludes what would hit them."""
        p, first = self.parameters, self.parameters.policy_rays
        distance, cos, sin = observations[:, first : first + 3].astype(np.float64).T
        bearing = np.arctan2(sin, cos)
        speed = p.speed * np.clip(np.cos(bearing), 0.0, 1.0) ** 2 * np.clip(distance / 0.4, 0.3, 1.0)
        return np.stack([speed, np.clip(2.0 * bearing, -p.turn_rate, p.turn_rate)], axis=1)


def _pose(odom: Floats) -> tuple[float, float, float]:
    return float(odom[0]), float(odom[1]), float(2.0 * np.arctan2(odom[2], odom[3]))


def _channels(p: Parameters) -> tuple[Channel, ...]:
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
            constants={"header.frame_id": p.odom_frame, "child_frame_id": p.base_frame},
            topic=p.odom_topic,
            bounds={"twist.twist.linear.y": (SIDEWAYS, "this base cannot drive sideways; is it in the base's frame?")},
            settings={"header.frame_id": "odom_frame", "child_frame_id": "base_frame", "max_age": "input_age"},
        ),
        *(
            Channel(
                setup.name,
                "sensor_msgs/msg/LaserScan",
                FIELDS,
                p.scan_age,
                constants={"header.frame_id": setup.frame},
                finite=False,
                topic=setup.topic,
                settings={"header.frame_id": f"frame of lidar '{setup.name}'", "max_age": "scan_age"},
                with_state=False,
            )
            for setup in p.lidars
        ),
        Channel(
            "goal_pose",
            "geometry_msgs/msg/PoseStamped",
            ("pose.position.x", "pose.position.y"),
            constants={"header.frame_id": p.odom_frame},
            latched=True,
            topic=p.goal_topic,
        ),
    )


def _world(p: Parameters) -> WorldSpec:
    wheel_radius, clear = 0.05, 0.02
    return WorldSpec(
        physics_hz=240,
        control_hz=10,
        episode_s=p.episode_s,
        drive=DifferentialDrive(
            chassis=Primitive("cylinder", (0.75 * p.nearest, 0.06), 3.0, (0.0, 0.0, clear + 0.04)),
            wheel=Primitive("cylinder", (wheel_radius, 0.02), 0.2, friction=1.0),
            # The casters hang 2 mm above the ground and only limit the pitch. If the base rested on them, its wheels
            # would slip at every start and stop, and the odometry's heading would be off by 0.1 rad each time.
            caster=Primitive("sphere", (0.02,), 0.05, (0.6 * p.nearest, 0.0, 0.022), 0.0),
            track=1.5 * p.nearest,
            motor_torque=2.0,
            lag=p.lag,
            acceleration=p.acceleration,
            turn_acceleration=p.turn_acceleration,
            dead_zone=p.dead_zone,
            timeout=p.drive_timeout,
            odometry_drift=p.odometry_drift,
        ),
        footprint_radius=p.farthest,
        footprint=p.outline,
        lidars={setup.name: _simulated(p, setup) for setup in p.lidars},
        arena=ObstacleArena(
            side=p.arena_side,
            count=(p.obstacles_min, p.obstacles_max),
            half_width=(p.obstacle_half_width_min, p.obstacle_half_width_max),
            height=0.6,
            start_goal_distance=p.start_goal_distance,
            corridor=p.corridor,
            goal_radius=p.goal_radius,
            walkers=p.walkers,
            walker_speed=p.walker_speed,
        ),
        sensors={"odom": "odometry", **{setup.name: "lidar" for setup in p.lidars}, "goal_pose": "goal"},
    )


def _simulated(p: Parameters, setup: LidarSetup) -> Lidar:
    """A lidar with that setup, the full circle at once."""
    return Lidar(
        p.scan_rays, 0.0, p.scan_range, 0.2, p.scan_noise, x=setup.x, y=setup.y, yaw=setup.yaw,
        upside_down=setup.upside_down, turn_s=setup.turn_time, stamp=setup.stamp, nothing=setup.written,
    )  # fmt: skip


def make(parameters: Mapping[str, Any], where: str) -> DiffDrive:
    """The robot with `parameters` over the defaults. Raises ValueError naming the key in `where`."""
    p = build(Parameters, parameters, where)
    try:
        _ = p.outline
    except ValueError as error:
        raise ValueError(f"{where}: footprint {error}") from None
    if wrong := setup_objection(p.lidars, ("odom", "goal_pose")):
        raise ValueError(f"{where}: {wrong}")
    return DiffDrive(p)
