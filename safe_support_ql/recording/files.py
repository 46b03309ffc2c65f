"""The names of all files in a run's folder (add another one here), and how a file is replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, SESSION = "config.yaml", "session.json"  # settings of the run
JOURNAL, LEDGER = "journal.bin", "ledger.jsonl"  # what happened
CHECKPOINT, POLICY = "checkpoint.pt", "policy.onnx"  # what was learned
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


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically. Raises OSError, and ValueError for a NaN or infinity."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
