"""The learner's settings are checked when the configuration is read, by processes that never load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from safe_support_ql import config
from safe_support_ql.learning.settings import LearnerConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", 1.0),
        ("gamma", float("nan")),
        ("alpha", 0.0),
        ("alpha", float("inf")),
        ("learning_rate", -1e-3),
        ("learning_rate", "3e-4"),  # YAML reads that as text
        ("batch_size", 0),
        ("batch_size", 0.5),
        ("tau", 0.0),
        ("hidden", 0),
        ("twin", "max"),
        ("loss", "l1"),
        ("updates_per_tick", -1),
        ("extraction_updates", 0),
        ("off_support_weight", -0.1),
        ("replay_capacity", 1),
        ("seed", -2),
        ("device", "tpu"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"learner: {key} is .*must (lie in|be)") as refusal:
        config.load_robot("diff_drive", {f"learner.{key}": value})
    assert "\n" not in str(refusal.value)


def test_a_misspelt_key_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="learner: unknown key 'gama'; did you mean gamma"):
        config.load_robot("diff_drive", {"learner.gama": 0.9})


def test_a_seed_of_its_own_wins_over_the_run_s() -> None:
    assert config.load_robot("diff_drive").learner.seeded(7).seed == 7
    assert config.load_robot("diff_drive", {"learner.seed": 3}).learner.seeded(7).seed == 3
    assert config.load_robot("diff_drive", {"learner.seed": 0}).learner.seeded(7) == config.load_robot(
        "diff_drive"
    ).learner.seeded(0)


def test_what_a_file_leaves_out_is_as_in_the_robot_s_own_configuration() -> None:
    """A user's file may hold the differences of his base only; the defaults of no base taught one nothing."""
    shipped, own = config.load_robot("diff_drive"), {"learner": {"alpha": 0.01}, "behavior": None}
    settings = config.parse({"robot": "diff_drive", **own}, "test")
    assert shipped.learner.gamma == settings.learner.gamma != LearnerConfig().gamma
    assert settings.learner.alpha == 0.01 and settings.behavior == shipped.behavior and settings.run == shipped.run
    assert config.parse(settings.raw, "again").learner == settings.learner


def test_reading_the_configuration_loads_no_torch() -> None:
    code = "import sys; from safe_support_ql import config; config.load_robot('diff_drive'); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'safe_support_ql.learning.settings'" in done.stdout and "'torch'" not in done.stdout
