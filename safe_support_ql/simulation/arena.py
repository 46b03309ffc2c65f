"""Random arenas with walls and static obstacles, one arena per seed, and the shortest routes through them.

A hall and a corridor are arenas that show a lidar little: one object, or two walls that look the same all along.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.footprint import corners_of
from safe_support_ql.robots.world import ObstacleArena, WorldSpec

CELL = 0.1  # m, of the planning grid
TRIES = 1000
DISC_CORNERS = 48  # corners of the polygon that shows a disc


@dataclass(frozen=True)
class Arena:
    """Obstacles as rows (x, y, yaw, half length, half width); half width 0 marks a disc of radius `half length`."""

    obstacles: Floats
    half_side: float
    start: Floats  # (x, y, yaw)
    goal: Floats  # (x, y)

    def clearance(self, x: Floats, y: Floats) -> Floats:
        """Exact distance in metres from points x, y (one shape) to the nearest obstacle or wall; negative inside."""
        dx, dy = np.asarray(x)[..., None] - self.obstacles[:, 0], np.asarray(y)[..., None] - self.obstacles[:, 1]
        cos, sin, disc = self._turned
        out_x = np.abs(cos * dx + sin * dy) - self.obstacles[:, 3]
        out_y = np.abs(cos * dy - sin * dx) - self.obstacles[:, 4]
        box = np.hypot(np.maximum(out_x, 0.0), np.maximum(out_y, 0.0)) + np.minimum(np.maximum(out_x, out_y), 0.0)
        round_ = np.hypot(dx, dy) - self.obstacles[:, 3]
        nearest = np.where(disc, round_, box).min(axis=-1, initial=np.inf)
        return np.asarray(np.minimum(nearest, self.half_side - np.maximum(np.abs(x), np.abs(y))))

    def room(self, spec: WorldSpec, pose: Floats) -> float:
        """Exact distance in metres from the footprint of a base at pose[3] to the nearest obstacle or wall."""
        x, y, yaw = pose
        if not spec.footprint:
            return float(self.clearance(x, y)) - spec.footprint_radius
        cos, sin = np.cos(yaw), np.sin(yaw)
        return self.clearance_of(np.array([x, y]) + corners_of(spec.footprint) @ np.array([[cos, sin], [-sin, cos]]))

    def clearance_of(self, corners: Floats) -> float:
        """Exact distance in metres from a convex outline to the nearest obstacle or wall; negative where they overlap.

        corners[N, 2] on the map, going round to the left. Of two that overlap it is the shortest way apart; of a corner
        behind a wall, its depth.
        """
        clearance = self.half_side - float(np.abs(corners).max())
        for (x, y, _, size, width), box in zip(self.obstacles, self._boxes, strict=True):
            if width == 0.0:
                clearance = min(clearance, _outside(np.array([[x, y]]), corners) - size)
            else:
                clearance = min(clearance, _apart(corners, box))
        return clearance

    def outlines(self) -> list[Floats]:
        """The corners [N, 2] of each obstacle in metres, in order, for drawing."""
        around = np.arange(DISC_CORNERS) * (2 * np.pi / DISC_CORNERS)
        disc = np.stack([np.cos(around), np.sin(around)], axis=1)
        box = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
        outlines = []
        for x, y, yaw, length, width in self.obstacles:
            corners = disc * length if width == 0.0 else box * [length, width]
            cos, sin = np.cos(yaw), np.sin(yaw)
            outlines.append(np.array([x, y]) + corners @ np.array([[cos, sin], [-sin, cos]]))
        return outlines

    @cached_property
    def _boxes(self) -> list[Floats]:
        """The outlines: corners of those that are boxes."""
        return self.outlines()

    @cached_property
    def _turned(self) -> tuple[Floats, Floats, Any]:
        """Cosine and sine of each yaw, and which obstacles are discs."""
        return np.cos(self.obstacles[:, 2]), np.sin(self.obstacles[:, 2]), self.obstacles[:, 4] == 0.0


def _outside(points: Floats, corners: Floats) -> float:
    """Distance from a convex outline to the nearest of points[M, 2]; negative, by its depth, if that lies inside."""
    edges = np.roll(corners, -1, axis=0) - corners
    length = np.hypot(edges[:, 0], edges[:, 1])
    to = points[:, None] - corners
    along = np.clip((to * edges).sum(axis=2) / length**2, 0.0, 1.0)
    distance = np.linalg.norm(to - along[..., None] * edges, axis=2).min(axis=1)
    beyond = ((to[..., 0] * edges[:, 1] - to[..., 1] * edges[:, 0]) / length).max(axis=1)
    return float(np.where(beyond > 0.0, distance, beyond).min())


def _apart(one: Floats, other: Floats) -> float:
    """Distance between two convex outlines; negative where they overlap, by the shortest way apart.

    Two convex shapes overlap unless the normal of an edge separates them; else the distance is that of a corner of one
    from the other (Ericson, "Real-Time Collision Detection", 2005, chapters 4 and 5).
    """
    gap = max(_gap(one, other), _gap(other, one))
    return gap if gap <= 0.0 else min(_outside(one, other), _outside(other, one))


def _gap(one: Floats, other: Floats) -> float:
    """The widest gap between them along the normal of an edge of `one`."""
    edges = np.roll(one, -1, axis=0) - one
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.hypot(edges[:, 0], edges[:, 1])[:, None]
    return float(((other[:, None] - one) * normals).sum(axis=2).min(axis=0).max())


def make_arena(spec: ObstacleArena, seed: int) -> Arena:
    """The arena of `seed`. Gaps between obstacles, and to the walls, are at least twice `spec.corridor`.

    There is thus a path around every obstacle. Raises ValueError if there is no room for that many obstacles.
    """
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        arena = _draw(spec, rng)
        if arena is not None:
            return arena
    raise ValueError(f"no arena with {spec.corridor} m corridors in {TRIES} tries; use fewer or smaller obstacles")


def open_hall(seed: int) -> Arena:
    """A hall of 40 m, and in it one post of 0.32 m beside the way, always within 3 m of it."""
    rng = np.random.default_rng(seed)
    away, turn = rng.uniform(1.0, 2.0), rng.uniform(-np.pi, np.pi)
    post = [away * np.cos(turn), away * np.sin(turn), 0.0, 0.16, 0.0]
    goal = 3.5 * np.array([np.cos(turn + 0.4), np.sin(turn + 0.4)])
    return Arena(np.array([post]), 20.0, np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)]), goal)


def corridor(seed: int) -> Arena:
    """Two walls 1.2 m apart; the way to the goal is 8 m along them."""
    rng = np.random.default_rng(seed)
    walls = np.array([[0.0, side * 0.7, 0.0, 6.0, 0.1] for side in (1, -1)])
    return Arena(walls, 6.0, np.array([-4.0, rng.uniform(-0.15, 0.15), rng.normal(0.0, 0.4)]), np.array([4.0, 0.0]))


def _draw(spec: ObstacleArena, rng: np.random.Generator) -> Arena | None:
    half = spec.side / 2
    count = int(rng.integers(spec.count[0], spec.count[1] + 1))
    obstacles = np.zeros((0, 5))
    radii = np.zeros(0)  # radii of circles around the obstacles
    for _ in range(TRIES):
        if len(obstacles) == count:
            break
        size, yaw = rng.uniform(*spec.half_width), rng.uniform(-np.pi, np.pi)
        # Discs, squares, and bars of the declared smallest width.
        width = (0.0, size, spec.half_width[0])[rng.integers(3)]
        radius = float(np.hypot(size, width))
        room = half - radius - 2 * spec.corridor
        x, y = rng.uniform(-room, room, 2)
        if np.all(np.hypot(obstacles[:, 0] - x, obstacles[:, 1] - y) - radii - radius >= 2 * spec.corridor):
            obstacles = np.vstack([obstacles, [x, y, yaw, size, width]])
            radii = np.append(radii, radius)
    if len(obstacles) < count:
        return None
    free = Arena(obstacles, half, np.zeros(3), np.zeros(2))
    for _ in range(TRIES):
        start, goal = rng.uniform(-half, half, (2, 2))
        if np.hypot(*(goal - start)) < spec.start_goal_distance:
            continue
        if min(free.clearance(start[0], start[1]), free.clearance(goal[0], goal[1])) >= spec.corridor:
            return Arena(obstacles, half, np.array([*start, rng.uniform(-np.pi, np.pi)]), goal)
    return None


class Route:
    """Shortest paths to the goal of an arena on a grid, `corridor` metres from obstacles if possible."""

    def __init__(self, arena: Arena, corridor: float) -> None:
        """Solve the distance field once (about 50 ms)."""
        self.arena, self._corridor = arena, corridor
        half = arena.half_side
        self._xs = np.arange(-half + CELL / 2, half, CELL)
        n = len(self._xs)
        grid_x, grid_y = np.meshgrid(self._xs, self._xs, indexing="ij")
        clearance = arena.clearance(grid_x, grid_y)
        # Cells closer to obstacles stay passable at a cost, so that a driver can return to its route.
        price = 1.0 + 20.0 * np.maximum(corridor - clearance, 0.0) / corridor + 1000.0 * (clearance < 0.2)
        index = np.arange(n * n).reshape(n, n)
        edges: list[tuple[Any, Any, Any]] = []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            here = index[: n - dx, max(0, -dy) : n - max(0, dy)]
            there = index[dx:, max(0, dy) : n - max(0, -dy)]
            cost = 0.5 * (price.ravel()[here] + price.ravel()[there]) * CELL * np.hypot(dx, dy)
            edges.append((here.ravel(), there.ravel(), cost.ravel()))
        rows, columns, costs = (np.concatenate(part) for part in zip(*edges, strict=True))
        graph = sparse.csr_matrix((costs, (rows, columns)), shape=(n * n, n * n))
        goal = index[self._cell(arena.goal[0]), self._cell(arena.goal[1])]
        _, self._next = csgraph.dijkstra(graph, directed=False, indices=goal, return_predecessors=True)
        self._index = index

    def _cell(self, value: float) -> int:
        return int(np.clip(np.floor((value + self.arena.half_side) / CELL), 0, len(self._xs) - 1))

    def target(self, x: float, y: float, lookahead: float) -> Floats:
        """A point (x, y) on the route, about `lookahead` metres ahead and reachable on a straight line, or the goal."""
        cell = self._index[self._cell(x), self._cell(y)]
        best = self.arena.goal
        n = len(self._xs)
        for _ in range(int(lookahead / CELL)):
            following = int(self._next[cell])
            if following < 0:
                return self.arena.goal
            point = np.array([self._xs[following // n], self._xs[following % n]])
            line = np.linspace([x, y], point, 8)
            if (
                best is not self.arena.goal
                and self.arena.clearance(line[:, 0], line[:, 1]).min() < self._corridor - CELL
            ):
                return best
            cell, best = following, point
        return best
