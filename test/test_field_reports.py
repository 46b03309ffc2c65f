"""What people report of real sensors and drives, one kind a test: it works as set, or it is refused and named.

Messages go over the wire, through decoder, estimate and gate. Kinds that a test elsewhere states already:

| kind | where |
|---|---|
| RPLidar A1, LDS-01, LDS-02, YDLidar X4, Hokuyo, SICK TiM, a scan made of a point cloud | here |
| what is written where nothing returned; no returns at all, or none ahead | here; values: robots/test_scan.py |
| range_min beyond the footprint, own posts in view | here; any limit: robots/test_scan.py |
| frames, topics, a goal in the map, no orientation, sliding sideways | here |
| stamps that count from boot, clocks that step back | safety/test_clocks.py, test_inputs.py |
| a lidar off the axle, turned, upside down, mirrored: set or not | here; every mounting: |
| | robots/diff_drive/test_perception.py::test_points_are_never_farther_than_the_walls |
| turns that take time, slow scans, scans out of phase, lost ones | here; as above, and experiments/test_streams.py |
| joints in another order, among others, NaN, no velocity | here; nodes/test_native.py::test_joints_are_found_by_name, |
| | ::test_what_concerns_a_joint_of_ours_is_refused_by_name |
| a pole that hangs, is a whole turn on, or is counted from elsewhere | |
| | safety/test_opening.py::test_a_pole_that_is_counted_from_elsewhere_meets_silence |
| a drive that hears Twist while TwistStamped is sent | |
| | nodes/test_watchdogs.py::test_only_who_can_hear_the_command_counts_as_a_drive, |
| | nodes/test_safety_monitor.py::test_a_drive_that_cannot_hear_is_named_before_anything_is_asked_for |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState, LaserScan

from safe_support_ql import config
from safe_support_ql.experiments import streams
from safe_support_ql.nodes.native import ChannelCodec, CommandCodec, stamp_of
from safe_support_ql.nodes.safety_monitor import SafetyMonitor
from safe_support_ql.nodes.watchdogs import PublisherWatch
from safe_support_ql.recording.seeds import TESTS
from safe_support_ql.robots.base import Estimate, Singles
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.diff_drive.sensors import FAULTS, SENSORS
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import HEADER, LidarSetup, Scan, full_circle
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.cause import Cause
from safe_support_ql.safety.gate import Decision, Gate
from safe_support_ql.safety.timing import Clock
from safe_support_ql.simulation.reference import Reference
from safe_support_ql.simulation.simulation import Simulation

TICK = 100_000_000  # ns, the control period
NOW = 1_800_000_000_000_000_000  # ns, some time since 1970
SEED = TESTS.start + 3_000_000
INSTANT = (0.0, 1e-6)  # latency of a command: next to none
# Distances from the middle of the axle to four walls; all different, so that a turned or mirrored lidar shows.
ROOM = {"ahead": 0.7, "left": 0.9, "behind": 1.1, "right": 1.3}


def laser_scan(scan: Scan, frame: str, stamp_ns: int) -> LaserScan:
    """The message of a driver."""
    message = LaserScan(**{name: getattr(scan, name) for name in HEADER})
    message.header.frame_id, message.header.stamp = frame, stamp_of(stamp_ns)
    message.ranges = scan.ranges.astype(np.float32).tolist()
    return message


def odometry(
    stamp_ns: int, frame: str = "odom", child: str = "base_link", y: float = 0.0, vy: float = 0.0, z: float = 0.0,
    w: float = 1.0,
) -> Odometry:  # fmt: skip
    """Of a base that stands, or slides to the side; covariances as drivers fill them who know none."""
    message = Odometry(child_frame_id=child)
    message.header.frame_id, message.header.stamp = frame, stamp_of(stamp_ns)
    message.pose.pose.position.y, message.twist.twist.linear.y = y, vy
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = z, w
    message.pose.covariance[0], message.twist.covariance[0] = math.nan, -1.0
    return message


def goal_pose(stamp_ns: int, frame: str) -> PoseStamped:
    """Three metres ahead."""
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = frame, stamp_of(stamp_ns)
    message.pose.position.x = 3.0
    return message


def seen(header: Scan, mounted: LidarSetup, where: dict[str, float] = ROOM) -> Floats:
    """Ranges [N] of a lidar that is mounted so, on a base in the middle of four walls."""
    bearings = mounted.yaw + (-1.0 if mounted.upside_down else 1.0) * header.angles
    cos, sin = np.cos(bearings), np.sin(bearings)
    with np.errstate(divide="ignore"):
        along = np.where(cos > 0, where["ahead"] - mounted.x, where["behind"] + mounted.x) / np.abs(cos)
        across = np.where(sin > 0, where["left"] - mounted.y, where["right"] + mounted.y) / np.abs(sin)
    return np.asarray(np.minimum(along, across))


class Base:
    """A base that stands, and its gate: messages go over the wire, are decoded, and are taken or refused."""

    def __init__(self, **parameters: Any) -> None:
        settings = config.load_robot("diff_drive", {f"parameters.{name}": value for name, value in parameters.items()})
        assert isinstance(settings.robot, DiffDrive)
        self.robot = settings.robot
        self.codecs = {channel.name: ChannelCodec(channel) for channel in self.robot.channels}
        self.gate = Gate(self.robot, settings.gate, False, 0, clock=Clock.REALTIME)
        self.now = NOW
        self.refused: list[str] = []
        self.candidates: CandidateSet | None = None
        self.estimate: Estimate | None = None

    def hears(self, channel: str, message: Any) -> str:
        """Why the message was refused; '' if it was taken."""
        arrived = deserialize_message(serialize_message(message), type(message))
        try:
            vector, stamp = self.codecs[channel].read(arrived)
        except ValueError as error:
            return str(self.gate.refuse(channel, Cause.of(str(error))))
        assert stamp is not None
        return str(self.gate.receive(channel, vector, stamp, self.now, self.now))

    def cycle(self, asks: tuple[float, float] | None = None) -> Decision:
        """One cycle, in which this action is asked for, or nothing."""
        self.candidates = candidates = self.gate.begin(self.now, self.now, INSTANT)
        self.estimate = self.gate.cycle.estimate if self.gate.cycle else None
        if candidates is None or asks is None:
            return self.gate.expire(self.now)
        decision = self.gate.request(candidates.id, np.array(asks, np.float32), self.now)
        assert decision is not None
        return decision

    def stands(
        self, scan: Callable[[int], LaserScan], ticks: int = 5, goal: str = "", asks: tuple[float, float] | None = None,
        **odom: Any,
    ) -> Decision:  # fmt: skip
        """So many control periods with what `scan` makes at each instant; the last decision, for which `asks` is.

        `goal` is the frame of the goal, if it is not that of the odometry.
        """
        for tick in range(ticks):
            self.now += TICK
            self.refused = [
                self.hears("odom", odometry(self.now, **odom)),
                self.hears("scan", scan(self.now)),
                self.hears("goal_pose", goal_pose(self.now, goal or odom.get("frame", "odom"))),
            ]
            decision = self.cycle(asks if tick == ticks - 1 else None)
        return decision

    @property
    def fastest(self) -> float:
        """Of the certified actions, m/s straight ahead; below zero if there is none."""
        candidates = self.candidates
        assert candidates is not None
        straight = candidates.certified & (np.abs(candidates.actions[:, 1]) < 0.2)
        return float(candidates.actions[straight, 0].max()) if straight.any() else -1.0

    @property
    def room(self) -> dict[str, float]:
        """How far the base believes the space about it to be free."""
        assert self.estimate is not None
        points = self.estimate.points
        bearing, found = np.arctan2(points[:, 1], points[:, 0]), {}
        for name, middle in (("ahead", 0.0), ("left", math.pi / 2), ("behind", math.pi), ("right", -math.pi / 2)):
            off = (bearing - middle + math.pi) % (2 * math.pi) - math.pi
            found[name] = float(np.hypot(*points[np.abs(off) < 0.3].T).min(initial=9.0))
        return found


# --- lidars as their drivers publish them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    """What one driver publishes, and the profile that tells the base about it."""

    frame: str
    header: Callable[[int], Scan]  # of the k-th scan: geometry and times, ranges[N] to be filled
    nothing: float = math.inf
    told: dict[str, Any] = field(default_factory=dict)  # of the lidar
    settings: dict[str, Any] = field(default_factory=dict)

    def profile(self) -> dict[str, Any]:
        return {"lidars": [{"frame": self.frame, **self.told}], **self.settings}

    def publishes(self, k: int, arrives_ns: int) -> LaserScan:
        """Its k-th scan in the room; one ray in seven meets something dark."""
        header, mounted = self.header(k), LidarSetup(**self.told)
        ranges = seen(header, mounted)
        ranges[k % 7 :: 7] = self.nothing
        ends = header.ends(mounted) if mounted.stamp == "first" else 0.0
        return laser_scan(replace(header, ranges=ranges), self.frame, arrives_ns - round(1e9 * ends))


def turning(first: float, step: float, rays: int, turn: float, range_min: float, range_max: float) -> Scan:
    """A scan of so many rays, cast one after the other in `turn` seconds."""
    last = first + (rays - 1) * step
    return Scan(first, last, step, turn / rays, turn, range_min, range_max, np.zeros(rays))


def lds_02(k: int) -> Scan:
    """Begins and ends wherever the first and the last measurement fell, and has as many bins as that takes."""
    degrees = 1790.0 + 9.0 * (k % 5)  # per second: the motor is not regulated well
    step = math.radians(degrees / 2300.0)
    first, last = math.radians(0.2 + 0.1 * (k % 3)), math.radians(359.6 + 0.1 * (k % 4))
    rays = math.ceil((last - first) / step)
    return Scan(first, last, step, 360.0 / degrees / rays, 360.0 / degrees, 0.0, 100.0, np.zeros(rays))


def ydlidar_x4(k: int) -> Scan:
    """As many rays as the turn took at 5000 a second."""
    rays = 700 + 3 * (k % 8)
    step = 2 * math.pi / (rays - 1)
    return Scan(-math.pi, math.pi, step, 1 / 5000, rays / 5000, 0.12, 10.0, np.zeros(rays))


SLOW = {"scan_age": 0.6}
A1 = replace(
    turning(-3.1241390705108643, 0.01745329238474369, 360, 0.14786775410175323, 0.15000000596046448, 12.0),
    angle_max=3.1415927410125732, time_increment=0.0004118878860026598,
)  # fmt: skip
LDS_01 = Scan(
    0.0, 6.26573181152, 0.0174532923847, 2.98699997074e-05, 0.0, 0.119999997318, 3.5, np.zeros(360)
)  # ROBOTIS-GIT/turtlebot3 #404

DRIVERS = {
    # Its connector points ahead, so its angle 0 points back.
    "RPLidar A1": Driver("laser", lambda k: A1, told={"yaw": math.pi}, settings={"scan_range": 12.0, **SLOW}),
    "LDS-01": Driver(
        "base_scan", lambda k: LDS_01, 0.0,
        {"x": -0.032, "nothing": "zero", "stamp": "last", "turn_time": 0.2}, {"scan_range": 3.5, **SLOW},
    ),
    "LDS-02": Driver(
        "base_scan", lds_02, 0.0, {"x": -0.032, "nothing": "zero", "stamp": "last"}, {"scan_range": 8.0, **SLOW}
    ),
    "YDLidar X4": Driver("laser_frame", ydlidar_x4, 0.0, {"nothing": "zero"}, {"scan_range": 10.0, **SLOW}),
    "Hokuyo, 270 degrees": Driver(
        "laser", lambda k: turning(-2.35619449, 0.00436332, 1081, 0.01875, 0.02, 10.0), told={"x": 0.1},
        settings={"scan_range": 10.0},
    ),
    "SICK TiM, upside down": Driver(
        "cloud", lambda k: turning(-2.35619, 0.00581776, 811, 0.05, 0.05, 10.0),
        told={"upside_down": True, "x": 0.05, "yaw": 0.3},
    ),
    "angles that count down": Driver(
        "laser", lambda k: turning(math.pi, -0.0174532925, 360, 0.1, 0.15, 8.0), settings=SLOW
    ),
    "rays in the reverse order of time": Driver(  # Slamtec/rplidar_ros #55
        "laser", lambda k: replace(A1, time_increment=-A1.time_increment), settings={"scan_range": 12.0, **SLOW}
    ),
    "made of a point cloud": Driver(  # pointcloud_to_laserscan without use_inf
        "base_link", lambda k: Scan(-math.pi, math.pi, math.pi / 180, 0.0, 1 / 30, 0.0, 5.0, np.zeros(360)), 6.0,
        {"nothing": "beyond"}, {"scan_range": 5.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIVERS)
def test_a_lidar_works_as_its_driver_publishes_it(name: str) -> None:
    """The base finds the walls where they are: never farther, and near enough to drive at its fastest."""
    driver = DRIVERS[name]
    base = Base(**driver.profile())
    numbers = iter(range(100))
    base.stands(lambda now: driver.publishes(next(numbers), now), 8)
    assert not any(base.refused) and base.gate.opened and base.fastest == pytest.approx(0.6)
    header = driver.header(0)
    for side, found in base.room.items():
        if side == "behind" and len(header.ranges) * abs(header.angle_increment) < 6.0:
            assert found == pytest.approx(base.robot.pocket), "where it does not look, nothing is known"
        else:
            assert ROOM[side] - 0.15 < found <= ROOM[side] + 1e-6, side


@pytest.mark.parametrize("name", ["RPLidar A1", "LDS-01", "LDS-02", "YDLidar X4"])
def test_a_lidar_that_nobody_told_the_base_about_is_refused_and_the_setting_named(name: str) -> None:
    base, driver = Base(), DRIVERS[name]
    decision = base.stands(lambda now: driver.publishes(0, now))
    assert decision.reason == "closed" and base.candidates is None
    assert f"scan: header.frame_id is '{driver.frame}', expected 'base_link'" in decision.message
    assert decision.message.endswith("; if that is its name, set frame of lidar 'scan' in the robot's configuration")


def test_a_turn_that_is_stamped_at_its_end_is_not_taken_for_one_stamped_at_its_beginning() -> None:
    base = Base(lidars=[{"frame": "laser"}], **SLOW)
    decision = base.stands(shows(replace(A1, ranges=np.full(360, 2.0)), "laser"))
    assert decision.reason == "closed" and "set stamp: last for it" in decision.message


# --- what is written where nothing returned ---------------------------------------------------------------------------

CIRCLE = full_circle(np.zeros(360), 6.0, 0.12)
HALL = {"ahead": 5.0, "left": 3.0, "behind": 3.0, "right": 3.0}
AHEAD = np.abs(CIRCLE.angles) < 0.4
WRITTEN: list[tuple[float, dict[str, Any]]] = [
    (math.inf, {}),
    (math.nan, {"nothing": "nan"}),
    (0.0, {"nothing": "zero"}),
    (6.0, {}),  # range_max
    (7.0, {"nothing": "beyond"}),  # range_max + 1
    (65.535, {"nothing": "beyond"}),  # ROBOTIS-GIT/turtlebot3_simulations #178
    (5.5, {"nothing": "value", "nothing_value": 5.5}),
]


def shows(scan: Scan, frame: str = "base_link") -> Callable[[int], LaserScan]:
    """The same scan at every instant."""
    return lambda now: laser_scan(scan, frame, now)


def looks_into_the_dark(value: float, told: dict[str, Any]) -> tuple[Base, Decision]:
    """A far wall ahead returns twice, and then reads `value`; what is decided when full speed ahead is asked for."""
    base, ranges = Base(lidars=[told]), seen(CIRCLE, LidarSetup(), HALL)
    for dark in (False, False, True, True, True):
        now = np.where(AHEAD & dark, value, ranges)
        decision = base.stands(shows(replace(CIRCLE, ranges=now)), 1, asks=(0.6, 0.0))
    return base, decision


@pytest.mark.parametrize(("value", "told"), WRITTEN)
def test_nothing_is_free_space_once_the_driver_is_known(value: float, told: dict[str, Any]) -> None:
    base, decision = looks_into_the_dark(value, told)
    assert decision.reason == "request" and base.room["ahead"] > 1.5


@pytest.mark.parametrize(("value", "told"), [row for row in WRITTEN if row[1] and row[0] != 5.5])
def test_nothing_in_another_writing_gives_no_room(value: float, told: dict[str, Any]) -> None:
    base, decision = looks_into_the_dark(value, {})
    assert decision.reason == "uncertified_request" and base.fastest <= 0.0
    assert base.room["ahead"] == pytest.approx(base.robot.pocket, abs=0.02)
    assert base.estimate is not None and f"set 'nothing: {told['nothing']}'" in base.estimate.remark


def test_who_asks_for_what_lies_behind_silent_rays_is_told_their_angles() -> None:
    _, decision = looks_into_the_dark(0.0, {})
    assert "-22..22 degrees" in decision.message and "set 'nothing: zero'" in decision.message


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 0.0, -1.0, 6.0, 7.0, 65.535])
def test_a_scan_without_returns_opens_nothing_and_is_named(value: float) -> None:
    """gazebosim/gz-sim #1112, turtlebot/turtlebot4 #150: every range the same, whatever stands before the lidar."""
    base = Base()
    decision = base.stands(shows(replace(CIRCLE, ranges=np.full(360, value))))
    assert decision.reason == "closed" and not decision.action.any() and not base.gate.opened
    assert "scan: 0 of 360 rays returned a range" in decision.message and "uncover the lidar" in decision.message
    if value != 6.0 and value > -1.0 and np.isfinite(value):
        assert f"-180..179 degrees read {value:.3g}" in decision.message and "set 'nothing: " in decision.message


