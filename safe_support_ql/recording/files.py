"""The files of a run's folder, each name spelt once, and the one way to replace a file as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, SESSION = "config.yaml", "session.json"  # what was asked for
JOURNAL, LEDGER = "journal.bin", "ledger.jsonl"  # what happened
CHECKPOINT, POLICY = "checkpoint.pt", "policy.onnx"  # what was learned
SUMMARY, PICTURE = "summary.json", "report.png"  # what it amounts to
LOGS, CURVES = "logs", "tensorboard"  # folders
RUN_LOCK, RECORDER_LOCK = ".lock", ".recorder.lock"  # whoever conducts the run, whoever writes journal and ledger


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename: a reader sees the old file or the new one, never half of one.

    Raises OSError; the old file is then still there.
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
    """`value` as an indented JSON file, whole or not at all. Raises OSError, and ValueError for a NaN or infinity."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
