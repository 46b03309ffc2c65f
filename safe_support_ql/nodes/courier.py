"""Carries the files of a run between a robot and the machine that learns from them, piece by piece, both ways.

Each side has a courier. It asks for what it lacks by name, place, and a checksum of what it has just before that place,
and the other side answers with what follows. So nothing depends on a message that is lost or comes twice; a file that
was written anew is fetched anew; and a link that is down costs time, and no data: the files stay where they were made.
"""

from __future__ import annotations

import array
import json
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_msgs.msg import MultiArrayDimension, String, UInt8MultiArray

from safe_support_ql.nodes import topics
from safe_support_ql.recording.files import JOURNAL

PIECE = 48 * 1024  # bytes, less than a datagram
TAIL = 4096  # bytes before a place whose checksum has to agree
PATIENCE_S = 1.0  # with an answer
REST_S = 0.5  # between two looks at a file that is complete
SYNCED_S = 2.5  # what was written before is on the disk (recorder: SYNC_S), and outlives a power loss


class Courier:
    """See the module. Call `work` often; nothing else happens by itself."""

    def __init__(self, node: Node, run: str, folder: Path, gives: tuple[str, ...], takes: tuple[str, ...]) -> None:
        """Files `takes` are fetched into `folder`, `gives` are served from there. `run` '': that of who answers first.

        `may_give(name, size of the robot's journal)` decides whether a file is given now.
        """
        self.run, self.folder = run, folder
        self.may_give: Callable[[str, int], bool] = lambda name, size: True
        self.size = 0  # of the robot's journal, sent with every question
        self._gives = gives
        self.renewed: Callable[[str], None] = lambda name: None  # a file that was begun is another one now
        self._totals: dict[str, int] = {}  # bytes that the other side has
        self._sizes: dict[str, deque[tuple[float, int]]] = {name: deque() for name in gives}
        self._due = dict.fromkeys(takes, 0.0)
        self.problem = ""  # why nothing can be kept here
        self.other = ""  # another run that was heard
        self.heard = 0.0  # when the other side last said something, by the steady clock
        self._wants = node.create_publisher(String, topics.COURIER_WANT, topics.CHAIN)
        self._parts = node.create_publisher(UInt8MultiArray, topics.COURIER_PART, topics.CHAIN)
        node.create_subscription(String, topics.COURIER_WANT, self._on_want, topics.CHAIN)
        node.create_subscription(UInt8MultiArray, topics.COURIER_PART, self._on_part, topics.CHAIN)

    def work(self) -> None:
        """Ask for what is lacking."""
        now = time.monotonic()
        for name, due in self._due.items():
            if now < due:
                continue
            self._due[name] = now + PATIENCE_S
            have = _size(self.folder / name)
            question = {"run": self.run, "name": name, "at": have, "tail": _tail(self.folder / name, have)}
            self._wants.publish(String(data=json.dumps(question | {"size": self.size})))

    def complete(self, *names: str) -> bool:
        """Whether these were fetched as far as the other side has them."""
        return all(self._totals.get(name, 0) == _size(self.folder / name) > 0 for name in names)

    def forget(self, *names: str) -> None:
        """Fetch these anew."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
            self._totals.pop(name, None)
            self._due[name] = 0.0

    def _on_want(self, message: Any) -> None:
        try:
            question = json.loads(message.data)
            run, name, at, tail = (question[key] for key in ("run", "name", "at", "tail"))
            at, tail, size = int(at), int(tail), int(question["size"])
            if name not in self._gives or not self.run or not 0 <= at < 2**40:
                return
            if run != self.run and JOURNAL not in self._gives:
                return  # a policy is for the run that it was learnt from; a journal says whose it is
        except (ValueError, KeyError, TypeError, OverflowError):
            return  # no question of a courier
        path, self.heard = self.folder / name, time.monotonic()
        if not self.may_give(name, size) or not path.exists():
            return
        total, asked = self._synced(name), at
        if at > _size(path) or tail != _tail(path, at):
            at = 0  # another file than the one that was begun
        with path.open("rb") as file:
            file.seek(at)
            data = file.read(max(0, min(PIECE, total - at)))
        answer = UInt8MultiArray(data=array.array("B", data))
        for label, number in ((self.run, asked), (name, at), ("total", total)):
            answer.layout.dim.append(MultiArrayDimension(label=label, size=number >> 32, stride=number & 0xFFFFFFFF))
        self._parts.publish(answer)

    def _synced(self, name: str) -> int:
        """Bytes of a file that were there SYNCED_S ago."""
        now, sizes = time.monotonic(), self._sizes[name]
        sizes.append((now, _size(self.folder / name)))
        while len(sizes) > 1 and now - sizes[1][0] >= SYNCED_S:
            sizes.popleft()
        return sizes[0][1] if now - sizes[0][0] >= SYNCED_S or not name.endswith((".bin", ".jsonl")) else 0

    def _on_part(self, message: Any) -> None:
        if len(message.layout.dim) != 3:
            return
        (run, asked), (name, at), (_, total) = (
            (one.label, (one.size << 32) | one.stride) for one in message.layout.dim
        )
        if name not in self._due:
            return
        if self.run not in ("", run):
            self.other = run
            return
        self.run, self.heard = run, time.monotonic()
        path, data = self.folder / name, bytes(message.data)
        have = _size(path)
        if asked != have:
            return  # answered before, or not to what is here
        if at == 0 < have:
            self.renewed(name)
        try:
            with path.open("ab" if at else "wb") as file:
                file.write(data)
        except OSError as error:  # what was written of it is told by the next question
            self.problem = f"{path}: cannot be written ({error.strerror}); it is tried again"
            return
        have, self.problem = at + len(data), ""
        self._totals[name] = total
        self._due[name] = time.monotonic() + (REST_S if have >= total else 0.0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path, end: int) -> int:
    """Checksum of the last bytes before `end`."""
    if not end or not path.exists():
        return 0
    begin = max(0, end - TAIL)
    with path.open("rb") as file:
        file.seek(begin)
        return zlib.crc32(file.read(end - begin))
