"""When a policy that drives is to be taken back: too many of its requests are refused, or come too late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from safe_support_ql.parameters import param


@dataclass(frozen=True)
class DeploymentConfig:
    """When inference goes back to the policy before; without one it asks for nothing any more, and the plan runs."""

    window: int = param(100, "1", 10, 100_000, "newest decisions that are looked at")
    refused: float = param(0.1, "1", 0.0, 1.0, "share of them in which the request was not certified, at most")
    late: float = param(0.1, "1", 0.0, 1.0, "share of them without a request in time, at most")


class Watch:
    """The newest decisions on one policy."""

    def __init__(self, config: DeploymentConfig) -> None:
        """A policy begins to drive."""
        self.config = config
        self._refused: deque[bool] = deque(maxlen=config.window)
        self._late: deque[bool] = deque(maxlen=config.window)

    def note(self, refused: bool, late: bool) -> str:
        """One decision; why this policy must not go on, '' if it may. A tenth of a window is too few to judge by."""
        self._refused.append(refused)
        self._late.append(late)
        n, config = self.config.window, self.config
        for what, values, most in (
            ("were refused", self._refused, config.refused),
            ("came too late, or not at all", self._late, config.late),
        ):
            # Of a whole window, also while it fills: a policy that is never certified is known after a tenth of it.
            if sum(values) > most * n:
                return f"{sum(values)} of its newest {len(values)} requests {what}, more than {most:.0%} of {n}"
        return ""
