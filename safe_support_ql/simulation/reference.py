"""The reference policy: the scripted controller with the map, behind the same gate."""

import numpy as np

from safe_support_ql.robots.base import Floats, Robot, Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.simulation.arena import Route
from safe_support_ql.simulation.world import World

LOOKAHEAD = 0.8  # m


class Reference:
    """Requests the certified candidate nearest to the action of the robot's controller with the map."""

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
        observation, arena, declared = candidates.observation, self._world.map, self._world.spec.arena
        if arena and declared:
            if self._route is None or self._route.arena is not arena:
                self._route = Route(arena, declared.corridor)
            truth = self._world.truth()
            # The controller drives to the next point of the route as if it were the goal.
            observation = self._robot.towards(observation, truth, self._route.target(truth[0], truth[1], LOOKAHEAD))
        return self._robot.controller(observation[None])[0]