def test_a_quarter_ahead_that_never_returns_is_not_entered() -> None:
    ranges = np.where(np.abs(CIRCLE.angles) < math.pi / 4, math.inf, seen(CIRCLE, LidarSetup()))
    base = Base()
    base.stands(shows(replace(CIRCLE, ranges=ranges)))
    assert base.room["ahead"] == pytest.approx(base.robot.pocket, abs=0.02) and base.fastest <= 0.0
    assert base.estimate is not None and "nothing has returned yet from rays ahead" in base.estimate.remark
    assert base.estimate.seek[0] == 0.0 != base.estimate.seek[1], "a turn on the spot shows more"


# --- the ring below range_min, and the robot's own parts --------------------------------------------------------------


@pytest.mark.parametrize("range_min", [0.55, 0.45])  # OpenRAL/openral #194; depthimage_to_laserscan by default
@pytest.mark.parametrize("reads", [math.inf, 3.0])
def test_a_lidar_that_cannot_see_what_is_near_is_refused(range_min: float, reads: float) -> None:
    """A post 0.3 m ahead, nearer than range_min, reads as nothing or as what is behind it."""
    ranges = np.where(np.abs(CIRCLE.angles) < 0.2, reads, 3.0)
    base = Base()
    scan = replace(CIRCLE, range_min=range_min, ranges=ranges)
    decision = base.stands(shows(scan))
    assert decision.reason == "closed" and not decision.action.any() and base.candidates is None
    assert f"range_min is {range_min} m, must lie in [0, 0.26" in decision.message
    assert "another lidar" in decision.message


