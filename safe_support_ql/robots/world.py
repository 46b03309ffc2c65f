"""Data types in which a robot declares its topics and its simulated world: channel, command, drive, lidar, arena."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

ANY = 0  # length of an array that may have any length


@dataclass(frozen=True)
class Channel:
    """One native input topic, read as a float64 vector.

    `fields` are attribute paths read in order ('pose.pose.position.x'); a path ending in '[]' is an array of `length`,
    or of any length where that is ANY. `topic` is where the messages come from, `name` where that is empty.
    `constants` are attributes with a required value (frame ids): a message with another value is refused, because it
    describes another robot. `joints`: of a JointState, the names of those that its arrays are read for, in this order;
    they are found by name, among others and in any order.
    `bounds` are attributes that must be no larger, either way, than a number, and what it means where they are.
    `settings` name the parameters of the robot that a person would change: by attribute path, or 'max_age'.
    A message older than `max_age` seconds counts as missing; a `latched` channel (a goal) needs one message only, of
    any age.
    """

    name: str
    type: str
    fields: tuple[str, ...]
    max_age: float = 0.25
    length: int = 0
    constants: dict[str, object] = field(default_factory=dict)
    latched: bool = False
    finite: bool = True  # false for scans, in which infinities and NaN have a meaning
    joints: tuple[str, ...] = ()
    topic: str = ""
    bounds: dict[str, tuple[float, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    with_state: bool = True  # measured at the instant of the state; false for scans, which are brought to it

    @property
    def each(self) -> int:
        """How many numbers are read of each array."""
        return len(self.joints) or self.length

    @property
    def size(self) -> int:
        """Length of the vector, at least, where an array has any length."""
        return sum(self.each if path.endswith("[]") else 1 for path in self.fields)

    @property
    def any_length(self) -> bool:
        """Whether the vector may be longer than `size`."""
        return self.each == ANY and any(path.endswith("[]") for path in self.fields)


@dataclass(frozen=True)
class CommandTopic:
    """The native command: `fields` are written in the order of the action; '[]' takes the whole action as an array."""

    name: str
    type: str
    fields: tuple[str, ...]
    frame_id: str = ""
    unstamped_type: str = ""  # the same command without a header, for drives that need it (`stamped_cmd: false`)
    unstamped_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Primitive:
    """A shape of a body: 'box' (half extents x, y, z), 'cylinder' or 'sphere' (radius, height); metres, kilograms."""

    kind: str
    size: tuple[float, ...]
    mass: float
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    friction: float = 0.8


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How commands move the body. Each kind of drive is a subclass; a robot's own package may bring one."""

    world: ClassVar[str]  # "package.module:Class" of the simulation.world.World that interprets it
    timeout: float  # s without a command after which the drive obeys the robot's `silence` by itself

    def exactly_sensed(self) -> Self:
        """The same drive, its sensors without errors of their own."""
        return self


@dataclass(frozen=True, kw_only=True)
class DifferentialDrive(Drive):
    """Two wheels driven by velocity motors behind a first-order lag, a dead zone and a command timeout of its own."""

    world = "safe_support_ql.simulation.differential_drive:DriveWorld"
    chassis: Primitive
    wheel: Primitive
    caster: Primitive
    track: float  # m, between the wheels
    motor_torque: float  # N m per wheel
    lag: float  # s
    acceleration: float  # m/s^2, slew limit
    turn_acceleration: float  # rad/s^2, slew limit
    dead_zone: float  # m/s; a slower speed command counts as zero, like the stiction of a real drive
    odometry_drift: float = 0.01  # relative, standard deviation per metre and per radian
    odometry_s: float = 0.0  # period of the odometry; 0: with every state
    # True distance and turn per assumed one, for drive and odometry: wheels or a track of another size.
    ground_speed: float = 1.0
    ground_turn: float = 1.0
    uneven: float = 0.0  # how much larger the left wheel is than the right one, relative; the drive assumes equal ones

    def exactly_sensed(self) -> Self:
        """See Drive: odometry that does not drift."""
        return replace(self, odometry_drift=0.0)


