"""A_safe(s) with hysteresis and the backup atom: from an estimate to a CandidateSet (docs/method.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_support_ql.robots.base import Estimate, Floats, Inputs, Robot, Singles
from safe_support_ql.safety.candidates import EXTRA_SLOTS, Bools, CandidateSet
from safe_support_ql.safety.certificate import Certifier
from safe_support_ql.safety.timing import Timing


class Support:
    """Certifies candidates.

    Hidden state: the plan's centre, the last command, the threshold of the band, and its budget.
    """

    def __init__(self, robot: Robot, continuous: bool, seed: int) -> None:
        """Compile the certificate of `robot`; `seed` draws the lattice offsets of continuous actions."""
        self.robot = robot
        self.continuous = continuous
        self._source = robot.candidates(continuous)
        self.size = self._source.size + EXTRA_SLOTS
        self._certificate = Certifier(robot.model, len(robot.state_names), len(robot.action_names))
        self._rng = np.random.default_rng(seed)
        centres = robot.model.certificate.centres
        distance = np.linalg.norm(centres - centres.mean(axis=0), axis=1).round(9)
        self._middle = int(np.flatnonzero(distance == distance.min())[-1])
        self.surcharge = 0.0  # scaled margin that a non-plan action needs beyond the certificate's
        self.cap = 1.0  # share of the range of each action that may be asked for, by the operator's word
        self.reset(0)

    def reset(self, centre: int) -> None:
        """Forget the band; the plan aims at `centre`, and the last command counts as silence."""
        self.centre = centre
        self.surcharge = 0.0
        self.previous: Floats = self.robot.silence
        self._leave_band()

    def _leave_band(self) -> None:
        self.in_band = False
        self.threshold = 0.0
        self.spent = 0.0

    def start(self, estimate: Estimate, timing: Timing) -> None:
        """Choose the first centre of an episode: the one whose plan has the largest margin here.

        Nothing has run yet, so there is no band to be in.
        """
        self._leave_band()
        margins = self.plans(estimate, timing)
        # Where none is certified, margins that were cut off at their first violation cannot be compared.
        self.centre = int(np.argmax(margins)) if margins.max() >= 0.0 else self._middle

    def plans(self, estimate: Estimate, timing: Timing) -> Floats:
        """Margin [C] of the plan about each centre."""
        kept, margins = self.centre, np.zeros(len(self.robot.model.certificate.centres))
        for self.centre in range(len(margins)):
            margins[self.centre] = self._certify_here(estimate, timing, self.plan_action(estimate.state))
        self.centre = kept
        return margins

    def plan_action(self, state: Floats) -> Singles:
        """k(s) of the stored plan, exactly as executed [A]; silence where a state is so large that k overflows."""
        certificate = self.robot.model.certificate
        with np.errstate(over="ignore", invalid="ignore"):
            u = np.array(
                certificate.backup(tuple(state), certificate.centre(self.centre), certificate.constants), np.float64
            )
        # Clipping keeps a NaN, and no drive may ever get one.
        clipped = np.clip(np.where(np.isnan(u), self.robot.silence, u), self.robot.action_low, self.robot.action_high)
        return np.asarray(clipped, np.float32)

    def candidates(
        self,
        id: int,
        stamp_ns: int,
        episode: int,
        inputs: Inputs,
        estimate: Estimate,
        timing: Timing,
    ) -> CandidateSet:
        """Certify the lattice and the plan at `estimate`."""
        model = self.robot.model
        points = self._source(self._rng, estimate.state)
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
        margin[:used], centre[:used] = self._certify(estimate, timing, actions[:used])
        # The plan is what runs now, so its margin is the one with the centre it has, not with the best centre.
        margin[plan] = self._certify_here(estimate, timing, plan_action)
        centre[plan] = self.centre
        self._update_band(margin[plan])
        is_plan = np.zeros(k, bool)
        is_plan[plan] = True
        certified, band = self._passes(margin, actions, is_plan)
        offered = self._offered(estimate, timing, actions, certified, is_plan)
        # An empty slot has margin -inf; one in use has a number even where S_f is not reached.
        margin[:used] = np.maximum(margin[:used], np.finfo(np.float32).min)
        observation = self.robot.observation(
            inputs, estimate, self.previous, model.certificate.centres[self.centre], self.threshold
        )
        return CandidateSet(
            id, stamp_ns, episode, observation, actions, certified, offered, band, is_plan, margin.astype(np.float32),
            centre,
        )  # fmt: skip

    def append(
        self,
        candidates: CandidateSet,
        estimate: Estimate,
        timing: Timing,
        action: Singles,
    ) -> CandidateSet:
        """The set with a foreign `action` certified into the last slot (log_weight -inf: beta never draws it)."""
        margin, centre = self._certify(estimate, timing, action[None])
        certified, band = self._passes(margin, action[None], np.zeros(1, bool))
        last = self.size - 1
        new = {
            name: getattr(candidates, name).copy()
            for name in ("actions", "certified", "offered", "band", "margin", "centre")
        }
        new["actions"][last], new["margin"][last], new["centre"][last] = action, margin[0], centre[0]
        new["certified"][last], new["band"][last] = certified[0], band[0]  # not offered: beta never draws it
        return CandidateSet(
            candidates.id, candidates.stamp_ns, candidates.episode, candidates.observation,
            is_plan=candidates.is_plan, **new,
        )  # fmt: skip

    def executed(self, candidates: CandidateSet, index: int) -> None:
        """Take note of what was executed: the plan behind it is the stored plan from now on."""
        self.centre = int(candidates.centre[index])
        if candidates.band[index] and not candidates.is_plan[index]:
            self.spent += self.robot.model.certificate.step_residual

    def _certify(
        self, estimate: Estimate, timing: Timing, actions: Singles, enough: float | None = None, least: float = 0.0
    ) -> tuple[Floats, Any]:
        """Margins and centres. A centre is enough once it passes fully: the nearest such keeps the plan in place."""
        if not timing.known:
            return np.full(len(actions), -np.inf), np.full(len(actions), self.centre, np.uint8)
        enough = self.robot.model.certificate.band if enough is None else enough
        return self._certificate(
            estimate.state, timing.past, timing.delays, actions.astype(np.float64), estimate.points, self.centre,
            enough, timing.holds, least,
        )  # fmt: skip

    def _certify_here(self, estimate: Estimate, timing: Timing, action: Singles) -> float:
        return float(self._certify(estimate, timing, action[None], -np.inf)[0][0])

    def _update_band(self, plan_margin: float) -> None:
        model = self.robot.model
        if plan_margin >= model.certificate.band:
            self._leave_band()
        else:
            self.in_band = True
            # The largest margin reached since entry, less what a bounded sensor error explains; never lowered.
            self.threshold = max(self.threshold, plan_margin - model.certificate.noise_allowance, 0.0)

    def _offered(self, estimate: Estimate, timing: Timing, actions: Singles, certified: Bools, is_plan: Bools) -> Bools:
        """Certified actions that also pass when held `offered_longer` checks longer; all of them where none does.

        Members do not certify again what they certified for each other (docs/method.md), so after an action of least
        margin only the plan may be left. Nothing is less safe for that, but little is learnt from it.
        """
        more, choice = self.robot.model.certificate.offered_longer, np.flatnonzero(certified & ~is_plan)
        if len(estimate.seek) and len(choice):
            # A policy would wait where it cannot go on: of what is certified, only what shows more is offered.
            apart = (actions[choice] - estimate.seek) / (self.robot.action_high - self.robot.action_low)
            nearest = np.zeros_like(certified)
            nearest[choice[np.argmin((apart**2).sum(axis=1))]] = True
            return nearest
        if not more or not len(choice):
            return certified
        longer = Timing(timing.delays, (max(timing.holds) + more,), timing.past, timing.known)
        offered = np.zeros_like(certified)
        band = self.robot.model.certificate.band
        offered[choice] = self._certify(estimate, longer, actions[choice], band, band)[0] >= band
        return offered if offered.any() else certified

    def capped(self, actions: Singles) -> Bools:
        """Which of actions[N, A] lie within `cap` of their range."""
        low, high = self.cap * self.robot.action_low - 1e-6, self.cap * self.robot.action_high + 1e-6
        return np.asarray(((actions >= low) & (actions <= high)).all(axis=1))

    @property
    def exhausted(self) -> bool:
        """Whether the robot is in the band and has spent its budget: only what leads out of the band is certified."""
        certificate = self.robot.model.certificate
        return self.in_band and self.spent + certificate.step_residual > certificate.band_budget

    def _passes(self, margin: Floats, actions: Singles, is_plan: Bools) -> tuple[Bools, Bools]:
        model = self.robot.model
        fully = margin >= model.certificate.band
        band = ~fully & (margin >= self.threshold) & (self.in_band and not self.exhausted)
        passes = (fully | band) & (
            is_plan | (self.surcharge == 0.0) | (margin >= model.certificate.band + self.surcharge)
        )
        if self.cap < 1.0:
            passes &= is_plan | self.capped(actions)
        return passes, band & passes
