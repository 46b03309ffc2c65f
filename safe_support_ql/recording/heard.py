"""What the channels of a robot showed at the instant of a decision: for whoever computes a reward."""

from collections import deque
from collections.abc import Iterable

from safe_support_ql.robots.base import Floats
from safe_support_ql.robots.world import Channel

KEPT = 64  # messages of a channel


class Heard:
    """The newest messages of each channel."""

    def __init__(self, channels: Iterable[Channel]) -> None:
        """Nothing was heard yet."""
        self._channels = {channel.name: channel for channel in channels}
        self.forget()

    def forget(self) -> None:
        """The robot stands somewhere else."""
        self._heard: dict[str, deque[tuple[int, Floats]]] = {name: deque(maxlen=KEPT) for name in self._channels}

    def add(self, channel: str, stamp_ns: int, vector: Floats) -> None:
        """A message."""
        self._heard[channel].append((stamp_ns, vector))

    def complete(self, stamp_ns: int) -> bool:
        """Whether every channel is known up to this instant, where it is measured with the state."""
        return all(
            channel.latched or not channel.with_state or (bool(heard) and heard[-1][0] >= stamp_ns)
            for channel, heard in zip(self._channels.values(), self._heard.values(), strict=True)
        )

    def at(self, stamp_ns: int) -> dict[str, Floats]:
        """The newest vector of each channel at this instant; empty where one is missing."""
        found = {}
        for name, channel in self._channels.items():
            known = [vector for at, vector in self._heard[name] if channel.latched or at <= stamp_ns]
            if not known:
                return {}
            found[name] = known[-1]
        return found
