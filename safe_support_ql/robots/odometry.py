"""Where a base was, by its odometry, at instants between two of its samples."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import numpy as np

from safe_support_ql.robots.base import Stamped
from safe_support_ql.robots.model import Floats

KEPT_S = 3.0  # of samples; a scan that is older is of no use
NEVER = -(10**18)  # ns
JUMP = 0.1  # m, between two samples, beyond what the base can drive
LONGEST_S = 0.3  # between two samples, to be interpolated


class Track:
    """Poses with what was driven and turned until then, from the samples (x, y, qz, qw, v, w) of one channel."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._rows: deque[tuple[float, ...]] = deque()
        self._stamps: deque[int] = deque()
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else."""
        self._rows.clear()
        self._stamps.clear()
        self._table: Floats | None = None

    def jumps(self, samples: list[Stamped], fastest: float) -> bool:
        """Whether the odometry says that the base moved faster than `fastest` [m/s], before or among these samples."""
        known = [(self._stamps[-1], *self._rows[-1][:2])] if self._stamps else []
        known += [(sample.stamp_ns, *sample.vector[:2].tolist()) for sample in samples]
        return any(
            math.hypot(x - x0, y - y0) > fastest * (t - t0) / 1e9 + JUMP for (t0, x0, y0), (t, x, y) in pairwise(known)
        )

    def follow(self, samples: list[Stamped]) -> None:
        """Take samples, oldest first; those that are known already are passed over."""
        for sample in samples:
            if self._stamps and sample.stamp_ns <= self._stamps[-1]:
                continue
            x, y, qz, qw, v, w = sample.vector.tolist()
            yaw, driven, turned = 2.0 * math.atan2(qz, qw), 0.0, 0.0
            if self._rows:
                x0, y0, yaw0, driven, turned, *_ = self._rows[-1]
                turn = (yaw - yaw0 + math.pi) % (2 * math.pi) - math.pi
                yaw, driven, turned = yaw0 + turn, driven + math.hypot(x - x0, y - y0), turned + abs(turn)
            self._rows.append((x, y, yaw, driven, turned, abs(v), abs(w)))
            self._stamps.append(sample.stamp_ns)
            self._table = None
            while self._stamps[-1] - self._stamps[0] > KEPT_S * 1e9:
                self._rows.popleft()
                self._stamps.popleft()

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest sample; before all others without any."""
        return self._stamps[-1] if self._stamps else NEVER

    @property
    def first_ns(self) -> int | None:
        """Stamp of the oldest sample that is kept; None without any."""
        return self._stamps[0] if self._stamps else None

    def at(self, stamp_ns: int) -> tuple[float, ...]:
        """(x, y, yaw, driven, turned, speed, turn rate) at the newest sample that is not newer than `stamp_ns`."""
        for stamp, row in zip(reversed(self._stamps), reversed(self._rows), strict=True):
            if stamp <= stamp_ns:
                return row
        return self._rows[0]

    def between(self, stamps_ns: np.ndarray) -> tuple[Floats, Floats]:
        """(rows[N, 5], bend[N]): (x, y, yaw, driven, turned) at stamps[N], all of them between samples.

        A constant acceleration a bends the motion between two samples away from the straight line by at most a times
        `bend` [s^2], which is 0 at a sample, and NaN where two samples are too far apart.
        """
        if self._stamps[-1] == stamps_ns.min():  # the usual case
            return np.repeat([self._rows[-1][:5]], len(stamps_ns), axis=0), np.zeros(len(stamps_ns))
        if self._table is None:
            self._table = np.array(self._rows)
            self._times = (np.array(self._stamps, np.int64) - self._stamps[-1]) * 1e-9
        t, at = self._times, (stamps_ns - self._stamps[-1]) * 1e-9
        rows = np.column_stack([np.interp(at, t, self._table[:, i]) for i in range(5)])
        after = np.clip(np.searchsorted(t, at), 1, len(t) - 1)
        bend = 0.5 * np.maximum(at - t[after - 1], 0.0) * np.maximum(t[after] - at, 0.0)
        return rows, np.where((bend > 0.0) & (t[after] - t[after - 1] > LONGEST_S), np.nan, bend)

    def fastest(self, since_ns: int) -> tuple[float, float]:
        """Largest (speed, turn rate) of the samples from shortly before `since_ns` on."""
        v = w = 0.0
        for stamp, row in zip(reversed(self._stamps), reversed(self._rows), strict=True):
            v, w = max(v, row[5]), max(w, row[6])
            if stamp < since_ns:
                break
        return v, w
