"""Evaluation without ROS: rates with their intervals, the same for any number of episodes."""

import json

import numpy as np

from safe_support_ql import config
from safe_support_ql.experiments.evaluate import _failing, evaluate, run, score, summarise
from safe_support_ql.recording.seeds import HELD_OUT
from safe_support_ql.robots.claims import FAULTY


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


def test_sensors_that_fail_stop_a_base_and_no_visit_comes_of_it() -> None:
    results = run(config.load_robot("diff_drive").raw, "behavior", False, HELD_OUT[:3], FAULTY)
    assert sum(result.unsafe_visits for result in results) == 0
    assert sum(bool(result.latched) for result in results) >= 1, "nothing failed"


def test_each_sensor_fails_in_its_turn_whichever_message_comes_first() -> None:
    failed = set()
    for seed in range(8):
        fault = _failing(3.0, seed)
        for tick in range(600):
            for channel in ("odom", "scan"):
                sent = fault(channel, np.ones(2), 0.1 * tick)
                if sent is None or np.isnan(sent).all():
                    failed.add((channel, sent is None))
    assert failed == {(channel, silent) for channel in ("odom", "scan") for silent in (True, False)}
