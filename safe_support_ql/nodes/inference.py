"""The node of the extracted policy: requests the candidate that policy.onnx prefers.

It reads `candidates` and publishes `request`, only while active; without a request the gate runs its plan. Parameters
of its own: `model` (path of policy.onnx, with policy.json beside it; refused at configure unless it was made for this
robot, action space and safety configuration), `greedy` (no Gumbel noise), `validated` (only with a validation.json that
passed) and `shadow` (answers on `shadow`, which the gate does not hear).

Another policy can take its place while it drives: a path on `model/swap` is loaded and checked beside the decisions,
tried on the newest candidate sets, and drives from one decision to the next. `~/rollback` (std_srvs/Trigger) goes back
to the one before, and so do a rise of refused or late requests and returns that fall short of what the policy promised
(deployment/watch.py). `model/active` says which drives.
"""

from __future__ import annotations

import functools
import operator
import time
from collections import deque
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_support_ql.deployment import validation
from safe_support_ql.deployment.manifest import PolicyContract
from safe_support_ql.deployment.models import Models
from safe_support_ql.deployment.news import LOADED, News
from safe_support_ql.deployment.policy import Actor, OnnxPolicy
from safe_support_ql.deployment.watch import Calibration, Watch
from safe_support_ql.nodes import lifecycle, tables, topics
from safe_support_ql.nodes.behavior_policy import CandidatePolicy
from safe_support_ql.recording import chain
from safe_support_ql.recording.parts import OutcomeTable, Verdict
from safe_support_ql.robots.base import Singles
from safe_support_ql.safety.candidates import CandidateSet
from safe_support_ql.safety.reasons import NO_REQUEST

SETTLE_S = 0.1  # without candidates
KEPT = 100_000  # times of answers
PROMISES = 100  # newest states; the outcome of one comes within a second


