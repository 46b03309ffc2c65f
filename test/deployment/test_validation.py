"""The report that deployment asks for: it belongs to one policy and one configuration, and says when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safe_support_ql.deployment import validation
from safe_support_ql.deployment.validation import ValidationConfig, bound_to, check, objections, report_path, sealed
from safe_support_ql.robots.claims import FAULTY

CRITERIA = ValidationConfig()
HASH = "a" * 64
ROW = {"success_rate": 0.9, "success_by_sensors": 0.9, "intervention_rate": 0.0, "unsafe_visits": 0}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy with a report that passed."""
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"weights")
    (tmp_path / "policy.json").write_text("{}")
    write(path, {"failed": []})
    return path


def write(path: Path, more: dict[str, Any], key: bytes = b"") -> None:
    report = sealed(bound_to(path, HASH, CRITERIA) | {"episodes": 100} | more, key)
    report_path(path).write_text(json.dumps(report))


def test_a_report_that_passed_and_belongs_to_the_policy_is_accepted(policy: Path) -> None:
    assert check(policy, HASH, CRITERIA)["episodes"] == 100


def edit(policy: Path) -> None:
    report = json.loads(report_path(policy).read_text())
    report_path(policy).write_text(json.dumps(report | {"episodes": 1000}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: report_path(p).unlink(), "cannot be read"),
        (lambda p: report_path(p).write_text("{"), "is not JSON"),
        (lambda p: report_path(p).write_text("[]"), "was edited"),
        (lambda p: write(p, {}), "does not say whether it passed"),
        (lambda p: write(p, {"failed": ["nominal: success 0.1"]}), "it failed: nominal: success 0.1"),
        (lambda p: p.write_bytes(b"other weights"), "is the report of another policy"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "the manifest is not the one that was validated"),
        (edit, "was edited"),
        (lambda p: p.unlink(), "cannot be read"),
    ],
)
def test_what_differs_is_named_with_the_command_to_run(
    change: Callable[[Path], object], named: str, policy: Path
) -> None:
    change(policy)
    with pytest.raises(ValueError, match=named) as refused:
        check(policy, HASH, CRITERIA)
    assert "\n" not in str(refused.value)
    assert "it failed" in str(refused.value) or f"run: safe-support-ql validate {policy}" in str(refused.value)


def test_other_settings_criteria_or_versions_need_another_report(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the safety configuration, or the robot's code, has changed since"):
        check(policy, "b" * 64, CRITERIA)
    with pytest.raises(ValueError, match="other criteria"):
        check(policy, HASH, replace(CRITERIA, success=0.1))
    monkeypatch.setattr(validation, "__version__", "9.9.9")
    with pytest.raises(ValueError, match="another version of this package"):
        check(policy, HASH, CRITERIA)


def test_with_a_key_only_who_has_it_can_seal_a_report(policy: Path) -> None:
    with pytest.raises(ValueError, match="another key"):
        check(policy, HASH, CRITERIA, b"k" * 16)
    write(policy, {"failed": []}, b"k" * 16)
    assert check(policy, HASH, CRITERIA, b"k" * 16)
    with pytest.raises(ValueError, match="a key that is not set here"):
        check(policy, HASH, CRITERIA)


def test_each_criterion_that_is_missed_is_named() -> None:
    assert not objections({"nominal": ROW, "slow": ROW}, CRITERIA)
    missed = objections(
        {
            "nominal": ROW | {"success_rate": 0.3},
            "fast": ROW | {"success_by_sensors": 0.2},
            "slow": ROW | {"intervention_rate": 0.2, "unsafe_visits": 1},
        },
        CRITERIA,
    )
    assert [text.split(",")[0] for text in missed] == [
        "1 unsafe visits", "nominal: success 0.300", "fast: success by its sensors 0.200",
        "slow: interventions in 0.2000 of the ticks",
    ]  # fmt: skip


def test_where_sensors_fail_only_visits_count() -> None:
    stands = ROW | {"success_by_sensors": 0.0, "intervention_rate": 0.5}
    assert not objections({"nominal": ROW, FAULTY: stands}, CRITERIA)
    assert objections({"nominal": ROW, FAULTY: stands | {"unsafe_visits": 1}}, CRITERIA)


def test_where_odometry_is_wrong_only_the_goal_by_odometry_can_be_asked_for() -> None:
    """16 % over four metres are beyond any goal, and no policy can know it; the safe set is judged by truth anyway."""
    assert not objections({"nominal": ROW, "fast": ROW | {"success_rate": 0.0}}, CRITERIA)
