"""What happened to the policies of a robot, as it travels between nodes."""

from dataclasses import dataclass

LOADED = "loaded"  # said by the first policy


@dataclass(frozen=True)
class News:
    """`epoch` counts the policies that have driven since inference was configured; 0: none drives any more.

    `asked`: the path on `model/swap` that this answers, '' if it answers none.
    """

    epoch: int
    path: str
    sha256: str
    said: str
    asked: str = ""