class Inference(CandidatePolicy):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("inference")

    def configure(self) -> None:
        """Load and check the model. Raises ValueError naming file and key."""
        if not self.param("model"):
            raise ValueError("parameter 'model' is empty, must be the path of a policy.onnx")
        self.shadow = self.param("shadow")
        self.open(topics.SHADOW if self.shadow else topics.REQUEST)
        self.contract = PolicyContract.of(self.settings.robot, self.continuous, self.settings.safety_hash)
        self.models = Models(self.load(Path(self.param("model"))), self.load)
        self.actor: Actor | None = None
        self.begin()
        self.seconds: deque[float] = deque(maxlen=KEPT)
        self.shown = self.same = 0
        self.active_model = self.advertise(String, topics.MODEL_ACTIVE, topics.LATCHED)
        size = len(self.settings.robot.action_names)
        decision = functools.partial(tables.decode_decision, size=size)
        self.subscribe(DiagnosticArray, topics.DECISION, decision, self.on_decision, topics.RECORDED)
        self.subscribe(JointState, topics.OUTCOME, tables.decode_outcome, self.on_outcome, topics.RECORDED)
        self.subscribe(String, topics.MODEL_SWAP, operator.attrgetter("data"), self.on_swap, topics.CHAIN)
        self.serve(Trigger, "~/rollback", self.on_rollback)
        self.every(SETTLE_S, self.settle)
        self.announce(self.models.news(LOADED))

    def load(self, path: Path) -> OnnxPolicy:
        """A policy that may drive here. Raises ValueError naming what is wrong."""
        policy = OnnxPolicy(path, self.contract)
        if self.param("validated"):
            settings = self.settings
            report = validation.check(path, settings.safety_hash, settings.validation, chain.key())
            # What was loaded is what was reported on, also if the file was replaced in between.
            if report["policy_sha256"] != policy.manifest.policy_sha256:
                raise ValueError(f"{path}: was replaced while it was loaded; try again")
        return policy

    def activate(self) -> None:
        """`greedy` may change between activations."""
        self.begin()

    def begin(self) -> None:
        """Another policy drives: its draws and its record begin anew."""
        self.watch = Watch(self.settings.deployment)
        self.asked: tuple[int, Singles] | None = None
        self.promises: dict[int, float] = {}  # by the stamp of the state
        self.outcome: tuple[OutcomeTable, int, str] | None = None
        policy = self.models.active
        training = policy.manifest.training if policy is not None else {}
        gamma = policy.manifest.gamma if policy is not None else 0.0
        self.calibration = Calibration(self.settings.deployment, gamma, training)
        seed, greedy, passive_stop = self.param("seed"), self.param("greedy"), self.settings.robot.passive_stop
        self.actor = None if policy is None else Actor(policy, seed, greedy, passive_stop)

    def deactivate(self) -> None:
        """Say what a shadow has shown."""
        if self.shadow and self.shown:
            p50, p99 = 1e3 * np.quantile(self.seconds, [0.5, 0.99])
            said = (
                f"shadow: {self.shown} decisions, in {self.same / self.shown:.0%} of them the action that was executed"
            )
            self.announce(self.models.news(f"{said}; p50 {p50:.2f} ms, p99 {p99:.2f} ms"))

    def settle(self) -> None:
        """Between two decisions, or while there are none, another policy may take over."""
        if news := self.models.settle():
            self.announce(news)
            self.begin()

    def on_candidates(self, candidates: CandidateSet) -> None:
        """Decide with the policy that drives from now on, and keep the set to try the next one with."""
        self.settle()
        self.models.remember(candidates)
        super().on_candidates(candidates)

    def choose(self, candidates: CandidateSet) -> Singles | None:
        """What the policy that drives asks for."""
        if self.actor is None:
            return None
        began = time.perf_counter()
        action = self.actor(candidates)
        self.seconds.append(time.perf_counter() - began)
        self.asked = (candidates.id, action)
        self.promises[candidates.stamp_ns] = self.actor.value
        if len(self.promises) > PROMISES:
            self.promises.pop(next(iter(self.promises)))
        return action

    def on_decision(self, verdict: Verdict) -> None:
        """What became of a request; only what is the policy's own doing counts."""
        if not self.active or self.held or self.actor is None or verdict.id == 0:
            return
        answered = self.asked is not None and self.asked[0] == verdict.id
        if self.shadow:
            self.shown += answered
            self.same += answered and np.array_equal(self.asked[1], verdict.action)  # type: ignore[index]
            return
        refused = answered and verdict.reason in ("uncertified_request", "malformed_request")
        late = verdict.reason == "no_request" and verdict.message.startswith(NO_REQUEST.what)
        if refused or late or (answered and verdict.reason in ("request", "plan_requested")):
            if why := self.watch.note(refused, late):
                self.announce(self.models.back(why))
                self.begin()

    def on_outcome(self, arrived: tuple[OutcomeTable, int, str]) -> None:
        """What came of the action before a state. A simulator says so before the decision on that state, a robot after.

        So the one before is looked at, whose decision is made.
        """
        before, self.outcome = self.outcome, arrived
        if not self.active or self.shadow or self.actor is None or before is None:
            return
        values, stamp_ns, _ = before
        promise = self.promises.pop(stamp_ns, np.nan)
        if why := self.calibration.note(promise, values["reward"], values["first"] > 0, values["terminated"] > 0):
            self.announce(self.models.back(why))
            self.begin()

    def on_swap(self, path: str) -> None:
        """Somebody asks for another policy."""
        if refused := self.models.swap(Path(path)):
            self.announce(self.models.news(f"refused: {refused}", path))

    def on_rollback(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Go back, now."""
        news = self.models.back("by a person")
        self.announce(news)
        self.begin()
        response.success, response.message = news.epoch > 0, news.said
        return response

    def announce(self, news: News) -> None:
        """On `model/active`, and in the log."""
        self.active_model.publish(tables.encode_news(news))
        self.get_logger().info(f"policy {news.epoch}: {news.said} {news.path}")


def main() -> None:
    """Run the node as a process."""
    lifecycle.main(Inference)


if __name__ == "__main__":
    main()
