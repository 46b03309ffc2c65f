"""What is refused is counted and told, and what is a programming error is not caught."""

from __future__ import annotations

import time

import pytest

from safe_support_ql.nodes.refusals import LONGEST, Refusals, decoded


def test_each_topic_is_told_at_once_and_a_flood_of_it_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    refusals = Refusals(told.append)
    for _ in range(1000):
        refusals.refuse("odom", "odom: lacks a frame")
    refusals.refuse("scan", "scan: lacks a frame")
    now[0] += 1.0
    refusals.refuse("odom", "odom: lacks a frame")
    assert told[0] == "odom refused (1 so far): odom: lacks a frame"
    assert told[1] == "scan refused (1 so far): scan: lacks a frame"
    assert told[2] == "odom refused (1001 so far): odom: lacks a frame" and len(told) == 3
    assert refusals.counts == {"odom": 1001, "scan": 1}


def test_only_what_a_decoder_says_is_a_refusal() -> None:
    refused: list[str] = []
    heard: list[int] = []
    decoded(int, heard.append, refused.append)("7")
    decoded(int, heard.append, refused.append)("x")
    assert heard == [7] and len(refused) == 1 and "'x'" in refused[0]
    decoded(int, heard.append, refused.append)("x" * 10_000)
    assert len(refused[1]) <= LONGEST + 3, "a message may hold a text of any length"
    with pytest.raises(TypeError):
        decoded(int, heard.append, refused.append)(None)
    with pytest.raises(ValueError, match="'x'"):
        decoded(str, int, refused.append)("x")