def test_a_post_that_a_lidar_can_see_is_seen() -> None:
    base = Base()
    scan = replace(CIRCLE, ranges=np.where(np.abs(CIRCLE.angles) < 0.2, 0.4, 3.0))
    base.stands(shows(scan))
    assert base.room["ahead"] < 0.4 and base.fastest <= 0.0


def test_a_header_that_names_no_largest_range_leaves_that_of_the_profile() -> None:
    """pointcloud_to_laserscan has no largest range unless it is given one; what returns nothing reads inf."""
    base = Base()
    scan = replace(CIRCLE, range_max=math.inf, ranges=np.where(np.abs(CIRCLE.angles) < 0.2, math.inf, 3.0))
    base.stands(shows(scan))
    assert base.gate.opened and base.room["ahead"] < 1.0 < base.room["behind"]


def test_own_posts_are_named_by_their_angles_until_they_are_masked() -> None:
    """ROBOTIS-GIT/turtlebot3 #501. What a filter writes over them, NaN or range_max + 1, is no obstacle either."""
    posts = np.isin(np.arange(360), (50, 51, 130, 131, 230, 231, 310, 311))

    def decide(value: float, mask: list[float]) -> Decision:
        scan = replace(CIRCLE, ranges=np.where(posts, value, 3.0))
        base = Base(lidars=[{"mask": mask}])
        decision = base.stands(shows(scan))
        assert base.gate.opened is (base.fastest == pytest.approx(0.6))
        return decision

    told = decide(0.12, []).message
    assert "8 rays at -130..-129, -50..-49, 50..51, ... degrees end inside the footprint" in told
    assert "the nearest at 0.12 m" in told and "mask these angles" in told
    mask = [math.radians(at + by) for at in (-130, -50, 50, 130) for by in (-0.5, 1.5)]
    assert decide(0.12, mask).verdict == "certified"
    for filtered in (math.nan, 7.0, math.inf):
        assert decide(filtered, []).verdict == "certified"


