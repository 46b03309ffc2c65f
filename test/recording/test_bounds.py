"""Bounds against values from tables."""

import pytest

from safe_support_ql.recording.bounds import proportion_interval, rate_upper_bound


def test_bounds_match_known_values() -> None:
    assert rate_upper_bound(0, 2.0) == pytest.approx(2.9957 / 2, rel=1e-4)
    low, high = proportion_interval(0, 100)
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-6)
