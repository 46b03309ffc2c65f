"""The base in the adversary's world, a plane with a post, a wall or a box: how each covered error acts on it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Inputs, Perception
from safe_support_ql.robots.claims import Adversary, TrueWorld, Truth
from safe_support_ql.robots.diff_drive.parameters import Parameters
from safe_support_ql.robots.diff_drive.perception import LidarPerception, View
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.robots.footprint import from_outline
from safe_support_ql.robots.free_space import Rays
from safe_support_ql.robots.model import Floats
from safe_support_ql.robots.scan import Scan, full_circle

CURVES = (0.0, 0.5, -0.5)  # rad/s: straight towards the post, or along an arc


class SeeingBase(DiffDrive):
    """A monitor that knows the post exactly: the scan's first two ranges hold its position in the robot's frame."""

    def perception(self) -> Perception:
        """It needs no lidar, and remembers nothing."""
        return Perception(self)

    def estimate(self, inputs: Inputs) -> Estimate:
        """The state, and the post itself."""
        state, task = self.motion(inputs)
        post = Scan.of(inputs["scan"]).ranges[:2]
        return Estimate(state, self.seen(post)[None], task, scene=np.full(self.parameters.scan_rays, np.inf))

    def seen(self, post: Floats) -> Floats:
        """Where the post[2] is taken to be."""
        return post.copy()


class RangingBase(SeeingBase):
    """A monitor that knows the post by one range with an error of at most lidar_noise, without a gap between rays."""

    def seen(self, post: Floats) -> Floats:
        """The post, nearer by lidar_noise."""
        return np.asarray(post * max(0.0, 1.0 - self.parameters.lidar_noise / np.hypot(*post)))


class LidarBase(DiffDrive):
    """A monitor that uses its lidar, but without the allowance for a corner between two rays."""

    def bounded(self, rays: Rays) -> tuple[Floats, Floats, Floats]:
        """See DiffDrive: of ranges that are stretched by as much as the allowance shortens them."""
        return super().bounded(replace(rays, ranges=rays.ranges / (1.0 - 0.5 * rays.wide)))


class TrustingPerception(LidarPerception):
    """Brings an old scan to the instant of the state as if the odometry had lost nothing since."""

    def _error(self, view: View, now: Floats | tuple[float, ...], turned: Floats) -> Floats:
        return super()._error(view, view.rows[-1], turned)


class TrustingBase(LidarBase):
    """A monitor without the margin for the age of a scan."""

    def perception(self) -> Perception:
        """See TrustingPerception."""
        return TrustingPerception(self)


class Base(TrueWorld):
    """The true base moves exactly as one member of the model; x[5] = (x, y, yaw, v, w). The world holds a post.

    `truth`: factors of the drive ('ground', 'turn', 'lag', 'braking'), 'jump' (m, once), 'drift' (m/s), 'creep',
    'odometry_lost' (m/s), 'range_error' (m), 'walks' (m/s, the post towards the base); and no errors: 'curves', or
    'speed' (it passes the post), or 'turning' with a 'post', or 'corner' (of a box in place of the post).
    """

    robot: DiffDrive

    def __init__(self, robot: Any, truth: Truth, rng: np.random.Generator) -> None:
        """Start standing (or at `speed`) towards a post, or past it."""
        super().__init__(robot, truth, rng)
        self.x = np.array([0.0, 0.0, 0.0, self.truth.get("speed", 0.0), 0.0])
        self.curve = (
            float(rng.choice(truth["curves"])) if "curves" in truth else 0.0
        )  # rad/s, requested with every speed
        reach = float(robot.model.certificate.constants[0])
        if "speed" in truth:  # it passes beside the post, midway between two checks
            half = 0.5 * truth["speed"] * robot.model.dynamics.dt
            graze = np.hypot(half, reach) - reach  # how much larger the distance to the post is at those two checks
            self.post = np.array([(2 * rng.integers(6, 10) + 1) * half, reach - rng.uniform(0.0, graze)])
        else:
            self.post = np.array([rng.uniform(0.7, 1.1), 0.0])
            self.post[1] = rng.uniform(-0.02, 0.02) if "corner" in truth else 0.0
        if self.curve:  # put the post on the arc of full speed and that turn rate
            away = self.post[0]
            half = np.arcsin(0.5 * away * self.curve / robot.parameters.speed)
            self.post = away * np.array([np.cos(half), np.sin(half)])
        if "turning" in truth:
            self.x[3:] = truth["turning"]
            self.post = np.array(truth["post"]) + rng.uniform(-0.03, 0.03, 2)
        self.slip = float(self.truth.get("jump", 0.0))
        self.rays = not isinstance(robot, SeeingBase)  # otherwise it knows the post without them
        self.attacks = int(rng.integers(1, 12))

    def sense(self) -> dict[str, Floats]:
        """Odometry (its pose is right for straight drives), the post or a scan, and a goal."""
        to = self.post - self.x[:2]
        cos, sin = np.cos(self.x[2]), np.sin(self.x[2])
        seen = np.array([cos * to[0] + sin * to[1], -sin * to[0] + cos * to[1]])
        rays = self.robot.parameters.scan_rays
        angles = -np.pi + np.arange(rays) * (2 * np.pi / rays)
        scan = np.full(rays, np.inf)
        if "corner" in self.truth:  # the edge of a box, its diagonal along x; the wall hides everything behind it
            sides = []
            for sign in (1.0, -1.0):
                along = np.cos(angles) + sign * np.sin(angles)
                with np.errstate(divide="ignore"):
                    sides.append(np.where(along > 1e-9, (seen[0] + sign * seen[1]) / along, np.inf))
            scan = np.maximum(*sides)
        elif isinstance(self.robot, LidarBase):  # a wall across its path
            with np.errstate(divide="ignore"):
                scan = np.where(np.cos(angles) > 1e-9, seen[0] / np.cos(angles), np.inf)
        else:  # the post's own range has the same error as a ray
            scan[:2] = seen * (1.0 + self.truth.get("range_error", 0.0) / np.hypot(*seen))
        largest = self.robot.parameters.scan_range
        scan = np.where(scan > largest, np.inf, scan)
        v = self.x[3] - self.truth.get("odometry_lost", 0.0)
        x, y = self.x[:2] / self.truth.get("ground", 1.0)
        pose = (x, y, np.sin(self.x[2] / 2), np.cos(self.x[2] / 2))
        return {
            "odom": np.array([*pose, v, self.x[4]]),
            "scan": full_circle(scan + (self.truth.get("range_error", 0.0) if self.rays else 0.0), largest).vector(),
            "goal_pose": np.array([100.0, 0.0]),
        }

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest true margin of clearance in metres."""
        model, p, truth = self.robot.model, self.robot.parameters, self.truth
        weak, ground = truth.get("braking", 1.0), truth.get("ground", 1.0)
        member = (
            ground,
            truth.get("turn", 1.0),
            1.0 - np.exp(-model.dynamics.dt / (p.lag * truth.get("lag", 1.0))),
            p.acceleration * weak,
            p.turn_acceleration * weak,
            p.dead_zone,
        )
        least = np.inf
        for _ in range(checks or model.dynamics.checks_per_tick):
            before = self.x
            self.x = np.array(model.dynamics.step(tuple(before), tuple(action), member, model.dynamics.dt), np.float64)
            moving = abs(self.x[3]) > p.terminal_speed
            if moving and self.slip and action[0] <= 0.0:
                self.x[0] += self.slip  # once, when it brakes
                self.slip = 0.0
            if moving:
                self.x[0] += truth.get("drift", 0.0) * model.dynamics.dt
            elif not truth.get("creep") and action[0] == 0.0:
                self.x[3] = 0.0
            if walks := truth.get("walks", 0.0):
                to = self.x[:2] - self.post
                self.post = self.post + min(walks * model.dynamics.dt, np.hypot(*to)) * to / max(np.hypot(*to), 1e-9)
                if not moving:  # it cannot give way
                    continue
            parts = np.linspace(0.0, 1.0, 13)[1:] if "speed" in truth else np.ones(1)
            for part in parts:
                driven = (before[3] + 0.5 * part * (self.x[3] - before[3])) * part * model.dynamics.dt * ground
                ahead = np.array([np.cos(before[2]), np.sin(before[2])])
                at = self.x[:2] if part == 1.0 else before[:2] + driven * ahead
                least = min(least, float(np.hypot(*(self.post - at)) - model.certificate.constants[0]))
        return least

    def settled(self, centre: tuple[float, ...]) -> bool:
        """Standing still."""
        return bool(abs(self.x[3]) < 1e-4)

    def actions(self) -> Floats:
        """Every speed straight ahead or along its curve; the present speed if it is to pass the post."""
        if "speed" in self.truth:
            return np.array([[self.truth["speed"], 0.0]])
        if "turning" in self.truth:
            return np.array([[self.robot.parameters.speed, -self.robot.parameters.turn_rate]])
        speeds = np.linspace(self.robot.parameters.dead_zone, self.robot.parameters.speed, 111)
        return np.column_stack([speeds, np.full(len(speeds), self.curve)])

    def attacking(self, tick: int) -> bool:
        """Also true until the base has driven for some time."""
        return super().attacking(tick) or bool(abs(self.x[3]) < 0.3 and tick < 40)


