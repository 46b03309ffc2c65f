"""The reference: a scripted driver that knows the map, behind the same gate; it shows that certified paths exist."""

from __future__ import annotations

import numpy as np

from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.simulation.arena import Route
from safe_support_ql.simulation.world import DriveWorld, World

LOOKAHEAD = 0.8  # m


class Reference:
    """Asks for the certified candidate nearest to what the robot's controller would do if it knew the way."""

    def __init__(self, robot: Robot, world: World) -> None:
        """`world` is read for ground truth at every call."""
        self._robot, self._world = robot, world
        self._route: Route | None = None
        self._range = robot.action_high - robot.action_low

    def __call__(self, candidates: CandidateSet) -> Singles:
        """An action [A] of the support."""
        wanted = self._wanted(candidates)
        distance = (((candidates.actions - wanted) / self._range) ** 2).sum(axis=1)
        return np.asarray(candidates.actions[np.argmin(np.where(candidates.support, distance, np.inf))])

    def _wanted(self, candidates: CandidateSet) -> Floats:
        observation = candidates.observation.copy()
        if isinstance(self._world, DriveWorld):
            arena = self._world.arena
            if self._route is None or self._route.arena is not arena:
                assert self._world.spec.arena
                self._route = Route(arena, self._world.spec.arena.corridor)
            x, y, yaw, *_ = self._world.truth()
            tx, ty = self._route.target(x, y, LOOKAHEAD)
            bearing = np.arctan2(ty - y, tx - x) - yaw
            # The goal in the observation is moved to the next point of the way; the robot's own controller goes there.
            at = self._robot.observation_names.index("goal_distance")
            observation[at : at + 3] = np.hypot(tx - x, ty - y), np.cos(bearing), np.sin(bearing)
        return self._robot.controller(observation[None])[0]
