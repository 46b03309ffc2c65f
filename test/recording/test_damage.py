"""Every kind of damage to the files of a run is found, or is harmless; one line says it, and nothing intact is lost.

A small run is recorded by the real writers: collection, a crash in it, resumption, evaluation, its end. It then has all
files that a finished run has. Each case damages a copy. What a kind of damage does is data: KINDS for a finished run,
CRASHED for one whose recorder was killed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from safe_support_ql import bringup, cli, config
from safe_support_ql.learning.checkpoint import MAGIC, load_checkpoint
from safe_support_ql.recording import chain
from safe_support_ql.recording.files import (
    CHECKPOINT,
    CONFIG,
    JOURNAL,
    LEDGER,
    MANIFEST,
    POLICY,
    SESSION,
    SUMMARY,
    write_json,
)
from safe_support_ql.recording.journal import HEADER_BYTES, JournalReader, record_type
from safe_support_ql.recording.ledger import newest_head, open_ledger, read_ledger
from safe_support_ql.recording.parts import OUTCOME_NAMES, Verdict
from safe_support_ql.recording.run_record import RunRecord
from safe_support_ql.recording.summary import progress, summarise
from safe_support_ql.safety.candidates import CandidateSet

K, D, A = 4, 3, 1
SIZE = record_type(D, K, A).itemsize
SETTINGS = config.load_robot("diff_drive")
HEADER = {"observation": D, "candidates": K, "action": A, "robot": "diff_drive", "safety_sha256": SETTINGS.safety_hash}
COLLECTION, EVALUATION = 0.0, 1.0
DECISIONS = 60


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    error = info


def start(folder: Path, logger: Logger | None = None) -> RunRecord:
    def report(what: str, mistake: Exception) -> None:
        raise mistake

    return RunRecord(folder, HEADER, 0.1, 0.5, logger or Logger(), report)


def decide(record: RunRecord, sequence: int, phase: float, seed: int) -> None:
    """One tick: candidates, the decision and the outcome, as they arrive."""
    stamp_ns = 100 * (sequence + 1)
    margin, none = np.full(K, 0.5, np.float32), np.zeros(K, bool)
    seen = np.full(D, 1000 * seed + sequence, np.float32)
    record.candidates(
        CandidateSet(sequence + 1, stamp_ns, 1, seen, np.zeros((K, A), np.float32),
                     margin > 0, margin > 0, none, none, margin, np.zeros(K, np.uint8))
    )  # fmt: skip
    ended = float(sequence % 20 == 19)
    values = {"session": 5.0, "episode": 1.0, "phase": phase, "first": float(sequence == 0), "terminated": ended,
              "reached": ended, "seed": 7.0, "control_ticks": sequence + 1.0, "executed": sequence - 1.0}  # fmt: skip
    record.outcome(dict.fromkeys(OUTCOME_NAMES, 0.0) | values, stamp_ns, "")
    record.decision(
        Verdict(sequence=sequence, id=sequence + 1, episode=1, stamp_ns=stamp_ns, action=np.zeros(A, np.float32),
                index=0, verdict="certified", reason="request", message="", state="nominal", intervention=False,
                empty_support=False, certified=True, band=False, margin=0.5, centre=0, certificate_us=0)
    )  # fmt: skip


def play(record: RunRecord, numbers: range, phase: float, seed: int = 1) -> None:
    """Some ticks, with a second ending after every tenth."""
    for sequence in numbers:
        decide(record, sequence, phase, seed)
        if sequence % 10 == 9:
            record.each_second()
    record.confirm()


def die(record: RunRecord) -> None:
    """Killed: without a last word. The lock goes with the process."""
    record.writer.pool.shutdown()
    record.writer._lock.release()


def record_run(runs: Path, seed: int) -> tuple[Path, Path]:
    """The folders of a run whose recorder was killed at decision 34, and of the same run when it was finished."""
    run = bringup.create_run(runs, SETTINGS, seed=seed)
    folder = run.folder
    record = start(folder)
    record.begin("robot", "lockstep", seed)
    play(record, range(25), COLLECTION, seed)
    die(record)
    record = start(folder)
    record.begin("robot", "lockstep", seed)
    play(record, range(25, 35), COLLECTION, seed)
    record.each_second()
    (folder / POLICY).write_bytes(b"graph")
    manifest = {"policy_sha256": hashlib.sha256(b"graph").hexdigest(), "alpha": 0.1}
    manifest["training"] = {"ledger_head": newest_head(folder / LEDGER)}
    write_json(folder / MANIFEST, manifest)
    play(record, range(35, 39), EVALUATION, seed)
    crashed = shutil.copytree(folder, runs / f"crashed-{seed}")
    play(record, range(39, DECISIONS), EVALUATION, seed)
    record.end()
    record.close()
    write_json(folder / SUMMARY, summarise(folder, "diff_drive", seed, SETTINGS.robot.must_reach))
    (folder / CHECKPOINT).write_bytes(MAGIC + hashlib.sha256(b"weights").hexdigest().encode() + b"\nweights")
    return crashed, folder


@dataclass(frozen=True)
class Recorded:
    finished: Path
    crashed: Path
    other: Path  # another run, finished


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    crashed, finished = record_run(tmp_path_factory.mktemp("runs"), 1)
    _, other = record_run(tmp_path_factory.mktemp("others"), 2)
    return Recorded(finished, crashed, other)


@pytest.fixture
def folder(recorded: Recorded, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded.finished, tmp_path / "run"))


@pytest.fixture
def crashed(recorded: Recorded, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded.crashed, tmp_path / "crashed"))


def ledger(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """(exit status, what it printed, its lines about what is wrong) of `safe-support-ql ledger`."""
    with pytest.raises(SystemExit) as left:
        cli.main(["ledger", str(folder), *more])
    said = capsys.readouterr()
    return int(str(left.value.code)), said.out, said.err


# --- kinds of damage -------------------------------------------------------------------------------------------------

Damage = Callable[[bytes], bytes]


def put(at: int, new: bytes) -> Damage:
    return lambda data: data[:at] + new + data[at + len(new) :]


def flip(at: int, bit: int = 0) -> Damage:
    return lambda data: put(at % len(data), bytes([data[at % len(data)] ^ (1 << bit)]))(data)


def swap(old: bytes, new: bytes, count: int = -1) -> Damage:
    def damage(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, count)

    return damage


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda data: b"".join(change(data.splitlines(keepends=True)))


def last(old: bytes, new: bytes) -> Damage:
    return lambda data: new.join(data.rsplit(old, 1))


def records(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    """A change of the records of a journal as a list."""

    def damage(data: bytes) -> bytes:
        body = data[HEADER_BYTES:]
        return data[:HEADER_BYTES] + b"".join(change([body[i : i + SIZE] for i in range(0, len(body), SIZE)]))

    return damage


def edited(record: bytes) -> bytes:
    """With another reward, and the checksum that fits."""
    import zlib

    at = record_type(D, K, A).fields["reward"][1]
    data = record[:at] + np.float32(9.0).tobytes() + record[at + 4 : -4]
    return data + zlib.crc32(data).to_bytes(4, "little")


EDITED = records(lambda found: [*found[:8], edited(found[8]), *found[9:]])


def forged_line(data: bytes) -> bytes:
    """Line 5 edited and given the hash that fits; those behind it are not computed anew."""
    all_ = data.splitlines()
    before = chain.unseal(all_[3])[2]
    all_[4], _ = chain.seal(b"", before, chain.unseal(all_[4])[0].replace(b', "event"', b',  "event"'))
    return b"\n".join(all_) + b"\n"


def unchain(data: bytes) -> bytes:
    return b"".join(chain.unseal(line)[0] + b"\n" for line in data.splitlines())


CHANGED = r"ledger\.jsonl: line \d+ does not fit its hash; it or the line before it was changed after it was written"
CUT = r"ledger\.jsonl: the head [0-9a-f]{16}\.\.\. of (policy|summary)\.json is not in it: its end was cut off, it was"
NOT_COUNTED = r"journal\.bin: bytes \d+ to \d+.* are not what the ledger counted, though their checksums fit: the file "
ROTTEN = r"journal\.bin: bytes \d+ to \d+ are damaged.*; what follows was found again"
SHORT = r"journal\.bin: has \d+ bytes, the ledger counted \d+: its end was cut off, or lost with the power"
MORE = r"journal\.bin: has \d+ bytes more than the recorder wrote until it ended"
NOT_SEEN = r"is not the one that the recorder saw; it was changed or replaced"

# name of the file, damage, what is said; the middle of a file is where nothing special is.
KINDS: dict[str, tuple[str, object, str]] = {
    # the ledger
    "ledger: unsafe visits made 8": (LEDGER, last(b'"unsafe_visits": 0', b'"unsafe_visits": 8'), CHANGED),
    "ledger: control ticks made more": (LEDGER, last(b'"control_ticks": ', b'"control_ticks": 9'), CHANGED),
    "ledger: control ticks null": (LEDGER, lambda d: re.sub(rb'"control_ticks": \d+', b'"control_ticks": null', d),
                                   CHANGED),
    "ledger: control ticks NaN": (LEDGER, lambda d: re.sub(rb'"control_ticks": \d+', b'"control_ticks": NaN', d),
                                  CHANGED),
    "ledger: a number made a text": (LEDGER, lambda d: re.sub(rb'"decisions": (\d+)', rb'"decisions": "\1"', d),
                                     CHANGED),
    "ledger: a key renamed": (LEDGER, swap(b'"unsafe_visits"', b'"unsafe_visit"'), CHANGED),
    "ledger: a key renamed once": (LEDGER, last(b'"phase"', b'"phrase"'), CHANGED),
    "ledger: a key removed": (LEDGER, last(b'"interventions": 0, ', b""), CHANGED),
    "ledger: a key added": (LEDGER, last(b'"event": "counters", ', b'"event": "counters", "x": 1, '), CHANGED),
    "ledger: a key twice": (LEDGER, last(b'"unsafe_visits": 0', b'"unsafe_visits": 1, "unsafe_visits": 0'), CHANGED),
    "ledger: an event renamed": (LEDGER, last(b'"event": "episode"', b'"event": "epilogue"'), CHANGED),
    "ledger: a success made of a failure": (LEDGER, last(b'"reached": true', b'"reached": false'), CHANGED),
    "ledger: a time changed": (LEDGER, last(b'"time": 1', b'"time": 2'), CHANGED),
    "ledger: a space added": (LEDGER, last(b'"seq": ', b'"seq":  '), CHANGED),
    "ledger: lines of another system": (LEDGER, swap(b"\n", b"\r\n"), "line 1 has lost its hash"),
    "ledger: a hash changed": (LEDGER, lambda d: re.sub(rb'"hash": "[0-9a-f]', b'"hash": "g', d, count=1),
                               "line 2 does not fit|has lost its hash|line 1"),
    "ledger: a hash renamed": (LEDGER, last(b'"hash"', b'"mash"'), r"line \d+ has lost its hash"),
    "ledger: one line edited and its hash computed": (LEDGER, forged_line, CHANGED),
    "ledger: a line removed": (LEDGER, lines(lambda x: x[:6] + x[7:]), "event 6 is missing; the next one there is 7"),
    "ledger: the first line removed": (LEDGER, lines(lambda x: x[1:]), "begins with event 1; those before it are miss"),
    "ledger: two lines swapped": (LEDGER, lines(lambda x: [*x[:4], x[5], x[4], *x[6:]]), "event 4 is missing"),
    "ledger: a line twice": (LEDGER, lines(lambda x: [*x[:5], x[4], *x[5:]]), "event 4 stands there twice"),
    "ledger: a line of another run": (LEDGER, "line 5 of the other", CHANGED),
    "ledger: an empty line": (LEDGER, lines(lambda x: [*x[:5], b"\n", *x[5:]]), "line 6 is damaged"),
    "ledger: garbage in a line": (LEDGER, lines(lambda x: [*x[:5], b"hello\n", *x[6:]]), "line 6 is damaged"),
    "ledger: no object": (LEDGER, lines(lambda x: [*x[:5], b"[1, 2]\n", *x[6:]]), "line 6 is damaged"),
    "ledger: two lines joined": (LEDGER, lambda d: d.replace(b"}\n{", b"}{", 1), "line 1 is damaged"),
    "ledger: zeros in the middle": (LEDGER, lambda d: put(len(d) // 2, bytes(64))(d), r"line \d+ is damaged"),
    "ledger: cut at the last line": (LEDGER, lines(lambda x: x[:-1]), CUT),
    "ledger: cut at a line": (LEDGER, lines(lambda x: x[: len(x) // 2]), CUT),
    "ledger: cut inside a line": (LEDGER, lambda d: d[: len(d) // 2], CUT),
    "ledger: its end removed, and a line written anew": (
        LEDGER,
        lines(lambda x: [*x[:-3], chain.seal(b"", chain.unseal(x[-4].rstrip())[2], chain.unseal(x[-3].rstrip())[0])[0],
                         b"\n"]),
        CUT,
    ),
    "ledger: all hashes removed": (LEDGER, unchain, "line 1 has lost its hash"),
    "ledger: empty": (LEDGER, lambda d: b"", r"ledger\.jsonl: holds no event yet"),
    "ledger: of another run": (LEDGER, LEDGER, CUT),
    "ledger: something else": (LEDGER, lambda d: b"hello\nworld\n", "line 1 is damaged"),
    "ledger: gone": (LEDGER, None, r"ledger\.jsonl: cannot be read"),
    # the journal
    "journal: a bit": (JOURNAL, flip(HEADER_BYTES + 7 * SIZE + 44), ROTTEN),
    "journal: a bit in the first record": (JOURNAL, flip(HEADER_BYTES), ROTTEN),
    "journal: a bit in the last record": (JOURNAL, flip(-30), ROTTEN),
    "journal: a bit in a checksum": (JOURNAL, flip(HEADER_BYTES + 9 * SIZE - 1), ROTTEN),
    "journal: a bit in the header": (JOURNAL, flip(20), "is not a journal of this version|other settings|damaged"),
    "journal: a bit in the header's blanks": (JOURNAL, flip(HEADER_BYTES - 9), "is not a journal|not what the ledger"),
    "journal: a blank in the header": (JOURNAL, put(HEADER_BYTES - 9, b"\t"), NOT_COUNTED),
    "journal: a name in the header": (JOURNAL, swap(b'"certified"', b'"certifieb"'), "certif|not what"),
    "journal: a size in the header": (JOURNAL, swap(b'"observation": 3', b'"observation": 4'), ROTTEN),
    "journal: a reward and its checksum": (JOURNAL, EDITED, NOT_COUNTED),
    "journal: zeros over a record": (JOURNAL, put(HEADER_BYTES + 5 * SIZE, bytes(SIZE)), ROTTEN),
    "journal: zeros over three and a half": (JOURNAL, put(HEADER_BYTES + 5 * SIZE, bytes(3 * SIZE + 50)), ROTTEN),
    "journal: a record removed": (JOURNAL, records(lambda x: x[:8] + x[9:]), NOT_COUNTED),
    "journal: a record twice": (JOURNAL, records(lambda x: [*x[:8], x[7], *x[8:]]), NOT_COUNTED),
    "journal: two records swapped": (JOURNAL, records(lambda x: [*x[:8], x[9], x[8], *x[10:]]), NOT_COUNTED),
    "journal: the last record again at its end": (JOURNAL, records(lambda x: [*x, x[-1]]), MORE),
    "journal: bytes missing inside": (JOURNAL, lambda d: d[: HEADER_BYTES + 99] + d[HEADER_BYTES + 109 :], ROTTEN),
    "journal: bytes put inside": (JOURNAL, lambda d: d[: HEADER_BYTES + 9] + b"hello" + d[HEADER_BYTES + 9 :], ROTTEN),
    "journal: cut at a record": (JOURNAL, lambda d: d[: -3 * SIZE], SHORT),
    "journal: cut inside a record": (JOURNAL, lambda d: d[:-7], SHORT),
    "journal: only its header": (JOURNAL, lambda d: d[:HEADER_BYTES], SHORT),
    "journal: bytes behind its end": (JOURNAL, lambda d: d + b"hello", MORE),
    "journal: of another run": (JOURNAL, JOURNAL, NOT_COUNTED),
    "journal: empty": (JOURNAL, lambda d: b"", r"journal\.bin: is not a journal"),
    "journal: gone": (JOURNAL, None, r"journal\.bin: cannot be read \(No such file"),
    # settings, and what was learned
    "settings: a limit changed": (CONFIG, lambda d: re.sub(rb"latch_after_s: .*", b"latch_after_s: 2", d), NOT_SEEN),
    "settings: a comment added": (CONFIG, lambda d: d + b"# hello\n", NOT_SEEN),
    "settings: cut": (CONFIG, lambda d: d[: len(d) // 2], r"config\.yaml: "),
    "settings: empty": (CONFIG, lambda d: b"", r"config\.yaml: "),
    "settings: gone": (CONFIG, None, r"config\.yaml: cannot be read"),
    "session: another seed": (SESSION, swap(b'"seed": 1', b'"seed": 3'), NOT_SEEN),
    "session: no JSON": (SESSION, flip(0), r"session\.json: is damaged"),
    "session: empty": (SESSION, lambda d: b"", r"session\.json: is damaged"),
    "session: of another run": (SESSION, SESSION, NOT_SEEN),
    "manifest: a number changed": (MANIFEST, swap(b'"alpha": 0.1', b'"alpha": 0.2'), NOT_SEEN),
    "manifest: a key renamed": (MANIFEST, swap(b'"ledger_head"', b'"ledger_heap"'), NOT_SEEN),
    "manifest: another head": (MANIFEST, lambda d: re.sub(rb'"ledger_head": "...', b'"ledger_head": "000', d), "000"),
    "manifest: null": (MANIFEST, lambda d: b"null", r"policy\.json: is damaged|" + NOT_SEEN),
    "manifest: no JSON": (MANIFEST, flip(0), r"policy\.json: is damaged"),
    "manifest: empty": (MANIFEST, lambda d: b"", r"policy\.json: is damaged"),
    "manifest: of another run": (MANIFEST, MANIFEST, NOT_SEEN + "|is not in it"),
    "manifest: gone": (MANIFEST, None, r"policy\.json: is missing"),
    "policy: a bit": (POLICY, flip(2), r"policy\.onnx: is (not the one of policy\.json|missing)"),
    "policy: gone": (POLICY, None, r"policy\.onnx: is (not the one of policy\.json|missing)"),
    # the summary
    "summary: unsafe visits made 8": (SUMMARY, swap(b'"unsafe_visits": 0', b'"unsafe_visits": 8', 1), "'unsafe_vis"),
    "summary: control ticks null": (SUMMARY, lambda d: re.sub(rb'"control_ticks": \d+', b'"control_ticks": null', d),
                                    "'control_ticks' is not what the ledger says"),
    "summary: NaN": (SUMMARY, lambda d: re.sub(rb'"wall_s": [\d.e-]+', b'"wall_s": NaN', d), "'wall_s' is not what"),
    "summary: a success rate": (SUMMARY, lambda d: re.sub(rb'"success_rate": [\d.]+', b'"success_rate": 0.7', d),
                                "'evaluation' is not what the ledger says"),
    "summary: a key renamed": (SUMMARY, swap(b'"gaps"', b'"gap"'), "'gaps?' is not what the ledger says"),
    "summary: no head": (SUMMARY, lambda d: re.sub(rb',\s+"ledger_head": "[0-9a-f]+"', b"", d), "' is not what"),
    "summary: another head": (SUMMARY, lambda d: re.sub(rb'"ledger_head": "...', b'"ledger_head": "000', d), "000"),
    "summary: no JSON": (SUMMARY, flip(0), r"summary\.json: is damaged"),
    "summary: a list": (SUMMARY, lambda d: b"[]", r"summary\.json: is damaged"),
    "summary: empty": (SUMMARY, lambda d: b"", r"summary\.json: is damaged"),
    "summary: of another run": (SUMMARY, SUMMARY, "of summary.json is not in it"),
}  # fmt: skip


def apply(folder: Path, name: str, damage: object, other: Path) -> None:
    """`damage`: a function of the content; the name of a file of the other run, or a line of it; None removes."""
    path = folder / name
    if damage is None:
        path.unlink()
    elif damage == "line 5 of the other":
        own = path.read_bytes().splitlines(keepends=True)
        own[5] = (other / name).read_bytes().splitlines(keepends=True)[5]
        path.write_bytes(b"".join(own))
    elif isinstance(damage, str):
        shutil.copy(other / damage, path)
    else:
        before = path.read_bytes()
        path.write_bytes(damage(before))
        assert path.read_bytes() != before, "the case does nothing"


def test_a_run_that_nobody_touched_has_no_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = newest_head(folder / LEDGER)
    status, out, err = ledger(folder, capsys, "--head", head)
    assert (status, err) == (0, ""), err
    assert "none changed or missing" in out and f"head {head}" in out and f"{DECISIONS} records" in out
    count = len(read_ledger(folder / LEDGER))
    assert f"--head proves the first {count} events" in out
    assert f"summary.json proves the first {count} events" in out


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_and_said_in_one_line(
    recorded: Recorded, folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name, damage, said = KINDS[kind]
    apply(folder, name, damage, recorded.other)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    status, out, err = ledger(folder, capsys)
    assert status in (1, 2), (status, out, err)
    assert err.startswith("error: ") and "Traceback" not in err
    assert re.search(said, err), err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) + len(CRASHED) >= 40
    assert {name for name, _, _ in KINDS.values()} == {LEDGER, JOURNAL, CONFIG, SESSION, MANIFEST, POLICY, SUMMARY}


def test_any_flipped_bit_of_ledger_or_journal_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not only where somebody thought of it."""
    rng = np.random.default_rng(0)
    for name in (LEDGER, JOURNAL):
        whole = (folder / name).read_bytes()
        for _ in range(60):
            at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
            (folder / name).write_bytes(flip(at, bit)(whole))
            status, _, err = ledger(folder, capsys)
            assert status in (1, 2) and err.startswith("error: ") and err.count("\n") == 1, (name, at, bit, err)
        (folder / name).write_bytes(whole)
    assert ledger(folder, capsys)[0] == 0