# --- frames, topics and odometry --------------------------------------------------------------------------------------

FRAMES = [
    ("odom", "base_footprint", "base_scan"),  # ros-navigation/navigation2 #5095
    ("odom_combined", "base_link", "laser"),  # robot_pose_ekf
    ("robot1/odom", "robot1/base_link", "robot1/base_scan"),  # iRobotEducation/create3_docs #402
    ("/odom", "/base_link", "/laser"),  # as in ROS 1
    ("odom", "", "base_link"),  # a driver that fills in no child
]


def in_the_room(frame: str) -> Callable[[int], LaserScan]:
    return shows(replace(CIRCLE, ranges=seen(CIRCLE, LidarSetup())), frame)


@pytest.mark.parametrize(("odom", "child", "lidar"), FRAMES)
def test_frames_are_settings(odom: str, child: str, lidar: str) -> None:
    base = Base(odom_frame=odom, base_frame=child, lidars=[{"frame": lidar}])
    decision = base.stands(in_the_room(lidar), frame=odom, child=child)
    assert not any(base.refused) and decision.verdict == "certified"
    command = CommandCodec(base.robot.command, True).encode(decision.action, base.now)
    assert command.header.frame_id == child, "the drive may look for its own frame there"


@pytest.mark.parametrize(("odom", "child", "lidar"), FRAMES)
def test_frames_of_another_name_are_refused_and_named(odom: str, child: str, lidar: str) -> None:
    base = Base()
    decision = base.stands(in_the_room(lidar), frame=odom, child=child)
    assert decision.reason == "closed" and base.candidates is None
    for channel, path, found, expected in (
        ("odom", "header.frame_id", odom, "odom"),
        ("odom", "child_frame_id", child, "base_link"),
        ("scan", "header.frame_id", lidar, "base_link"),
        ("goal_pose", "header.frame_id", odom, "odom"),
    ):
        if found != expected and not (path == "child_frame_id" and odom != "odom"):  # one reason a message
            why = f"{channel}: {path} is '{found}', expected '{expected}'; "
            assert any(refused.startswith(why) for refused in base.refused), base.refused
    assert "expected" in decision.message and "configuration" in decision.message


