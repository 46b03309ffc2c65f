"""Two couriers in one process: whatever is lost, repeated or written anew, the copy becomes what it should be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String, UInt8MultiArray

from safe_support_ql.nodes import courier as couriers
from safe_support_ql.nodes.courier import PIECE, Courier
from safe_support_ql.recording.files import CONFIG, JOURNAL, MANIFEST, POLICY


class Pair:
    """A robot's folder and a learner's."""

    def __init__(self, folder: Path) -> None:
        self.robot_folder, self.learner_folder = folder / "robot", folder / "learner"
        for one in (self.robot_folder, self.learner_folder):
            one.mkdir()
        self.node = rclpy.create_node("couriers")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.robot = Courier(self.node, "run 1", self.robot_folder, (CONFIG, JOURNAL), (MANIFEST, POLICY))
        self.learner = Courier(self.node, "", self.learner_folder, (MANIFEST, POLICY), (CONFIG, JOURNAL))

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            self.robot.work()
            self.learner.work()
            self.executor.spin_once(timeout_sec=0.02)

    def same(self, name: str) -> bool:
        copy = self.learner_folder / name
        return copy.exists() and copy.read_bytes() == (self.robot_folder / name).read_bytes()


@pytest.fixture
def pair(ros_domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(couriers, "SYNCED_S", 0.0)
    monkeypatch.setattr(couriers, "PATIENCE_S", 0.1)
    monkeypatch.setattr(couriers, "REST_S", 0.05)
    rclpy.init()
    made = Pair(tmp_path)
    yield made
    made.executor.shutdown()
    made.node.destroy_node()
    rclpy.shutdown()


def test_a_file_of_several_pieces_is_copied_and_followed_while_it_grows(pair: Pair) -> None:
    whole = bytes(range(256)) * (3 * PIECE // 256) + b"tail"
    path = pair.robot_folder / JOURNAL
    path.write_bytes(whole[: 2 * PIECE + 7])
    pair.until(lambda: pair.same(JOURNAL))
    with path.open("ab") as file:
        file.write(whole[2 * PIECE + 7 :])
    pair.until(lambda: pair.same(JOURNAL))
    assert pair.learner.run == "run 1" and pair.learner.complete(JOURNAL)


def test_a_file_that_was_written_anew_is_fetched_anew_and_that_is_said(pair: Pair) -> None:
    renewed: list[str] = []
    pair.learner.renewed = renewed.append
    (pair.robot_folder / JOURNAL).write_bytes(b"a" * 5000)
    pair.until(lambda: pair.same(JOURNAL))
    assert not renewed
    (pair.robot_folder / JOURNAL).write_bytes(b"b" * 7000)
    pair.until(lambda: pair.same(JOURNAL))
    assert renewed == [JOURNAL]


def test_answers_that_come_twice_late_or_from_nowhere_change_nothing(pair: Pair) -> None:
    sent: list[Any] = []
    publish = pair.robot._parts.publish

    def twice(message: UInt8MultiArray) -> None:
        sent.append(message)
        for one in (message, *sent[:2]):  # and the oldest ones again
            publish(one)

    pair.robot._parts.publish = twice
    pair.learner.renewed = lambda name: pytest.fail("nothing was written anew")
    (pair.robot_folder / JOURNAL).write_bytes(bytes(range(256)) * (4 * PIECE // 256))
    pair.until(lambda: pair.same(JOURNAL))
    publish(UInt8MultiArray(data=b"x"))
    odd = {"run": "run 1", "name": JOURNAL, "at": [], "tail": "x", "size": 1e999}
    for data in (
        "",
        "{",
        "[]",
        '{"run": 1}',
        json.dumps(odd),
        json.dumps(odd | {"at": "5", "tail": 0, "size": 1}),
        json.dumps({"run": "", "name": "../x", "at": 0, "tail": 0, "size": 0}),
    ):
        pair.learner._wants.publish(String(data=data))
    pair.until(lambda: True)
    for _ in range(20):
        pair.executor.spin_once(timeout_sec=0.02)
    assert pair.same(JOURNAL) and {one.name for one in pair.learner_folder.iterdir()} == {JOURNAL}


def test_only_what_a_side_gives_leaves_it_and_a_policy_only_when_it_is_time(pair: Pair) -> None:
    (pair.robot_folder / CONFIG).write_text("robot: x")
    (pair.learner_folder / POLICY).write_bytes(b"weights")
    (pair.learner_folder / MANIFEST).write_bytes(b"{}")
    (pair.robot_folder / "secret").write_text("no")
    asked: list[int] = []

    def may_give(name: str, size: int) -> bool:
        asked.append(size)
        return size >= 42 and len(asked) > 4

    pair.learner.may_give = may_give
    pair.until(lambda: pair.learner.run == "run 1" and len(asked) > 4)
    assert not (pair.robot_folder / POLICY).exists()
    pair.robot.size = 42
    pair.until(lambda: pair.robot.complete(MANIFEST, POLICY))
    assert (pair.robot_folder / POLICY).read_bytes() == b"weights"
    pair.learner._wants.publish(String(data=json.dumps({"run": "", "name": "secret", "at": 0, "tail": 0, "size": 0})))
    for _ in range(20):
        pair.executor.spin_once(timeout_sec=0.02)
    assert not (pair.learner_folder / "secret").exists()


def test_another_run_of_the_robot_is_told_from_the_one_that_was_begun(pair: Pair) -> None:
    pair.learner.run = "run 0"
    (pair.robot_folder / CONFIG).write_text("robot: x")
    pair.until(lambda: pair.learner.other == "run 1")
    assert not (pair.learner_folder / CONFIG).exists()
