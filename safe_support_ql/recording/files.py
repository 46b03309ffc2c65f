"""The names of all files in a run's folder (add another one here), how paths are shown and files replaced."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

CONFIG, SESSION = "config.yaml", "session.json"  # settings of the run
JOURNAL, LEDGER = "journal.bin", "ledger.jsonl"  # what happened
INPUTS = "inputs.bin"  # the native messages of that
CHECKPOINT, POLICY, MANIFEST = "checkpoint.pt", "policy.onnx", "policy.json"  # what was learned
SUMMARY, PICTURE = "summary.json", "report.png"  # results
LOGS, CURVES = "logs", "tensorboard"  # folders
RUN_LOCK, RECORDER_LOCK = ".lock", ".recorder.lock"  # held by the conductor, and by the writer of journal and ledger


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename: a reader sees the old file or the new one, never a part of it.

    Raises OSError; the old file is then unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # makes the rename itself survive a power loss
    finally:
        os.close(directory)


def shown(path: Path) -> Path:
    """`path` as typed in the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically. Raises OSError, and ValueError for a NaN or infinity."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class AppendOnly:
    """A file open for as long as its one writer lives. Each subclass says what it appends."""

    def __init__(self, path: Path) -> None:
        """Open `path` for reading and appending. Raises OSError if it cannot be written."""
        self.path = path
        self._file: BinaryIO = open(path, "a+b")

    def sync(self) -> None:
        """fsync: a power loss then loses nothing written before. Raises OSError."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()

    def abandon(self) -> None:
        """Close without fsync after the disk refused; the rest of the buffer is tried once more. Raises OSError."""
        self._file.close()
