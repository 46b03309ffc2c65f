"""What a lidar has shown that it sees: where it may be believed when nothing returns.

Its bearings are parted into groups half as wide as the smallest obstacle at the end of a stop, so that what hides one
obstacle there hides a whole group. A group is proven once one of its rays returned; it stays so for a distance driven,
until it misses what must be there. A group that saw nothing in a whole turn of the robot, while those on both sides of
it did, may be blind: a person is told, and it stays unproven.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from safe_support_ql.robots.free_space import FULL
from safe_support_ql.robots.model import Floats

BESIDE = math.pi / 2  # rad, how far away the neighbours of a silent group may be
OFTEN = 5  # scans in which both neighbours of a silent group returned, until it is called blind
MISSED = 2  # scans that may miss what must be there
LASTING = 30  # scans for which what is far away is remembered
NEARBY = 0.15  # m, a remembered point so near to a return is the same surface
MOST = 2048  # points that are remembered; the oldest are forgotten first
A_SCAN = 512  # points of one scan, about: of more rays, every second or third is remembered
MOST_ASTRAY = 0.5  # rad, by which the bearing of a remembered point is taken to be off at most


class Evidence:
    """Which groups of bearings of one lidar are proven."""

    def __init__(self, width: float) -> None:
        """Groups are about `width` [rad] wide."""
        self.count = math.ceil(FULL / width)
        self.forget()

    def forget(self) -> None:
        """Nothing is proven."""
        self.blind = np.zeros(self.count, bool)
        self._proven_at = np.full(self.count, -np.inf)  # odometer, in metres
        self._refuted = np.zeros(self.count, bool)
        self._silent = np.zeros(self.count, bool)  # in the newest scan
        self._faced = np.full(self.count, np.nan)  # rad, the robot's heading, not wrapped, when a group last returned
        self._beside = np.zeros(self.count, int)  # scans since then in which both its neighbours returned

    def trust(self) -> None:
        """Everything is proven, for good."""
        self._proven_at[:] = np.inf

    def groups(self, angles: Floats) -> np.ndarray:
        """The group of each of angles[N]."""
        return np.asarray((angles % FULL) * (self.count / FULL), int) % self.count

    def note(self, groups: np.ndarray, returned: np.ndarray, silent: np.ndarray, driven: float, heading: float) -> None:
        """One scan: groups[N] of its rays, whether each returned[N] or is silent[N]; neither where it says nothing."""
        seen = np.zeros(self.count, bool)
        seen[groups[returned]] = True
        empty = np.zeros(self.count, bool)
        empty[groups[silent]] = True
        self._silent = empty = empty & ~seen
        self._proven_at[seen] = driven
        self._refuted[seen] = self.blind[seen] = False
        fresh = seen | np.isnan(self._faced)
        self._faced[fresh], self._beside[fresh] = heading, 0
        near = int(BESIDE / FULL * self.count)
        around = np.concatenate([seen[-near:], seen, seen[:near]])
        sums = np.concatenate([[0], np.cumsum(around)])
        before = sums[near : near + self.count] > sums[: self.count]
        after = sums[2 * near + 1 :] > sums[near + 1 : near + 1 + self.count]
        self._beside += empty & before & after
        self.blind |= empty & (self._beside >= OFTEN) & (np.abs(heading - self._faced) >= FULL)

    def refute(self, groups: np.ndarray) -> None:
        """These missed what must be there: until one returns, it is not believed, nor are silent ones beside it.

        A lidar that goes blind does so in a sector, and other groups of it may have had nothing to miss.
        """
        for group in set(groups.tolist()) - set(np.flatnonzero(self._refuted).tolist()):
            self._refuted[group] = True
            for step in (1, -1):
                beside = (group + step) % self.count
                while self._silent[beside] and not self._refuted[beside]:
                    self._refuted[beside] = True
                    beside = (beside + step) % self.count

    def proven(self, driven: float, lasts: float) -> np.ndarray:
        """Whether each group may be believed where nothing returns; a proof holds for `lasts` [m] driven."""
        return (driven - self._proven_at <= lasts) & ~self._refuted


class Memory:
    """Points that a robot saw, in the frame of its odometry: those near it until it sees through where they were."""

    def __init__(self, near: float, mismatch: float) -> None:
        """Points farther than `near` [m] are forgotten after LASTING scans; see Parameters for `mismatch` of motion."""
        self._near, self._mismatch = near, mismatch
        self.forget()

    def forget(self) -> None:
        """Nothing was seen."""
        self._table = np.zeros(0, POINT)

    @property
    def points(self) -> Floats:
        """Where they are [M, 2]."""
        return np.asarray(self._table["at"])

    def recalled(self, row: Floats | tuple[float, ...]) -> tuple[Floats, Floats, Floats]:
        """What is there though no scan shows it, out of sight or missed, from a base at `row`.

        (places[K, 2] in its frame; how much nearer each may be [K], in metres; how far its bearing may be off [K]).
        """
        table = self._table[self._table["hidden"] | (self._table["missed"] > 0)]
        at = _from(row, table["at"])
        lost = table["gap"] + self._mismatch * (row[3] - table["driven"])
        return at, lost, self._astray(table, at, row)

    def _astray(self, table: np.ndarray, at: Floats, row: Floats | tuple[float, ...]) -> Floats:
        """How far the bearings of points of the table at at[M, 2] may be off [M], by what the base moved since."""
        away = np.maximum(np.hypot(at[:, 0], at[:, 1]), 1e-6)
        moved = (row[4] - table["turned"]) + (row[3] - table["driven"]) / away
        return np.asarray(np.minimum(self._mismatch * moved, MOST_ASTRAY))

    def compare(
        self, row: Floats, sensor: Floats, bearings: Floats, ranges: Floats, wide: float, turned: float
    ) -> np.ndarray:
        """Look for each point in a scan; indices of the silent rays that must have returned, for the MISSED-th time.

        row[>= 5] of the odometry, see Track; sensor[2] and bearings[N] in the frame of the base; ranges[N], inf where
        nothing returned, NaN where a ray says nothing; `turned` bounds the error of their bearings.
        """
        table = self._table
        table["scans"] += 1
        at = _from(row, table["at"])
        kept = ((at**2).sum(axis=1) < self._near**2) | (table["scans"] <= LASTING)
        table, at = table[kept], at[kept]
        astray = turned + self._astray(table, at, row)
        verdict, ray = _look_for(at - sensor, np.asarray(bearings, np.float64), ranges, wide, turned, astray)
        table["hidden"] = verdict == HIDDEN
        table["missed"] += verdict == MISSING
        self._table = table[verdict != GONE]
        return np.asarray(ray[(verdict == MISSING) & (table["missed"] >= MISSED)])

    def add(self, row: Floats, points: Floats, wide: float) -> None:
        """Remember points[N, 2], in the frame of the base at row[>= 5] of the odometry (see Track), `wide` apart."""
        stride = 1 + len(points) // A_SCAN
        points, wide = points[::stride], stride * wide
        cos, sin = math.cos(row[2]), math.sin(row[2])
        new = np.zeros(len(points), POINT)
        new["at"] = points @ np.array([[cos, sin], [-sin, cos]]) + row[:2]
        new["driven"], new["turned"] = row[3], row[4]
        new["gap"] = 0.5 * wide * np.hypot(points[:, 0], points[:, 1])
        table = np.concatenate([self._table, new])
        # What is out of sight or was missed is not in any newer scan.
        free = np.flatnonzero(~table["hidden"] & (table["missed"] == 0))
        self._table = np.delete(table, free[: max(0, len(table) - MOST)])[-2 * MOST :]


POINT = np.dtype(
    [
        ("at", np.float64, 2),
        ("driven", np.float64),  # m, what the base had driven when it was seen
        ("turned", np.float64),  # rad, and turned
        ("gap", np.float64),  # m, half the distance to the next ray there
        ("scans", np.int64),  # since then
        ("missed", np.int64),  # of these, so many had to show it and did not
        ("hidden", np.bool_),  # whether no ray said anything about where it is
    ]
)
GONE, MISSING, HIDDEN, BEHIND = 0, 1, 2, 3


def _from(row: Floats | tuple[float, ...], points: Floats) -> Floats:
    """points[M, 2] of the odometry's frame, in the frame of the base at row[>= 3]."""
    cos, sin = math.cos(row[2]), math.sin(row[2])
    x, y = points[:, 0] - row[0], points[:, 1] - row[1]
    return np.column_stack([cos * x + sin * y, cos * y - sin * x])