def test_a_goal_in_the_map_is_refused_with_what_to_do() -> None:
    """RViz sends goals in its fixed frame."""
    base = Base()
    decision = base.stands(in_the_room("base_link"), goal="map")
    assert decision.reason == "closed" and not decision.action.any()
    assert "goal_pose: header.frame_id is 'map', expected 'odom'" in decision.message
    assert "transform it to 'odom'" in decision.message


NAME_SPACE = {
    "odom_topic": "robot1/odom",
    "goal_topic": "robot1/goal",
    "command_topic": "robot1/cmd_vel",
    "lidars": [{"name": "front", "topic": "robot1/scan_front"}],
}


def test_topics_are_settings_and_what_is_refused_there_reaches_the_gate(ros_domain: Any, tmp_path: Path) -> None:
    settings = config.load_robot("diff_drive", {f"parameters.{name}": value for name, value in NAME_SPACE.items()})
    config.save(settings, tmp_path / "config.yaml")
    rclpy.init()
    monitor = SafetyMonitor()
    monitor.set_parameters([Parameter("config", value=str(tmp_path / "config.yaml"))])
    monitor.trigger_configure()
    heard = {subscription.topic_name: subscription for subscription in monitor.subscriptions}
    assert monitor.command_output.topic_name == "/robot1/cmd_vel"
    heard["/robot1/odom"].callback(odometry(NOW, frame="map"))
    heard["/robot1/scan_front"].callback(laser_scan(CIRCLE, "laser", NOW))
    heard["/robot1/goal"].callback(goal_pose(NOW, "map"))
    assert monitor.gate is not None
    problems = {channel: str(problem) for channel, problem in monitor.gate.inputs.problems.items()}
    monitor.destroy_node()
    rclpy.shutdown()
    assert problems.keys() == {"odom", "front", "goal_pose"}
    assert problems["front"].startswith("front: header.frame_id is 'laser', expected 'base_link'; ")


