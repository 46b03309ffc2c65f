"""What the base knows about its surroundings, from lidars of any mounting, direction, rate and turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_support_ql import robots
from safe_support_ql.robots.base import Estimate, Stamped
from safe_support_ql.robots.diff_drive.perception import LidarPerception, _chained
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import LidarSetup, Scan, full_circle

HALF = np.array([1.6, 1.1])  # m, half of a room in which something is always within reach
NS = 1_000_000_000


def base(*lidars: dict[str, Any], **parameters: Any) -> DiffDrive:
    robot = robots.make("diff_drive", {"lidars": list(lidars) or [{}], "scan_age": 0.6, **parameters})
    assert isinstance(robot, DiffDrive)
    return robot


def cast(origin: Floats, bearings: Floats) -> Floats:
    """Ranges [N] to the walls of the room, from origin[2] along bearings[N]."""
    rays = np.stack([np.cos(bearings), np.sin(bearings)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nanmin((np.sign(rays) * HALF - origin) / rays, axis=1))


class Drive:
    """A base on an arc at (v, w), with odometry without error, and lidars as their setups say."""

    def __init__(self, robot: DiffDrive, v: float, w: float, start: Floats) -> None:
        self.robot, self.v, self.w, self.start = robot, v, w, start

    def pose(self, t: float) -> Floats:
        x, y, yaw = self.start
        if abs(self.w) < 1e-9:
            return np.array([x + self.v * t * math.cos(yaw), y + self.v * t * math.sin(yaw), yaw])
        r, end = self.v / self.w, yaw + self.w * t
        return np.array([x + r * (math.sin(end) - math.sin(yaw)), y - r * (math.cos(end) - math.cos(yaw)), end])

    def odom(self, t: float) -> Stamped:
        x, y, yaw = self.pose(t)
        vector = np.array([x, y, math.sin(yaw / 2), math.cos(yaw / 2), self.v, self.w])
        return Stamped(vector, round(NS * t), 0)

    def scan(self, setup: LidarSetup, t: float, shape: Scan, turn: float = 0.0) -> Stamped:
        """A scan stamped at t whose rays are cast one after the other in `turn` seconds; backwards, the last first."""
        n = len(shape.ranges)
        header = {"time_increment": turn / (n - 1), "scan_time": turn}
        scan = Scan(**{**vars(shape), **header})
        ranges = np.empty(n)
        for i in range(n):
            before = n - 1 - i if setup.backwards else i
            x, y, yaw = self.pose(t - turn * (setup.stamp == "last") + before * scan.time_increment)
            cos, sin = math.cos(yaw), math.sin(yaw)
            at = np.array([x + cos * setup.x - sin * setup.y, y + sin * setup.x + cos * setup.y])
            bearing = yaw + setup.yaw + (-1 if setup.upside_down else 1) * scan.angles[i]
            ranges[i] = cast(at, np.array([bearing]))[0]
        return Stamped(scan.changed(ranges), round(NS * t), 0)


def shape(first: float, step: float, count: int) -> Scan:
    return Scan(first, first + (count - 1) * step, step, 0.0, 0.0, 0.1, 6.0, np.zeros(count))


def look(robot: DiffDrive, drive: Drive, t: float, scans: dict[str, list[Stamped]], odometry_s: float) -> Estimate:
    history = {"odom": [drive.odom(k * odometry_s) for k in range(int(t / odometry_s) + 1)], **scans}
    newest = history["odom"][-1]
    inputs = {
        "odom": newest.vector,
        "goal_pose": np.zeros(2),
        **{name: items[-1].vector for name, items in scans.items()},
    }
    perception = LidarPerception(robot)
    for eye in perception.eyes.values():
        eye.evidence.trust()
    return perception.estimate(inputs, newest.stamp_ns, history)


@given(
    st.floats(-0.15, 0.6), st.floats(-1.5, 1.5), st.floats(-math.pi, math.pi), st.floats(-0.15, 0.15),
    st.floats(-0.1, 0.1), st.floats(-math.pi, math.pi), st.booleans(), st.sampled_from(["first", "last"]),
    st.sampled_from([0.0, 0.1, 0.2]), st.sampled_from([180, 251, 360]), st.sampled_from([1.0, -1.0]),
    st.sampled_from([0.02, 0.1]), st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_points_are_never_farther_than_the_walls(
    v: float, w: float, yaw: float, x: float, y: float, turned: float, upside_down: bool, stamp: str, turn: float,
    rays: int, sign: float, odometry_s: float, backwards: bool,
) -> None:  # fmt: skip
    """Any mounting, direction, order, stamp and turn; also no nearer than the allowances make them."""
    setup = {"x": x, "y": y, "yaw": turned, "upside_down": upside_down, "stamp": stamp, "backwards": backwards}
    robot = base(setup)
    drive = Drive(robot, v, w, np.array([0.2, -0.1, yaw]))
    drawn = shape(-sign * math.pi, sign * 2 * math.pi / rays, rays)
    at = 0.4 if stamp == "last" else 0.4 - turn
    scan = drive.scan(LidarSetup(**setup), at, drawn, turn)  # type: ignore[arg-type]
    estimate = look(robot, drive, 0.5, {"scan": [scan]}, odometry_s)
    east, north, heading = drive.pose(0.5)
    spots = np.random.default_rng(0).uniform(-0.25, 0.25, (50, 2))
    cos, sin = math.cos(heading), math.sin(heading)
    true = np.min(HALF - np.abs(np.array([east, north]) + spots @ np.array([[cos, sin], [-sin, cos]])), axis=1)
    told = np.min(np.hypot(*(estimate.points[:, None] - spots).T), axis=1)
    near = true < robot.reach - 0.4
    assert (told <= true + 1e-6)[near].all()
    # 0.03 m of noise, gaps, and what the scan's age, its turn and coarse odometry cost; where a base turns against its
    # lidar, a wedge is never seen, and an obstacle may hide in it.
    unseen = turn > 0.0 and w * sign * (-1 if upside_down else 1) * (-1 if backwards else 1) < 0.0
    assert unseen or (told >= true - 0.3)[near].all()


def test_an_older_scan_costs_what_the_odometry_may_have_lost() -> None:
    robot = base()
    drive = Drive(robot, 0.6, 0.0, np.zeros(3))
    full = shape(-math.pi, 2 * math.pi / 180, 180)
    told = []
    for at in (0.5, 0.3):
        points = look(robot, drive, 0.5, {"scan": [drive.scan(robot.parameters.lidars[0], at, full)]}, 0.1).points
        told.append(float(points[np.abs(points[:, 1]) < 0.01, 0].max()))
    assert told[0] - told[1] == pytest.approx(robot.parameters.motion_mismatch * 0.6 * 0.2, abs=0.005)


def test_two_lidars_see_what_one_does_not() -> None:
    halves = {"front": {"name": "front"}, "rear": {"name": "rear", "topic": "rear", "yaw": math.pi}}
    robot = base(*halves.values())
    drive = Drive(robot, 0.0, 0.0, np.zeros(3))
    half = shape(-0.55 * math.pi, 1.1 * math.pi / 98, 99)
    scans = {name: [drive.scan(setup, 0.1, half)] for name, setup in robot._setups.items()}
    both = look(robot, drive, 0.1, scans, 0.1).points
    assert np.hypot(*both.T).min() > 0.9, "the nearest wall is 1.1 m away"
    alone = base(halves["front"])
    one = look(alone, drive, 0.1, {"front": scans["front"]}, 0.1).points
    assert np.hypot(*one.T).min() == pytest.approx(alone.pocket)


def test_a_scan_that_no_odometry_covers_is_no_state() -> None:
    robot = base(scan_age=0.25)
    drive = Drive(robot, 0.0, 0.0, np.zeros(3))
    full = shape(-math.pi, 2 * math.pi / 180, 180)
    setup = robot.parameters.lidars[0]
    with pytest.raises(ValueError, match=r"scan: no scan is newer than scan_age = 0.25 s and between two of odom"):
        look(robot, drive, 0.5, {"scan": [drive.scan(setup, 0.1, full)]}, 0.1)
    with pytest.raises(ValueError, match="scan: no scan is newer"):
        look(robot, drive, 0.5, {"scan": [drive.scan(setup, 0.55, full)]}, 0.1)


def test_own_parts_are_named_until_they_are_masked() -> None:
    robot = base()
    scan = Scan(-math.pi, math.pi - 2 * math.pi / 180, 2 * math.pi / 180, 0, 0, 0.1, 6.0, np.full(180, 3.0))
    ranges = scan.ranges.copy()
    ranges[[65, 66, 115, 116]] = 0.12
    inputs = {"odom": np.array([0.0, 0, 0, 1, 0, 0]), "goal_pose": np.zeros(2)}
    estimate = robot.estimate({**inputs, "scan": scan.changed(ranges)})
    assert "4 rays at -50..-48, 50..52 degrees end inside the footprint, the nearest at 0.12 m" in estimate.remark
    masks = [math.radians(a) for a in (-51, -47, 49, 53)]
    free = base({"mask": masks}).estimate({**inputs, "scan": scan.changed(ranges)})
    assert not free.remark and np.hypot(*free.points.T).min() > 1.0


def disagreements(robot: DiffDrive, states: list[tuple[Floats, Floats]]) -> dict[str, float]:
    """What is found at the last of these states, (pose by odometry, ranges), a control period apart."""
    perception, history = LidarPerception(robot), {"odom": [], "scan": []}  # type: ignore[var-annotated]
    off: dict[str, float] = {}
    for k, ((x, y, yaw), ranges) in enumerate(states):
        odom = np.array([x, y, math.sin(yaw / 2), math.cos(yaw / 2), 0.0, 0.0])
        scan = full_circle(ranges, 6.0).vector()
        history["odom"].append(Stamped(odom, k * NS // 10, 0))
        history["scan"].append(Stamped(scan, k * NS // 10, 0))
        inputs = {"odom": odom, "scan": scan, "goal_pose": np.zeros(2)}
        perception.estimate(inputs, k * NS // 10, history)
        off = perception.disagreements(True)
    return off


def test_a_lidar_that_suddenly_sees_less_is_noticed_and_an_empty_scan_counts_as_none() -> None:
    robot, here, room = base(), np.zeros(3), np.full(180, 2.0)
    part = "part of the scan"
    assert disagreements(robot, [(here, room), (here, np.where(np.arange(180) < 60, np.inf, room))])[part] > 2.0
    assert disagreements(robot, [(here, room), (here, room)])[part] == 0.0
    for silent in (np.inf, np.nan, 2000.0):  # one scan that is empty shows nothing, and contradicts nothing
        assert not disagreements(robot, [(here, room), (here, np.full(180, silent))])
        assert disagreements(robot, [(here, room), (here, np.full(180, silent)), (here, room)])[part] == 0.0
    assert disagreements(robot, [(here, room), (here, 0.7 * room)])[part] > 8.0  # latches at once
    nearer = np.where(np.arange(180) < 20, 1.0, room)  # somebody steps in front of a wall: occlusion, not a hole
    assert disagreements(robot, [(here, room), (here, nearer)])[part] < 1.0


@pytest.mark.parametrize(
    ("distance", "turn", "beyond"),
    [(1.0, 1.0, ""), (1.2, 0.8, ""), (0.8, 1.2, ""), (0.0, 1.0, "x by"), (2.0, 1.0, "x by"), (1.0, 2.0, "yaw by")],
)
def test_odometry_and_scans_must_agree_on_the_motion(distance: float, turn: float, beyond: str) -> None:
    """True distance and turn are `distance` and `turn` times those of the odometry at 0.2 m/s and 0.5 rad/s."""
    robot, rng, angles = base(), np.random.default_rng(0), full_circle(np.zeros(180), 6.0).angles
    said, true = np.array([0.02, 0.05]), np.array([0.02 * distance, 0.05 * turn])
    odometry, pose, states = np.zeros(3), np.array([0.2, -0.1, 0.3]), []
    for _ in range(4):
        ranges = cast(pose[:2], angles + pose[2]) + rng.uniform(-0.01, 0.01, 180)
        states.append((odometry.copy(), ranges))
        for where, (v, w) in ((odometry, said), (pose, true)):
            where += [v * np.cos(where[2]), v * np.sin(where[2]), w]
    off = disagreements(robot, states)
    worst = max(off, key=off.__getitem__)
    assert worst.startswith(beyond) and off[worst] > 1.0 if beyond else off[worst] <= 1.0, off


def test_a_chain_of_steps_is_where_they_lead() -> None:
    quarter = np.array([1.0, 0.0, np.pi / 2])
    np.testing.assert_allclose(_chained(np.array([quarter] * 4)), [0.0, 0.0, 2 * np.pi], atol=1e-12)


def test_a_base_that_cannot_go_on_for_what_it_never_saw_looks_round() -> None:
    """One post in an open hall, behind it on the left: it turns there, and the rays prove themselves one by one."""
    robot = base()
    perception, full = LidarPerception(robot), full_circle(np.zeros(180), 6.0)
    yaw, sought = 0.0, []
    for k in range(60):
        bearing = (full.angles + yaw - 2.5 + math.pi) % (2 * math.pi) - math.pi
        scan = full.changed(np.where(np.abs(bearing) < 0.09, 2.0, np.inf))
        odom = Stamped(np.array([0.0, 0, math.sin(yaw / 2), math.cos(yaw / 2), 0, 0]), k * NS // 10, 0)
        inputs = {"odom": odom.vector, "scan": scan, "goal_pose": np.zeros(2)}
        history = {"odom": [odom], "scan": [Stamped(scan, k * NS // 10, 0)]}
        estimate = perception.estimate(inputs, odom.stamp_ns, history)
        if not len(estimate.seek):
            break
        sought.append(estimate.seek[1])
        yaw += 0.1 * estimate.seek[1]
    assert set(sought) == {robot.parameters.turn_rate} and 1.5 < yaw < 4.5
    ahead = np.abs(np.arctan2(estimate.points[:, 1], estimate.points[:, 0])) < 0.5
    assert not (np.hypot(*estimate.points[ahead].T) < 0.6).any(), "and then it may go on"


def test_it_gives_up_where_nothing_shows_it_more() -> None:
    robot, yaw = base(), 0.0
    perception = LidarPerception(robot)
    for k in range(100):
        # Ranges of a lidar are never the same twice; one that repeats them is taken for frozen.
        ahead = full_circle(np.where(np.abs(np.arange(180) - 90) < 25, np.inf, 3.0 + 0.001 * (k % 2)), 6.0)
        odom = Stamped(np.array([0.0, 0, math.sin(yaw / 2), math.cos(yaw / 2), 0, 0]), k * NS // 10, 0)
        history = {"odom": [odom], "scan": [Stamped(ahead.vector(), k * NS // 10, 0)]}
        inputs = {"odom": odom.vector, "scan": ahead.vector(), "goal_pose": np.zeros(2)}
        estimate = perception.estimate(inputs, odom.stamp_ns, history)
        if not len(estimate.seek):
            break
        yaw += 0.1 * estimate.seek[1]
    assert abs(yaw) == pytest.approx(3 * math.pi, abs=0.2)
    assert "nothing returned at -38..38 degrees in a whole turn" in estimate.remark


def test_what_is_remembered_may_stand_to_both_sides() -> None:
    """By what the heading may have lost since: a fifth of 1 rad."""
    robot = base()
    perception = LidarPerception(robot)
    perception.memory.add(np.zeros(5), np.array([[0.8, 0.0]]), math.pi / 90)
    perception.memory._table["missed"] = 1
    for turned, aside in ((0.0, 0.0), (1.0, 0.2), (10.0, 0.5)):
        points = perception._recalled((0.0, 0.0, 0.0, 0.0, turned, 0.0, 0.0))
        bearings = np.arctan2(points[:, 1], points[:, 0])
        assert np.abs(bearings).max() == pytest.approx(aside, abs=0.03)
        assert np.diff(np.sort(bearings)).max(initial=0.0) < 0.06 and np.hypot(*points.T).max() < 0.8


def test_a_lidar_that_repeats_its_last_scan_shows_nothing() -> None:
    """Some drivers go on publishing what came last, with new stamps, when nothing comes any more."""
    robot = base()
    drive, setup, full = Drive(robot, 0.0, 0.0, np.zeros(3)), robot._setups["scan"], shape(-math.pi, math.pi / 90, 180)
    perception, goal = LidarPerception(robot), np.zeros(2)
    rng = np.random.default_rng(0)

    def look_at(k: int, x: float, repeated: bool) -> Estimate:
        nonlocal scan
        if not repeated:
            fresh = Scan.of(drive.scan(setup, 0.0, full).vector)
            scan = fresh.changed(fresh.ranges + 0.001 * rng.standard_normal(180))
        odom = np.array([x, 0.0, 0.0, 1.0, 0.0, 0.0])
        history = {"odom": [Stamped(odom, k * NS // 10, 0)], "scan": [Stamped(scan, k * NS // 10, 0)]}
        return perception.estimate({"odom": odom, "scan": scan, "goal_pose": goal}, k * NS // 10, history)

    scan = np.zeros(0)
    assert not look_at(0, 0.0, False).objection
    assert not look_at(1, 0.01, True).objection, "it hardly moved"
    frozen = look_at(2, 0.04, True).objection
    assert frozen == "scan: the same ranges in every scan though the base moved; start the lidar and its driver again"
    assert look_at(3, 0.04, True).objection, "nor is it believed where the base stands again"
    assert not look_at(4, 0.04, False).objection
    for k in range(5, 65):  # at rest, a lidar without noise repeats itself, and the odometry trembles
        assert not look_at(k, 0.04 + 0.002 * (k % 2), True).objection


def test_a_sample_that_cannot_be_true_does_not_move_the_base() -> None:
    robot = base()
    drive, setup = Drive(robot, 0.0, 0.0, np.zeros(3)), robot.parameters.lidars[0]
    full = shape(-math.pi, 2 * math.pi / 180, 180)
    history = {"odom": [drive.odom(0.0), drive.odom(0.1), drive.odom(0.2)], "scan": [drive.scan(setup, 0.2, full)]}
    bad = history["odom"][1].vector * 1e3
    history["odom"][1] = Stamped(bad, history["odom"][1].stamp_ns, 0)
    perception = LidarPerception(robot)
    inputs = {"odom": history["odom"][2].vector, "scan": history["scan"][0].vector, "goal_pose": np.zeros(2)}
    perception.estimate(inputs, history["odom"][2].stamp_ns, history)
    assert perception.track.at(NS)[3] == 0.0, "nothing was driven"
    with pytest.raises(ValueError, match="odom: orientation is no unit quaternion"):
        robot.motion({**inputs, "odom": bad})


def test_an_odometry_that_begins_anew_takes_nothing_along() -> None:
    robot = base()
    perception, setup = LidarPerception(robot), robot.parameters.lidars[0]
    drive, full = Drive(robot, 0.0, 0.0, np.array([0.2, -0.1, 0.3])), shape(-math.pi, 2 * math.pi / 180, 180)
    for k, place in enumerate([(3.0, 2.0), (3.0, 2.0), (0.0, 0.0)]):
        stamp = k * NS // 10
        odom = Stamped(np.array([*place, 0.0, 1.0, 0.0, 0.0]), stamp, 0)
        scan = Stamped(drive.scan(setup, k / 10, full).vector, stamp, 0)
        inputs = {"odom": odom.vector, "scan": scan.vector, "goal_pose": np.zeros(2)}
        estimate = perception.estimate(inputs, stamp, {"odom": [odom], "scan": [scan]})
    assert perception.track.at(NS)[3] == 0.0 and len(perception.memory.points) == 180
    assert np.hypot(*estimate.points.T).min() > 0.6


def test_a_lidar_to_which_nothing_returns_any_more_is_not_believed_beside_another() -> None:
    names = ("front", "rear")
    robot = base({"name": "front"}, {"name": "rear", "topic": "rear", "yaw": math.pi})
    drive, half = Drive(robot, 0.0, 0.0, np.zeros(3)), shape(-0.55 * math.pi, 1.1 * math.pi / 98, 99)
    perception = LidarPerception(robot)
    for k in range(3):
        stamp = k * NS // 10
        scans = {name: drive.scan(robot._setups[name], k / 10, half).vector for name in names}
        if k:
            scans["front"] = Scan.of(scans["front"]).changed(np.full(99, np.inf))
        odom = drive.odom(k / 10).vector
        history = {"odom": [Stamped(odom, stamp, 0)], **{n: [Stamped(v, stamp, 0)] for n, v in scans.items()}}
        points = perception.estimate({"odom": odom, "goal_pose": np.zeros(2), **scans}, stamp, history).points
    ahead = np.abs(np.arctan2(points[:, 1], points[:, 0])) < 0.3
    assert np.hypot(*points[ahead].T).min() == pytest.approx(robot.pocket)
