"""PyBullet interprets a robot's WorldSpec: bodies, actuators with lag and timeout, sensors with noise, ground truth.

Truth vectors: differential drive (x, y, yaw, v, w, clearance of the footprint); joint effort (positions, velocities).
Sensors: 'odometry' (x, y, qz, qw, v, w), 'lidar' (ranges), 'goal' (the goal), 'joints' (positions, velocities).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pybullet_data

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.world import DifferentialDrive, JointEffort, Primitive, WorldSpec
from safe_support_ql.simulation.arena import Arena, make_arena


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """PyBullet announces itself on both standard streams, from C, and would cut other people's tables in two."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C still holds goes nowhere, too
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(nowhere)


with silence():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

SOLVER_ITERATIONS = 20  # PyBullet's default of 50 costs a third more time and moves a driven metre by millimetres


class World(ABC):
    """One robot in its world. `step` is one physics sub-step."""

    def __init__(self, spec: WorldSpec, gui: bool = False) -> None:
        """Connect to a PyBullet server of its own."""
        self.spec = spec
        self.dt = 1.0 / spec.physics_hz
        with silence():
            self.client = BulletClient(pybullet.GUI if gui else pybullet.DIRECT)
        self.client.setAdditionalSearchPath(pybullet_data.getDataPath())
        self.client.setGravity(0.0, 0.0, -9.81)
        self.client.setTimeStep(self.dt)
        self.client.setPhysicsEngineParameter(numSolverIterations=SOLVER_ITERATIONS)
        self.goal: Floats = np.zeros(2)
        self._since_command = np.inf

    @abstractmethod
    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """A new start and goal."""

    @abstractmethod
    def step(self) -> None:
        """One physics sub-step under the newest command, or the drive's own stop once that is too old."""

    @abstractmethod
    def truth(self) -> Floats:
        """Ground truth now, exact."""

    @abstractmethod
    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """One vector per channel."""

    def command(self, action: Floats) -> None:
        """The newest command; it holds until the next or the drive's timeout."""
        self._action = np.array(action, np.float64)
        self._since_command = 0.0

    def _commanded(self) -> Floats:
        """What the drive obeys in this sub-step: its command, or zero after its own timeout."""
        obeyed = self._action if self._since_command < self.spec.drive.timeout - 1e-9 else np.zeros_like(self._action)
        self._since_command += self.dt
        return obeyed

    @abstractmethod
    def become(self, spec: WorldSpec) -> None:
        """Change while it moves: friction, masses, drive and sensors from now on as in `spec`; shapes stay."""

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()