def test_another_type_on_such_a_topic_is_named() -> None:
    node: Any = SimpleNamespace(
        get_publishers_info_by_topic=lambda topic: (
            [SimpleNamespace(topic_type="sensor_msgs/msg/PointCloud2")] if topic == "robot1/scan_front" else []
        )
    )
    watch = PublisherWatch(node, "/robot1/cmd_vel", list(Base(**NAME_SPACE).codecs.values()))
    ((channel, why),) = watch.unheard_inputs()
    assert channel == "front"
    assert str(why) == "front: a node publishes sensor_msgs/msg/PointCloud2, expected sensor_msgs/msg/LaserScan"


def test_what_is_drawn_is_in_the_frame_of_the_base() -> None:
    assert Base(base_frame="robot1/base_link").robot.frame_id == "robot1/base_link"


@pytest.mark.parametrize(("z", "w"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.5)])
def test_an_orientation_that_was_never_set_is_no_state(z: float, w: float) -> None:
    """All zero where a driver forgot it; a base on its side or a quaternion that is not of length one reads alike."""
    base = Base()
    base.stands(in_the_room("base_link"), 1, z=z, w=w)
    assert base.candidates is None and str(base.gate.cause).startswith("odom: orientation is no unit quaternion")


def sideways() -> tuple[Base, list[Decision]]:
    """A base on wheels that roll in any direction slides to the left at 0.4 m/s."""
    base, decisions = Base(), []
    for k in range(8):
        walls = {**HALL, "left": 3.0 - 0.04 * k, "right": 3.0 + 0.04 * k}
        scan = replace(CIRCLE, ranges=seen(CIRCLE, LidarSetup(), walls))
        decisions.append(base.stands(shows(scan), 1, y=0.04 * k, vy=0.4))
    return base, decisions


