"""Drives a base a little ahead at crawl speed, and measures what no listening shows: delay, stop, the drive's timeout.

It commands the drive itself, without a gate: a person has to have asked for it, with the base standing free. It refuses
where something is near or where the lidars see nothing ahead, ends at the first thing that is not as it must be, and
whatever happens it sends zero last.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy

from safe_support_ql import bringup
from safe_support_ql.nodes import native, topics
from safe_support_ql.nodes.doctor import OK, WARN, WRONG, Doctor, Finding
from safe_support_ql.robots.scan import Scan, masked, readings
from safe_support_ql.robots.world import DifferentialDrive

WAY = 0.3  # m, that it may drive in all
SLOWEST = 0.05  # m/s
PERIOD = 0.05  # s, of its commands
GO_S, AGAIN_S, STOP_S, LONGER_S = 1.2, 0.8, 3.0, 0.5  # how long it drives, once and again; may take to stop; is silent
AHEAD = 0.5  # rad, to either side, in which half of the rays have to return
TURNED, SEEN = 0.8, 0.15  # rad, that a room may pretend; share of its way that a lidar shows at least, over its rays
NEARER = 0.1  # m beyond the clearance: what comes so near ends it


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


class Ended(Exception):
    """Something was not as it must be; the text says what."""


class Crawl:
    """See the module. Times are those at which messages came here, so a delay holds the way to the drive and back."""

    def __init__(self, doctor: Doctor, stamped_cmd: bool) -> None:
        """For a doctor that has listened, and found nothing wrong."""
        self.doctor = doctor
        self.p: Any = doctor.robot.parameters
        self.codec = native.CommandCodec(doctor.robot.command, stamped_cmd)
        self.seen: list[tuple[float, float]] = []  # (s, m/s by the odometry)
        self.start: np.ndarray | None = None

    def measure(self) -> list[Finding]:
        """Drive, and say what was found; in the end the base has been told to stop."""
        if not isinstance(self.doctor.robot.world.drive, DifferentialDrive):
            return [Finding(WRONG, f"--crawl is for bases, and '{self.doctor.robot.name}' is none")]
        if refusal := self._refusal():
            return [Finding(WRONG, f"it did not drive: {refusal}", "put it where it stands free, and try again")]
        topic = self.doctor.robot.command.name
        self.output = self.doctor.create_publisher(self.codec.type, topic, topics.LATEST)
        for number in bringup.stop_signals():
            signal.signal(number, _interrupt)
        try:
            self._drive(0.0, 3.0, lambda: self.output.get_subscription_count() > 0)
            self._drive(0.0, 0.3)
            return self._measured()
        except Ended as end:
            return [Finding(WRONG, f"it stopped: {end}")]
        finally:
            for number in bringup.stop_signals():
                signal.signal(number, signal.SIG_IGN)
            for _ in range(5):  # a message may be lost
                with contextlib.suppress(Exception):
                    self._send(0.0)
                time.sleep(PERIOD)

    def _refusal(self) -> str:
        """Why it must not drive here; '' if it may."""
        near, bearing = self._nearest()
        if near < (room := WAY + self.p.clearance + NEARER):
            return f"something is {near:.2f} m from it {_where(bearing)}, must be at least {room:.2f} m"
        if (share := self._returning()) < 0.5:
            return f"{share:.0%} of the rays ahead return anything, must be at least 50 %: what they miss is unknown"
        return ""

    def _vectors(self) -> dict[str, Any]:
        heard = self.doctor.heard
        return {name: one.vector for name, one in heard.items() if one.vector is not None}

    def _nearest(self) -> tuple[float, float]:
        """Metres from the footprint to the nearest return of any lidar, and its bearing."""
        robot: Any = self.doctor.robot
        near: tuple[float, float] = robot.nearest_return(self._vectors())
        return near

    def _returning(self) -> float:
        """The share of the rays ahead that return something."""
        vectors, found = self._vectors(), []
        for setup in self.p.lidars:
            scan = Scan.of(vectors[setup.name])
            bearings = scan.bearings(setup)
            ahead = (np.abs((bearings + np.pi) % (2 * np.pi) - np.pi) < AHEAD) & ~masked(scan, setup)
            found.append(np.isfinite(readings(scan, setup)[0])[ahead])
        rays = np.concatenate(found)
        return float(rays.mean()) if len(rays) else 0.0

    def _send(self, speed: float) -> None:
        now = self.doctor.get_clock().now().nanoseconds
        self.output.publish(self.codec.encode(np.array([speed, 0.0], np.float32), now))

    def _drive(self, speed: float | None, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Command `speed`, or nothing (None), for so long or until that; when the last command went out."""
        end, due, sent = time.monotonic() + seconds, 0.0, time.monotonic()
        while (now := time.monotonic()) < end and not until():
            if speed is not None and now >= due:
                self._send(speed)
                due, sent = now + PERIOD, now
            self._look()
        return sent

    def _look(self) -> None:
        """Hear what comes. Raises Ended."""
        heard = self.doctor.heard["odom"]
        count = len(heard.arrived)
        rclpy.spin_once(self.doctor, timeout_sec=0.01)
        if foreign := self.doctor.publisher_watch.foreign():
            raise Ended(f"{foreign} publishes the command as well")
        for name, one in self.doctor.heard.items():
            if one.arrived and time.monotonic() - one.arrived[-1] > 2 * self._max_age(name):
                raise Ended(f"{name} comes no more")
            if one.refused and math.isfinite(self._max_age(name)):
                raise Ended(f"what is refused shows nothing: {one.why}")
        near, bearing = self._nearest()
        if near < self.p.clearance + NEARER:
            raise Ended(f"something is {near:.2f} m from it {_where(bearing)}")
        if len(heard.arrived) == count or heard.vector is None:
            return
        if self.start is None:
            self.start = heard.vector[:2]
        if np.hypot(*(heard.vector[:2] - self.start)) > WAY:
            raise Ended(f"by its odometry it drove more than {WAY:g} m")
        self.seen.append((heard.arrived[-1], float(heard.vector[4])))

    def _max_age(self, name: str) -> float:
        channels = {channel.name: channel for channel in self.doctor.robot.channels}
        return math.inf if channels[name].latched else channels[name].max_age

    def _at(self) -> np.ndarray:
        return np.array(self._vectors()["odom"][:2])

    def _stands(self) -> bool:
        return len(self.seen) > 1 and max(abs(v) for _, v in self.seen[-2:]) < self.p.terminal_speed

    def _reached(self, speed: float, since: float) -> float:
        """When it was first as fast as that, between two messages."""
        i = next(i for i, (t, v) in enumerate(self.seen) if t > since and v >= speed)
        (t0, v0), (t1, v1) = self.seen[max(i - 1, 0)], self.seen[i]
        return t1 - (t1 - t0) * (v1 - speed) / max(v1 - v0, 1e-9)

    def _measured(self) -> list[Finding]:
        p, speed = self.p, min(max(SLOWEST, 2 * self.p.dead_zone), self.p.speed)
        before, stood = self._scans(), self._at()
        began = time.monotonic()
        self._drive(speed, GO_S)
        there, stop = self._at(), time.monotonic()
        rate = (len(self.seen) - 1) / (self.seen[-1][0] - self.seen[0][0])
        steady = float(np.median([v for t, v in self.seen if t > stop - GO_S / 3]))
        if not steady >= 0.5 * speed:
            return [
                Finding(WRONG, f"told {speed:g} m/s ahead, its odometry shows {steady:.3f} m/s", "look at its wheels")
            ]
        lag = self._reached(0.63 * steady, began) - began
        self._drive(0.0, STOP_S, self._stands)
        if not self._stands():
            raise Ended(f"told to stop, it still moves after {STOP_S:g} s")
        distance = float(np.hypot(*(self._at() - there)))
        self._drive(
            0.0, 2 * max(setup.turn_time for setup in p.lidars) + p.scan_age
        )  # a whole scan from where it stands
        mounted = self._mounted(before, float(np.hypot(*(self._at() - stood))))
        told = self._drive(speed, AGAIN_S)
        wait = p.drive_timeout + LONGER_S
        self._drive(None, wait, lambda: bool(self.seen) and abs(self.seen[-1][1]) < 0.5 * steady)
        moves, timeout = abs(self.seen[-1][1]) >= 0.5 * steady, self.seen[-1][0] - told
        blur = 1.0 / rate  # of a time that the odometry tells
        found = [
            *mounted,
            self._compared("m/s by odometry per m/s commanded", steady / speed, 0.9, 1.1, "", "scale it in the driver"),
        ]
        slow = p.lag * (1 + p.lag_mismatch) + speed / (p.acceleration * (1 - p.braking_mismatch)) + blur
        found.append(self._compared("lag with its delay", lag, 0.0, slow, " s", f"set lag: {lag:.2f}"))
        far = speed * (slow + blur) + p.margin_terminal
        remedy = "set acceleration or lag so that the model stops no earlier"
        found.append(self._compared("way to stop", distance, 0.0, far, " m", remedy))
        if moves:
            remedy = "put something in between that sends zero then, such as nav2_velocity_smoother"
            return [*found, Finding(WRONG, f"it drives on {wait:.1f} s after its last command, as if for ever", remedy)]
        latest = p.drive_timeout + slow
        remedy = f"set drive_timeout: {max(timeout - p.lag, 0.0):.2f}"
        return [*found, self._compared("drive_timeout with its lag", timeout, 0.0, latest, " s", remedy)]

    def _scans(self) -> dict[str, Scan]:
        vectors = self._vectors()
        return {setup.name: Scan.of(vectors[setup.name]) for setup in self.p.lidars}

    def _mounted(self, before: dict[str, Scan], drove: float) -> list[Finding]:
        """Where each lidar saw the base drive, which drove ahead: what is there came nearer, what is behind went away.

        A way straight ahead looks the same to a lidar upside down.
        """
        found, now = [], self._scans()
        for setup in self.p.lidars:
            scan = now[setup.name]
            if len(scan.ranges) != len(before[setup.name].ranges):
                continue  # its rays differ from scan to scan
            nearer = readings(before[setup.name], setup)[0] - readings(scan, setup)[0]
            alike = np.isfinite(nearer) & (np.abs(nearer) < 2 * drove) & ~masked(scan, setup)
            bearings = scan.bearings(setup)[alike]
            x, y = (nearer[alike] * np.cos(bearings)).sum(), (nearer[alike] * np.sin(bearings)).sum()
            if np.hypot(x, y) < SEEN * drove * len(bearings):
                what = f"lidar '{setup.name}' did not show that it drove {drove:.2f} m: its mounting was not checked"
                found.append(Finding(WARN, what, "let it crawl where walls or boxes are within a few metres"))
                continue
            wrong = float(np.arctan2(y, x))
            text = f"lidar '{setup.name}' sees it drive {_where(wrong)}"
            yaw = (setup.yaw - wrong + np.pi) % (2 * np.pi) - np.pi
            turned = Finding(WRONG, f"{text}, and it drove ahead", f"set yaw of that lidar to about {yaw:.2f} rad")
            found.append(turned if abs(wrong) > TURNED else Finding(OK, text))
        return found

    def _compared(self, what: str, value: float, low: float, high: float, unit: str, remedy: str) -> Finding:
        """What was measured beside what the configuration allows."""
        text = f"{what}: {value:.2f}{unit}, the configuration allows {low:.2f} .. {high:.2f}{unit}"
        return Finding(OK, text) if low <= value <= high else Finding(WRONG, text, remedy)


def _where(bearing: float) -> str:
    """A bearing in words."""
    degrees = round(math.degrees(bearing))
    if abs(degrees) <= 20:
        return "ahead"
    if abs(degrees) >= 160:
        return "behind"
    return f"{abs(degrees)} degrees to the {'left' if degrees > 0 else 'right'}"


def crawl(doctor: Doctor, stamped_cmd: bool) -> list[Finding]:
    """See Crawl."""
    return Crawl(doctor, stamped_cmd).measure()