class DriveWorld(World):
    """A two-wheeled base with contact physics among the obstacles of an arena."""

    def __init__(self, spec: WorldSpec, gui: bool = False) -> None:
        """Build the floor and the base; obstacles come with `reset`."""
        super().__init__(spec, gui)
        assert isinstance(spec.drive, DifferentialDrive) and spec.lidar and spec.arena
        self.drive, self.lidar = spec.drive, spec.lidar
        self.client.loadURDF("plane.urdf")
        self._build()
        angles = -np.pi + np.arange(self.lidar.rays) * (2 * np.pi / self.lidar.rays)
        self._rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._obstacles: list[int] = []
        self._action = np.zeros(2)

    def _shape(self, shape: Primitive, turned: bool = False) -> int:
        # `turned` lays a cylinder on its side: a wheel that turns about y.
        frame = {"collisionFrameOrientation": self.client.getQuaternionFromEuler([np.pi / 2, 0, 0])} if turned else {}
        if shape.kind == "box":
            return int(self.client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=shape.size, **frame))
        if shape.kind == "sphere":
            return int(self.client.createCollisionShape(pybullet.GEOM_SPHERE, radius=shape.size[0], **frame))
        return int(
            self.client.createCollisionShape(
                pybullet.GEOM_CYLINDER, radius=shape.size[0], height=shape.size[1], **frame
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
            linkJointTypes=[pybullet.JOINT_REVOLUTE] * 2 + [pybullet.JOINT_FIXED] * 2,
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
        arena_seed = seed
        self.set_arena(make_arena(self.spec.arena, arena_seed))
        self._scale = 1.0 + self.drive.odometry_drift * rng.standard_normal(2)

    def set_arena(self, arena: Arena) -> None:
        """Replace the obstacles by those of `arena` and put the base at its start."""
        assert self.spec.arena
        for body in self._obstacles:
            self.client.removeBody(body)
        height = self.spec.arena.height
        half = arena.half_side
        walls = [(sx * (half + 0.05), sy * (half + 0.05), 0.0, 0.05 if sx else half + 0.1, 0.05 if sy else half + 0.1)
                 for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1))]  # fmt: skip
        self._obstacles = [self._obstacle(row, height) for row in (*arena.obstacles, *walls)]
        self.arena, self.goal = arena, arena.goal
        x, y, yaw = arena.start
        self.client.resetBasePositionAndOrientation(
            self.body, [x, y, self._height], self.client.getQuaternionFromEuler([0, 0, yaw])
        )
        self.client.resetBaseVelocity(self.body, [0, 0, 0], [0, 0, 0])
        for joint in (0, 1):
            self.client.resetJointState(self.body, joint, 0.0, 0.0)
        self._action = np.zeros(2)
        self._filtered = (0.0, 0.0)
        self._since_command = np.inf
        self._pose = np.array([x, y, yaw])
        self._wheels = np.zeros(2)
        self._clearance_bound = -np.inf
        self._bound_at = (x, y)
        self._scale = np.ones(2)

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
        radius, track = self._assumed()
        half_track = track / 2
        self.client.setJointMotorControlArray(
            self.body, (0, 1), pybullet.VELOCITY_CONTROL,
            targetVelocities=((v - w * half_track) / radius, (v + w * half_track) / radius),
            forces=(drive.motor_torque, drive.motor_torque),
        )  # fmt: skip
        self.client.stepSimulation()

    def _assumed(self) -> tuple[float, float]:
        """(wheel radius, track) in metres as driver and odometry believe them to be."""
        drive = self.drive
        return drive.wheel.size[0] / drive.ground_speed, drive.track * drive.ground_turn / drive.ground_speed

    def truth(self) -> Floats:
        """(x, y, yaw, v, w, clearance); the clearance is exact."""
        return self._truth(-np.inf)

    def quick_truth(self, enough: float) -> Floats:
        """Like `truth`, but the clearance may be a lower bound where that is at least `enough`.

        Distance to static obstacles changes by no more than the way driven, so most sub-steps need no new distances.
        """
        return self._truth(enough)

    def _truth(self, enough: float) -> Floats:
        position, orientation = self.client.getBasePositionAndOrientation(self.body)
        linear, angular = self.client.getBaseVelocity(self.body)
        _, _, qz, qw = orientation
        yaw = 2.0 * np.arctan2(qz, qw)
        v = linear[0] * np.cos(yaw) + linear[1] * np.sin(yaw)
        if np.isfinite(self._clearance_bound):
            way = np.hypot(position[0] - self._bound_at[0], position[1] - self._bound_at[1])
            if self._clearance_bound - way >= enough > -np.inf:
                return np.array([position[0], position[1], yaw, v, angular[2], self._clearance_bound - way])
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
        way = self._scale[0] * radius * 0.5 * (left - self._wheels[0] + right - self._wheels[1])
        turn = self._scale[1] * radius * (right - self._wheels[1] - left + self._wheels[0]) / track
        middle = self._pose[2] + 0.5 * turn
        self._pose += np.array([way * np.cos(middle), way * np.sin(middle), turn])
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
        if self.lidar.tilt:  # about the base's y axis: what is ahead goes down
            forward, (level, down) = self._rays[:, :1], (np.cos(self.lidar.tilt), np.sin(self.lidar.tilt))
            end[:, :2] -= forward * (1.0 - level) * np.array([cos, sin]) * self.lidar.range_max
            end[:, 2:] -= forward * down * self.lidar.range_max
        hits = self.client.rayTestBatch(start, end, numThreads=1)
        fraction = np.array([hit[2] for hit in hits])
        ranges = fraction * self.lidar.range_max
        noise = np.clip(rng.standard_normal(len(ranges)), -3.0, 3.0) * self.lidar.noise
        # REP-117: +Inf is "nothing within range".
        return np.where(fraction >= 1.0, np.inf, np.clip(ranges + noise, 0.0, self.lidar.range_max))