@numba.njit(error_model="numpy", cache=True)
def _look_for(points, bearings, ranges, wide, turned, astray):  # type: ignore[no-untyped-def]
    """What a scan says about each of points[M, 2] in its lidar's place: (verdict[M], nearest ray[M]).

    GONE: seen again, or through; MISSING: silent where it must be; HIDDEN: out of sight; BEHIND: something is nearer.
    Seen through is what no silent ray may hide, wherever it is by now: astray[M] bounds the errors of the bearings.
    """
    n = len(ranges)
    verdict, nearest = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    window = 1 + int(math.ceil(turned / wide - 1e-9))
    step = (bearings[n - 1] - bearings[0]) / (n - 1)
    for i in range(len(points)):
        away = math.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2)
        bearing = math.atan2(points[i, 1], points[i, 0])
        around = ((bearing - bearings[0]) / step) % (2 * math.pi / abs(step))
        j = int(round(around))
        nearest[i] = min(j, n - 1)
        if j > n - 1 + window and j < 2 * math.pi / abs(step) - window:
            verdict[i] = HIDDEN
            continue
        again, nearer, silent, said = False, False, False, False
        widest = 1 + int(math.ceil(astray[i] / wide - 1e-9))
        # A return beside the point shows its surface, though not exactly where it was; but not a farther one: what is
        # nearer may be what this lidar does not see.
        nearby = max(NEARBY, 2.0 * wide * away)
        beside = window + int(math.ceil(nearby / max(away, nearby) / wide))
        for k in range(-max(beside, widest), max(beside, widest) + 1):
            m = (j + k) % n
            r = ranges[m]
            if np.isnan(r):
                continue
            if math.isfinite(r):
                dx, dy = r * math.cos(bearings[m]) - points[i, 0], r * math.sin(bearings[m]) - points[i, 1]
                again = again or (dx * dx + dy * dy < nearby * nearby and (r < away or abs(k) <= window))
            if abs(k) <= window:
                said = True
                nearer = nearer or r < away - nearby
            silent = silent or (abs(k) <= widest and not math.isfinite(r))
        if again:
            verdict[i] = GONE
        elif nearer:
            verdict[i] = BEHIND
        elif silent:
            verdict[i] = MISSING
        elif said:
            verdict[i] = GONE
        else:
            verdict[i] = HIDDEN
    return verdict, nearest
