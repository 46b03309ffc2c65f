"""An adversary against the certificate where every error but the chosen ones is exactly zero.

The truth is the model's own arithmetic, not PyBullet, because only so can an error be exactly zero: the state is
measured without error, space is known without a lidar, and the truth is judged at the certificate's own check points.
`truth` puts errors on top, see Base and Pole. The adversary asks for the action whose certificate margin is closest to
zero, found on a fine grid, and then for the plan until it is at rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats
from safe_support_ql.robots.diff_drive.robot import DiffDrive
from safe_support_ql.safety.gate import Gate
from safe_support_ql.safety.timing import Clock

ROUNDING = 1e-9  # in the unit of h; a margin below minus this is a visit

# --- a base on a plane with a post, or the corner of a wall -----------------------------------------------------------


class SeeingBase(DiffDrive):
    """Knows the post exactly: `post`[2] in the robot's frame when it was sensed travels as the scan's first ranges."""

    def occupied(self, scan: Floats) -> Floats:
        """The post itself."""
        return scan[None, :2].copy()

    def blindness(self, scan: Floats) -> str:
        """It needs no lidar."""
        return ""


class LidarBase(DiffDrive):
    """With its lidar, but without the allowance for a corner between two rays."""

    def occupied(self, scan: Floats) -> Floats:
        """Ranges stretched by what the allowance takes off again."""
        return super().occupied(scan / (1.0 - np.pi / self.parameters.scan_rays))


class Base:
    """The true base: the model's member, exactly; x[5] = (x, y, yaw, v, w) and a post in the world."""

    def __init__(self, robot: Any, truth: Mapping[str, Any], rng: np.random.Generator) -> None:
        """Start standing (or at `speed`) towards a post, or past it."""
        self.robot, self.truth, self.rng = robot, dict(truth), rng
        self.x = np.array([0.0, 0.0, 0.0, self.truth.get("speed", 0.0), 0.0])
        self.curve = float(rng.choice(truth["curves"])) if "curves" in truth else 0.0  # rad/s, asked for at every speed
        reach = float(robot.model.certificate.constants[0])
        if "speed" in truth:  # beside the post, which it passes in the middle of two checks
            half = 0.5 * truth["speed"] * robot.model.dynamics.dt
            graze = np.hypot(half, reach) - reach  # at the checks beside the post it is this much clearer than between
            self.post = np.array([(2 * rng.integers(6, 10) + 1) * half, reach - rng.uniform(0.0, graze)])
        else:
            self.post = np.array([rng.uniform(0.7, 1.1), 0.0])
            self.post[1] = rng.uniform(-0.02, 0.02) if "corner" in truth else 0.0
        if self.curve:  # where the arc of full speed and that turn rate leads
            away = self.post[0]
            half = np.arcsin(0.5 * away * self.curve / robot.parameters.speed)
            self.post = away * np.array([np.cos(half), np.sin(half)])
        if "turning" in truth:
            self.x[3:] = truth["turning"]
            self.post = np.array(truth["post"]) + rng.uniform(-0.03, 0.03, 2)
        self.slip = float(self.truth.get("jump", 0.0))
        self.rays = not isinstance(robot, SeeingBase)  # else it knows the post

    def sense(self) -> dict[str, Floats]:
        """Odometry (its pose is used by nothing here), the post or a scan, a goal."""
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
        elif isinstance(self.robot, LidarBase):  # a wall across the way
            with np.errstate(divide="ignore"):
                scan = np.where(np.cos(angles) > 1e-9, seen[0] / np.cos(angles), np.inf)
        else:  # the post's own range is as wrong as a ray's
            scan[:2] = seen * (1.0 + self.truth.get("range_error", 0.0) / np.hypot(*seen))
        scan = np.where(scan > self.robot.parameters.scan_range, np.inf, scan)
        v = self.x[3] - self.truth.get("odometry_lost", 0.0)
        pose = (self.x[0], self.x[1], np.sin(self.x[2] / 2), np.cos(self.x[2] / 2))
        return {
            "odom": np.array([*pose, v, self.x[4]]),
            "scan": scan + (self.truth.get("range_error", 0.0) if self.rays else 0.0),
            "goal_pose": np.array([100.0, 0.0]),
        }

    def tick(self, action: Floats, checks: int = 0) -> float:
        """Smallest clearance margin of one control period, or of `checks`, under `action`."""
        model, p = self.robot.model, self.robot.parameters
        truth = self.truth
        lag = p.lag * truth.get("lag", 1.0)
        weak = truth.get("braking", 1.0)
        ground = truth.get("ground", 1.0)
        turn = truth.get("turn", 1.0)
        member = (
            ground,
            turn,
            1.0 - np.exp(-model.dynamics.dt / lag),
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
                self.x[0] += self.slip  # once: it slides on when it brakes
                self.slip = 0.0
            if moving:
                self.x[0] += truth.get("drift", 0.0) * model.dynamics.dt
            elif not truth.get("creep") and action[0] == 0.0:
                self.x[3] = 0.0
            parts = np.linspace(0.0, 1.0, 13)[1:] if "speed" in truth else np.ones(1)
            for part in parts:
                way = (before[3] + 0.5 * part * (self.x[3] - before[3])) * part * model.dynamics.dt * ground
                at = self.x[:2] if part == 1.0 else before[:2] + way * np.array([np.cos(before[2]), np.sin(before[2])])
                least = min(least, float(np.hypot(*(self.post - at)) - model.certificate.constants[0]))
        return least

    def settled(self, centre: tuple[float, ...]) -> bool:
        """Standing still."""
        return abs(self.x[3]) < 1e-4

    def actions(self) -> Floats:
        """Straight on, or along its curve, at every speed, or at the one that it has."""
        if "speed" in self.truth:
            return np.array([[self.truth["speed"], 0.0]])
        if "turning" in self.truth:
            return np.array([[self.robot.parameters.speed, -self.robot.parameters.turn_rate]])
        speeds = np.linspace(self.robot.parameters.dead_zone, self.robot.parameters.speed, 111)
        return np.column_stack([speeds, np.full(len(speeds), self.curve)])


# --- a cart-pole ------------------------------------------------------------------------------------------------------


class Pole:
    """The true cart-pole: the model's nominal member times `truth['factors']`, exactly."""

    def __init__(self, robot: Any, truth: Mapping[str, Any], rng: np.random.Generator) -> None:
        """Start anywhere in the safe set, not too fast; the signs of the errors are drawn once."""
        self.robot, self.truth, self.rng = robot, truth, rng
        self.x = truth.get("starts", 1.0) * rng.uniform(-1.0, 1.0, 4) * np.array([1.0, 0.2, 0.8, 0.5])
        self.signs = rng.choice([-1.0, 1.0], 8)
        factors = np.array(truth.get("factors", np.ones(4)))  # cart mass, pole mass, length, gain
        cart, pole, length, gain = factors
        nominal = robot.model.dynamics.members[0]
        self.member = nominal * np.array([cart, pole, length, pole * length**2, gain, 1.0, 1.0])
        self.before = 0.0

    def sense(self) -> dict[str, Floats]:
        """The state with its error, and a goal."""
        return {"joint_states": self.x + self.signs[:4] * self.truth.get("e0", 0.0), "goal_pose": np.zeros(1)}

    def tick(self, action: Floats) -> float:
        """Smallest scaled margin of one control period under `action`."""
        model, member = self.robot.model, tuple(self.member)
        late = self.truth.get("late", 0.0)
        x = tuple(self.x)
        if late:
            x = model.dynamics.step(x, (self.before,), member, late)
        points = (
            np.linspace(0.0, model.dynamics.dt - late, 6)[1:]
            if self.truth.get("between")
            else [model.dynamics.dt - late]
        )
        met = [np.array(model.dynamics.step(x, tuple(action), member, dt)) for dt in points]
        self.x = met[-1] + self.signs[4:] * self.truth.get("w", 0.0)
        met[-1] = self.x
        self.before = float(action[0])
        return float(min((self.robot.truth_margins(state) / model.certificate.scale).min() for state in met))

    def settled(self, centre: tuple[float, ...]) -> bool:
        """Inside S_f."""
        model = self.robot.model
        return bool(model.certificate.terminal(tuple(self.x), centre, model.certificate.constants))

    def actions(self) -> Floats:
        """Every force."""
        return np.linspace(self.robot.action_low[0], self.robot.action_high[0], 81)[:, None]


# --- one scenario -----------------------------------------------------------------------------------------------------


def least_certified(gate: Gate, estimate: Estimate, actions: Floats) -> Floats | None:
    """Of a family of actions[K, A] along a line, that of least margin that the gate accepts; None where there is none.

    Refined between the last accepted and the first refused one.
    """
    support, model = gate.support, gate.support.robot.model
    assert gate.cycle is not None
    in_band = (
        support.in_band
        and support.spent + model.certificate.step_residual <= model.certificate.band_budget
        and not support.surcharge
    )
    least = support.threshold if in_band else model.certificate.band + support.surcharge
    for _ in range(3):
        margin, _ = support._certify(estimate, gate.cycle.timing, actions.astype(np.float32))
        if not (margin >= least).any():
            return None
        best = int(np.argmin(np.where(margin >= least, margin, np.inf)))
        beside = [i for i in (best - 1, best + 1) if 0 <= i < len(actions) and margin[i] < least]
        chosen = actions[best]
        if not beside:
            return chosen
        actions = np.linspace(chosen, actions[beside[0]], 21)
    return chosen


def encounter(gate: Gate, truth: Mapping[str, Any], rng: np.random.Generator, number: int) -> float:
    """Play episode `number` (each larger than the last) of the adversary against `truth`.

    Returns its smallest margin, inf where the certificate accepts nothing at the start; below -ROUNDING it was unsafe,
    and ends there.
    """
    robot = gate.robot
    period = int(1e9 / robot.world.control_hz)
    world: Any = (Base if isinstance(robot, DiffDrive) else Pole)(robot, truth, rng)
    attacks = int(rng.integers(1, 12)) if isinstance(world, Base) else int(rng.integers(1, 6))
    old = int(truth.get("old", 0))  # periods
    latency = (0.0, 1e-9) if gate.clock is Clock.REALTIME else None
    sensed = [world.sense()]
    for _ in range(old):  # nobody commands yet
        world.tick(np.zeros(len(robot.action_names)))
        sensed.append(world.sense())
    if old and isinstance(world, Pole):
        attacks = 1  # k needs the state that is: only the candidate's may be old
    gate.new_episode(number)
    least = np.inf
    for tick in range(400):
        now = (1000 * number + tick + 2 + old) * period  # a steady clock never goes back
        age = old if tick < attacks or isinstance(world, Base) else 0
        # An old state carries its own stamp, or, where that margin is deleted, a false one.
        stamp = now - age * period if age and truth["stamped"] else now
        inputs = sensed[-1 - age]
        for channel, vector in inputs.items():
            gate.receive(channel, vector, stamp, now, now)
        candidates = gate.begin(now, now, latency)
        assert candidates is not None, gate.cause
        if tick == 0 and not candidates.certified.any():
            break  # no start that the certificate accepts
        decision = None
        if tick < attacks or (isinstance(world, Base) and abs(world.x[3]) < 0.3 and tick < 40):
            action = least_certified(gate, robot.estimate(inputs), world.actions())
            if action is not None:
                decision = gate.request(candidates.id, action.astype(np.float32), now)
        acted = decision is not None and decision.verdict.startswith("certified")
        decision = decision or gate.expire(now)
        least = min(least, world.tick(decision.action.astype(np.float64)))
        sensed.append(world.sense())
        if truth.get("dies") and acted and decision.candidates.margin[decision.index] < 0.005:  # type: ignore[union-attr]  # certified
            # The monitor dies: the drive holds the command for its own timeout, then stops.
            more = int(np.ceil(truth["dies"] / robot.model.dynamics.dt)) - robot.model.dynamics.checks_per_tick
            return min(least, world.tick(decision.action.astype(np.float64), more), world.tick(np.zeros(2), 20))
        if least < -ROUNDING:
            break
        if not acted and tick > attacks and world.settled(robot.model.certificate.centre(gate.support.centre)):
            break
    return float(least)