def test_a_ledger_cut_anywhere_is_found_or_lacks_only_its_last_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / LEDGER).read_bytes()
    for at in np.random.default_rng(1).integers(1, len(whole) - 1, 60).tolist():
        (folder / LEDGER).write_bytes(whole[:at])
        status, _, err = ledger(folder, capsys)
        assert status in (1, 2) and re.search(CUT + "|holds no event yet", err), (at, err)
    (folder / LEDGER).write_bytes(whole[:-1])  # every event is there
    assert ledger(folder, capsys)[0] == 0


def test_a_damaged_checkpoint_is_refused_where_it_is_used(folder: Path) -> None:
    """It is no evidence: the learner can begin afresh from the journal."""
    whole = (folder / CHECKPOINT).read_bytes()
    for damaged, said in (
        (flip(-3)(whole), "sha256 differs"), (whole[:-1], "sha256 differs"), (flip(3)(whole), "not a checkpoint"),
        (b"", "not a checkpoint"), (whole + b"\n", "sha256 differs"),
    ):  # fmt: skip
        (folder / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(ValueError, match=said):
            load_checkpoint(folder / CHECKPOINT, None)


# --- after a crash ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crashed:
    """A damage of a run whose recorder was killed."""

    name: str
    damage: Damage
    status: int
    said: str  # in what `ledger` prints
    lost: tuple[int, ...] | None = ()  # decisions that a resumed run lists; None: it is not resumed
    why: str = ""  # of the gap
    chopped: int = 0  # bytes of a torn tail that the resumed run cuts off


TORN_RECORD = r"journal\.bin: the last \d+ bytes are torn: a record that a crash cut off, never confirmed"
TORN_LINE = r"ledger\.jsonl: the last \d+ bytes are torn: a line that a crash cut off, never confirmed"
LISTED = "damaged on the disk"
DIED = "lost when the recorder died"
CRASHED = {
    "nothing": Crashed(JOURNAL, lambda d: d, 0, "not closed: the recorder was killed"),
    "a torn line": Crashed(LEDGER, lambda d: d + d.splitlines()[-1][:50], 0, TORN_LINE, chopped=50),
    "a torn line of zeros": Crashed(LEDGER, lambda d: d + bytes(300), 0, TORN_LINE, chopped=300),
    "a line without its end": Crashed(LEDGER, lambda d: d[:-1], 0, "not closed"),
    "a torn record": Crashed(JOURNAL, lambda d: d + d[-SIZE:][:30], 0, TORN_RECORD, chopped=30),
    "the newest record torn": Crashed(JOURNAL, lambda d: d[:-20], 0, TORN_RECORD, (), chopped=SIZE - 20),
    "the newest record again": Crashed(JOURNAL, lambda d: d + d[-SIZE:], 0, "not closed"),
    "zeros at the end": Crashed(JOURNAL, lambda d: d + bytes(3 * SIZE + 5), 1, ROTTEN),
    "a bit that was counted": Crashed(JOURNAL, flip(HEADER_BYTES + 7 * SIZE + 44), 1, ROTTEN, (7,), LISTED),
    "a bit that was not yet counted": Crashed(JOURNAL, flip(-2 * SIZE + 44), 1, ROTTEN, (37,), LISTED),
    "bits of two records": Crashed(JOURNAL, lambda d: flip(HEADER_BYTES + 3 * SIZE)(flip(HEADER_BYTES + 9 * SIZE)(d)),
                                   1, ROTTEN, (3, 9), LISTED),
    "zeros over two": Crashed(JOURNAL, put(HEADER_BYTES + 5 * SIZE, bytes(2 * SIZE)), 1, ROTTEN, (5, 6), LISTED),
    "counted records lost with the power": Crashed(JOURNAL, lambda d: d[: -7 * SIZE], 1, SHORT, (32, 33, 34), DIED),
    "a record torn that was counted": Crashed(JOURNAL, lambda d: d[: -4 * SIZE - 9], 1, SHORT, (34,), DIED,
                                              chopped=SIZE - 9),
    "a reward and its checksum": Crashed(JOURNAL, EDITED, 1, NOT_COUNTED, None),
    "bytes missing inside": Crashed(JOURNAL, lambda d: d[:5000] + d[5010:], 1, ROTTEN, None),
    "a record removed": Crashed(JOURNAL, records(lambda x: x[:8] + x[9:]), 1, NOT_COUNTED, None),
    "two records swapped": Crashed(JOURNAL, records(lambda x: [*x[:8], x[9], x[8], *x[10:]]), 1, NOT_COUNTED, None),
    "a number in the ledger": Crashed(LEDGER, last(b'"unsafe_visits": 0', b'"unsafe_visits": 8'), 2, CHANGED, None),
    "a line removed": Crashed(LEDGER, lines(lambda x: x[:6] + x[7:]), 2, "event 6 is missing", None),
    "a line cut off behind the head": Crashed(LEDGER, lines(lambda x: x[:-1]), 0, "not closed"),
    "cut before the head": Crashed(LEDGER, lines(lambda x: x[:8]), 1, CUT),
    "the journal emptied": Crashed(JOURNAL, lambda d: b"", 2, r"journal\.bin: is not a journal", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", CRASHED)
def test_a_run_that_crashed_goes_on_without_what_was_damaged(
    crashed: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    case = CRASHED[kind]
    path = crashed / case.name
    path.write_bytes(case.damage(path.read_bytes()))
    damaged = path.read_bytes()
    status, out, err = ledger(crashed, capsys)
    assert status == case.status and re.search(case.said, out + err), (status, out, err)
    assert err.count("\n") == (status != 0), err

    if case.lost is None:
        with pytest.raises(ValueError, match=case.name) as refused:
            start(crashed)
        assert "\n" not in str(refused.value)
        assert path.read_bytes() == damaged, "what cannot be continued is left as it is"
        return
    before = set(JournalReader(crashed / JOURNAL).read()["sequence"].tolist())
    known = len(read_ledger(crashed / LEDGER))
    following = progress(crashed).first_sequence
    record = start(crashed)
    record.begin("robot", "lockstep", 1)
    play(record, range(following, following + 25), EVALUATION)
    record.end()
    record.close()

    kept = path.read_bytes()[: len(damaged) - case.chopped]
    assert kept == damaged[: len(damaged) - case.chopped], "nothing intact is lost"
    journalled = set(JournalReader(crashed / JOURNAL).read()["sequence"].tolist())
    assert journalled == before | set(range(following, following + 25))
    events = read_ledger(crashed / LEDGER)
    gaps = {n: e["why"] for e in events[known:] if e["event"] == "gap" for n in range(e["first"], e["last"] + 1)}
    assert gaps == dict.fromkeys(case.lost, case.why)
    status, out, err = ledger(crashed, capsys)
    if kind == "cut before the head":  # resuming does not hide it
        assert status == 1 and re.search(CUT, err)
    else:
        assert (status, err) == (0, ""), "what a resumed run has listed is known"


def test_what_a_resumed_run_accepted_is_still_proven(crashed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the damaged stretch nor those behind it may be changed once more."""
    path = crashed / JOURNAL
    path.write_bytes(flip(HEADER_BYTES + 7 * SIZE + 44)(path.read_bytes()))
    logger = Logger()
    record = start(crashed, logger)
    (line,) = logger.lines
    assert re.search(
        r"journal.bin: bytes \d+ to \d+ were damaged; what is lost is listed as a gap, and the run g", line
    )
    record.begin("robot", "lockstep", 1)
    play(record, range(39, 50), EVALUATION)
    record.end()
    record.close()
    whole = path.read_bytes()
    for number in (2, 7, 8, 20, 45):
        path.write_bytes(flip(HEADER_BYTES + number * SIZE + 44)(whole))
        status, _, err = ledger(crashed, capsys)
        assert status == 1 and "journal.bin: bytes" in err, (number, err)


# --- who can do more -------------------------------------------------------------------------------------------------


def forge(folder: Path) -> None:
    """What nobody without the key can do, and anybody without one: the whole chain computed anew."""
    path, before = folder / LEDGER, hashlib.sha256(b"").hexdigest()
    out = []
    for line in path.read_bytes().splitlines():
        text = chain.unseal(line)[0].replace(b'"unsafe_visits": 0', b'"unsafe_visits": 0, "forged": 1')
        sealed, before = chain.seal(b"", before, text)
        out.append(sealed + b"\n")
    path.write_bytes(b"".join(out))


def test_only_a_head_from_elsewhere_shows_a_chain_that_was_computed_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the pages say; this is the limit of a hash without a secret."""
    head = newest_head(folder / LEDGER)
    forge(folder)
    status, _, err = ledger(folder, capsys)
    assert status == 1 and re.search(CUT, err), "the forger left the other files"
    for name in (MANIFEST, SUMMARY):
        (folder / name).unlink()
    (folder / POLICY).unlink()
    status, _, err = ledger(folder, capsys, "--head", head)
    assert status == 1 and "of --head is not in it" in err
    events = [event for event in read_ledger(folder / LEDGER) if event.get("files", {}).pop(MANIFEST, None)]
    assert events, "he must also hide that there was a manifest"


def test_with_a_key_a_chain_that_was_computed_anew_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(b"a secret of some length")
    monkeypatch.setenv(chain.KEY_FILE, str(tmp_path / "key"))
    _, folder = record_run(tmp_path / "runs", 3)
    assert ledger(folder, capsys)[0] == 0
    forge(folder)
    status, _, err = ledger(folder, capsys)
    assert status == 2 and "line 1 was written without a key" in err and err.count("\n") == 1


def test_an_old_run_opens_and_is_said_to_be_without_a_chain(crashed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it was written before: no hashes, no `journal` events, nothing about files."""
    old = []
    for event in read_ledger(crashed / LEDGER):
        if event["event"] != "journal":
            event = {key: value for key, value in event.items() if key not in ("hash", "files", "format")}
            old.append(json.dumps(event | {"seq": len(old)}) + "\n")
    (crashed / LEDGER).write_text("".join(old))
    manifest = json.loads((crashed / MANIFEST).read_text())
    write_json(crashed / MANIFEST, manifest | {"training": {}})
    status, out, err = ledger(crashed, capsys)
    assert (status, err) == (0, "")
    assert "ledger.jsonl: it has no chain: written before format 2, so a change might not be found" in out
    status, _, err = ledger(crashed, capsys, "--head", "0" * 64)
    assert status == 1 and "--head is not in it" in err

    record = start(crashed)
    record.begin("robot", "lockstep", 1)
    play(record, range(39, 50), EVALUATION)
    record.end()
    record.close()
    status, out, err = ledger(crashed, capsys)
    assert (status, err) == (0, "") and f"its first {len(old)} events have no chain" in out
    path = crashed / JOURNAL
    path.write_bytes(EDITED(path.read_bytes()))
    assert ledger(crashed, capsys)[0] == 1, "the first count of a resumed run is of the whole journal"


def test_a_second_costs_the_recorder_no_more_when_the_journal_is_long(tmp_path: Path) -> None:
    """It runs beside a real-time gate: no byte is hashed twice."""
    record = start(tmp_path)
    record.begin("robot", "lockstep", 0)
    writer = record.writer
    rows = np.zeros(20_000, writer.journal.type)
    spent = []
    for number in range(4):
        rows["sequence"] = np.arange(number * len(rows), (number + 1) * len(rows))
        writer.journal.append(rows)
        began = time.perf_counter()
        writer.count_journal()
        spent.append(time.perf_counter() - began)
    record.close()
    assert min(spent[1:]) < 0.01, spent
    assert len(open_ledger(tmp_path / LEDGER).events) == 5
