"""The journal: nothing recorded is lost, damage is noticed, and codes mean what they meant when they were written."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql.recording import journal
from safe_support_ql.recording.journal import (
    FORMAT_1,
    FORMAT_1_TABLES,
    HEADER_BYTES,
    TABLES,
    JournalReader,
    JournalWriter,
    Tables,
    read_header,
    record_type,
    unaccounted,
)

HEADER = {"observation": 3, "candidates": 4, "action": 2, "robot": "x"}


def records(start: int, count: int) -> np.ndarray:
    rows = np.zeros(count, record_type(3, 4, 2))
    rows["sequence"] = np.arange(start, start + count)
    rows["observation"] = np.random.default_rng(start).random((count, 3))
    return rows


def test_what_was_appended_is_read_as_it_grows(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "journal.bin", HEADER)
    reader = JournalReader(tmp_path / "journal.bin")
    for start in (0, 5, 10):
        writer.append(records(start, 5))
        got = reader.read()
        np.testing.assert_array_equal(got["sequence"], np.arange(start, start + 5))
        np.testing.assert_array_equal(got["observation"], records(start, 5)["observation"])
    assert len(reader.read()) == 0


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_record_is_cut_off_and_writing_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.bin"
    writer = JournalWriter(path, HEADER)
    writer.append(records(0, 3))
    writer.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = JournalWriter(path, HEADER)
    assert again.last_sequence == 1
    again.append(records(2, 1))
    np.testing.assert_array_equal(JournalReader(path).read()["sequence"], [0, 1, 2])


def written(path: Path, count: int) -> tuple[bytes, int]:
    """The content of a journal of `count` records, and the size of a record."""
    writer = JournalWriter(path, HEADER)
    writer.append(records(0, count))
    writer.close()
    return path.read_bytes(), writer.type.itemsize


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda d, n: flip(d, HEADER_BYTES + 2 * n + 40), [0, 1, 3, 4]),
        (lambda d, n: flip(d, HEADER_BYTES), [1, 2, 3, 4]),
        (lambda d, n: flip(flip(d, HEADER_BYTES + n), HEADER_BYTES + 2 * n), [0, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES + n + 7] + d[HEADER_BYTES + n + 10 :], [0, 2, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES] + b"???" + d[HEADER_BYTES:], [0, 1, 2, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES + n] + bytes(5000) + d[HEADER_BYTES + n :], [0, 1, 2, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES + n] + bytes(n) + d[HEADER_BYTES + 2 * n :], [0, 2, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES + n] + d[HEADER_BYTES :], [0, 1, 2, 3, 4]),
        (lambda d, n: d[: HEADER_BYTES] + d[-2 * n : -n] + d[HEADER_BYTES + n : -2 * n] + d[HEADER_BYTES:][:n] + d[-n:],
         [0, 1, 2, 3, 4]),
    ],
    ids=["bit", "first", "two", "cut out", "put before", "put in", "zeros", "twice", "swapped"],
)  # fmt: skip
def test_damage_costs_the_damaged_record_alone(tmp_path: Path, damage, left: list[int]) -> None:
    path = tmp_path / "journal.bin"
    data, size = written(path, 5)
    path.write_bytes(damaged := damage(data, size))
    reader = JournalReader(path)
    assert reader.read()["sequence"].tolist() == left
    holes = reader.damage
    assert bool(holes) == (len(left) < 5 or len(damaged) % size != len(data) % size)
    for number in set(range(5)) - set(left):
        assert any(hole.may_have_held(number, number) for hole in holes)
    again = JournalWriter(path, HEADER)
    again.append(records(5, 2))
    assert path.read_bytes()[: len(damaged)] == damaged, "nothing is thrown away"
    assert reader.read()["sequence"].tolist() == [5, 6]
    assert JournalReader(path).read()["sequence"].tolist() == [*left, 5, 6]


def test_damage_at_the_end_is_kept_unless_it_is_an_incomplete_record(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    data, size = written(path, 3)
    path.write_bytes(damaged := data[:-size] + bytes(2 * size + 3))
    reader = JournalReader(path)
    assert reader.read()["sequence"].tolist() == [0, 1] and not reader.torn
    assert [(hole.start, hole.end) for hole in reader.damage] == [(len(data) - size, len(damaged))]
    again = JournalWriter(path, HEADER)
    again.append(records(3, 1))
    assert path.read_bytes()[: len(damaged)] == damaged
    assert reader.read()["sequence"].tolist() == [3], "one that follows the file finds it as well"


def test_a_stretch_has_the_hash_that_any_tool_prints(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    writer = JournalWriter(path, HEADER)
    writer.append(records(0, 2))
    first = writer.count()
    assert (first["from"], first["records"], writer.uncounted) == (0, 2, 0)
    assert first["bytes"] == HEADER_BYTES + 2 * writer.type.itemsize
    writer.append(records(2, 1))
    writer.close()
    resumed = JournalWriter(path, HEADER, counted=first["bytes"])
    resumed.append(records(3, 1))
    for state in (first, resumed.count()):
        content = path.read_bytes()[state["from"] : state["bytes"]]
        assert state["sha256"] == hashlib.sha256(content).hexdigest()


def test_another_run_is_refused(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "journal.bin", HEADER).close()
    with pytest.raises(ValueError, match="other settings"):
        JournalWriter(tmp_path / "journal.bin", {**HEADER, "robot": "y"})
    (tmp_path / "other").write_text("hello")
    with pytest.raises(ValueError, match="is not a journal"):
        JournalReader(tmp_path / "other")


@pytest.mark.parametrize(
    ("journalled", "listed", "last", "expected"),
    [
        ([1, 2, 5, 6, 9], [], 9, [(0, 0), (3, 4), (7, 8)]),
        ([1, 2, 5, 6, 9], [(7, 8), (0, 0), (3, 3)], 12, [(4, 4), (10, 12)]),
        ([0, 9], [(3, 4), (4, 6), (12, 15)], 15, [(1, 2), (7, 8), (10, 11)]),
        ([], [(0, 10**15)], 10**15 + 1, [(10**15 + 1, 10**15 + 1)]),
        ([], [], -1, []),
        ([0, 1, 2], [], 1, []),
    ],
)
def test_numbers_that_are_nowhere_are_found(
    journalled: list[int], listed: list[tuple[int, int]], last: int, expected: list[tuple[int, int]]
) -> None:
    assert unaccounted(np.array(journalled, np.uint64), listed, last) == expected


# --- codes -----------------------------------------------------------------------------------------------------------

# As a version of this program may have them that sorts its names and hands out its bits from above.
OTHER = Tables(
    tuple(sorted(TABLES.verdicts)),
    tuple(sorted(TABLES.reasons, reverse=True)),
    (*reversed(TABLES.phases), "retired"),
    {name: 128 >> i for i, name in enumerate(TABLES.flags)},
)


def coded(tables: Tables, start: int = 0) -> np.ndarray:
    """Two records whose codes in `tables` mean the same whatever the order there."""
    rows = records(start, 2)
    rows["verdict"] = [tables.verdicts.index(name) for name in ("plan_held", "certified")]
    rows["reason"] = [tables.reasons.index(name) for name in ("latched", "request")]
    rows["phase"] = [tables.phases.index(name) for name in ("simulate", "collection")]
    bits = tables.flags
    rows["flags"] = [[bits["certified"] | bits["used"], bits["plan"], bits["offered"], 0], [bits["intervened"]] * 4]
    return rows


def same_codes(found: np.ndarray, expected: np.ndarray) -> None:
    for name in ("sequence", "verdict", "reason", "phase", "flags", "observation"):
        np.testing.assert_array_equal(found[name], expected[name], name)


def test_tuples_that_are_reordered_rewrite_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.bin"
    with monkeypatch.context() as before:
        before.setattr(journal, "TABLES", OTHER)
        writer = JournalWriter(path, HEADER)
        writer.append(coded(OTHER))
        writer.close()
    same_codes(JournalReader(path).read(), coded(TABLES))
    written = path.read_bytes()
    again = JournalWriter(path, HEADER)
    again.append(coded(TABLES, 2))
    again.close()
    assert path.read_bytes()[: len(written)] == written
    same_codes(JournalReader(path).read(), np.concatenate([coded(TABLES), coded(TABLES, 2)]))
    with monkeypatch.context() as before:
        before.setattr(journal, "TABLES", OTHER)
        same_codes(JournalReader(path).read(), np.concatenate([coded(OTHER), coded(OTHER, 2)]))


def test_the_header_names_every_code(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "journal.bin", HEADER).close()
    header = read_header(tmp_path / "journal.bin")
    assert header["format"] == "safe_support_ql journal 2"
    for name in ("verdicts", "reasons", "phases"):
        assert header[name] == list(getattr(TABLES, name))
    assert header["flags"] == {"certified": 1, "band": 2, "plan": 4, "used": 8, "intervened": 16, "offered": 32}


def format_1(path: Path) -> bytes:
    """A journal as the first version wrote it: two records, no tables."""
    line = json.dumps({"format": FORMAT_1, **HEADER}, sort_keys=True).encode()
    body = b"".join(journal._sealed(row) for row in coded(FORMAT_1_TABLES))
    path.write_bytes(line.ljust(HEADER_BYTES - 1) + b"\n" + body)
    return path.read_bytes()


def test_a_journal_of_the_first_format_is_read_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.bin"
    written = format_1(path)
    for tables in (TABLES, OTHER):
        monkeypatch.setattr(journal, "TABLES", tables)
        same_codes(JournalReader(path).read(), coded(tables))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="other settings"):
        JournalWriter(path, {**HEADER, "robot": "y"})
    writer = JournalWriter(path, HEADER)
    assert writer.last_sequence == 1
    writer.append(coded(TABLES, 2))
    writer.close()
    assert path.read_bytes()[: len(written)] == written, "it stays of the format that it is"
    same_codes(JournalReader(path).read()[2:], coded(TABLES, 2))


def test_a_name_that_the_other_side_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.bin"
    with monkeypatch.context() as before:
        before.setattr(journal, "TABLES", replace(TABLES, reasons=(*TABLES.reasons, "retired")))
        writer = JournalWriter(path, HEADER)
        rows = coded(TABLES)
        writer.append(rows)
        same_codes(JournalReader(path).read(), rows)
        rows["sequence"] += 2
        rows["reason"] = len(TABLES.reasons)
        writer.append(rows)
        writer.close()
    with pytest.raises(ValueError, match=r"journal\.bin: .*reason 9 \(retired\), which is unknown"):
        JournalReader(path).read()
    monkeypatch.setattr(journal, "TABLES", replace(TABLES, reasons=(*TABLES.reasons, "new")))
    with pytest.raises(ValueError, match="no code for new"):
        JournalWriter(path, HEADER)


def test_a_header_without_its_tables_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    path.write_bytes(json.dumps({"format": journal.FORMAT, **HEADER}).encode().ljust(HEADER_BYTES))
    with pytest.raises(ValueError, match="does not name its codes"):
        JournalReader(path)


@pytest.mark.parametrize("said", [None, "x", -1, 10**9])
def test_a_header_without_its_sizes_is_damaged(tmp_path: Path, said: object) -> None:
    path = tmp_path / "journal.bin"
    JournalWriter(path, HEADER).close()
    header = read_header(path) | {"observation": said}
    path.write_bytes(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
    with pytest.raises(ValueError, match="its header says observation = .* damaged"):
        JournalReader(path)


def test_only_a_beginning_of_this_header_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    JournalWriter(path, HEADER).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    JournalWriter(path, HEADER).close()
    assert path.read_bytes() == whole
    path.write_bytes(b"?" + whole[1:100])
    with pytest.raises(ValueError, match="shorter than its header"):
        JournalWriter(path, HEADER)
    assert path.read_bytes() == b"?" + whole[1:100]
