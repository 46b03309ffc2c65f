"""A session on a robot: where, how fast, for how long, and by whose leave it drives, before a person looks at it again.

None of it belongs to the certificate, and none of it can make it weaker, so that a policy that was validated without
these limits may drive within them. In simulation they do not apply.
"""

from __future__ import annotations

from dataclasses import dataclass

from safe_support_ql.parameters import param
from safe_support_ql.safety.gate import Gate


@dataclass(frozen=True)
class SessionConfig:
    """See the module. 0 and [] mean: no limit."""

    speed_cap: float = param(1.0, "1", 0.01, 1.0, "share of the range of each action that may be asked for, at first")
    geofence: tuple[tuple[float, ...], ...] = param(
        (), "m", -1000.0, 1000.0, "corners [x, y] of a convex polygon, in the frame of the odometry"
    )
    dead_man: bool = param(False, "", doc="the robot drives only while true is published on dead_man")
    dead_man_age: float = param(0.5, "s", 0.05, 5.0, "oldest message on dead_man that counts")
    time: float = param(0.0, "s", 0.0, 1e6, "it pauses after so much driving")
    distance: float = param(0.0, "m", 0.0, 1e6, "it pauses after so much driving")
    battery: float = param(0.0, "1", 0.0, 1.0, "it pauses below this share of the charge")
    battery_topic: str = param("battery_state", "", doc="sensor_msgs/BatteryState")
    battery_full: float = param(
        1.0, "1", 1.0, 100.0, "`percentage` of a full battery as the driver writes it: 1 or 100"
    )
    battery_age: float = param(30.0, "s", 1.0, 3600.0, "oldest message of the battery that counts")


def restrict(gate: Gate, config: SessionConfig) -> None:
    """What of a session a gate itself has to know. Raises ValueError as `Perception.fence` does."""
    gate.support.cap = config.speed_cap
    if config.geofence:
        gate.perception.fence(config.geofence)


class Limits:
    """Counts what was driven since a person last said so."""

    def __init__(self, config: SessionConfig) -> None:
        """Nothing was driven yet."""
        self.config = config
        self.renew()

    def renew(self) -> None:
        """A person looked at the robot: it may drive as much again."""
        self._time = self._distance = 0.0

    def go_on(self, before: Limits) -> None:
        """Go on with what was driven under `before`."""
        self._time, self._distance = before._time, before._distance

    def drove(self, seconds: float, metres: float) -> str:
        """Add a tick; why it pauses now, '' if it goes on."""
        self._time += seconds
        self._distance += metres
        limits = self.config
        if 0.0 < limits.time <= self._time:
            return f"session.time, {limits.time:g} s of driving, is over; look at the robot, then resume"
        if 0.0 < limits.distance <= self._distance:
            return f"session.distance, {limits.distance:g} m, is driven; look at the robot, then resume"
        return ""