class JointWorld(World):
    """A URDF with efforts on some joints; every default motor switched off, because those hold passive joints."""

    def __init__(self, spec: WorldSpec, robot: Robot, gui: bool = False) -> None:
        """Load the URDF. `robot` draws initial states and goals."""
        super().__init__(spec, gui)
        assert isinstance(spec.drive, JointEffort)
        self.drive, self.robot = spec.drive, robot
        self.body = self._load(spec.drive)
        names = {
            self.client.getJointInfo(self.body, joint)[1].decode(): joint
            for joint in range(self.client.getNumJoints(self.body))
        }
        self._joints = [names[name] for name in spec.drive.joints]
        self._driven = [names[name] for name in spec.drive.driven]
        for joint in self._joints:
            self.client.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0.0)
        self._links = {name: names[name] for name in spec.drive.joints}
        self._masses = {name: self.client.getDynamicsInfo(self.body, link)[0] for name, link in self._links.items()}
        self._loaded = dict(self._masses)
        self.become(spec)
        self._action = np.zeros(len(self._driven))

    def become(self, spec: WorldSpec) -> None:
        """See World."""
        assert isinstance(spec.drive, JointEffort)
        self.drive = spec.drive
        for name, mass in (self._masses | spec.drive.link_masses).items():
            if mass != self._loaded[name]:  # what does not change is left alone: Bullet would compute its inertia anew
                self.client.changeDynamics(self.body, self._links[name], mass=mass)
                self._loaded[name] = mass
        self.client.changeDynamics(self.body, -1, linearDamping=spec.drive.damping, angularDamping=spec.drive.damping)

    def _load(self, drive: JointEffort) -> int:
        if not drive.urdf_edits:
            return int(self.client.loadURDF(drive.urdf))
        found = Path(drive.urdf) if Path(drive.urdf).exists() else Path(pybullet_data.getDataPath()) / drive.urdf
        text = found.read_text()
        for old, new in drive.urdf_edits:
            if old not in text:
                raise ValueError(f"{drive.urdf}: holds no '{old}' to replace")
            text = text.replace(old, new)
        with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
            file.write(text)
            file.flush()
            return int(self.client.loadURDF(file.name))

    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """Draw initial state and goal from the robot."""
        state = self.robot.initial_state(rng)
        self.goal = self.robot.draw_goal(rng)
        self.set_state(state)

    def set_state(self, state: Floats) -> None:
        """Put the joints at state = (positions, velocities); no command acts."""
        n = len(self._joints)
        for joint, position, velocity in zip(self._joints, state[:n], state[n:], strict=True):
            self.client.resetJointState(self.body, joint, position, velocity)
        self._action = np.zeros(len(self._driven))
        self._since_command = np.inf

    def step(self) -> None:
        """Effort, then physics."""
        efforts = self.drive.gain * self._commanded()
        self.client.setJointMotorControlArray(self.body, self._driven, pybullet.TORQUE_CONTROL, forces=list(efforts))
        self.client.stepSimulation()

    def truth(self) -> Floats:
        """(positions, velocities)."""
        states = self.client.getJointStates(self.body, self._joints)
        return np.array([state[0] for state in states] + [state[1] for state in states])

    def sense(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Joint states without noise, and the goal."""
        made = {"joints": self.truth, "goal": lambda: self.goal}
        return {channel: made[sensor]() for channel, sensor in self.spec.sensors.items()}


def make_world(robot: Robot, gui: bool = False) -> World:
    """The world that `robot` declares."""
    if isinstance(robot.world.drive, DifferentialDrive):
        return DriveWorld(robot.world, gui)
    return JointWorld(robot.world, robot, gui)
