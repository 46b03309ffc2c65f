"""What makes a change of the record show: the chain of the ledger's lines, and what the ledger says of other files.

*Chain.* A line of the ledger ends with `, "hash": "<64 hex digits>"}`: the SHA-256 of the hash of the line before it,
as these 64 digits, followed by the line as it is without that last field. For the first line, what came before is the
SHA-256 of the bytes in front of it: of nothing in a new run, of the old lines in a run from before the chain. The hash
of the last line is the *head*. Who knows a head can prove that everything up to it is as it was written.

*What it cannot do.* A hash needs no secret. Who may write in the folder can change a line and compute all hashes
behind it anew; only a head that is kept elsewhere shows it. Who needs more names the file of a key in the environment
variable SAFE_SUPPORT_QL_KEY_FILE, on the machine that records and on the one that checks. The field is then `hmac`,
the HMAC-SHA-256 with that key, and without the key nobody can continue or mend the chain. That helps only as far as the
key is out of reach: a key on the robot does not stop whoever rules the robot.

*Journal.* A `journal` event holds a *stretch* of journal.bin: `from` and `bytes` are where it begins and ends in the
file (the header is part of the first one), `sha256` is of the bytes between, `records` counts up to its end. As the
event is in the chain, the head also vouches for every byte that it counts. `tail -c +<from + 1> journal.bin |
head -c <bytes - from> | sha256sum` prints the same hash.

*Other files.* `files` of a run_start, phase and run_end holds the SHA-256 of settings and manifest as they then were.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY_FILE = "SAFE_SUPPORT_QL_KEY_FILE"
SHORTEST_KEY = 16  # bytes; less can be guessed
PLAIN, KEYED = "hash", "hmac"  # the last field of a line
_SEAL = re.compile(rb'(.*), "(hash|hmac)": "([0-9a-f]{64})"\}', re.DOTALL)


def key() -> bytes:
    """The key in the file that the environment names; b'' if it names none. Raises ValueError if there is no key."""
    name = os.environ.get(KEY_FILE, "")
    if not name:
        return b""
    try:
        found = Path(name).read_bytes().strip()
    except OSError as error:
        raise ValueError(f"{name}: the key that {KEY_FILE} names cannot be read ({error.strerror})") from None
    if len(found) < SHORTEST_KEY:
        raise ValueError(f"{name}: a key of {len(found)} bytes is too short, must have at least {SHORTEST_KEY}")
    return found


def digest(secret: bytes, content: bytes) -> str:
    """The hash of `content` in hex: HMAC-SHA-256 with a key, SHA-256 with b''."""
    return hmac.digest(secret, content, "sha256").hex() if secret else hashlib.sha256(content).hexdigest()


def seal(secret: bytes, before: str, text: bytes) -> tuple[bytes, str]:
    """`text`, a JSON object, with its hash as last field, and that hash. `before`: the hash of the line before."""
    head = digest(secret, before.encode() + text)
    return text[:-1] + f', "{KEYED if secret else PLAIN}": "{head}"}}'.encode(), head


def unseal(line: bytes) -> tuple[bytes, str, str]:
    """(text, field, hash) of a line without its end of line; the field is '' if the line has no hash."""
    found = _SEAL.fullmatch(line)
    return (found[1] + b"}", found[2].decode(), found[3].decode()) if found else (line, "", "")


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of the files that can be read."""
    found = {}
    for name in names:
        try:
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class Stretch:
    """Bytes [start, end) of the journal as a `journal` event counted them; `records` up to their end."""

    start: int
    end: int
    records: int
    sha256: str

    def fits(self, journal: bytes) -> bool:
        """Whether these bytes of the file are still the same."""
        return len(journal) >= self.end and self.sha256 == hashlib.sha256(journal[self.start : self.end]).hexdigest()


def stretches(events: Iterable[Mapping[str, Any]]) -> list[Stretch]:
    """What the ledger says of the journal, in order and without a hole.

    A stretch that begins before the end of earlier ones replaces those: a resumed recorder counts what it found anew.
    Raises ValueError if a stretch does not begin where another ends.
    """
    found: list[Stretch] = []
    for event in events:
        if event["event"] != "journal":
            continue
        new = Stretch(event["from"], event["bytes"], event["records"], event["sha256"])
        while found and found[-1].end > new.start:
            found.pop()
        if new.start != (found[-1].end if found else 0) or new.end < new.start:
            raise ValueError(f"event {event['seq']} counts bytes {new.start} to {new.end} of the journal, which is odd")
        found.append(new)
    return found
