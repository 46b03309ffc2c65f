"""The PyBullet world of a DifferentialDrive: a base among the obstacles of an arena, with odometry and lidar.

Truth: (x, y, yaw, v, w, clearance of the footprint). Sensors: 'odometry' (x, y, qz, qw, v, w), 'lidar' (the vector of
robots/scan.py) and 'goal' (x, y).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.footprint import from_outline, outer
from safe_support_ql.robots.scan import Scan
from safe_support_ql.robots.world import DifferentialDrive, Lidar, Primitive, WorldSpec
from safe_support_ql.simulation.arena import Arena, make_arena
from safe_support_ql.simulation.world import Rhythm, World

WALKER = 0.2  # m, radius of who walks about
FIRST_AWAY = 1.5  # m, of a walker from the start of the base


class DriveWorld(World):
    """See the module."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Build the floor and the base; obstacles come with `reset`."""
        super().__init__(robot, gui)
        spec = self.spec
        assert isinstance(spec.drive, DifferentialDrive) and spec.lidars and spec.arena
        self.drive, self.lidars = spec.drive, spec.lidars
        self.client.loadURDF("plane.urdf")
        self._build()
        self._obstacles: list[int] = []
        self._walkers: list[int] = []
        self._walked = np.zeros((0, 2))  # where they are
        self._farthest = outer(spec.footprint) if spec.footprint else 0.0  # a disc may turn

    @property
    def map(self) -> Arena:
        """See World."""
        return self.arena

    @property
    def walkers(self) -> Floats:
        """See World."""
        return np.column_stack([self._walked, np.full(len(self._walked), WALKER)])

    def _shape(self, shape: Primitive, turned: bool = False) -> int:
        # `turned` lays a cylinder on its side: a wheel that turns about y.
        frame = {"collisionFrameOrientation": self.client.getQuaternionFromEuler([np.pi / 2, 0, 0])} if turned else {}
        if shape.kind == "box":
            return int(self.client.createCollisionShape(self.client.GEOM_BOX, halfExtents=shape.size, **frame))
        if shape.kind == "sphere":
            return int(self.client.createCollisionShape(self.client.GEOM_SPHERE, radius=shape.size[0], **frame))
        return int(
            self.client.createCollisionShape(
                self.client.GEOM_CYLINDER, radius=shape.size[0], height=shape.size[1], **frame
            )
        )

    def _build(self) -> None:
        drive, radius = self.drive, self.drive.wheel.size[0]
        self._height = drive.chassis.position[2]
        wheel, caster = self._shape(drive.wheel, turned=True), self._shape(drive.caster)
        x, _, z = drive.caster.position
        places = [
            (0.0, drive.track / 2, radius - self._height), (0.0, -drive.track / 2, radius - self._height),
            (x, 0.0, z - self._height), (-x, 0.0, z - self._height),
        ]  # fmt: skip
        self.body = self.client.createMultiBody(
            drive.chassis.mass,
            self._shape(drive.chassis),
            basePosition=[0, 0, self._height],
            linkMasses=[drive.wheel.mass] * 2 + [drive.caster.mass] * 2,
            linkCollisionShapeIndices=[wheel, wheel, caster, caster],
            linkVisualShapeIndices=[-1] * 4,
            linkPositions=places,
            linkOrientations=[(0, 0, 0, 1)] * 4,
            linkInertialFramePositions=[(0, 0, 0)] * 4,
            linkInertialFrameOrientations=[(0, 0, 0, 1)] * 4,
            linkParentIndices=[0] * 4,
            linkJointTypes=[self.client.JOINT_REVOLUTE] * 2 + [self.client.JOINT_FIXED] * 2,
            linkJointAxis=[(0, 1, 0)] * 4,
        )
        for link, friction in enumerate([drive.wheel.friction] * 2 + [drive.caster.friction] * 2):
            self.client.changeDynamics(self.body, link, lateralFriction=friction)

    def become(self, spec: WorldSpec) -> None:
        """See World."""
        assert isinstance(spec.drive, DifferentialDrive) and spec.lidars
        self.drive, self.lidars, self.timeout = spec.drive, spec.lidars, spec.drive.timeout
        self.client.changeDynamics(self.body, -1, mass=spec.drive.chassis.mass)
        for wheel in (0, 1):
            self.client.changeDynamics(self.body, wheel, lateralFriction=spec.drive.wheel.friction)

    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """Build the arena of `seed` and put the base at its start, standing."""
        assert self.spec.arena
        self.set_arena(make_arena(self.spec.arena, seed))
        self._let_walk(self.spec.arena.walkers, seed)
        self._scale = 1.0 + self.drive.odometry_drift * rng.standard_normal(2)

    def set_arena(self, arena: Arena) -> None:
        """See World; the odometry has no drift."""
        assert self.spec.arena
        for body in self._obstacles:
            self.client.removeBody(body)
        height = self.spec.arena.height
        half = arena.half_side
        walls = [(sx * (half + 0.05), sy * (half + 0.05), 0.0, 0.05 if sx else half + 0.1, 0.05 if sy else half + 0.1)
                 for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1))]  # fmt: skip
        self._obstacles = [self._obstacle(row, height) for row in (*arena.obstacles, *walls)]
        self._let_walk(0, 0)
        self.arena, self.goal = arena, arena.goal
        self.set_state(np.array([*arena.start, 0.0, 0.0]))
        self._scale = np.ones(2)

    def _let_walk(self, count: int, seed: int) -> None:
        """Put `count` walkers into the arena, away from the base."""
        assert self.spec.arena
        for body in self._walkers:
            self.client.removeBody(body)
        self._steps_rng, found = np.random.default_rng([seed, 2]), np.zeros((0, 2))
        while len(found) < count:
            at = self._steps_rng.uniform(-self.arena.half_side, self.arena.half_side, 2)
            near = np.hypot(*(at - self.arena.start[:2]))
            if self.arena.clearance(at[0], at[1]) > WALKER and near > FIRST_AWAY:
                found = np.vstack([found, at])
        self._walked, self._headings = found, self._steps_rng.uniform(-np.pi, np.pi, count)
        self._walkers = [self._obstacle(np.array([x, y, 0, WALKER, 0]), self.spec.arena.height) for x, y in found]
        for body in self._walkers:
            for link in range(-1, self.client.getNumJoints(self.body)):  # lidars see them, but they push nobody
                self.client.setCollisionFilterPair(self.body, body, link, -1, 0)
        self._clearance_bound = -np.inf

    def _walk(self) -> None:
        """Each walker goes straight on; where something is in the way, it turns at random, and goes on from there."""
        assert self.spec.arena
        step = self.spec.arena.walker_speed * self.dt
        there = self._walked + step * np.stack([np.cos(self._headings), np.sin(self._headings)], axis=1)
        pose, free = _planar(self.client.getBasePositionAndOrientation(self.body)), np.ones(len(there), bool)
        if step:
            free = self.arena.clearance(*there.T) > WALKER
            # Who was driven into may step back.
            free &= self._away(there, pose) > np.minimum(WALKER, self._away(self._walked, pose))
        self._walked = np.where(free[:, None], there, self._walked)
        blocked = np.flatnonzero(~free)
        self._headings[blocked] = self._steps_rng.uniform(-np.pi, np.pi, len(blocked))
        for body, (x, y) in zip(self._walkers, self._walked.tolist(), strict=True):
            self.client.resetBasePositionAndOrientation(body, [x, y, self.spec.arena.height / 2], [0, 0, 0, 1])
        self._clearance_bound -= step

    def _away(self, points: Floats, pose: Floats) -> Floats:
        """Exact distances [W] of points[W, 2] on the map from the footprint at pose[3]."""
        if not self.spec.footprint:
            return np.asarray(np.hypot(*(points - pose[:2]).T) - self.spec.footprint_radius)
        (x, y, yaw), outline = pose, self.spec.footprint
        return np.array([float(from_outline(x, y, yaw, point[None], outline, self._farthest)) for point in points])

    def set_state(self, state: Floats) -> None:
        """See World. The clearance in `state` is ignored: it follows from the map. The odometry starts there."""
        x, y, yaw, v, w = state[:5].tolist()
        self.client.resetBasePositionAndOrientation(
            self.body, [x, y, self._height], self.client.getQuaternionFromEuler([0, 0, yaw])
        )
        linear = v * np.array([np.cos(yaw), np.sin(yaw), 0.0]) + 0.0  # no negative zeros at rest
        self.client.resetBaseVelocity(self.body, linear.tolist(), [0.0, 0.0, w])
        for joint, speed in enumerate(self._wheel_speeds(v, w)):
            self.client.resetJointState(self.body, joint, 0.0, speed)
        self._forget_command()
        self._filtered = (v, w)
        self._pose = np.array([x, y, yaw])
        self._wheels = np.zeros(2)
        self._clearance_bound = -np.inf
        self._bound_at = (x, y, yaw)
        self._before = self.client.getBasePositionAndOrientation(self.body)

    def _obstacle(self, row: Floats, height: float) -> int:
        x, y, yaw, length, width = row
        if width == 0.0:
            shape = self._shape(Primitive("cylinder", (length, height), 0.0))
        else:
            shape = self._shape(Primitive("box", (length, width, height / 2), 0.0))
        turn = self.client.getQuaternionFromEuler([0, 0, yaw])
        return int(self.client.createMultiBody(0.0, shape, basePosition=[x, y, height / 2], baseOrientation=turn))

    def step(self) -> None:
        """Lag, slew limit and dead zone of the drive, then contact physics."""
        drive = self.drive
        v_wanted, w_wanted = self._commanded()
        if abs(v_wanted) < drive.dead_zone:
            v_wanted = 0.0
        response = 1.0 - math.exp(-self.dt / drive.lag)
        v_limit, w_limit = drive.acceleration * self.dt, drive.turn_acceleration * self.dt
        v, w = self._filtered
        v += min(max((v_wanted - v) * response, -v_limit), v_limit)
        w += min(max((w_wanted - w) * response, -w_limit), w_limit)
        self._filtered = (v, w)
        self.client.setJointMotorControlArray(
            self.body, (0, 1), self.client.VELOCITY_CONTROL,
            targetVelocities=self._wheel_speeds(v, w),
            forces=(drive.motor_torque, drive.motor_torque),
        )  # fmt: skip
        self._before = self.client.getBasePositionAndOrientation(self.body)
        if self._walkers:
            self._walk()
        self.client.stepSimulation()

    def _wheel_speeds(self, v: float, w: float) -> tuple[float, float]:
        """Left and right, in rad/s."""
        radius, track = self._assumed()
        half_track, (left, right) = track / 2, self._sizes
        return left * (v - w * half_track) / radius, right * (v + w * half_track) / radius

    @property
    def _sizes(self) -> tuple[float, float]:
        """Of the left and the right wheel, relative to what the drive assumes. In the world, both are equally large."""
        return 1.0 + self.drive.uneven / 2, 1.0 - self.drive.uneven / 2

    def _assumed(self) -> tuple[float, float]:
        """(wheel radius, track) in metres, as drive and odometry assume them."""
        drive = self.drive
        return drive.wheel.size[0] / drive.ground_speed, drive.track * drive.ground_turn / drive.ground_speed

    def truth(self) -> Floats:
        """(x, y, yaw, v, w, clearance); the clearance is exact."""
        return self._truth(-np.inf)

    def quick_truth(self, enough: float) -> Floats:
        """See World.

        The clearance changes by no more than the distance driven, what the farthest corner turned by, and what anybody
        walked, so most sub-steps need no new computation.
        """
        return self._truth(enough)

    def _truth(self, enough: float) -> Floats:
        position, orientation = self.client.getBasePositionAndOrientation(self.body)
        linear, angular = self.client.getBaseVelocity(self.body)
        _, _, qz, qw = orientation
        yaw = 2.0 * np.arctan2(qz, qw)
        v = linear[0] * np.cos(yaw) + linear[1] * np.sin(yaw)
        x, y, _ = position
        if np.isfinite(self._clearance_bound):
            moved = np.hypot(x - self._bound_at[0], y - self._bound_at[1])
            moved += 2.0 * self._farthest * abs(np.sin(0.5 * (yaw - self._bound_at[2])))
            if self._clearance_bound - moved >= enough > -np.inf:
                return np.array([x, y, yaw, v, angular[2], self._clearance_bound - moved])
        self._clearance_bound = self.arena.room(self.spec, np.array([x, y, yaw]))
        if self._walkers:
            near = float(self._away(self._walked, np.array([x, y, yaw])).min()) - WALKER
            self._clearance_bound = min(self._clearance_bound, near)
        self._bound_at = (x, y, yaw)
        return np.array([x, y, yaw, v, angular[2], self._clearance_bound])

    def rhythm(self, channel: str) -> Rhythm:
        """See World."""
        sensor = self.spec.sensors[channel]
        if sensor == "odometry":
            return Rhythm(self.drive.odometry_s)
        if sensor == "goal":
            return Rhythm()
        lidar = self.lidars[channel]
        return Rhythm(lidar.period_s, lidar.phase_s, lidar.lost, lidar.turn_s, lidar.rays, lidar.stamp == "last")

    def measure(self, channel: str, rng: np.random.Generator) -> Floats:
        """Odometry, the goal, or a scan whose rays are all cast now."""
        sensor = self.spec.sensors[channel]
        if sensor == "odometry":
            return self._odometry()
        if sensor == "goal":
            return self.goal
        rays, now = (
            np.arange(self.lidars[channel].rays, dtype=np.float64),
            self.client.getBasePositionAndOrientation(self.body),
        )
        return self.whole(channel, self._cast(self.lidars[channel], rays, np.array([_planar(now)]), rng))

    def part(self, channel: str, first: int, ago: Floats, rng: np.random.Generator) -> Floats:
        """See World: ranges of the rays from `first` on, each cast from where the base was then."""
        then, now = _planar(self._before), _planar(self.client.getBasePositionAndOrientation(self.body))
        way = np.array([now[0] - then[0], now[1] - then[1], (now[2] - then[2] + np.pi) % (2 * np.pi) - np.pi])
        poses = now - np.clip(ago / self.dt, 0.0, 1.0)[:, None] * way
        return self._cast(self.lidars[channel], np.arange(first, first + len(ago), dtype=np.float64), poses, rng)

    def whole(self, channel: str, parts: Floats) -> Floats:
        """See World: the scan of these ranges."""
        lidar = self.lidars[channel]
        step, gaps = _increment(lidar), max(lidar.rays - 1, 1)
        return Scan(
            angle_min=lidar.angle_min, angle_max=lidar.angle_min + gaps * step, angle_increment=step,
            time_increment=lidar.turn_s / gaps, scan_time=lidar.turn_s or lidar.period_s,
            range_min=lidar.range_min, range_max=lidar.range_max, ranges=parts,
        ).vector()  # fmt: skip

    def _odometry(self) -> Floats:
        states = self.client.getJointStates(self.body, (0, 1))
        (left, left_speed), (right, right_speed) = (
            (turned / size, speed / size) for (turned, speed, *_), size in zip(states, self._sizes, strict=True)
        )
        radius, track = self._assumed()
        driven = self._scale[0] * radius * 0.5 * (left - self._wheels[0] + right - self._wheels[1])
        turn = self._scale[1] * radius * (right - self._wheels[1] - left + self._wheels[0]) / track
        middle = self._pose[2] + 0.5 * turn
        self._pose += np.array([driven * np.cos(middle), driven * np.sin(middle), turn])
        self._wheels = np.array([left, right])
        v = self._scale[0] * radius * 0.5 * (left_speed + right_speed)
        w = self._scale[1] * radius * (right_speed - left_speed) / track
        x, y, yaw = self._pose
        return np.array([x, y, np.sin(yaw / 2), np.cos(yaw / 2), v, w])

    def _cast(self, lidar: Lidar, rays: Floats, poses: Floats, rng: np.random.Generator) -> Floats:
        """Ranges of `rays`[n], their numbers, from base poses [n, 3], or [1, 3] where it is one for all."""
        angles = lidar.angle_min + rays * _increment(lidar)
        bearings = lidar.yaw + (-angles if lidar.upside_down else angles)
        level = np.stack([np.cos(bearings), np.sin(bearings)], axis=1)
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        turns = np.moveaxis(np.array([[cos, sin], [-sin, cos]]), 2, 0)
        directions = (level.reshape(len(poses), -1, 2) @ turns).reshape(-1, 2)
        start = np.full((len(rays), 3), lidar.height)
        start[:, 0] = poses[:, 0] + (cos * lidar.x - sin * lidar.y)
        start[:, 1] = poses[:, 1] + (sin * lidar.x + cos * lidar.y)
        end = start.copy()
        end[:, :2] += directions * lidar.range_max
        if lidar.tilt:  # about the base's y axis
            forward, (flat, down) = level[:, :1], (np.cos(lidar.tilt), np.sin(lidar.tilt))
            end[:, :2] -= forward * (1.0 - flat) * np.stack([cos, sin], axis=1) * lidar.range_max
            end[:, 2:] -= forward * down * lidar.range_max
        hits = self.client.rayTestBatch(start, end, numThreads=1)
        fraction = np.array([hit[2] for hit in hits])
        ranges = fraction * lidar.range_max
        noise = np.clip(rng.standard_normal(len(ranges)), -3.0, 3.0) * lidar.noise
        measured = np.clip(ranges + noise, 0.0, lidar.range_max)
        return np.where((fraction >= 1.0) | (measured < lidar.range_min), lidar.nothing, measured)


def _planar(pose: tuple[Any, Any]) -> Floats:
    """(x, y, yaw) of what PyBullet calls position and orientation."""
    (x, y, _), (_, _, qz, qw) = pose
    return np.array([x, y, 2.0 * np.arctan2(qz, qw)])


def _increment(lidar: Lidar) -> float:
    """Radians between two rays."""
    return lidar.angle_increment or 2 * np.pi / lidar.rays
