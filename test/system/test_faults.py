"""A short fault campaign over real DDS: order, state and visits are judged, never times. The whole one is a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_support_ql import bringup, config
from safe_support_ql.experiments import faults
from safe_support_ql.nodes import conductor, fault_campaign

ROOT = Path(__file__).resolve().parents[2]
SHORT = {
    "diff_drive": (
        "NaN: odom, once",
        "silence: scan, 2 s",
        "shrunken ranges: scan, 4 s",
        "nonsense parameter: clock",
        "behavior_policy killed",
        "foreign publisher, silent",
        "safety_monitor killed",
    ),
    "cart_pole": ("NaN: joint_states, once", "silence: request, 2 s", "changed load"),
}


@pytest.mark.parametrize("robot", SHORT)
def test_a_robot_in_motion_survives_a_short_campaign(
    robot: str, ros_domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load_robot(robot, {"parameters.episode_s": 600.0})
    for name, value in bringup.ros_environment(ros_domain.env, ros_domain.id)[0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = bringup.create_run(tmp_path, settings, kind="simulate", clock="realtime")  # without a learner
    chosen = [fault for fault in faults.catalogue(settings, "collection") if fault.name in SHORT[robot]]
    assert len(chosen) == len(SHORT[robot])
    processes = bringup.Processes(run.logs)
    conductor.join_graph()
    try:
        campaign = fault_campaign.Campaign(run, settings, "collection", processes)
        try:
            results = fault_campaign.conduct(campaign, chosen, lambda result: print(faults.row(result)), timed=False)
        finally:
            campaign.close()
    finally:
        processes.kill()
        conductor.leave_graph()
    assert [result.name for result in results] == [fault.name for fault in chosen]
    assert all(result.passed for result in results), faults.closing(results, chosen)
    assert sum(result.unsafe_visits for result in results) == 0
