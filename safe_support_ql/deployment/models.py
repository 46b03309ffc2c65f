"""The policy that drives, the one before it, and the one that is being loaded in its place, while decisions go on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safe_support_ql.deployment.news import News
from safe_support_ql.deployment.policy import OnnxPolicy
from safe_support_ql.safety.candidates import CandidateSet

RECENT = 50  # candidate sets on which a new policy is tried before it drives


class Models:
    """See the module. Decisions are made by one thread, which calls `settle` before each; loading has its own."""

    def __init__(self, first: OnnxPolicy, load: Callable[[Path], OnnxPolicy]) -> None:
        """`load` returns a policy that may drive here, or raises ValueError with the reason."""
        self.active: OnnxPolicy | None = first
        self.epoch = 1
        self._before: OnnxPolicy | None = None
        self._load = load
        self._recent: deque[CandidateSet] = deque(maxlen=RECENT)
        self._thread: threading.Thread | None = None
        self._result: OnnxPolicy | str = ""
        self._asked = ""  # path of what is being loaded
        self._given_up = False  # whether what is being loaded must not drive any more

    def news(self, said: str, asked: str = "") -> News:
        """The present state, with a line about how it came, and which request that answers."""
        if self.active is None:
            return News(0, "", "", said, asked)
        return News(self.epoch, str(self.active.path), self.active.manifest.policy_sha256, said, asked)

    def remember(self, candidates: CandidateSet) -> None:
        """What is decided on now, to try the next policy with."""
        self._recent.append(candidates)

    def swap(self, path: Path) -> str:
        """Load `path` beside the decisions; why not, '' if that has begun."""
        if self._thread is not None:
            return f"{path}: another policy is being loaded; wait for it"
        recent = list(self._recent)

        def load() -> None:
            try:
                policy = self._load(path)
                for candidates in recent:
                    tried(policy, candidates)
                self._result = policy
            except ValueError as error:
                self._result = str(error)
            except Exception as error:  # a thread has nobody else to tell
                self._result = f"{path}: {type(error).__name__}: {error}"

        self._asked = str(path)
        self._thread = threading.Thread(target=load, daemon=True)
        self._thread.start()
        return ""

    def settle(self) -> News | None:
        """Between two decisions: let the policy that was loaded drive, or say why not; None where nothing happened."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._given_up:
            self._given_up, self._result = False, "it was rolled back while another policy was loaded"
        if isinstance(self._result, str):
            return self.news(f"refused: {self._result}", self._asked)
        self._before, self.active, self._result = self.active, self._result, ""
        self.epoch += 1
        return self.news("swapped", self._asked)

    def back(self, why: str) -> News:
        """To the policy before, once; without one, none drives any more. What is being loaded never will."""
        self._given_up = self._thread is not None
        self.active, self._before = self._before, None
        self.epoch += self.active is not None
        after = "" if self.active is not None else ", and there is none before it: the plan runs"
        return self.news(f"rolled back: {why}{after}")


def tried(policy: OnnxPolicy, candidates: CandidateSet) -> None:
    """Raises ValueError if a policy answers a recorded candidate set with none of its support, or not repeatably."""
    zeros = np.zeros(len(candidates.margin), np.float32)
    inputs = (candidates.observation, candidates.actions, candidates.support, candidates.is_plan, zeros, zeros)
    (index, _, log_prob), (again, _, the_same) = policy.act(*inputs), policy.act(*inputs)
    if index != again or not np.array_equal(log_prob, the_same):
        raise ValueError(f"{policy.path}: answers the same candidates in two ways; export it again")
