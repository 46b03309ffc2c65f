"""The calibration as a command."""

from __future__ import annotations

import pytest

from safe_support_ql import cli


def test_a_margin_that_is_too_small_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["calibrate", "--episodes", "2", "--set", "parameters.margin_speed_estimate=0.0001"])
    said = capsys.readouterr().out
    assert left.value.code == 1
    assert "too small: margin_speed_estimate" in said
