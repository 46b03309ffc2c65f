"""What the gate says while it is closed."""

import re

import numpy as np
import pytest

from safe_support_ql import config
from safe_support_ql.robots.base import Estimate
from safe_support_ql.safety import reasons

ROBOT = config.load_robot("cart_pole").robot
CERTIFICATE = ROBOT.model.certificate


@pytest.mark.parametrize("lack", [0.3, 0.0006, 1e-9])
def test_a_margin_that_is_too_small_is_named_with_digits_that_show_the_lack(lack: float) -> None:
    upright = CERTIFICATE.margins((0.0,) * 4, np.zeros((0, 2)), CERTIFICATE.constants)
    index = CERTIFICATE.margin_names.index("lean")
    lean = float(upright[index]) - float(CERTIFICATE.tightening[0, index]) + lack
    cause = reasons.no_room(ROBOT, Estimate(np.array([0.0, lean, 0.0, 0.0]), np.zeros((0, 2)), np.zeros(1)))
    value, shown = re.search(r"margin 'lean' is (\S+), too small by (\S+)$", cause.what).groups()  # type: ignore[union-attr]
    assert float(shown) == pytest.approx(lack, rel=0.5)
    assert float(value) + float(shown) == pytest.approx(float(CERTIFICATE.tightening[0, index]), abs=max(lack, 1e-3))
    assert cause.remedy.startswith(f"bring theta from {lean:.3f} rad to 0.19") and "nearer to 0" in cause.remedy


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_margin_that_is_no_number_is_named(value: float) -> None:
    cause = reasons.no_room(ROBOT, Estimate(np.array([0.0, value, 0.0, 0.0]), np.zeros((0, 2)), np.zeros(1)))
    assert "margin 'lean' is" in cause.what and cause.remedy
