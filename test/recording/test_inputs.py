"""inputs.bin: damage costs what it is in, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_support_ql.recording import inputs
from safe_support_ql.recording.inputs import BEGIN, InputsReader, InputsWriter

TOPICS = [("odom", "nav_msgs/msg/Odometry"), ("scan", "sensor_msgs/msg/LaserScan")]


def write(path: Path, count: int = 50) -> list[tuple[int, int, bytes]]:
    writer = InputsWriter(path, TOPICS)
    entries = [(k, k % 2, bytes([k]) * (10 + 7 * k)) for k in range(count)]
    for k, (time_ns, topic, data) in enumerate(entries):
        writer.message(time_ns, topic, data)
        if k % 5 == 0:
            writer.mark(time_ns, k)
    writer.close()
    return entries


def messages(path: Path) -> list[tuple[int, int, bytes]]:
    return [entry for entry in InputsReader(path) if entry[1] < len(TOPICS)]


@pytest.mark.parametrize("place", ["data", "length", "topic", "checksum"])
def test_a_flipped_bit_costs_one_entry_also_over_a_resume(place: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.bin"
    entries = write(path)
    content = bytearray(path.read_bytes())
    begin = content.index(entries[20][2]) - inputs._HEAD.size
    content[begin + {"data": 20, "length": 12, "topic": 9, "checksum": 14 + len(entries[20][2])}[place]] ^= 0x40
    path.write_bytes(content)
    left = [entry for k, entry in enumerate(entries) if k != 20]
    assert messages(path) == left
    InputsWriter(path, TOPICS).close()
    reader = InputsReader(path)
    assert [entry for entry in reader if entry[1] < len(TOPICS)] == left and reader.damaged > 0
    assert list(InputsReader(path))[-1][1] == BEGIN


def test_a_torn_last_entry_is_cut_off_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "inputs.bin"
    entries = write(path)
    path.write_bytes(path.read_bytes()[:-3])
    InputsWriter(path, TOPICS).close()
    reader = InputsReader(path)
    assert messages(path) == entries[:-1] and len(list(reader)) > len(entries) and reader.damaged == 0


@pytest.mark.parametrize("damage", [b"\0" * 4096, b"{", b"not ours\n"])
def test_a_file_that_cannot_be_read_at_all_is_set_aside_and_kept(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "inputs.bin"
    path.write_bytes(damage)
    writer = InputsWriter(path, TOPICS)
    writer.message(1, 0, b"x")
    writer.close()
    assert writer.aside is not None and writer.aside.read_bytes() == damage and messages(path) == [(1, 0, b"x")]


def test_other_topics_are_refused_and_what_no_sensor_sends_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inputs.bin"
    monkeypatch.setattr(inputs, "LONGEST", 100)
    writer = InputsWriter(path, TOPICS)
    writer.message(1, 0, b"x" * 101)
    writer.message(2, 0, b"y")
    writer.close()
    assert messages(path) == [(2, 0, b"y")]
    with pytest.raises(ValueError, match="was recorded from other topics; start a new run"):
        InputsWriter(path, TOPICS[:1])
