"""A_safe(s) with latched hysteresis and the backup atom: from an estimate to a CandidateSet (docs/method.md)."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats, Inputs, Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, Bools, CandidateSet, lattice, lattice_size
from safe_support_ql.safety.certificate import Certificate

LOOK_BACK = 64  # newest commands that are kept


class Support:
    """Certifies candidates. Hidden state: the plan's centre, the last command, the band's threshold and its budget."""

    def __init__(self, robot: Robot, continuous: bool, seed: int) -> None:
        """Compile the certificate of `robot`; `seed` draws the lattice offsets of continuous actions."""
        self.robot = robot
        self.continuous = continuous
        self.size = lattice_size(robot, continuous) + EXTRA_SLOTS
        self._certificate = Certificate(robot.model, len(robot.state_names), len(robot.action_names))
        self._rng = np.random.default_rng(seed)
        self._recent: deque[Floats] = deque(maxlen=LOOK_BACK)
        self.reset(0)

    def reset(self, centre: int) -> None:
        """Forget the band; the plan aims at `centre`. The newest command is zero, but those before it may still act."""
        self.centre = centre
        # A robot that was not put elsewhere obeys its last command until the drive gives up.
        self._recent.append(np.zeros(len(self.robot.action_names)))
        self._acting = 1
        self._leave_band()

    @property
    def previous(self) -> Floats:
        """The newest command [A]."""
        return self._recent[-1]

    def look_back(self, commands: int) -> None:
        """How many of the newest commands may have acted since the state was measured."""
        self._acting = commands

    def command_before(self, ticks: int) -> Floats:
        """The command [A] that went out this many decisions ago; 1 is the newest, the oldest kept one at most."""
        return self._recent[-min(ticks, len(self._recent))]

    def note(self, action: Floats) -> None:
        """A command [A] went out."""
        self._recent.append(action)

    def _leave_band(self) -> None:
        self.in_band = False
        self.threshold = 0.0
        self.spent = 0.0

    def start(self, estimate: Estimate) -> None:
        """Choose the first centre of an episode: the one whose plan has the largest margin here."""
        margins = []
        for centre in range(len(self.robot.model.centres)):
            self.centre = centre
            margins.append(self._certify_here(estimate, (0,), self.robot.model.holds, self.plan_action(estimate.state)))
        # Where none certifies, margins that were cut off at their first violation cannot be compared.
        self.centre = int(np.argmax(margins)) if max(margins) >= 0.0 else len(margins) // 2

    def plan_action(self, state: Floats) -> Singles:
        """k(s) of the stored plan, exactly as it is executed [A]; zero where a state is so large that k overflows."""
        model = self.robot.model
        with np.errstate(over="ignore", invalid="ignore"):
            u = np.array(model.backup(tuple(state), model.centres[self.centre, 0], model.constants), np.float64)
        # Clipping keeps a NaN, and no drive may ever get one.
        clipped = np.clip(np.where(np.isnan(u), 0.0, u), self.robot.action_low, self.robot.action_high)
        return np.asarray(clipped, np.float32)

    def candidates(
        self,
        id: int,
        stamp_ns: int,
        episode: int,
        inputs: Inputs,
        estimate: Estimate,
        delays: tuple[int, ...],
        holds: tuple[int, ...],
    ) -> CandidateSet:
        """Certify the lattice and the plan at `estimate`; the previous command still acts for `delays` (in checks)."""
        model = self.robot.model
        points = lattice(self.robot, self.continuous, self._rng)
        n, k = len(points), self.size
        actions = np.zeros((k, points.shape[1]), np.float32)
        actions[:n] = points
        plan_action = self.plan_action(estimate.state)
        same = np.flatnonzero((points == plan_action).all(axis=1))
        plan = int(same[0]) if len(same) else n
        actions[plan] = plan_action
        used = n if plan < n else n + 1
        margin = np.full(k, -np.inf)
        centre = np.full(k, self.centre, np.uint8)
        margin[:used], centre[:used] = self._certify(estimate, delays, holds, actions[:used])
        # The plan is what runs now, so its margin is the one with the centre it has, not with the best centre.
        margin[plan] = self._certify_here(estimate, delays, holds, plan_action)
        centre[plan] = self.centre
        self._update_band(margin[plan])
        certified, band = self._passes(margin)
        is_plan = np.zeros(k, bool)
        is_plan[plan] = True
        # An empty slot has margin -inf; one in use has a number even where S_f is not reached.
        margin[:used] = np.maximum(margin[:used], np.finfo(np.float32).min)
        observation = self.robot.observation(
            inputs, estimate, self.previous, float(model.centres[self.centre, 0]), self.threshold
        )
        return CandidateSet(
            id, stamp_ns, episode, observation, actions, certified, band, is_plan, margin.astype(np.float32), centre
        )  # fmt: skip

    def append(
        self,
        candidates: CandidateSet,
        estimate: Estimate,
        delays: tuple[int, ...],
        holds: tuple[int, ...],
        action: Singles,
    ) -> CandidateSet:
        """The set with a foreign `action` certified into the last slot (log_weight -inf: beta never draws it)."""
        margin, centre = self._certify(estimate, delays, holds, action[None])
        certified, band = self._passes(margin)
        last = self.size - 1
        new = {name: getattr(candidates, name).copy() for name in ("actions", "certified", "band", "margin", "centre")}
        new["actions"][last], new["margin"][last], new["centre"][last] = action, margin[0], centre[0]
        new["certified"][last], new["band"][last] = certified[0], band[0]
        return CandidateSet(
            candidates.id, candidates.stamp_ns, candidates.episode, candidates.observation,
            is_plan=candidates.is_plan, **new,
        )  # fmt: skip

    def executed(self, candidates: CandidateSet, index: int) -> None:
        """Take note of what was executed: the plan behind it is the stored plan from now on."""
        self.note(candidates.actions[index].astype(np.float64))
        self.centre = int(candidates.centre[index])
        if candidates.band[index] and not candidates.is_plan[index]:
            self.spent += self.robot.model.step_residual

    def _certify(
        self,
        estimate: Estimate,
        delays: tuple[int, ...],
        holds: tuple[int, ...],
        actions: Singles,
        enough: float | None = None,
    ) -> tuple[Floats, Any]:
        """Margins and centres. An old state was followed by several commands: the worst one of them counts.

        A centre is enough once it passes fully: the nearest such centre keeps the plan from wandering.
        """
        enough = self.robot.model.band if enough is None else enough
        before = [self.previous]
        if max(delays) > 0:
            before = list(np.unique(np.array(list(self._recent)[-self._acting :]), axis=0))
        results = [
            self._certificate(
                estimate.state, command, delays, actions.astype(np.float64), estimate.points, self.centre, enough, holds
            )
            for command in before
        ]
        if len(results) == 1:
            return results[0]
        margins, centres = (np.array(part) for part in zip(*results, strict=True))
        # Different centres for different pasts are no one plan: such a candidate is not certified.
        agree = (centres == centres[0]).all(axis=0)
        return np.where(agree, margins.min(axis=0), -np.inf), centres[0]

    def _certify_here(
        self, estimate: Estimate, delays: tuple[int, ...], holds: tuple[int, ...], action: Singles
    ) -> float:
        return float(self._certify(estimate, delays, holds, action[None], -np.inf)[0][0])

    def _update_band(self, plan_margin: float) -> None:
        model = self.robot.model
        if plan_margin >= model.band:
            self._leave_band()
        else:
            self.in_band = True
            # Latched: the largest margin reached since entry, less what a bounded sensor error explains; never lowered.
            self.threshold = max(self.threshold, plan_margin - model.noise_allowance, 0.0)

    def _passes(self, margin: Floats) -> tuple[Bools, Bools]:
        model = self.robot.model
        fully = margin >= model.band
        budget_left = self.spent + model.step_residual <= model.band_budget
        band = ~fully & (margin >= self.threshold) & (self.in_band and budget_left)
        return fully | band, band
