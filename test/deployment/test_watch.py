"""When a policy that drives is taken back."""

import numpy as np
import pytest

from safe_support_ql.deployment.watch import Calibration, DeploymentConfig, Watch


def test_a_rise_of_refused_or_late_requests_is_noticed_and_a_few_are_not() -> None:
    config = DeploymentConfig(window=100, refused=0.1, late=0.2)
    for kind, most in (("refused", 10), ("late", 20)):
        watch = Watch(config)
        for n in range(1000):  # 5 in 100, for ever
            assert not watch.note(**{"refused": False, "late": False} | {kind: n % 20 == 0})
        watch = Watch(config)
        said = [watch.note(**{"refused": False, "late": False} | {kind: True}) for _ in range(most + 1)]
        assert not any(said[:-1]) and f"more than {most}%" in said[-1]


GAMMA, SPREAD, COST = 0.9, 2.0, 0.05
FACTS = {"value_spread": SPREAD, "value_cost": COST}


def promised(reward: float) -> float:
    """The value of a reward for ever, less the cost of each tick but the first."""
    return (reward - GAMMA * COST) / (1.0 - GAMMA)


def test_what_keeps_its_promise_goes_on_and_what_falls_short_is_told_by_how_much() -> None:
    config = DeploymentConfig(stretches=5, shortfall=1.0)
    kept = Calibration(config, GAMMA, FACTS)
    assert not any(kept.note(promised(0.3), 0.3, n == 0, False) for n in range(500))
    assert len(kept.gaps) == 5 and np.allclose(kept.gaps, 0.0)
    short = Calibration(config, GAMMA, FACTS)
    said = [short.note(promised(0.7), 0.3, n == 0, False) for n in range(100)]
    gap = 0.4 * (1.0 - GAMMA**10) / (1.0 - GAMMA) / SPREAD  # 10 ticks, and then the promise again
    assert "in the mean of 5 stretches of 10 ticks" in (first := next(filter(None, said)))
    assert short.gaps[-1] == pytest.approx(-gap) and f"earned {gap:.1f} standard deviations less" in first
    assert said.index(first) == 50, "not before all stretches are full"


def test_an_arrival_ends_a_stretch_with_what_came_and_anything_else_ends_it_without() -> None:
    calibration = Calibration(DeploymentConfig(), GAMMA, FACTS)
    for step in ((1.0, 0.0, True, False), (1.0, 0.5, False, False), (1.0, 2.0, False, True)):
        calibration.note(*step)
    assert calibration.gaps[-1] == pytest.approx((0.5 + GAMMA * (2.0 - COST) - 1.0) / SPREAD)
    for step in (
        (1.0, 0.0, True, False),
        (1.0, 9.0, False, False),
        (np.nan, 9.0, False, False),
        (1.0, 9.0, True, False),
    ):
        calibration.note(*step)
    assert len(calibration.gaps) == 1, "nobody decided in between, or another episode has begun"


@pytest.mark.parametrize(("facts", "shortfall"), [({}, 1.0), (FACTS, 0.0)])
def test_without_a_promise_or_a_limit_nothing_is_watched(facts: dict[str, float], shortfall: float) -> None:
    calibration = Calibration(DeploymentConfig(stretches=2, shortfall=shortfall), GAMMA, facts)
    assert not any(calibration.note(100.0, 0.0, n == 0, False) for n in range(200))
