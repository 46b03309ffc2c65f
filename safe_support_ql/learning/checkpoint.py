"""Saves and loads checkpoint.pt, the state of the learner: on a CPU, a resumed run equals an uninterrupted one exactly.

The replay is not in it, because the journal holds its data. After `load_checkpoint`, append the journal again from its
first row.
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.trainer import Trainer
from safe_support_ql.recording.files import write_atomically

MODULES = ("q_network", "target_network", "optimizer")
COUNTERS = ("updates", "rows_consumed", "last_sequence")
MAGIC = b"safe_support_ql checkpoint 1 "  # then the sha256 of everything after the first newline


def config_hash(config: LearnerConfig, spec: ProblemSpec) -> str:
    """sha256 of all settings that the networks and the update depend on, so not of the device."""
    facts = dataclasses.asdict(config) | dataclasses.asdict(spec)
    del facts["device"]
    text = json.dumps(facts, sort_keys=True, default=lambda array: array.tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Save networks, targets, optimiser, random states and counters. Raises OSError."""
    state = {
        "config_hash": config_hash(trainer.config, trainer.spec),
        **{name: getattr(trainer, name).state_dict() for name in MODULES},
        "torch_rng": torch.get_rng_state(),
        "numpy_rng": json.dumps(trainer.rng.bit_generator.state),
        **{name: getattr(trainer, name) for name in COUNTERS},
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load_checkpoint(path: Path, trainer: Trainer) -> None:
    """Restore `trainer` in place; append the journal up to `trainer.last_sequence` (`rows_consumed` rows) afterwards.

    Raises ValueError if the file is missing, damaged, no checkpoint, or of another configuration; the trainer is then
    unchanged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the path of a checkpoint") from error
    head, _, payload = data.partition(b"\n")
    if not head.startswith(MAGIC):
        raise ValueError(f"{path}: not a checkpoint of this package (format 1); give another file or start afresh")
    if head != MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise ValueError(f"{path}: damaged (sha256 differs); use an older checkpoint, or start afresh from the journal")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=trainer.device, weights_only=True)
    if state["config_hash"] != config_hash(trainer.config, trainer.spec):
        raise ValueError(f"{path}: made with another learner or robot configuration; restore that one, or start afresh")
    for name in MODULES:
        getattr(trainer, name).load_state_dict(state[name])
    torch.set_rng_state(state["torch_rng"].cpu())
    trainer.rng.bit_generator.state = json.loads(state["numpy_rng"])
    for name in COUNTERS:
        setattr(trainer, name, state[name])
