"""The table of seeds: results on disk and in the documents were obtained with these numbers."""

from itertools import combinations

import pytest

from safe_support_ql.recording import seeds

RANGES = {name: value for name, value in vars(seeds).items() if isinstance(value, range)}


@pytest.mark.parametrize(("one", "other"), list(combinations(RANGES, 2)))
def test_no_two_ranges_overlap(one: str, other: str) -> None:
    a, b = RANGES[one], RANGES[other]
    assert len(a) and len(b) and (a.stop <= b.start or b.stop <= a.start)


def test_the_first_seeds_are_what_they_were() -> None:
    assert {name: span.start for name, span in RANGES.items()} == {
        "TRAINING": 0, "CALIBRATION": 850_000_000, "TESTS": 860_000_000, "MISMATCH": 870_000_000,
        "COLLECTION": 880_000_000, "HELD_OUT": 900_000_000,
    }  # fmt: skip
    assert seeds.first_of_run(3) == 3_000_000
    assert seeds.first_of_run(seeds.RUNS - 1) in seeds.TRAINING and seeds.first_of_run(seeds.RUNS) not in seeds.TRAINING