def test_a_speed_to_the_side_is_refused_by_name() -> None:
    base, decisions = sideways()
    assert not base.gate.opened and "sideways" in decisions[0].message


# --- mounting, turning and slow lidars: whole episodes, the truth is PyBullet -----------------------------------------


class Guide(Reference):
    """Knows the way, and turns where a turn is all that is offered: the plan, which is to stop, shows nothing new."""

    def __call__(self, candidates: CandidateSet) -> Singles:
        offered = np.flatnonzero(candidates.offered & ~candidates.is_plan)
        return candidates.actions[offered[0]] if len(offered) == 1 else super().__call__(candidates)


@cache
def episode(name: str, fault: str = "", seconds: float = 20.0) -> streams.StreamedEpisode:
    """One episode with sensors of the catalogue."""
    sensors = SENSORS[name]
    settings = config.load_robot("diff_drive", {**sensors.overrides(), "parameters.episode_s": seconds})
    sim = Simulation(settings.robot)
    gate = Gate(settings.robot, settings.gate, False, 0, clock=Clock.REALTIME)
    world = sensors.world(settings.robot.world)
    sim.world.become(world)
    sent = sensors.sent(world, FAULTS[fault] if fault else None)
    played = streams.play(sim, gate, Guide(settings.robot, sim.world), SEED, 0, fault=sent)
    sim.close()
    return played


