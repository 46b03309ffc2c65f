"""A picture of a world without a screen: its map from above, or the camera of PyBullet from the side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.footprint import corners_of
from safe_support_ql.simulation.arena import Arena
from safe_support_ql.simulation.world import World

WIDTH, HEIGHT = 480, 360  # pixels; a map is HEIGHT x HEIGHT
BORDER = 0.1  # m of wall about a map
FLOOR, OBSTACLE, WALKER = (236, 236, 232), (72, 76, 84), (150, 120, 60)
BODY, NOSE, GOAL = (38, 98, 176), (250, 200, 60), (206, 62, 52)


def picture(world: World) -> NDArray[np.uint8]:
    """[H, W, 3]. The goal, whose numbers are a position in metres, (x,) or (x, y), is red.

    On a map the body's footprint is blue, with a yellow nose where it looks, and who walks about is brown; the first
    three numbers of the ground truth are the pose of the body.
    """
    return _camera(world) if world.map is None else _map(world, world.map)


def _map(world: World, arena: Arena) -> NDArray[np.uint8]:
    half = arena.half_side + BORDER
    line = (np.arange(HEIGHT) + 0.5) / HEIGHT * 2.0 * half - half
    x, y = np.meshgrid(line, -line)  # the first row is the farthest to the left of x, which points right
    image = np.full((HEIGHT, HEIGHT, 3), FLOOR, np.uint8)
    declared = world.spec.arena
    image[np.hypot(x - world.goal[0], y - world.goal[1]) <= (declared.goal_radius if declared else 0.3)] = GOAL
    image[arena.clearance(x, y) <= 0.0] = OBSTACLE
    for at_x, at_y, radius in world.walkers:
        image[np.hypot(x - at_x, y - at_y) <= radius] = WALKER
    pose = world.truth()[:3]
    cos, sin, dx, dy = np.cos(pose[2]), np.sin(pose[2]), x - pose[0], y - pose[1]
    ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
    image[body := _inside(world, ahead, left)] = BODY
    image[body & (ahead > 0.0) & (np.abs(left) < 0.03)] = NOSE
    return image


def _inside(world: World, ahead: Floats, left: Floats) -> NDArray[np.bool_]:
    """Which points, in the frame of the body, are in its footprint."""
    if not world.spec.footprint:
        return np.asarray(np.hypot(ahead, left) <= world.spec.footprint_radius)
    inside = np.ones(ahead.shape, bool)
    corners = corners_of(world.spec.footprint)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (left - y0) - (y1 - y0) * (ahead - x0) >= 0.0  # corners go round to the left
    return inside


def _camera(world: World) -> NDArray[np.uint8]:
    client = world.client
    view = client.computeViewMatrix([0.0, -3.0, 0.6], [0.0, 0.0, 0.3], [0.0, 0.0, 1.0])
    lens = client.computeProjectionMatrixFOV(55.0, WIDTH / HEIGHT, 0.1, 20.0)
    _, _, pixels, _, _ = client.getCameraImage(WIDTH, HEIGHT, view, lens, renderer=client.ER_TINY_RENDERER)
    image = np.reshape(np.asarray(pixels, np.uint8), (HEIGHT, WIDTH, 4))[:, :, :3].copy()
    place = np.array([*world.goal, 0.0, 0.0, 0.0])[:3]
    # PyBullet lists matrices column by column.
    x, y, _, w = np.reshape(lens, (4, 4)).T @ np.reshape(view, (4, 4)).T @ [*place, 1.0]
    column, row = 0.5 * (1.0 + x / w) * WIDTH, 0.5 * (1.0 - y / w) * HEIGHT
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    image[(rows - row) ** 2 + (columns - column) ** 2 <= 36.0] = GOAL
    return image
