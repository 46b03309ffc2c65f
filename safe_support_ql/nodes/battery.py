"""The battery of a robot, as its driver writes it: why the robot has to pause."""

from __future__ import annotations

import math
import time
from typing import Any

from safe_support_ql.recording.session import SessionConfig


class Battery:
    """What `session.battery` asks for; nothing where that is 0."""

    def __init__(self, config: SessionConfig) -> None:
        """Nothing was heard yet."""
        self.config = config
        self.refused = ""  # why the newest message was refused
        self._share = math.nan
        self._heard = 0.0

    def wait(self, now: float) -> None:
        """Give the driver time to be heard, from `now` on (steady clock, s)."""
        self._heard = now

    def decode(self, message: Any) -> float:
        """The charge as a share of 1. Raises ValueError for what says nothing about it.

        Drivers differ: 0 to 1 as the message's definition has it, 0 to 100, NaN, and zeros until the first change.
        """
        topic, percentage, full = self.config.battery_topic, float(message.percentage), self.config.battery_full
        if math.isnan(percentage):
            raise ValueError(f"{topic}: percentage is NaN, this driver does not measure it; set session.battery: 0")
        if percentage == 0.0 and message.voltage == 0.0:
            raise ValueError(f"{topic}: 0 V; wait for its first reading")
        if not 0.0 <= percentage <= 1.2 * full:
            other = 100 if full == 1.0 else 1
            raise ValueError(f"{topic}: percentage is {percentage:g} of {full:g}; is session.battery_full {other}?")
        return percentage / full

    def hear(self, share: float) -> None:
        """A message that was accepted."""
        self._share, self._heard, self.refused = share, time.monotonic(), ""

    def problem(self, now: float) -> str:
        """Why the robot has to pause at `now` (steady clock, s); '' if it may go on."""
        least = self.config.battery
        if not least:
            return ""
        if now - self._heard > self.config.battery_age:
            why = self.refused or "start its driver, or set session.battery: 0, then resume"
            return f"{self.config.battery_topic} was not heard for {self.config.battery_age:g} s: {why}"
        return f"the battery is at {self._share:.0%}; charge it, then resume" if self._share < least else ""