class SpinningBase(Base):
    """A base with corners that turns on the spot to the left, where a post stands in the way of its foremost corner.

    `truth`, besides factors of the drive: 'turn_jump' (rad, once), 'turn_drift' (rad/s), 'turn_lost' (rad/s, by the
    odometry); and no error: 'sweep' (rad/s; a corner passes the post midway between two checks).
    """

    def __init__(self, robot: Any, truth: Truth, rng: np.random.Generator) -> None:
        """Start standing, or turning at `sweep`."""
        super().__init__(robot, truth, rng)
        p, sweep = robot.parameters, truth.get("sweep", 0.0)
        self.x = np.array([0.0, 0.0, 0.0, 0.0, sweep])
        corner = float(np.arctan2(p.outline[1], p.outline[0]))
        half = 0.5 * sweep * robot.model.dynamics.dt
        if sweep:
            away = p.farthest + p.clearance
            graze = np.hypot(p.farthest * np.sin(half), away - p.farthest * np.cos(half)) - p.clearance
            bearing, away = (2 * rng.integers(4, 7) + 1) * half, away - rng.uniform(0.0, graze)
        else:
            bearing, away = rng.uniform(0.5, 0.8), p.farthest + rng.uniform(-0.02, 0.01)
        self.post = away * np.array([np.cos(corner + bearing), np.sin(corner + bearing)])
        self.slip = float(truth.get("turn_jump", 0.0))

    def sense(self) -> dict[str, Floats]:
        """See Base."""
        inputs = super().sense()
        inputs["odom"][5] -= self.truth.get("turn_lost", 0.0)
        return inputs

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest true margin of clearance in metres."""
        model, p, truth = self.robot.model, self.robot.parameters, self.truth
        least, dt, member = np.inf, model.dynamics.dt, tuple(model.dynamics.members[0])
        for _ in range(checks or model.dynamics.checks_per_tick):
            before = self.x[2]
            self.x = np.array(model.dynamics.step(tuple(self.x), tuple(action), member, dt), np.float64)
            moving = p.farthest * abs(self.x[4]) > p.terminal_speed
            if moving and self.slip and action[1] <= 0.0:
                self.x[2] += self.slip  # once, when it brakes
                self.slip = 0.0
            if moving:
                self.x[2] += truth.get("turn_drift", 0.0) * dt
            elif action[1] == 0.0:
                self.x[4] = 0.0
            for yaw in np.linspace(before, self.x[2], 13)[1:] if "sweep" in truth else self.x[2:3]:
                away = from_outline(0.0, 0.0, yaw, self.post[None], p.outline, p.farthest)
                least = min(least, float(away) - p.clearance)
        return least

    def settled(self, centre: tuple[float, ...]) -> bool:
        """Standing still."""
        return bool(abs(self.x[4]) < 1e-4)

    def actions(self) -> Floats:
        """Every turn rate to the left, on the spot; the present one if a corner is to pass the post."""
        top = self.robot.parameters.turn_rate
        rates = np.array([self.truth["sweep"]]) if "sweep" in self.truth else np.linspace(0.02, top, 111)
        return np.column_stack([np.zeros(len(rates)), rates])

    def attacking(self, tick: int) -> bool:
        """Also true until the base has turned for some time."""
        return tick < self.attacks or bool(abs(self.x[4]) < 0.5 and tick < 40)


def _world(robot: Any, truth: Truth, rng: np.random.Generator) -> Base:
    return (SpinningBase if robot.parameters.outline else Base)(robot, truth, rng)


def adversary(p: Parameters) -> Adversary:
    """The adversary with the errors that the certificate of `p` covers."""
    return Adversary(
        world=_world,
        monitor=RangingBase,
        unit="m",
        error_forms=_error_forms(p),
        corners=_corners(p),
        about_one=("ground", "turn", "lag", "braking"),
        no_error=("curves",),
        compares=False,  # here, the scan channel holds no real scan
    )


def _error_forms(p: Parameters) -> dict[str, tuple[Truth, ...]]:
    both = (1.0, -1.0)
    named: dict[str, list[Truth]] = {
        "motion_mismatch, distance": [{"ground": 1 + sign * p.motion_mismatch} for sign in both],
        "motion_mismatch, turn": [{"turn": 1 + sign * p.motion_mismatch} for sign in both],
        "lag_mismatch": [{"lag": 1 + sign * p.lag_mismatch} for sign in both],
        "braking_mismatch": [{"braking": 1 - p.braking_mismatch}],
        "margin_model": [{"jump": p.margin_model}],
        "margin_growth": [{"drift": p.margin_growth}],
        "margin_speed_estimate": [{"odometry_lost": sign * p.margin_speed_estimate} for sign in both],
        "lidar_noise": [{"range_error": p.lidar_noise}],
    }
    return {name: tuple({"curves": CURVES, **truth} for truth in truths) for name, truths in named.items()}


def _corners(p: Parameters) -> dict[str, Truth]:
    """All errors at their bounds, by the signs of (distance, turn, lag, slew limits, of which only -1 is covered)."""
    rest = {
        "drift": p.margin_growth, "jump": p.margin_model, "odometry_lost": p.margin_speed_estimate,
        "range_error": p.lidar_noise, "curves": CURVES,
    }  # fmt: skip
    found: dict[str, Truth] = {}
    for distance, turn, lag, brakes in product((1, -1), (1, -1), (1, -1), (1, -1)):
        found[f"{distance:+d} {turn:+d} {lag:+d} {min(brakes, 0):+d}".replace("+0", " 0")] = {
            "ground": 1 + distance * p.motion_mismatch, "turn": 1 + turn * p.motion_mismatch,
            "lag": 1 + lag * p.lag_mismatch, "braking": 1 + min(brakes, 0) * p.braking_mismatch, **rest,
        }  # fmt: skip
    return found