@pytest.mark.parametrize(
    "name",
    [
        "rolling 0.1 s, stamped last",  # SteveMacenski/slam_toolbox #73
        "rolling 0.1 s, stamped first",
        "5 Hz beside 50 Hz",  # ROBOTIS-GIT/turtlebot3 #253
        "10 Hz beside 10 Hz, 45 ms apart",
        "one scan in twenty lost",  # ROBOTIS-GIT/turtlebot3 #690
        "0.1 m ahead, turned by 90 degrees",
        "upside down",
        "LDS-01",
        "RPLidar A1",
    ],
)
def test_a_healthy_base_reaches_its_goal(name: str) -> None:
    found = episode(name)
    assert found.reached and not found.latched and found.unsafe_visits == found.refused == found.blind == 0
    assert found.closed <= 4


@pytest.mark.parametrize("fault", ["a quarter ahead inf", "all inf from tick 30 on", "nearer than 0.55 m inf"])
def test_a_lidar_that_goes_blind_does_not_lead_into_a_wall(fault: str) -> None:
    found = episode("ideal", fault, 8.0)
    assert found.unsafe_visits == 0
    if fault == "all inf from tick 30 on":
        assert not found.latched and found.verdicts["certified"] <= 30 and not found.reached


def test_one_empty_scan_latches_nothing() -> None:
    base, room = Base(), in_the_room("base_link")
    base.stands(room)
    empty = room(base.now + TICK)
    empty.ranges = [math.inf] * len(empty.ranges)
    assert "0 of 360 rays returned" in base.stands(lambda stamp_ns: empty, ticks=1, asks=(0.3, 0.0)).message
    decision = base.stands(room, ticks=2, asks=(0.0, 0.3))
    assert decision.verdict == "certified" and decision.reason == "request", decision


def test_a_scan_that_comes_too_seldom_names_its_setting() -> None:
    base = Base()
    base.stands(in_the_room("base_link"))
    for _ in range(3):
        base.now += TICK
        base.hears("odom", odometry(base.now))
        decision = base.cycle()
    assert decision.reason == "input_missing" and decision.message.startswith("scan is 0.30 s old, allowed 0.25 s")
    assert "scan_age" in decision.message


NOT_TOLD = ["turned by 90 degrees, not told", "0.1 m ahead, not told", "upside down, not told"]


@pytest.mark.parametrize("name", NOT_TOLD)
def test_a_mounting_that_nobody_told_latches_soon(name: str) -> None:
    """Slamtec/rplidar_ros #157, SteveMacenski/slam_toolbox #198: the header is right, and the rays point elsewhere."""
    found = episode(name)
    assert found.unsafe_visits == 0 and not found.reached
    assert found.latched.startswith("mismatch: ") and "scan is off by" in found.latched


@pytest.mark.parametrize("name", NOT_TOLD)
def test_the_latch_names_the_mounting_of_the_lidar(name: str) -> None:
    assert "x, y, yaw" in episode(name).latched


# --- joints -----------------------------------------------------------------------------------------------------------


def test_a_cart_pole_finds_its_joints_among_those_of_a_whole_robot() -> None:
    """ros-controls/ros2_controllers #1572: in no order, and NaN for joints without a velocity of their own."""
    settings = config.load_robot("cart_pole")
    channels = {channel.name: channel for channel in settings.robot.channels}
    codec = ChannelCodec(channels["joint_states"])
    gate = Gate(settings.robot, settings.gate, False, 0)
    (cart, pole), nan = channels["joint_states"].joints, math.nan
    for k in range(1, 4):
        message = JointState(
            name=["wheel_right_joint", pole, "torso_lift_joint", cart, "gripper"],
            position=[-0.0188, 0.02, nan, 0.1, 0.0],
            velocity=[nan, 0.0, -0.0098, 0.0, nan],
            effort=[nan] * 5,
        )
        now = 20_000_000 * k
        message.header.stamp = stamp_of(now)
        vector, stamp = codec.read(deserialize_message(serialize_message(message), JointState))
        np.testing.assert_allclose(vector, [0.1, 0.02, 0.0, 0.0])
        assert stamp is not None and not gate.receive("joint_states", vector, stamp, now, now)
        assert not gate.receive("goal_pose", np.zeros(1), now, now, now)
        assert gate.begin(now, now) is not None
        decision = gate.expire(0)
    assert decision.verdict == "certified"
