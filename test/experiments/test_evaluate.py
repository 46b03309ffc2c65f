"""Evaluation without ROS: rates with their intervals, the same for any number of episodes."""

import json

from safe_support_ql import config
from safe_support_ql.experiments.evaluate import evaluate, score, summarise
from safe_support_ql.recording.seeds import HELD_OUT


def test_a_short_evaluation_sums_up_to_json() -> None:
    settings = config.load_robot("cart_pole", {"parameters.episode_s": 1.0})
    for episodes in (1, 2):
        results = evaluate(settings, "reference", True, episodes)
        assert [result.seed for result in results] == [HELD_OUT.start + i for i in range(episodes)]
        row = json.loads(json.dumps(summarise(settings, results), allow_nan=False))
        assert row["episodes"] == episodes and row["unsafe_visits"] == 0 and row["success_rate"] == 1.0
        assert abs(sum(row["verdicts"].values()) - 1.0) < 1e-9


def test_the_score_needs_all_three_rows() -> None:
    rows = {"behavior": {"mean_return": -10.0}, "reference": {"mean_return": 0.0}}
    assert score(rows) is None
    assert score(rows | {"policy": {"mean_return": -1.0}}) == 0.9
