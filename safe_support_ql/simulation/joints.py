"""The PyBullet world of a JointDrive: a URDF whose joints are driven by effort or by velocity.

Truth: (positions, velocities) of the declared joints. Sensors: 'joints' (positions, velocities), without noise, and
'goal' (as the robot draws it).
"""

import tempfile
from pathlib import Path

import numpy as np
import pybullet_data

from safe_support_ql.robots.base import Floats, Robot
from safe_support_ql.robots.world import JointDrive, WorldSpec
from safe_support_ql.simulation.world import World


class JointWorld(World):
    """See the module. All default motors are switched off, because they would brake free joints."""

    def __init__(self, robot: Robot, gui: bool = False) -> None:
        """Load the URDF. `robot` draws initial states and goals."""
        super().__init__(robot, gui)
        spec = self.spec
        assert isinstance(spec.drive, JointDrive)
        self.body = self._load(spec.drive)
        links = {
            self.client.getJointInfo(self.body, joint)[1].decode(): joint
            for joint in range(self.client.getNumJoints(self.body))
        }
        if missing := [joint for joint in spec.drive.joints if joint not in links]:
            raise ValueError(f"{spec.drive.urdf}: has no joint '{missing[0]}', only {', '.join(links)}")
        self._links = {name: links[name] for name in spec.drive.joints}
        self._joints = list(self._links.values())
        self._driven = [links[name] for name in spec.drive.driven]
        for joint in self._joints:
            self.client.setJointMotorControl2(self.body, joint, self.client.VELOCITY_CONTROL, force=0.0)
        self._masses = {name: self.client.getDynamicsInfo(self.body, link)[0] for name, link in self._links.items()}
        self._loaded = dict(self._masses)
        self.become(spec)

    def become(self, spec: WorldSpec) -> None:
        assert isinstance(spec.drive, JointDrive)
        self.drive, self.timeout = spec.drive, spec.drive.timeout
        for name, mass in (self._masses | spec.drive.link_masses).items():
            if mass != self._loaded[name]:  # do not set an unchanged mass: Bullet would compute its inertia again
                self.client.changeDynamics(self.body, self._links[name], mass=mass)
                self._loaded[name] = mass
        self.client.changeDynamics(self.body, -1, linearDamping=spec.drive.damping, angularDamping=spec.drive.damping)

    def _load(self, drive: JointDrive) -> int:
        if not drive.urdf_edits:
            return int(self.client.loadURDF(drive.urdf))
        found = Path(drive.urdf) if Path(drive.urdf).exists() else Path(pybullet_data.getDataPath()) / drive.urdf
        text = found.read_text()
        for old, new in drive.urdf_edits:
            if old not in text:
                raise ValueError(f"{drive.urdf}: must contain '{old}', which urdf_edits replaces")
            text = text.replace(old, new)
        with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
            file.write(text)
            file.flush()
            return int(self.client.loadURDF(file.name))

    def reset(self, rng: np.random.Generator, seed: int) -> None:
        """Draw initial state and goal from the robot."""
        self.set_state(self.robot.initial_state(rng))
        self.goal = self.robot.draw_goal(rng)

    def set_state(self, state: Floats) -> None:
        """See World; state = (positions, velocities)."""
        n = len(self._joints)
        for joint, position, velocity in zip(self._joints, state[:n], state[n:], strict=True):
            self.client.resetJointState(self.body, joint, position, velocity)
        self._forget_command()

    def step(self) -> None:
        """Apply effort or velocity to the driven joints, then step physics."""
        wanted = list(self.drive.gain * self._commanded())
        if self.drive.control == "effort":
            self.client.setJointMotorControlArray(self.body, self._driven, self.client.TORQUE_CONTROL, forces=wanted)
        else:
            self.client.setJointMotorControlArray(
                self.body, self._driven, self.client.VELOCITY_CONTROL,
                targetVelocities=wanted, forces=[self.drive.max_force] * len(wanted),
            )  # fmt: skip
        self.client.stepSimulation()

    def truth(self) -> Floats:
        """(positions, velocities)."""
        states = self.client.getJointStates(self.body, self._joints)
        return np.array([state[0] for state in states] + [state[1] for state in states])

    def measure(self, channel: str, rng: np.random.Generator) -> Floats:
        """Joint states without noise, or the goal."""
        return {"joints": self.truth, "goal": lambda: self.goal}[self.spec.sensors[channel]]()
