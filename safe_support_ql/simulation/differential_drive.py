"""The PyBullet world of a DifferentialDrive: a base among the obstacles of an arena, with odometry and lidar.

Truth: (x, y, yaw, v, w, clearance of the footprint). Sensors: 'odometry' (x, y, qz, qw, v, w), 'lidar' (ranges in
metres) and 'goal' (x, y).
"""

from __future__ import annotations

import math

import numpy as np

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.world import DifferentialDrive, Primitive, WorldSpec
from safe_support_ql.simulation.arena import Arena, make_arena
from safe_support_ql.simulation.world import World


class DriveWorld(World):
    """See the module."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Build the floor and the base; obstacles come with `reset`."""
        super().__init__(robot, gui)
        spec = self.spec
        assert isinstance(spec.drive, DifferentialDrive) and spec.lidar and spec.arena
        self.drive, self.lidar = spec.drive, spec.lidar
        self.client.loadURDF("plane.urdf")
        self._build()
        angles = -np.pi + np.arange(self.lidar.rays) * (2 * np.pi / self.lidar.rays)
        self._rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._obstacles: list[int] = []

    @property
    def map(self) -> Arena:
        """See World."""
        return self.arena

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
        assert isinstance(spec.drive, DifferentialDrive) and spec.lidar
        self.drive, self.lidar = spec.drive, spec.lidar
        self.client.changeDynamics(self.body, -1, mass=spec.drive.chassis.mass)
        for wheel in (0, 1):
            self.client.changeDynamics(self.body, wheel, lateralFriction=spec.drive.wheel.friction)

    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """Build the arena of `seed` and put the base at its start, standing."""
        assert self.spec.arena
        self.set_arena(make_arena(self.spec.arena, seed))
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
        self.arena, self.goal = arena, arena.goal
        self.set_state(np.array([*arena.start, 0.0, 0.0]))
        self._scale = np.ones(2)

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
        self._bound_at = (x, y)

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
        self.client.stepSimulation()

    def _wheel_speeds(self, v: float, w: float) -> tuple[float, float]:
        """Left and right, in rad/s."""
        radius, track = self._assumed()
        half_track = track / 2
        return (v - w * half_track) / radius, (v + w * half_track) / radius

    def _assumed(self) -> tuple[float, float]:
        """(wheel radius, track) in metres, as drive and odometry assume them."""
        drive = self.drive
        return drive.wheel.size[0] / drive.ground_speed, drive.track * drive.ground_turn / drive.ground_speed

    def truth(self) -> Floats:
        """(x, y, yaw, v, w, clearance); the clearance is exact."""
        return self._truth(-np.inf)

    def quick_truth(self, enough: float) -> Floats:
        """See World.

        The clearance changes by no more than the distance driven, so most sub-steps need no new computation.
        """
        return self._truth(enough)

    def _truth(self, enough: float) -> Floats:
        position, orientation = self.client.getBasePositionAndOrientation(self.body)
        linear, angular = self.client.getBaseVelocity(self.body)
        _, _, qz, qw = orientation
        yaw = 2.0 * np.arctan2(qz, qw)
        v = linear[0] * np.cos(yaw) + linear[1] * np.sin(yaw)
        if np.isfinite(self._clearance_bound):
            driven = np.hypot(position[0] - self._bound_at[0], position[1] - self._bound_at[1])
            if self._clearance_bound - driven >= enough > -np.inf:
                return np.array([position[0], position[1], yaw, v, angular[2], self._clearance_bound - driven])
        clearance = float(self.arena.clearance(np.float64(position[0]), np.float64(position[1])))  # type: ignore[arg-type]
        self._clearance_bound = clearance - self.spec.footprint_radius
        self._bound_at = (position[0], position[1])
        return np.array([position[0], position[1], yaw, v, angular[2], self._clearance_bound])

    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Odometry, scan and goal."""
        made = {"odometry": self._odometry, "lidar": self._scan, "goal": lambda rng: self.goal}
        return {channel: made[sensor](rng) for channel, sensor in self.spec.sensors.items()}

    def _odometry(self, rng: np.random.Generator) -> Floats:
        (left, left_speed, *_), (right, right_speed, *_) = self.client.getJointStates(self.body, (0, 1))
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

    def _scan(self, rng: np.random.Generator) -> Floats:
        position, (_, _, qz, qw) = self.client.getBasePositionAndOrientation(self.body)
        yaw = 2.0 * np.arctan2(qz, qw)
        cos, sin = np.cos(yaw), np.sin(yaw)
        rays = self._rays @ np.array([[cos, sin], [-sin, cos]])
        start = np.tile([position[0], position[1], self.lidar.height], (len(rays), 1))
        end = start.copy()
        end[:, :2] += rays * self.lidar.range_max
        if self.lidar.tilt:  # about the base's y axis
            forward, (level, down) = self._rays[:, :1], (np.cos(self.lidar.tilt), np.sin(self.lidar.tilt))
            end[:, :2] -= forward * (1.0 - level) * np.array([cos, sin]) * self.lidar.range_max
            end[:, 2:] -= forward * down * self.lidar.range_max
        hits = self.client.rayTestBatch(start, end, numThreads=1)
        fraction = np.array([hit[2] for hit in hits])
        ranges = fraction * self.lidar.range_max
        noise = np.clip(rng.standard_normal(len(ranges)), -3.0, 3.0) * self.lidar.noise
        # REP-117: +Inf is "nothing within range".
        return np.where(fraction >= 1.0, np.inf, np.clip(ranges + noise, 0.0, self.lidar.range_max))
