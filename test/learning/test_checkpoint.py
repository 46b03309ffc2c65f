from pathlib import Path

import pytest
import torch

from safe_support_ql.learning.checkpoint import load_checkpoint, save_checkpoint
from safe_support_ql.learning.extraction import extract
from safe_support_ql.learning.networks import ProblemSpec
from safe_support_ql.learning.replay import Rows
from safe_support_ql.learning.settings import LearnerConfig
from safe_support_ql.learning.trainer import Trainer

CONFIG = LearnerConfig(hidden=16, batch_size=32, device="cpu", replay_capacity=150, extraction_updates=10, seed=0)


def part(journal: Rows, start: int, stop: int) -> Rows:
    return {name: column[start:stop] for name, column in journal.items()}


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [*trainer.q_network.parameters(), *trainer.target_network.parameters()]


def test_resumed_run_equals_the_uninterrupted_one_bit_by_bit(spec: ProblemSpec, journal: Rows, tmp_path: Path):
    straight = Trainer(CONFIG, spec)
    straight.replay.append(part(journal, 0, 200))
    straight.update(15)
    save_checkpoint(tmp_path / "learner.ckpt", straight)
    straight.replay.append(part(journal, 200, 400))
    metrics = straight.update(15)

    torch.manual_seed(99)  # another process starts elsewhere
    resumed = Trainer(CONFIG, spec)
    load_checkpoint(tmp_path / "learner.ckpt", resumed)
    assert (resumed.updates, resumed.rows_consumed, resumed.last_sequence) == (15, 200, 199)
    for start in range(0, 400, 80):  # the journal arrives in other pieces than at first
        resumed.replay.append(part(journal, start, start + 80))
    assert resumed.update(15) == metrics
    assert all(torch.equal(a, b) for a, b in zip(parameters(straight), parameters(resumed), strict=True))
    students = [extract(trainer) for trainer in (straight, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(*(s.parameters() for s in students), strict=True))


def test_training_on_before_the_journal_is_read_again_is_refused(spec: ProblemSpec, journal: Rows, tmp_path: Path):
    trainer = Trainer(CONFIG, spec)
    trainer.replay.append(journal)
    trainer.update(1)
    save_checkpoint(tmp_path / "learner.ckpt", trainer)
    resumed = Trainer(CONFIG, spec)
    load_checkpoint(tmp_path / "learner.ckpt", resumed)
    resumed.replay.append(part(journal, 0, 100))
    with pytest.raises(ValueError, match="append the journal up to sequence 399"):
        resumed.update(1)


@pytest.mark.parametrize("place", [0, 40, 70, 2000, -1])
def test_any_flipped_byte_is_noticed(spec: ProblemSpec, tmp_path: Path, place: int):
    path = tmp_path / "learner.ckpt"
    save_checkpoint(path, Trainer(CONFIG, spec))
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"learner\.ckpt: (damaged|not a checkpoint)"):
        load_checkpoint(path, Trainer(CONFIG, spec))


def test_truncated_missing_and_foreign_files_are_distinguished(spec: ProblemSpec, tmp_path: Path):
    path, trainer = tmp_path / "learner.ckpt", Trainer(CONFIG, spec)
    save_checkpoint(path, trainer)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path, trainer)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of this package"):
        load_checkpoint(path, trainer)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a checkpoint of this package"):
        load_checkpoint(path, trainer)
    with pytest.raises(ValueError, match="none: cannot be read"):
        load_checkpoint(tmp_path / "none", trainer)


def test_checkpoint_of_another_configuration_is_refused_and_changes_nothing(spec: ProblemSpec, tmp_path: Path):
    save_checkpoint(tmp_path / "learner.ckpt", Trainer(CONFIG, spec))
    other = Trainer(LearnerConfig(**{**vars(CONFIG), "gamma": 0.9, "seed": 3}), spec)
    before = [p.clone() for p in parameters(other)]
    with pytest.raises(ValueError, match="another learner or robot configuration"):
        load_checkpoint(tmp_path / "learner.ckpt", other)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(other), strict=True))
