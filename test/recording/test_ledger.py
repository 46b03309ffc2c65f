"""The ledger: events are numbered and chained, and damage is noticed. Kinds of damage: test_damage.py."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from safe_support_ql.recording import chain
from safe_support_ql.recording.ledger import LedgerWriter, newest_head, open_ledger, read_ledger


def test_ledger_survives_a_torn_line_and_continues_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerWriter(path)
    ledger.append("visit", {"phase": "simulate", "what": "at x"})
    ledger.append("note", {"ticks": 3})
    ledger.close()
    path.write_bytes(path.read_bytes()[:-4])
    assert [event["event"] for event in read_ledger(path)] == ["visit"]
    again = LedgerWriter(path)
    again.append("run_end", {})
    assert [event["seq"] for event in read_ledger(path)] == [0, 1]


def test_a_missing_line_inside_the_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerWriter(path)
    for _ in range(3):
        ledger.append("note", {})
    ledger.close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(ValueError, match="event 1 is missing"):
        read_ledger(path)
    path.write_text(lines[0] + "garbage\n" + lines[2])
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read_ledger(path)


def write(path: Path, count: int = 3) -> LedgerWriter:
    ledger = LedgerWriter(path)
    for number in range(count):
        ledger.append("note", {"value": number})
    ledger.close()
    return ledger


def old(path: Path, count: int = 3) -> bytes:
    """A ledger of format 1."""
    path.write_text("".join(json.dumps({"seq": n, "event": "note", "value": n}) + "\n" for n in range(count)))
    return path.read_bytes()


def test_the_chain_is_what_the_page_says(tmp_path: Path) -> None:
    """Whoever reads only the description can check a ledger."""
    path = tmp_path / "ledger.jsonl"
    head = write(path).head
    before = hashlib.sha256(b"").hexdigest()
    for line in path.read_text().splitlines():
        text, _, rest = line.rpartition(', "hash": "')
        before = hashlib.sha256((before + text + "}").encode()).hexdigest()
        assert rest == before + '"}'
    assert head == before == newest_head(path) == open_ledger(path).head


def test_a_resumed_ledger_continues_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = write(path).head
    second = LedgerWriter(path)
    assert second.head == first
    second.append("note", {})
    assert [event["hash"] for event in read_ledger(path)][2:] == [first, second.head]


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(read_ledger(path)) == 3 and open_ledger(path).torn == 0
    LedgerWriter(path).close()
    assert path.read_bytes() == whole


def test_a_damaged_ledger_is_neither_cut_nor_continued(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path)
    damaged = path.read_bytes().replace(b'"value": 1', b'"value": 7')
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="line 2 does not fit its hash"):
        LedgerWriter(path)
    assert path.read_bytes() == damaged


def test_a_ledger_of_the_first_format_is_read_and_gets_a_chain_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = old(path)
    found = open_ledger(path)
    assert (len(found.events), found.unchained, found.head, newest_head(path)) == (3, 3, "", "")
    LedgerWriter(path).close()
    assert path.read_bytes() == before
    ledger = LedgerWriter(path)
    ledger.append("note", {})
    found = open_ledger(path)
    assert (len(found.events), found.unchained, found.head) == (4, 3, ledger.head)
    path.write_bytes(path.read_bytes().replace(b'"value": 1', b'"value": 7'))
    with pytest.raises(ValueError, match="line 4 does not fit its hash"):
        open_ledger(path)


@pytest.mark.parametrize("lost", ["first", "last", "all but the first"])
def test_a_line_cannot_pass_for_an_old_one(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path)
    lines = path.read_bytes().splitlines()
    for i in {"first": [0], "last": [2], "all but the first": [1, 2]}[lost]:
        lines[i] = chain.unseal(lines[i])[0]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match="does not fit its hash|has lost its hash"):
        open_ledger(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"seq": 3, "event": "counters", "phase": "simulate"}', "event 'counters' lacks"),
        ('{"seq": 3, "event": "gap", "first": 0, "last": null, "why": ""}', "'last' is None, which cannot be"),
        ('{"seq": 3, "event": "gap", "first": 0, "last": NaN, "why": ""}', "'last' is nan, which cannot be"),
        ('{"seq": 3, "event": "run_start", "time": 1e999}', "'time' is inf, which cannot be"),
        ('{"seq": 3, "event": "phase", "time": true, "phase": "simulate"}', "'time' is True, which cannot be"),
        ('{"seq": 3, "event": "run_start", "time": 1, "files": [1]}', "'files' is [1], which cannot be"),
        ('{"seq": 1' + "0" * 30 + ', "event": "note"}', "line 4 is damaged"),
        ('{"seq": "3", "event": "note"}', "line 4 is damaged"),
        ("[" * 100_000, "line 4 is damaged"),
    ],
)
def test_without_a_chain_what_no_reader_can_use_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "ledger.jsonl"
    old(path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError) as error:
        read_ledger(path)
    assert "line 4" in str(error.value) and said in str(error.value) and "\n" not in str(error.value)


# --- with a key ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    monkeypatch.setenv(chain.KEY_FILE, str(tmp_path / "key"))
    return tmp_path / "ledger.jsonl"


def test_with_a_key_the_chain_is_an_hmac(keyed: Path) -> None:
    write(keyed, 1)
    text, kind, found = chain.unseal(keyed.read_bytes().rstrip(b"\n"))
    start = hmac.new(b"0123456789abcdef", b"", "sha256").hexdigest()
    assert kind == "hmac"
    assert found == hmac.new(b"0123456789abcdef", start.encode() + text, "sha256").hexdigest()


def test_without_the_key_nobody_reads_continues_or_mends(keyed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(keyed)
    written = keyed.read_bytes()
    keyed.with_name("key").write_bytes(b"fedcba9876543210")
    with pytest.raises(ValueError, match="line 1 does not fit its hash; .* or the key is another one"):
        read_ledger(keyed)
    monkeypatch.delenv(chain.KEY_FILE)
    for use in (read_ledger, LedgerWriter):
        with pytest.raises(ValueError, match="its chain has a key; name the file of the key in SAFE_SUPPORT_QL_KEY"):
            use(keyed)
    assert keyed.read_bytes() == written


@pytest.mark.parametrize("kind", ["plain", "old"])
def test_with_a_key_a_ledger_without_it_is_not_believed(
    keyed: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Else a forger would compute plain hashes, or leave them out."""
    with monkeypatch.context() as context:
        context.delenv(chain.KEY_FILE)
        write(keyed) if kind == "plain" else old(keyed)
    for use in (read_ledger, LedgerWriter):
        with pytest.raises(ValueError, match="line 1 was written without a key; unset SAFE_SUPPORT_QL_KEY_FILE"):
            use(keyed)


def test_a_key_that_is_none_is_named(keyed: Path) -> None:
    keyed.with_name("key").write_bytes(b"short")
    with pytest.raises(ValueError, match="a key of 5 bytes is too short, must have at least 16"):
        LedgerWriter(keyed)
    keyed.with_name("key").unlink()
    with pytest.raises(ValueError, match="the key that SAFE_SUPPORT_QL_KEY_FILE names cannot be read"):
        LedgerWriter(keyed)
    assert not keyed.exists()