@dataclass(frozen=True, kw_only=True)
class JointDrive(Drive):
    """A URDF from pybullet_data or a path; `driven` joints are under `control`, the others move freely.

    Raises ValueError naming the field if the drive could not move.
    """

    world = "safe_support_ql.simulation.joints:JointWorld"
    urdf: str
    driven: tuple[str, ...]
    joints: tuple[str, ...]  # in the order of the state: positions, then velocities
    link_masses: dict[str, float] = field(default_factory=dict)  # kg, replacing those of the URDF
    control: Literal["effort", "velocity"] = "effort"  # of a command: N or N m, or m/s or rad/s
    max_force: float = 0.0  # N or N m, of each velocity motor
    gain: float = 1.0  # effort per commanded effort, or velocity per commanded velocity
    damping: float = 0.04  # 1/s, of every link's velocity; 0.04 is Bullet's default
    urdf_edits: tuple[tuple[str, str], ...] = ()  # (text in the URDF, its replacement); the text must occur

    def __post_init__(self) -> None:
        """Refuse values that the types allow but no drive can have."""
        if self.control not in ("effort", "velocity"):
            raise ValueError(f"control is {self.control!r}, must be 'effort' or 'velocity'")
        if self.control == "velocity" and not 0.0 < self.max_force < math.inf:
            raise ValueError(f"max_force is {self.max_force:g}, must be more than 0 for joints driven by velocity")
        if not 0.0 < abs(self.gain) < math.inf:
            raise ValueError(f"gain is {self.gain:g}, must be a number other than 0")
        if missing := [joint for joint in self.driven if joint not in self.joints]:
            raise ValueError(f"driven has '{missing[0]}', must be among joints: {', '.join(self.joints)}")


@dataclass(frozen=True)
class Lidar:
    """A simulated planar lidar; `noise` is the standard deviation in metres, truncated at three times that.

    It stands at (x, y, yaw) on the base. Its rays begin at `angle_min`, `angle_increment` apart (0: the full circle),
    to the left, or to the right where it is mounted upside down. A turn takes `turn_s`: rays are cast one after the
    other, and the scan is stamped at its first or its last ray. Scans come every `period_s` (0: with every state), the
    first one `phase_s` after the start; every `lost`-th is lost (0: none).
    """

    rays: int
    range_min: float
    range_max: float
    height: float
    noise: float
    tilt: float = 0.0  # rad, positive if the scan points down in front of the robot
    x: float = 0.0  # m
    y: float = 0.0  # m
    yaw: float = 0.0  # rad
    upside_down: bool = False
    angle_min: float = -math.pi  # rad
    angle_increment: float = 0.0  # rad
    turn_s: float = 0.0
    stamp: str = "first"
    period_s: float = 0.0
    phase_s: float = 0.0
    lost: int = 0
    nothing: float = math.inf  # what is written where nothing returned

    def exactly_sensed(self) -> Lidar:
        """The same scan without noise."""
        return replace(self, noise=0.0)


@dataclass(frozen=True)
class ObstacleArena:
    """A walled square with random static obstacles of constant cross-section, one arena per seed, and walkers."""

    side: float
    count: tuple[int, int]
    half_width: tuple[float, float]  # m, of the smallest and the largest obstacle
    height: float
    start_goal_distance: float
    corridor: float  # m, half the least gap between two obstacles
    goal_radius: float
    walkers: int = 0  # discs that walk about, straight on until something is in the way
    walker_speed: float = 0.0  # m/s


@dataclass(frozen=True)
class WorldSpec:
    """Everything the simulator needs. `sensors`: channel name -> simulated sensor that fills it, see simulation/."""

    physics_hz: int
    control_hz: int
    episode_s: float
    drive: Drive
    footprint_radius: float = 0.0
    footprint: tuple[float, ...] = ()  # the outline, see robots/footprint.py; none: a disc of `footprint_radius`
    lidars: dict[str, Lidar] = field(default_factory=dict)  # by the name of their channel
    arena: ObstacleArena | None = None
    sensors: dict[str, str] = field(default_factory=dict)

    def exactly_sensed(self) -> WorldSpec:
        """The same world with sensors that measure exactly."""
        lidars = {channel: lidar.exactly_sensed() for channel, lidar in self.lidars.items()}
        return replace(self, drive=self.drive.exactly_sensed(), lidars=lidars)
