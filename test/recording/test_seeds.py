"""The table of seeds: results on disk and in the documents were obtained with these numbers."""

from itertools import combinations

import pytest

from safe_support_ql.recording import seeds


@pytest.mark.parametrize(("one", "other"), list(combinations(seeds.RANGES, 2)))
def test_no_two_ranges_overlap(one: str, other: str) -> None:
    a, b = seeds.RANGES[one], seeds.RANGES[other]
    assert len(a) and len(b) and (a.stop <= b.start or b.stop <= a.start)


def test_every_range_is_in_the_table() -> None:
    assert set(seeds.RANGES.values()) == {value for value in vars(seeds).values() if isinstance(value, range)}


def test_the_first_seeds_are_what_they_were() -> None:
    assert {name: span.start for name, span in seeds.RANGES.items()} == {
        "training": 0, "calibration": 850_000_000, "tests": 860_000_000, "mismatch": 870_000_000,
        "collection": 880_000_000, "held out": 900_000_000,
    }  # fmt: skip
    assert seeds.first_of_run(3) == 3_000_000
    assert seeds.first_of_run(seeds.RUNS - 1) in seeds.TRAINING and seeds.first_of_run(seeds.RUNS) not in seeds.TRAINING
